//! The stemmer of Martin Porter (1980), with the additions of `nltk`, which ROUGE and METEOR are counted with.
//!
//! The additions keep short words and a few irregular ones apart; without them scores differ in the second digit.

/// Irregular words and what they become.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Endings of step 2, which go if something stays that has a consonant behind a vowel.
const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Endings of step 4, in the order in which they are tried.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// The stem of an English word, in lower case.
pub fn stem(word: &str) -> String {
    let word = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    let letters: Vec<char> = word.chars().collect();
    if letters.len() <= 2 {
        return word;
    }
    let mut word = Word(letters);
    word.plural();
    word.past();
    word.y_to_i();
    word.long_endings();
    word.replace_first(&STEP_3);
    word.step_4();
    word.final_e();
    word.double_l();
    word.0.into_iter().collect()
}

struct Word(Vec<char>);

impl Word {
    fn ends_with(&self, ending: &str) -> bool {
        self.without(ending).is_some()
    }

    /// What is before an ending.
    fn without(&self, ending: &str) -> Option<&[char]> {
        let len = self.0.len().checked_sub(ending.chars().count())?;
        let (stem, tail) = self.0.split_at(len);
        tail.iter().copied().eq(ending.chars()).then_some(stem)
    }

    fn replace(&mut self, ending: &str, by: &str) {
        let len = self.0.len() - ending.chars().count();
        self.0.truncate(len);
        self.0.extend(by.chars());
    }

    /// Replaces the first ending that the word has, if enough is before it; no other is tried then.
    fn replace_first(&mut self, endings: &[(&str, &str)]) {
        for (ending, by) in endings {
            if let Some(stem) = self.without(ending) {
                if measure(stem) > 0 {
                    self.replace(ending, by);
                }
                return;
            }
        }
    }

    /// Step 1a.
    fn plural(&mut self) {
        if self.ends_with("ies") && self.0.len() == 4 {
            self.replace("ies", "ie");
            return;
        }
        for (ending, by) in [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")] {
            if self.ends_with(ending) {
                self.replace(ending, by);
                return;
            }
        }
    }

    /// Step 1b.
    fn past(&mut self) {
        if self.ends_with("ied") {
            self.replace("ied", if self.0.len() == 4 { "ie" } else { "i" });
            return;
        }
        if let Some(stem) = self.without("eed") {
            if measure(stem) > 0 {
                self.replace("eed", "ee");
            }
            return;
        }
        let Some(ending) = ["ed", "ing"]
            .into_iter()
            .find(|ending| self.without(ending).is_some_and(has_vowel))
        else {
            return;
        };
        self.replace(ending, "");
        for (ending, by) in [("at", "ate"), ("bl", "ble"), ("iz", "ize")] {
            if self.ends_with(ending) {
                self.replace(ending, by);
                return;
            }
        }
        if ends_with_double_consonant(&self.0) {
            if !matches!(self.0.last(), Some('l' | 's' | 'z')) {
                self.0.pop();
            }
        } else if measure(&self.0) == 1 && ends_with_cvc(&self.0) {
            self.0.push('e');
        }
    }

    /// Step 1c: only behind a consonant that does not begin the word.
    fn y_to_i(&mut self) {
        if let Some(stem) = self.without("y")
            && stem.len() > 1
            && is_consonant(stem, stem.len() - 1)
        {
            self.replace("y", "i");
        }
    }

    /// Step 2.
    fn long_endings(&mut self) {
        if self.without("alli").is_some_and(|stem| measure(stem) > 0) {
            self.replace("alli", "al");
            self.long_endings();
            return;
        }
        if STEP_2.iter().any(|(ending, _)| self.ends_with(ending)) {
            self.replace_first(&STEP_2);
        } else if self.ends_with("logi") && measure(&self.0[..self.0.len() - 3]) > 0 {
            self.replace("logi", "log");
        }
    }

    fn step_4(&mut self) {
        for ending in STEP_4 {
            let Some(stem) = self.without(ending) else {
                continue;
            };
            let may_go = ending != "ion" || matches!(stem.last(), Some('s' | 't'));
            if measure(stem) > 1 && may_go {
                self.replace(ending, "");
            }
            return;
        }
    }

    /// Step 5a.
    fn final_e(&mut self) {
        if let Some(stem) = self.without("e") {
            let measure = measure(stem);
            if measure > 1 || (measure == 1 && !ends_with_cvc(stem)) {
                self.0.pop();
            }
        }
    }

    /// Step 5b.
    fn double_l(&mut self) {
        if self.ends_with("ll") && measure(&self.0[..self.0.len() - 1]) > 1 {
            self.0.pop();
        }
    }
}

/// `y` is a vowel behind a consonant.
fn is_consonant(letters: &[char], idx: usize) -> bool {
    match letters[idx] {
        'a' | 'e' | 'i' | 'o' | 'u' => false,
        // Counted from the start of the run of `y`, so that long runs take no recursion.
        'y' => {
            let run = letters[..idx]
                .iter()
                .rev()
                .take_while(|&&c| c == 'y')
                .count();
            let behind_consonant = match idx - run {
                0 => false,
                before => is_consonant(letters, before - 1),
            };
            behind_consonant == (run % 2 == 1)
        }
        _ => true,
    }
}

/// How often a consonant follows a vowel.
fn measure(letters: &[char]) -> usize {
    (1..letters.len())
        .filter(|&idx| !is_consonant(letters, idx - 1) && is_consonant(letters, idx))
        .count()
}

fn has_vowel(letters: &[char]) -> bool {
    (0..letters.len()).any(|idx| !is_consonant(letters, idx))
}

fn ends_with_double_consonant(letters: &[char]) -> bool {
    match letters {
        [.., before, last] => before == last && is_consonant(letters, letters.len() - 1),
        _ => false,
    }
}

/// Consonant, vowel, consonant other than `w`, `x`, `y`; or a word of two letters, the second a consonant.
fn ends_with_cvc(letters: &[char]) -> bool {
    let len = letters.len();
    if len == 2 {
        return !is_consonant(letters, 0) && is_consonant(letters, 1);
    }
    len >= 3
        && is_consonant(letters, len - 3)
        && !is_consonant(letters, len - 2)
        && is_consonant(letters, len - 1)
        && !matches!(letters[len - 1], 'w' | 'x' | 'y')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_of_one_family_share_a_stem() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("ties", "tie"),
            ("agreed", "agre"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("relational", "relat"),
            ("generalizations", "gener"),
            ("geology", "geolog"),
            ("dying", "die"),
            ("controlling", "control"),
            ("is", "is"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn no_word_panics_and_stems_are_not_longer_by_more_than_a_letter(word in "\\PC{0,12}|[a-z]{0,12}|y{0,40}") {
            let lower = word.to_lowercase().chars().count();
            prop_assert!(stem(&word).chars().count() <= lower + 1);
        }
    }
}
