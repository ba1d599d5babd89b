//! Whether a text largely repeats one that was already taken: licences differ in a name, manifests in a version.
//!
//! Texts are compared by their runs of words, so line breaks, case and punctuation do not matter.

use std::collections::HashSet;

/// Words in a run.
const RUN: usize = 8;

/// A text is a repetition when this part of its runs was seen before.
const MAX_SEEN: f64 = 0.3;

/// The runs of all texts taken so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    runs: HashSet<String>,
}

impl Seen {
    /// Keeps the runs of `text` and returns `true`, unless it repeats too much of earlier texts.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let runs = runs(text);
        if runs.is_empty() {
            return false;
        }
        let seen = runs.intersection(&self.runs).count();
        if seen as f64 > MAX_SEEN * runs.len() as f64 {
            return false;
        }
        self.runs.extend(runs);
        true
    }
}

fn runs(text: &str) -> HashSet<String> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.windows(RUN).map(|run| run.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Permission is hereby granted to any person who obtains a copy of this program to \
        use it, to change it and to pass it on, as long as this notice stays with every copy made of it.";

    #[test]
    fn case_line_breaks_and_a_new_title_do_not_make_a_text_new() {
        let mut seen = Seen::default();
        assert!(seen.take(TEXT));
        assert!(!seen.take(&TEXT.to_uppercase().replace(", ", ",\n   ")));
        assert!(!seen.take(&format!("Copyright of another author. {TEXT}")));
    }

    #[test]
    fn another_text_is_new() {
        let mut seen = Seen::default();
        assert!(seen.take(TEXT));
        assert!(seen.take("one two three four five six seven eight nine ten eleven twelve"));
    }

    #[test]
    fn a_text_of_few_words_is_not_taken() {
        assert!(!Seen::default().take("== -- == too short"));
    }
}
