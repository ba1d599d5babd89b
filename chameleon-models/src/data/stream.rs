//! One path in, token ids and examples out, without the texts ever being in memory together.
//!
//! Documents are tokenised and cut as they are read. What stays is their token ids, in a file once they are many, and
//! a few numbers for each document and window. So the texts may be larger than the memory.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use chameleon_core::RunSeed;
use rayon::prelude::*;

use super::conversation::RenderChat;
use super::corpus::{
    Document, DocumentSink, LabelNames, NewDocument, Origin, SkippedInput, is_blank,
};
use super::error::DataError;
use super::pieces::PieceTokeniser;
use super::read::{ReadOptions, read_into};
use super::split::draw;
use super::token_store::{StoredTokens, TokenWriter};
use super::tokenised::TokenisedText;
use super::tokenised_corpus::{CorpusWriter, TokenisedCorpus, narrow};
use super::windows::{WindowOptions, cut_document};

/// Where texts come from, and where their tokens go.
#[derive(Clone, Copy)]
pub struct CorpusStream<'a> {
    /// What is read.
    pub path: &'a Path,
    /// How.
    pub options: &'a ReadOptions,
    /// What writes conversations out, if there may be some.
    pub render_chat: Option<&'a RenderChat<'a>>,
    /// A folder for token ids that do not fit in memory; it is made when it is needed.
    pub spill_folder: &'a Path,
}

impl std::fmt::Debug for CorpusStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CorpusStream")
            .field("path", &self.path)
            .field("spill_folder", &self.spill_folder)
            .finish_non_exhaustive()
    }
}

/// Texts as they are tokenised: an error of the tokenizer, whatever it is.
pub type TokeniseError = Box<dyn Error + Send + Sync>;

/// Turns a text into tokens.
pub type Tokenise<'a> = dyn Fn(&str) -> Result<TokenisedText, TokeniseError> + Sync + 'a;

/// Bytes of text that are tokenised at once, on all processors.
const BATCH_BYTES: usize = 256 << 10;
/// Prose beyond this is tokenised in pieces.
const LONG_BYTES: usize = 512 << 10;

impl CorpusStream<'_> {
    /// Tokenises all texts and cuts them into examples, as [`cut`](super::cut) does. `seed` is that of a later
    /// [`TokenisedCorpus::split`]; `observe` is told the bytes of text that were read.
    ///
    /// # Errors
    /// What reading refuses, naming file and line; the first document that `tokenise` refuses; a full disk.
    pub fn examples(
        &self,
        windows: WindowOptions,
        seed: RunSeed,
        tokenise: &Tokenise<'_>,
        observe: &mut dyn FnMut(u64),
    ) -> Result<TokenisedCorpus, DataError> {
        let mut sink = ExampleSink {
            windows,
            seed,
            tokenise,
            observe,
            num_bytes: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            labels: LabelNames::default(),
            sources: HashMap::new(),
            skipped: SkippedInput::default(),
            cut: CorpusWriter::new(self.spill_folder),
        };
        read_into(self.path, self.options, self.render_chat, &mut sink)?;
        sink.flush()?;
        if sink.cut.is_empty() {
            return Err(DataError::EmptyCorpus {
                path: self.path.to_owned(),
                skipped: sink.skipped,
            });
        }
        sink.cut.finish(sink.labels, sink.skipped, windows)
    }

    /// The tokens of all texts one after the other, with `separator` between them: what a perplexity over the whole
    /// corpus scores.
    ///
    /// # Errors
    /// As [`examples`](Self::examples).
    pub fn joined(
        &self,
        separator: &str,
        tokenise: &Tokenise<'_>,
        observe: &mut dyn FnMut(u64),
    ) -> Result<Arc<StoredTokens>, DataError> {
        let origin = Origin::new(self.path, 1);
        let tokenise = |text: &str| {
            tokenise(text).map_err(|source| DataError::Tokenise {
                origin: origin.clone(),
                source,
            })
        };
        let mut sink = JoinedSink {
            separator,
            tokeniser: PieceTokeniser::new(&tokenise),
            writer: TokenWriter::new(self.spill_folder),
            observe,
            num_bytes: 0,
            num_documents: 0,
            skipped: SkippedInput::default(),
        };
        read_into(self.path, self.options, self.render_chat, &mut sink)?;
        if sink.num_documents == 0 {
            return Err(DataError::EmptyCorpus {
                path: self.path.to_owned(),
                skipped: sink.skipped,
            });
        }
        let JoinedSink {
            tokeniser,
            mut writer,
            ..
        } = sink;
        tokeniser.finish(&mut |found| writer.push(found.token_ids()).map(drop))?;
        writer.finish()
    }
}

/// Cuts documents as they come.
struct ExampleSink<'a> {
    windows: WindowOptions,
    seed: RunSeed,
    tokenise: &'a Tokenise<'a>,
    observe: &'a mut dyn FnMut(u64),
    num_bytes: u64,
    /// Documents that wait to be tokenised together, without their place in the corpus.
    batch: Vec<(Document, Option<u32>)>,
    batch_bytes: usize,
    labels: LabelNames,
    sources: HashMap<String, u32>,
    skipped: SkippedInput,
    cut: CorpusWriter,
}

