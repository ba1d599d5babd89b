//! Texts for display.

/// The start of a text on one line, for tables.
pub(crate) fn excerpt(text: &str, max_chars: usize) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A broken character at the end is a token cut in the middle.
    while words.ends_with(char::REPLACEMENT_CHARACTER) {
        words.pop();
    }
    if words.chars().count() <= max_chars {
        return words;
    }
    let mut short: String = words.chars().take(max_chars - 1).collect();
    short.truncate(short.trim_end().len());
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt("a\n  b\tc", 10), "a b c");
        assert_eq!(excerpt("über alle Berge", 6), "über…");
        assert_eq!(excerpt("ab\u{fffd}", 6), "ab");
    }
}
