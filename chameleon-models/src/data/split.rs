//! Which documents train, which validate, which test; and how many examples of each.

use std::collections::BTreeMap;

use chameleon_core::RunSeed;
use rand::seq::SliceRandom;

use super::document::Document;
use super::error::DataError;

/// Shares of the documents that are held back; the rest trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitFractions {
    valid: f64,
    test: f64,
}

impl SplitFractions {
    /// Shares for validation and test.
    ///
    /// # Errors
    /// [`DataError::Fractions`] unless both are at least 0 and their sum is below 1.
    pub fn new(valid: f64, test: f64) -> Result<Self, DataError> {
        if valid >= 0.0 && test >= 0.0 && valid + test < 1.0 {
            Ok(Self { valid, test })
        } else {
            Err(DataError::Fractions { valid, test })
        }
    }

    /// Share for validation.
    pub fn valid(self) -> f64 {
        self.valid
    }

    /// Share for the test.
    pub fn test(self) -> f64 {
        self.test
    }
}

/// Document indices of the three parts, each in the order of the corpus; every document is in exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Documents to train on.
    pub train: Vec<usize>,
    /// Documents to select by.
    pub valid: Vec<usize>,
    /// Documents that are scored once, at the end.
    pub test: Vec<usize>,
}

/// Divides documents, at least one.
///
/// The side of a document depends on its source, or without one on its text, and the seed alone. So appended documents
/// leave the others where they are, the order does not matter, and copies of a text never meet across the sides. The
/// shares are therefore met on average and not exactly. If there are so few documents that a wanted part would be
/// empty, the documents nearest to it are moved there, as long as others stay: train is filled first, then valid, then
/// test, so a single document trains and the other parts are empty, which the caller must expect.
pub fn split(documents: &[Document], fractions: SplitFractions, seed: RunSeed) -> Split {
    let draws = documents.iter().map(|document| draw(document, seed));
    split_by_draws(draws, fractions)
}

/// What decides the side of a document.
pub(super) fn draw(document: &Document, seed: RunSeed) -> u64 {
    let name = document.source.as_deref().unwrap_or(&document.text);
    seed.derive("split").derive(name).0
}

/// Divides documents by their draws; those of one source, or of equal text, share one, and so move together.
pub(super) fn split_by_draws(draws: impl Iterator<Item = u64>, fractions: SplitFractions) -> Split {
    let mut order: Vec<(u64, usize)> = draws
        .enumerate()
        .map(|(document_idx, draw)| (draw, document_idx))
        .collect();
    order.sort_unstable();
    let groups: Vec<&[(u64, usize)]> = order.chunk_by(|left, right| left.0 == right.0).collect();
    let num_below =
        |share: f64| groups.partition_point(|group| group[0].0 as f64 / 2_f64.powi(64) < share);

    // In the order of their draws: valid, test, train. Each wanted part takes at least one draw if it can.
    let total = groups.len();
    let wanted = |share: f64| usize::from(share > 0.0);
    let spare = total - 1;
    let min_valid = wanted(fractions.valid).min(spare);
    let min_test = wanted(fractions.test).min(spare - min_valid);
    let valid_end = num_below(fractions.valid).clamp(min_valid, total - 1 - min_test);
    let test_end =
        num_below(fractions.valid + fractions.test).clamp(valid_end + min_test, total - 1);

    let indices = |groups: &[&[(u64, usize)]]| {
        let documents = groups.iter().flat_map(|group| group.iter());
        let mut indices: Vec<usize> = documents.map(|&(_, document_idx)| document_idx).collect();
        indices.sort_unstable();
        indices
    };
    Split {
        valid: indices(&groups[..valid_end]),
        test: indices(&groups[valid_end..test_end]),
        train: indices(&groups[test_end..]),
    }
}

