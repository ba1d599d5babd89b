//! The tokens of texts that follow one another as one text.

use std::path::Path;
use std::sync::Arc;

use super::document::{Document, Origin, SkippedInput};
use super::error::DataError;
use super::pieces::PieceTokeniser;
use super::sink::{DocumentSink, up_to_visible};
use super::token_store::{StoredTokens, TokenWriter};
use super::tokenised::TokenisedText;

/// Tokenises texts that follow one another.
pub(super) struct JoinedSink<'a> {
    separator: &'a str,
    tokeniser: PieceTokeniser<'a>,
    writer: TokenWriter,
    observe: &'a mut dyn FnMut(u64),
    num_bytes: u64,
    num_documents: usize,
    skipped: SkippedInput,
}

impl<'a> JoinedSink<'a> {
    pub(super) fn new(
        separator: &'a str,
        tokenise: &'a (dyn Fn(&str) -> Result<TokenisedText, DataError> + Sync),
        observe: &'a mut dyn FnMut(u64),
        spill_folder: &Path,
    ) -> Self {
        Self {
            separator,
            tokeniser: PieceTokeniser::new(tokenise),
            writer: TokenWriter::new(spill_folder),
            observe,
            num_bytes: 0,
            num_documents: 0,
            skipped: SkippedInput::default(),
        }
    }

    /// All tokens; `path` is named if there was no text.
    pub(super) fn finish(self, path: &Path) -> Result<Arc<StoredTokens>, DataError> {
        if self.num_documents == 0 {
            return Err(DataError::EmptyCorpus {
                path: path.to_owned(),
                skipped: self.skipped,
            });
        }
        let mut writer = self.writer;
        self.tokeniser
            .finish(&mut |found| writer.push(found.token_ids()).map(drop))?;
        writer.finish()
    }

    fn push_text(&mut self, text: &str) -> Result<(), DataError> {
        let Self {
            tokeniser, writer, ..
        } = self;
        tokeniser.push(text, &mut |found| writer.push(found.token_ids()).map(drop))?;
        self.num_bytes += text.len() as u64;
        (self.observe)(self.num_bytes);
        Ok(())
    }

    fn open(&mut self) -> Result<(), DataError> {
        self.num_documents += 1;
        match self.num_documents {
            1 => Ok(()),
            _ => self.push_text(self.separator),
        }
    }
}

impl DocumentSink for JoinedSink<'_> {
    fn push(&mut self, document: Document) -> Result<(), DataError> {
        if document.is_blank() {
            self.skipped.empty += 1;
            return Ok(());
        }
        self.open()?;
        self.push_text(&document.text)
    }

    fn push_long(
        &mut self,
        _origin: Origin,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError> {
        let Some(start) = up_to_visible(pieces)? else {
            self.skipped.empty += 1;
            return Ok(());
        };
        self.open()?;
        self.push_text(&start)?;
        for piece in pieces {
            self.push_text(&piece?)?;
        }
        Ok(())
    }

    fn skipped_mut(&mut self) -> &mut SkippedInput {
        &mut self.skipped
    }
}
