//! Which documents belong together when scores are resampled.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;

/// What the documents of a corpus are resampled by.
///
/// Documents that were cut from one source resemble each other, like the windows of one document. Drawn one by one they
/// would count as more evidence than they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResamplingUnits {
    /// What a unit is.
    pub kind: UnitKind,
    /// The unit of each document, in the order of the corpus.
    pub of_document: Vec<usize>,
}

/// What is drawn as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitKind {
    /// All that was cut from one document.
    Documents,
    /// All documents of one source; those without a source are units of their own.
    Sources,
}

impl UnitKind {
    /// How reports name several of them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Sources => "sources",
        }
    }
}

impl ResamplingUnits {
    /// By sources where the data names some, else by documents; `sources` has that of every document.
    pub(super) fn of_sources<S: Eq + Hash>(sources: impl Iterator<Item = Option<S>>) -> Self {
        let mut of_source = HashMap::new();
        let mut num_units = 0;
        let mut new_unit = || {
            num_units += 1;
            num_units - 1
        };
        let of_document = sources
            .map(|source| match source {
                Some(source) => *of_source.entry(source).or_insert_with(&mut new_unit),
                None => new_unit(),
            })
            .collect();
        Self {
            kind: if of_source.is_empty() {
                UnitKind::Documents
            } else {
                UnitKind::Sources
            },
            of_document,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(sources: &[Option<&str>]) -> ResamplingUnits {
        ResamplingUnits::of_sources(sources.iter().copied())
    }

    #[test]
    fn documents_of_one_source_are_one_unit_and_others_are_their_own() {
        let found = units(&[Some("b"), None, Some("a"), Some("b"), None]);
        assert_eq!(found.kind, UnitKind::Sources);
        assert_eq!(found.of_document, [0, 1, 2, 0, 3]);
    }

    #[test]
    fn without_sources_every_document_is_a_unit() {
        let found = units(&[None, None]);
        assert_eq!(found.kind, UnitKind::Documents);
        assert_eq!(found.of_document, [0, 1]);
    }
}
