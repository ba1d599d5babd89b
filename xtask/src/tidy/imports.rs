//! What one Rust file declares and names: its modules, its imports, the paths in its code.
//!
//! Read from tokens, so comments, strings and doc links do not count. Code that is compiled for tests alone is left
//! out. Which file a path leads to is for [`super::circles`] to find.

use std::mem;

use anyhow::anyhow;
use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// Names of modules or of a path, from the outside in.
pub(super) type Names = Vec<String>;

/// Everything that matters of one file.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// `mod name;`, below the inline modules around it.
    pub(super) files: Vec<Names>,
    /// `mod name { .. }`.
    pub(super) inline: Vec<Names>,
    pub(super) imports: Vec<Import>,
    /// Paths of at least two names, those of imports included.
    pub(super) paths: Vec<Path>,
}

/// One name that a `use` brings into a module.
#[derive(Debug)]
pub(super) struct Import {
    /// What it is called from then on; a glob and `as _` name nothing.
    pub(super) name: Option<String>,
    pub(super) path: Path,
}

/// A path as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// The inline modules of the file around it.
    pub(super) scope: Names,
    pub(super) names: Names,
}

impl Source {
    pub(super) fn read(contents: &str) -> anyhow::Result<Self> {
        let tokens: TokenStream = contents
            .parse()
            .map_err(|error| anyhow!("not Rust: {error}"))?;
        let mut reader = Reader::default();
        reader.read(&trees(tokens));
        Ok(reader.source)
    }
}

#[derive(Debug, Default)]
struct Reader {
    source: Source,
    scope: Names,
}

impl Reader {
    fn read(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at = match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let Some(end) = self.attribute(tokens, at) else {
                        return;
                    };
                    end
                }
                TokenTree::Ident(ident) if ident == "mod" => self.module(tokens, at),
                TokenTree::Ident(ident) if ident == "use" => self.import(tokens, at),
                TokenTree::Ident(ident) if ident == "pub" => {
                    at + 1 + restriction(&tokens[at + 1..])
                }
                TokenTree::Ident(_) => self.path(tokens, at),
                TokenTree::Group(group) => {
                    self.read(&trees(group.stream()));
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Reads an attribute at `at`, with the item below it when that does not count; `None` when the whole file does not.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize) -> Option<usize> {
        let is_inner = is_punct(tokens.get(at + 1), '!');
        let at = at + 1 + usize::from(is_inner);
        let Some(TokenTree::Group(group)) = tokens.get(at) else {
            return Some(at);
        };
        if !is_for_tests(group) && !is_elsewhere(group) {
            // A derive or an error message may name another file, too.
            self.read(&trees(group.stream()));
            return Some(at + 1);
        }
        (!is_inner).then(|| at + 1 + item_length(&tokens[at + 1..]))
    }

    fn module(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let Some(name) = tokens.get(at + 1) else {
            return at + 1;
        };
        self.scope.push(name.to_string());
        match tokens.get(at + 2) {
            Some(TokenTree::Group(body)) => {
                self.source.inline.push(self.scope.clone());
                self.read(&trees(body.stream()));
            }
            _ => self.source.files.push(self.scope.clone()),
        }
        self.scope.pop();
        at + 3
    }

    fn import(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        // `+ use<'a>` lists what a type captures.
        if is_punct(tokens.get(at + 1), '<') {
            return at + 1;
        }
        let rest = &tokens[at + 1..];
        let length = rest
            .iter()
            .position(|token| is_punct(Some(token), ';'))
            .unwrap_or(rest.len());
        self.use_trees(&rest[..length], &[]);
        at + 1 + length
    }

    fn use_trees(&mut self, tokens: &[TokenTree], prefix: &[String]) {
        for tree in tokens.split(|token| is_punct(Some(token), ',')) {
            let mut names = prefix.to_vec();
            let mut name = None;
            let mut is_glob = false;
            let mut rest = tree.iter();
            while let Some(token) = rest.next() {
                match token {
                    TokenTree::Ident(ident) if ident == "as" => name = rest.next(),
                    // `{self, ..}` means what stands before it.
                    TokenTree::Ident(ident) if ident == "self" && !names.is_empty() => {}
                    TokenTree::Ident(ident) => names.push(ident.to_string()),
                    TokenTree::Group(group) => {
                        self.use_trees(&trees(group.stream()), &mem::take(&mut names));
                    }
                    _ => is_glob |= is_punct(Some(token), '*'),
                }
            }
            let name = name.map(ToString::to_string).or(names.last().cloned());
            if names.is_empty() {
                continue;
            }
            let path = Path {
                scope: self.scope.clone(),
                names,
            };
            self.source.paths.push(path.clone());
            self.source.imports.push(Import {
                name: name.filter(|name| !is_glob && name != "_"),
                path,
            });
        }
    }

    /// Reads the names from `at` on that are joined by `::`.
    fn path(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        // `<T>::name` and `::outside` begin at no module of ours.
        let is_continued = at >= 2 && is_joint(&tokens[at - 2..]);
        let mut names = vec![tokens[at].to_string()];
        let mut end = at + 1;
        while is_joint(&tokens[end..])
            && let Some(TokenTree::Ident(name)) = tokens.get(end + 2)
        {
            names.push(name.to_string());
            end += 3;
        }
        if names.len() > 1 && !is_continued {
            let scope = self.scope.clone();
            self.source.paths.push(Path { scope, names });
        }
        end
    }
}

