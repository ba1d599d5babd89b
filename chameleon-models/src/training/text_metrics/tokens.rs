//! Text to words, as each score prescribes it.

/// The tokens that `sacrebleu` calls 13a: those of the WMT evaluations since 2006.
///
/// Punctuation stands alone; full stops and commas inside of numbers do not.
pub(super) fn words_13a(text: &str) -> Vec<String> {
    let text = text
        .trim_end()
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut chars = vec![' '];
    for c in text.chars() {
        if is_symbol(c) {
            chars.extend([' ', c, ' ']);
        } else {
            chars.push(c);
        }
    }
    chars.push(' ');
    let is_point = |c: char| c == '.' || c == ',';
    let chars = split_pairs(
        &chars,
        |first, second| !first.is_ascii_digit() && is_point(second),
        |first, second| [first, ' ', second, ' '],
    );
    let chars = split_pairs(
        &chars,
        |first, second| is_point(first) && !second.is_ascii_digit(),
        |first, second| [' ', first, ' ', second],
    );
    let chars = split_pairs(
        &chars,
        |first, second| first.is_ascii_digit() && second == '-',
        |first, second| [first, ' ', second, ' '],
    );
    let text: String = chars.into_iter().collect();
    text.split_whitespace().map(str::to_owned).collect()
}

/// ASCII punctuation other than `'`, `,`, `-` and `.`.
fn is_symbol(c: char) -> bool {
    c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.')
}

/// Rewrites pairs of neighbours from left to right; a character belongs to one pair at most.
fn split_pairs(
    chars: &[char],
    is_match: impl Fn(char, char) -> bool,
    rewrite: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut rewritten = Vec::with_capacity(chars.len() + 16);
    let mut rest = chars;
    while let Some((&first, behind)) = rest.split_first() {
        match behind.split_first() {
            Some((&second, after)) if is_match(first, second) => {
                rewritten.extend(rewrite(first, second));
                rest = after;
            }
            _ => {
                rewritten.push(first);
                rest = behind;
            }
        }
    }
    rewritten
}

/// The tokens of `rouge-score`: runs of ASCII letters and digits, in lower case.
pub(super) fn words_alphanumeric(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_stands_alone_and_numbers_stay_whole() {
        assert_eq!(
            words_13a("Hello, world! It's 3.5% of 1,000 (1990-1995)."),
            [
                "Hello", ",", "world", "!", "It's", "3.5", "%", "of", "1,000", "(", "1990", "-",
                "1995", ")", "."
            ]
        );
        assert_eq!(
            words_13a("&quot;a&quot; &amp; b"),
            ["\"", "a", "\"", "&", "b"]
        );
        assert!(words_13a(" \n").is_empty());
    }

    #[test]
    fn rouge_knows_ascii_letters_and_digits_only() {
        assert_eq!(words_alphanumeric("Größe: 3 m²!"), ["gr", "e", "3", "m"]);
    }
}
