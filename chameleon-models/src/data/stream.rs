//! Texts in, token ids and examples out, without the texts ever being in memory together.
//!
//! Documents are tokenised and cut as they are read. What stays is their token ids, in a file once they are many, and
//! about a hundred bytes for each document and window. So the texts may be larger than the memory.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use chameleon_core::RunSeed;
use rayon::prelude::*;

use super::conversation::RenderChat;
use super::cut::cut_document;
use super::document::{Document, Origin, SkippedInput};
use super::error::DataError;
use super::joined::JoinedSink;
use super::options::ReadOptions;
use super::pieces::PieceTokeniser;
use super::read::read_into;
use super::sink::{DocumentSink, up_to_visible};
use super::split::draw;
use super::token_store::StoredTokens;
use super::tokenised::TokenisedText;
use super::tokenised_corpus::{CorpusWriter, TokenisedCorpus};
use super::windows::WindowOptions;

/// Where texts come from, and where their tokens go.
#[derive(Clone, Copy)]
pub struct CorpusStream<'a> {
    /// What is read.
    pub path: &'a Path,
    /// How.
    pub options: &'a ReadOptions,
    /// The function that writes conversations out, if there may be some.
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

/// An error of the tokenizer.
pub type TokeniseError = Box<dyn Error + Send + Sync>;

/// Turns a text into tokens.
pub type Tokenise<'a> = dyn Fn(&str) -> Result<TokenisedText, TokeniseError> + Sync + 'a;

/// Bytes of text that are tokenised at once, on all processors.
const BATCH_BYTES: usize = 256 << 10;
/// Prose beyond this is tokenised in pieces.
const LONG_BYTES: usize = 512 << 10;

impl CorpusStream<'_> {
    /// Tokenises all texts and cuts them into examples: prose into windows that follow one another without overlap, an
    /// exchange into one example, whose prompt is the conditioning span and whose answer, as far as the window
    /// reaches, is the scored one.
    ///
    /// The work is spread over all processors; the result depends on the order of the documents alone. `seed` is that
    /// of a later [`TokenisedCorpus::split`]; `observe` receives the number of bytes of text read so far.
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
        let mut sink = ExampleSink::new(windows, seed, tokenise, observe, self.spill_folder);
        read_into(self.path, self.options, self.render_chat, &mut sink)?;
        sink.finish(self.path)
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
        let mut sink = JoinedSink::new(separator, &tokenise, observe, self.spill_folder);
        read_into(self.path, self.options, self.render_chat, &mut sink)?;
        sink.finish(self.path)
    }
}

/// Tokenises documents that are in memory already and cuts them as [`CorpusStream::examples`] does.
///
/// # Errors
/// [`DataError::EmptyCorpus`] if all documents are blank; the first one that `tokenise` refuses; a full disk.
pub fn tokenise_documents(
    documents: impl IntoIterator<Item = Document>,
    windows: WindowOptions,
    seed: RunSeed,
    tokenise: &Tokenise<'_>,
) -> Result<TokenisedCorpus, DataError> {
    let spill_folder = std::env::temp_dir();
    let mut observe = |_| {};
    let mut sink = ExampleSink::new(windows, seed, tokenise, &mut observe, &spill_folder);
    for document in documents {
        sink.push(document)?;
    }
    sink.finish(Path::new("the input"))
}

/// Cuts documents as they come.
struct ExampleSink<'a> {
    windows: WindowOptions,
    seed: RunSeed,
    tokenise: &'a Tokenise<'a>,
    observe: &'a mut dyn FnMut(u64),
    num_bytes: u64,
    /// Documents that wait to be tokenised together.
    batch: Vec<Document>,
    batch_bytes: usize,
    skipped: SkippedInput,
    corpus: CorpusWriter,
}

impl DocumentSink for ExampleSink<'_> {
    fn push(&mut self, document: Document) -> Result<(), DataError> {
        if document.is_blank() {
            self.skipped.empty += 1;
            return Ok(());
        }
        let num_bytes = document.text.len();
        self.num_bytes += num_bytes as u64;
        if num_bytes > LONG_BYTES && document.exchange.is_none() {
            self.flush()?;
            return self.push_prose(&document, &document.text, &mut std::iter::empty());
        }
        self.batch.push(document);
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
        // It is the only document, so that any side of a split will do.
        let document = Document::prose("", origin);
        self.push_prose(&document, &start, pieces)
    }

    fn skipped_mut(&mut self) -> &mut SkippedInput {
        &mut self.skipped
    }
}

impl<'a> ExampleSink<'a> {
    fn new(
        windows: WindowOptions,
        seed: RunSeed,
        tokenise: &'a Tokenise<'a>,
        observe: &'a mut dyn FnMut(u64),
        spill_folder: &Path,
    ) -> Self {
        Self {
            windows,
            seed,
            tokenise,
            observe,
            num_bytes: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            skipped: SkippedInput::default(),
            corpus: CorpusWriter::new(spill_folder),
        }
    }

    /// The corpus; `path` is named if it would be empty.
    fn finish(mut self, path: &Path) -> Result<TokenisedCorpus, DataError> {
        self.flush()?;
        if self.corpus.is_empty() {
            return Err(DataError::EmptyCorpus {
                path: path.to_owned(),
                skipped: self.skipped,
            });
        }
        self.corpus.finish(self.skipped, self.windows)
    }

    /// Tokenises the documents that wait.
    fn flush(&mut self) -> Result<(), DataError> {
        let (windows, tokenise) = (self.windows, self.tokenise);
        let cut_documents = self
            .batch
            .par_iter()
            .map(|document| {
                let text = tokenised(tokenise, &document.text, &document.origin)?;
                Ok(cut_document(&text, document.exchange.as_ref(), windows))
            })
            .collect::<Vec<_>>();
        for (document, found) in self.batch.drain(..).zip(cut_documents) {
            self.corpus.open(&document, draw(&document, self.seed));
            self.corpus.push(&found?)?;
        }
        self.batch_bytes = 0;
        (self.observe)(self.num_bytes);
        Ok(())
    }

    /// Cuts one long text: `start`, and all that follows.
    fn push_prose(
        &mut self,
        document: &Document,
        start: &str,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError> {
        let (windows, tokenise) = (self.windows, self.tokenise);
        let tokenise = |text: &str| tokenised(tokenise, text, &document.origin);
        let mut tokeniser = PieceTokeniser::new(&tokenise);
        self.corpus.open(document, draw(document, self.seed));
        let Self {
            corpus,
            num_bytes,
            observe,
            ..
        } = self;
        let mut pending = Pending::default();
        let mut out = |found: TokenisedText| {
            pending.extend(&found);
            match pending.take_full(windows.seq_len()) {
                Some(full) => corpus.push(&cut_document(&full, None, windows)),
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
        corpus.push(&cut_document(&pending.rest(), None, windows))
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
