//! What documents are passed to as they are read.

use super::document::{Document, Origin, SkippedInput, is_blank};
use super::error::DataError;

/// What readers pass documents to.
pub(super) trait DocumentSink {
    /// Takes a document, or counts it as empty if it is blank.
    fn push(&mut self, document: Document) -> Result<(), DataError>;

    /// Takes a text of any length piece by piece, or counts it as empty if it is blank.
    fn push_long(
        &mut self,
        origin: Origin,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError>;

    /// The counts of what is passed over.
    fn skipped_mut(&mut self) -> &mut SkippedInput;
}

/// The start of a text up to its first piece with a visible character, or `None` if there is none.
pub(super) fn up_to_visible(
    pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
) -> Result<Option<String>, DataError> {
    let mut start = String::new();
    for piece in pieces {
        start.push_str(&piece?);
        if !is_blank(&start) {
            return Ok(Some(start));
        }
    }
    Ok(None)
}