impl DocumentSink for ExampleSink<'_> {
    fn push(&mut self, document: NewDocument) -> Result<(), DataError> {
        if document.is_blank() {
            self.skipped.empty += 1;
            return Ok(());
        }
        let num_bytes = document.text.len();
        self.num_bytes += num_bytes as u64;
        let source_idx = document.source.as_ref().map(|source| {
            let next = narrow(self.sources.len());
            *self.sources.entry(source.clone()).or_insert(next)
        });
        let document = Document {
            text: document.text,
            exchange: document.exchange,
            label_idx: document.label.map(|name| self.labels.index_of(&name)),
            source: document.source.map(Arc::from),
            origin: document.origin,
        };
        if num_bytes > LONG_BYTES && document.exchange.is_none() {
            self.flush()?;
            let draw = draw(&document, self.seed);
            let nothing = &mut std::iter::empty();
            return self.push_prose(&document, source_idx, draw, &document.text, nothing);
        }
        self.batch.push((document, source_idx));
        self.batch_bytes += num_bytes;
        if self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn push_long(
        &mut self,
        origin: Origin,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError> {
        let Some(start) = up_to_visible(pieces)? else {
            self.skipped.empty += 1;
            return Ok(());
        };
        self.flush()?;
        self.num_bytes += start.len() as u64;
        let document = Document {
            text: String::new(),
            exchange: None,
            label_idx: None,
            source: None,
            origin,
        };
        // It is the only document, so that any side will do.
        let draw = draw(&document, self.seed);
        self.push_prose(&document, None, draw, &start, pieces)
    }

    fn skipped_mut(&mut self) -> &mut SkippedInput {
        &mut self.skipped
    }
}

impl ExampleSink<'_> {
    /// Tokenises the documents that wait.
    fn flush(&mut self) -> Result<(), DataError> {
        let (windows, tokenise) = (self.windows, self.tokenise);
        let cut_documents = self
            .batch
            .par_iter()
            .map(|(document, _)| {
                let text = tokenised(tokenise, &document.text, &document.origin)?;
                cut_document(&text, document, 0, windows)
            })
            .collect::<Vec<_>>();
        for ((document, source_idx), found) in self.batch.drain(..).zip(cut_documents) {
            let draw = draw(&document, self.seed);
            self.cut.open(&document, source_idx, draw);
            self.cut.push(&found?)?;
        }
        self.batch_bytes = 0;
        (self.observe)(self.num_bytes);
        Ok(())
    }

    /// Cuts one long text: `start`, and all that follows.
    fn push_prose(
        &mut self,
        document: &Document,
        source_idx: Option<u32>,
        draw: u64,
        start: &str,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError> {
        let (windows, tokenise) = (self.windows, self.tokenise);
        let tokenise = |text: &str| tokenised(tokenise, text, &document.origin);
        let mut tokeniser = PieceTokeniser::new(&tokenise);
        let Self {
            cut,
            num_bytes,
            observe,
            ..
        } = self;
        cut.open(document, source_idx, draw);
        let mut pending = Pending::default();
        let mut out = |found: TokenisedText| {
            pending.extend(&found);
            match pending.take_full(windows.seq_len()) {
                Some(full) => cut.push(&cut_document(&full, document, 0, windows)?),
                None => Ok(()),
            }
        };
        tokeniser.push(start, &mut out)?;
        for piece in pieces {
            let piece = piece?;
            *num_bytes += piece.len() as u64;
            tokeniser.push(&piece, &mut out)?;
            observe(*num_bytes);
        }
        tokeniser.finish(&mut out)?;
        let rest = cut_document(&pending.rest(), document, 0, windows)?;
        cut.push(&rest)
    }
}

/// Tokens of a long text that are not cut yet.
#[derive(Default)]
struct Pending {
    token_ids: Vec<u32>,
    /// Counted from the start of the text.
    ends: Vec<usize>,
    num_bytes: usize,
}

impl Pending {
    fn extend(&mut self, found: &TokenisedText) {
        self.token_ids.extend_from_slice(found.token_ids());
        let ends = found.byte_ends().iter().map(|end| self.num_bytes + end);
        self.ends.extend(ends);
        self.num_bytes = self.ends.last().copied().unwrap_or(self.num_bytes);
    }

    /// As many tokens as fill windows, if they fill some.
    fn take_full(&mut self, seq_len: usize) -> Option<TokenisedText> {
        let full = self.token_ids.len() / seq_len * seq_len;
        (full > 0).then(|| {
            TokenisedText::new(
                self.token_ids.drain(..full).collect(),
                self.ends.drain(..full).collect(),
            )
        })
    }

    fn rest(self) -> TokenisedText {
        TokenisedText::new(self.token_ids, self.ends)
    }
}

/// Tokenises texts that follow one another.
struct JoinedSink<'a> {
    separator: &'a str,
    tokeniser: PieceTokeniser<'a>,
    writer: TokenWriter,
    observe: &'a mut dyn FnMut(u64),
    num_bytes: u64,
    num_documents: usize,
    skipped: SkippedInput,
}

impl JoinedSink<'_> {
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
    fn push(&mut self, document: NewDocument) -> Result<(), DataError> {
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

/// The start of a text up to its first piece with a visible character, or `None` if there is none.
fn up_to_visible(
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

fn tokenised(
    tokenise: &Tokenise<'_>,
    text: &str,
    origin: &Origin,
) -> Result<TokenisedText, DataError> {
    tokenise(text).map_err(|source| DataError::Tokenise {
        origin: origin.clone(),
        source,
    })
}
