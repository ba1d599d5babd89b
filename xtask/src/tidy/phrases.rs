//! Phrases and names that a reader has to decode, each with the plain word for it.
//!
//! They are looked for in Rust files, in documents and in the texts of pages; line breaks, case and comment marks do
//! not matter. The changelog keeps the words of its time, and fixtures are other people's texts.

use std::path::Path;
use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};

use super::Finding;
use super::vocabulary::{EXCUSED, PHRASES};

const EXTENSIONS: &[&str] = &["rs", "md", "html", "js", "css"];

static REFUSED: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    PHRASES
        .iter()
        .map(|(pattern, advice)| {
            let regex = RegexBuilder::new(pattern).case_insensitive(true).build();
            (regex.expect("the vocabulary is made of patterns"), *advice)
        })
        .collect()
});

/// All findings in one file; each says which phrase it is and what to say instead.
pub(super) fn check(path: &Path, contents: &str) -> Vec<Finding> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_text = extension.is_some_and(|extension| EXTENSIONS.contains(&extension));
    let is_fixture = path.iter().any(|part| part == "fixtures");
    if !is_text
        || is_fixture
        || path.ends_with("CHANGELOG.md")
        || path.starts_with("xtask/src/tidy")
    {
        return Vec::new();
    }
    let text = RunningText::of(contents);
    let mut findings: Vec<Finding> = REFUSED
        .iter()
        .flat_map(|(regex, advice)| {
            let found = regex.find_iter(&text.joined);
            found
                .filter(|found| !is_excused(found.as_str()))
                .map(|found| Finding::new(path, text.line(found.start()), *advice))
        })
        .collect();
    findings.sort_by_key(|finding| finding.line);
    findings
}

fn is_excused(found: &str) -> bool {
    let found = found.to_lowercase();
    EXCUSED.iter().any(|excused| found.contains(excused))
}

/// A file whose lines are joined by spaces, without comment marks; a blank line stays a line end.
struct RunningText {
    joined: String,
    line_starts: Vec<usize>,
}

impl RunningText {
    fn of(contents: &str) -> Self {
        let mut joined = String::with_capacity(contents.len());
        let mut line_starts = Vec::new();
        for line in contents.lines() {
            line_starts.push(joined.len());
            let line = line.trim();
            let line = ["///", "//!", "//"]
                .iter()
                .find_map(|mark| line.strip_prefix(mark))
                .unwrap_or(line);
            // A string may go on in the next line, too.
            let line = line.trim_end_matches('\\').trim();
            joined.push_str(line);
            joined.push(if line.is_empty() { '\n' } else { ' ' });
        }
        Self {
            joined,
            line_starts,
        }
    }

    /// The line of a position, counted from one.
    fn line(&self, position: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, contents: &str) -> Vec<usize> {
        let findings = check(Path::new(path), contents);
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn phrases_are_found_over_line_breaks_and_in_any_case() {
        let code = "//! Sums.\n\n/// Adds, and answers\n/// with the sum.\nfn f() { g(\"Hears \\\n    it\") }\n";
        assert_eq!(lines("a/src/x.rs", code), [3, 5]);
        assert_eq!(lines("docs/x.md", "It ANSWERS WITH a sum.\n"), [1]);
        assert_eq!(lines("docs/x.md", "It answers\n\nwith ease\n"), [0; 0]);
    }

    #[test]
    fn a_finding_says_what_to_write() {
        let findings = check(Path::new("x.md"), "This is the network's business.\n");
        assert!(
            findings[0].message.contains("is defined by"),
            "{findings:?}"
        );
    }

    #[test]
    fn names_are_found_inside_longer_ones() {
        assert_eq!(
            lines("x.rs", "struct LaneState;\nlet x = all_duels();\n"),
            [1, 2]
        );
        assert_eq!(
            lines("x.rs", "for lane in simd.lanes() {}\nstruct Planes;\n"),
            [0; 0]
        );
        assert_eq!(
            lines(
                "x.rs",
                "let key = \"duels\"; let name = \"trainee.safetensors\";\n"
            ),
            [0; 0]
        );
        assert_eq!(lines("x.rs", "of course; fn f(c: CourseRow)\n"), [1]);
    }

    #[test]
    fn ordinary_english_is_left_alone() {
        for text in [
            "There is no such group, and it is no longer there.",
            "Losses cannot be told apart.",
            "The head is turned into text.",
            "an equal number of rows",
        ] {
            assert_eq!(lines("x.md", text), [0; 0], "{text}");
        }
        assert_eq!(lines("x.md", "A word that is no [`Name`]."), [1]);
    }

    #[test]
    fn history_fixtures_and_other_files_are_left_alone() {
        for path in [
            "CHANGELOG.md",
            "a/tests/fixtures/t/x.md",
            "xtask/src/tidy/x.rs",
            "x.py",
        ] {
            assert_eq!(lines(path, "answers with"), [0; 0], "{path}");
        }
    }

    #[test]
    fn every_advice_is_given_once() {
        let mut advice: Vec<_> = PHRASES.iter().map(|(_, advice)| advice).collect();
        advice.sort_unstable();
        advice.dedup();
        assert_eq!(advice.len(), PHRASES.len());
    }
}