/// Which of some examples with these labels are kept: at most `max_examples`, the same number of each label as far as
/// there are enough. Examples without a label count as one label. Which ones is drawn from the seed.
pub(super) fn kept<L: Ord + Copy>(
    labels: &[Option<L>],
    max_examples: usize,
    seed: RunSeed,
) -> Vec<bool> {
    if labels.len() <= max_examples {
        return vec![true; labels.len()];
    }
    let mut rng = seed.stream("limit");
    let mut by_label = BTreeMap::<Option<L>, Vec<usize>>::new();
    for (example_idx, &label) in labels.iter().enumerate() {
        by_label.entry(label).or_default().push(example_idx);
    }
    let mut groups = by_label.into_values().collect::<Vec<_>>();
    for group in &mut groups {
        group.shuffle(&mut rng);
    }
    // The smallest first: what they cannot fill is shared among the larger ones.
    groups.sort_by_key(Vec::len);
    let mut kept = vec![false; labels.len()];
    let mut left = max_examples;
    let num_groups = groups.len();
    for (group_idx, group) in groups.iter().enumerate() {
        let share = left / (num_groups - group_idx);
        let taken = share.min(group.len());
        for &example_idx in &group[..taken] {
            kept[example_idx] = true;
        }
        left -= taken;
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::document::Origin;
    use super::*;

    fn documents_of(texts: impl IntoIterator<Item = String>) -> Vec<Document> {
        let prose = |(idx, text)| Document::prose(text, Origin::new(Path::new("memory"), idx + 1));
        texts.into_iter().enumerate().map(prose).collect()
    }

    fn numbered(num_documents: usize) -> Vec<Document> {
        documents_of((0..num_documents).map(|idx| format!("document {idx}")))
    }

    #[test]
    fn shares_are_met_on_average() {
        let split = split(
            &numbered(10_000),
            SplitFractions::new(0.1, 0.2).unwrap(),
            RunSeed(1),
        );
        assert!(
            (900..1100).contains(&split.valid.len()),
            "{}",
            split.valid.len()
        );
        assert!(
            (1850..2150).contains(&split.test.len()),
            "{}",
            split.test.len()
        );
    }

    #[test]
    fn appended_documents_leave_the_others_where_they_are() {
        let fractions = SplitFractions::new(0.1, 0.1).unwrap();
        let before = split(&numbered(500), fractions, RunSeed(3));
        let after = split(&numbered(800), fractions, RunSeed(3));
        let old = |part: &[usize]| {
            part.iter()
                .copied()
                .filter(|&idx| idx < 500)
                .collect::<Vec<_>>()
        };
        assert_eq!(before.train, old(&after.train));
        assert_eq!(before.valid, old(&after.valid));
        assert_eq!(before.test, old(&after.test));
    }

    #[test]
    fn another_seed_is_another_split() {
        let fractions = SplitFractions::new(0.5, 0.0).unwrap();
        let documents = numbered(100);
        assert_ne!(
            split(&documents, fractions, RunSeed(1)),
            split(&documents, fractions, RunSeed(2))
        );
    }

    #[test]
    fn documents_of_one_source_stay_on_one_side() {
        let mut documents = numbered(300);
        for (idx, document) in documents.iter_mut().enumerate() {
            document.source = Some(format!("article {}", idx / 10));
        }
        let split = split(
            &documents,
            SplitFractions::new(0.3, 0.3).unwrap(),
            RunSeed(1),
        );
        for part in [&split.train, &split.valid, &split.test] {
            assert!(!part.is_empty());
            assert!(
                part.chunks(10).all(|chunk| chunk[9] - chunk[0] == 9),
                "{part:?}"
            );
        }
    }

    #[test]
    fn copies_of_a_text_stay_on_one_side() {
        let documents = documents_of((0..400).map(|idx| format!("text {}", idx % 40)));
        let split = split(
            &documents,
            SplitFractions::new(0.3, 0.3).unwrap(),
            RunSeed(5),
        );
        let texts = |part: &[usize]| {
            part.iter()
                .map(|idx| idx % 40)
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert!(texts(&split.train).is_disjoint(&texts(&split.valid)));
        assert!(texts(&split.train).is_disjoint(&texts(&split.test)));
        assert!(texts(&split.valid).is_disjoint(&texts(&split.test)));
    }

    #[test]
    fn few_documents_fill_train_then_valid_then_test() {
        let fractions = SplitFractions::new(0.01, 0.01).unwrap();
        for (num_documents, expected) in [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])] {
            let split = split(&numbered(num_documents), fractions, RunSeed(0));
            assert_eq!(
                [split.train.len(), split.valid.len(), split.test.len()],
                expected
            );
        }
    }

    #[test]
    fn fractions_that_leave_nothing_to_train_on_are_refused() {
        for (valid, test) in [
            (1.0, 0.0),
            (0.5, 0.5),
            (-0.1, 0.2),
            (f64::NAN, 0.1),
            (0.1, f64::INFINITY),
        ] {
            assert!(SplitFractions::new(valid, test).is_err(), "{valid} {test}");
        }
    }

    #[test]
    fn limits_are_shared_among_labels() {
        let labels = [(None, 3), (Some(0), 100), (Some(1), 50)];
        let labels = labels
            .iter()
            .flat_map(|&(label_idx, count)| (0..count).map(move |_| label_idx))
            .collect::<Vec<Option<usize>>>();
        let kept = kept(&labels, 23, RunSeed(9));
        let count = |label_idx| {
            let of_label = labels
                .iter()
                .zip(&kept)
                .filter(|(label, _)| **label == label_idx);
            of_label.filter(|(_, kept)| **kept).count()
        };
        assert_eq!([count(None), count(Some(0)), count(Some(1))], [3, 10, 10]);
    }

    proptest! {
        #[test]
        fn a_split_is_a_partition(
            texts in prop::collection::vec("[a-d]{1,2}", 1..60),
            valid in 0.001..0.7,
            test in 0.001..0.29,
            seed: u64,
        ) {
            let num_documents = texts.len();
            let num_texts = texts.iter().collect::<std::collections::BTreeSet<_>>().len();
            let split = split(&documents_of(texts), SplitFractions::new(valid, test).unwrap(), RunSeed(seed));
            let mut all = [split.train.clone(), split.valid.clone(), split.test.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..num_documents).collect::<Vec<_>>());
            prop_assert!(!split.train.is_empty());
            if num_texts >= 3 {
                prop_assert!(!split.valid.is_empty() && !split.test.is_empty());
            }
        }

        #[test]
        fn a_limit_is_met_exactly(
            labels in prop::collection::vec(prop::option::of(0_usize..4), 0..80),
            max_examples in 0_usize..90,
            seed: u64,
        ) {
            let kept = kept(&labels, max_examples, RunSeed(seed));
            prop_assert_eq!(kept.len(), labels.len());
            let num_kept = kept.iter().filter(|kept| **kept).count();
            prop_assert_eq!(num_kept, labels.len().min(max_examples));
        }
    }
}