fn trees(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Whether the tokens begin with `::`.
fn is_joint(tokens: &[TokenTree]) -> bool {
    let first = matches!(tokens.first(), Some(TokenTree::Punct(punct))
        if punct.as_char() == ':' && punct.spacing() == Spacing::Joint);
    first && is_punct(tokens.get(1), ':')
}

/// `(crate)` or `(in crate::a)` behind `pub` limits who may see an item, and imports nothing.
fn restriction(tokens: &[TokenTree]) -> usize {
    let Some(TokenTree::Group(group)) = tokens.first() else {
        return 0;
    };
    let first = trees(group.stream()).first().map(ToString::to_string);
    let is_restriction = matches!(first.as_deref(), Some("crate" | "super" | "self" | "in"));
    usize::from(is_restriction)
}

/// `#[cfg(test)]` and `#[cfg(all(test, ..))]`.
fn is_for_tests(attribute: &Group) -> bool {
    let [TokenTree::Ident(cfg), TokenTree::Group(condition)] = &trees(attribute.stream())[..]
    else {
        return false;
    };
    let is_test = |tokens: &[TokenTree]| tokens.len() == 1 && tokens[0].to_string() == "test";
    let condition = trees(condition.stream());
    cfg == "cfg"
        && match &condition[..] {
            [TokenTree::Ident(all), TokenTree::Group(parts)] if all == "all" => {
                trees(parts.stream())
                    .split(|token| is_punct(Some(token), ','))
                    .any(is_test)
            }
            condition => is_test(condition),
        }
}

/// `#[path = ".."]`: the module is a file of another place, which is looked at there.
fn is_elsewhere(attribute: &Group) -> bool {
    let tokens = trees(attribute.stream());
    is_punct(tokens.get(1), '=') && tokens[0].to_string() == "path"
}

/// Tokens of the item, field or statement that comes first, its other attributes included.
fn item_length(tokens: &[TokenTree]) -> usize {
    // A comma ends a field or a match arm, and stands among the generics of an item.
    const ITEMS: &[&str] = &[
        "const", "enum", "fn", "impl", "mod", "static", "struct", "trait", "type", "union", "use",
    ];
    let mut is_item = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(ident) => is_item |= ITEMS.contains(&ident.to_string().as_str()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return at + 1,
            _ if is_punct(Some(token), ';') => return at + 1,
            _ if is_punct(Some(token), ',') && !is_item => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(contents: &str) -> Vec<String> {
        let source = Source::read(contents).unwrap();
        source
            .paths
            .iter()
            .map(|path| path.names.join("::"))
            .collect()
    }

    #[test]
    fn imports_are_read_as_trees() {
        let source = Source::read("use crate::a::{self, B as C, d::*, e::{F as _, G}};").unwrap();
        let imports: Vec<_> = source
            .imports
            .iter()
            .map(|import| (import.name.as_deref(), import.path.names.join("::")))
            .collect();
        assert_eq!(
            imports,
            [
                (Some("a"), "crate::a".to_owned()),
                (Some("C"), "crate::a::B".to_owned()),
                (None, "crate::a::d".to_owned()),
                (None, "crate::a::e::F".to_owned()),
                (Some("G"), "crate::a::e::G".to_owned()),
            ]
        );
    }

    #[test]
    fn paths_in_code_attributes_and_macros_count() {
        let code = "#[error(\"x\", crate::a::NAMES)] struct S { x: super::T }\n\
            fn f() -> impl X + use<'_> { g!(crate::b::H); <S>::z::y(); ::std::mem::drop(1) }";
        assert_eq!(paths(code), ["crate::a::NAMES", "super::T", "crate::b::H"]);
    }

    #[test]
    fn texts_comments_and_visibilities_do_not_count() {
        let code =
            "/// [`crate::a::B`]\npub(in crate::a) fn f() { /* crate::a::C */ \"crate::a::D\"; }";
        assert_eq!(paths(code), [""; 0]);
    }

    #[test]
    fn what_is_for_tests_or_elsewhere_does_not_count() {
        let code = "#[cfg(test)] use crate::a::B;\n\
            #[cfg(all(test, unix))] #[derive(Debug)] pub(crate) struct S<A, B>(crate::c::C, A, B);\n\
            struct T { #[cfg(test)] x: crate::d::D, y: crate::e::E }\n\
            #[cfg(test)] mod testing;\n\
            #[cfg(any(test, unix))] mod both;\n\
            #[path = \"../elsewhere.rs\"] mod elsewhere;\n\
            #[cfg(test)] mod tests { use super::*; }";
        assert_eq!(paths(code), ["crate::e::E"]);
        let files = Source::read(code).unwrap().files;
        assert_eq!(files, [["both".to_owned()]]);
        assert_eq!(paths("#![cfg(test)]\nuse crate::a::B;"), [""; 0]);
    }

    #[test]
    fn inline_modules_are_the_scope_of_what_they_hold() {
        let source = Source::read("mod a { mod b; use super::C; }").unwrap();
        assert_eq!(source.inline, [["a"]]);
        assert_eq!(source.files, [["a", "b"]]);
        assert_eq!(source.imports[0].path.scope, ["a"]);
    }
}
