//! From a path to examples: texts are read, rendered with the chat template, tokenised and split.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use chameleon_core::RunSeed;

use crate::data::{
    self, CorpusStream, DataError, Document, Example, Examples, Format, ReadOptions, RenderChat,
    SkippedInput, StoredTokens, Tokenise, TokeniseError, TokenisedCorpus, TokenisedText,
    WindowOptions,
};
use crate::families::load::LoadedModel;
use crate::files::chat::{ChatEnding, ChatMessage, ModelChat};
use crate::files::tokenizer::Tokenizer;
use crate::training::error::TrainingError;
use crate::training::observer::{Observer, Work, WorkUnit};

/// Texts and how they are read.
#[derive(Debug, Clone)]
pub struct TextSource {
    /// A file or folder.
    pub path: PathBuf,
    /// Which fields of a row are read.
    pub options: ReadOptions,
    /// Largest number of examples, drawn evenly over the labels.
    pub max_examples: Option<usize>,
    /// A folder for token ids that do not fit in memory; it is created when needed.
    pub spill_folder: PathBuf,
}

/// How a text is split: a prompt, then scored tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanConfig {
    /// Tokens of the prompt, at least one.
    pub prefix: usize,
    /// Largest number of tokens of an example, more than `prefix`.
    pub seq_len: usize,
    /// The smallest prefix of its sweep: hidden states are cached from there on, for all prefixes.
    pub smallest_prefix: usize,
    /// The largest one: texts too short for it are left out, so that all prefixes use the same texts.
    pub largest_prefix: usize,
}

impl SpanConfig {
    /// Spans outside of a sweep.
    pub fn new(prefix: usize, seq_len: usize) -> Self {
        Self {
            prefix,
            seq_len,
            smallest_prefix: prefix,
            largest_prefix: prefix,
        }
    }

    /// How documents are split into windows.
    fn windows(self, tokenizer: &Tokenizer) -> Result<WindowOptions, DataError> {
        let longest = WindowOptions::new(self.seq_len, self.largest_prefix)?;
        let options = WindowOptions::new(self.seq_len, self.prefix)?
            .with_min_scored(longest.min_len() - self.prefix)?;
        Ok(match tokenizer.special_token_ids().eos.first() {
            Some(&token_id) => options.with_answer_end(token_id),
            None => options,
        })
    }
}

impl TextSource {
    /// All texts of a file or folder; the fields of rows are found by their names. `spill_folder` holds token ids that
    /// do not fit in memory.
    pub fn new(path: impl Into<PathBuf>, spill_folder: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            options: ReadOptions::default(),
            max_examples: None,
            spill_folder: spill_folder.into(),
        }
    }

    /// Reads the texts and cuts them into examples as they are read; they may be larger than the memory. `seed` draws
    /// the sides of a later split.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or holds no text, or the model's tokenizer or chat template refuses one.
    pub fn tokenised(
        &self,
        span: SpanConfig,
        loaded: &LoadedModel,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<TokenisedCorpus, TrainingError> {
        let windows = span.windows(&loaded.tokenizer)?;
        let corpus = self.read(loaded, observer, |stream, tokenise, observe| {
            stream.examples(windows, seed, tokenise, observe)
        })?;
        self.report_skipped(corpus.skipped(), observer);
        Ok(corpus)
    }

    /// The tokens of all texts one after the other, with `separator` between them.
    ///
    /// # Errors
    ///
    /// As [`tokenised`](Self::tokenised).
    pub fn joined(
        &self,
        separator: &str,
        loaded: &LoadedModel,
        observer: &dyn Observer,
    ) -> Result<Arc<StoredTokens>, TrainingError> {
        self.read(loaded, observer, |stream, tokenise, observe| {
            stream.joined(separator, tokenise, observe)
        })
    }

    /// All texts split into at most [`max_examples`](Self::max_examples) examples, and their corpus.
    ///
    /// # Errors
    ///
    /// As [`tokenised`](Self::tokenised), and when there is no example.
    pub fn all_examples(
        &self,
        span: SpanConfig,
        loaded: &LoadedModel,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<CutTexts, TrainingError> {
        let corpus = self.tokenised(span, loaded, seed, observer)?;
        let documents = corpus.all_documents();
        let limit = self.max_examples;
        let examples = examples(&corpus, &documents, span, limit, seed, observer)?;
        Ok(CutTexts { corpus, examples })
    }

    /// The documents themselves; all of them are in memory.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or holds no text, or the model's chat template refuses one.
    pub fn documents(
        &self,
        loaded: &LoadedModel,
        observer: &dyn Observer,
    ) -> Result<Vec<Document>, TrainingError> {
        let chat = loaded.chat()?;
        let render = chat.as_ref().map(renderer);
        let render = render.as_ref().map(|render| render as &RenderChat<'_>);
        let found = data::read_documents(&self.path, &self.options, render)?;
        self.report_skipped(&found.skipped, observer);
        Ok(found.documents)
    }

    /// Reports skipped input.
    pub fn report_skipped(&self, skipped: &SkippedInput, observer: &dyn Observer) {
        if !skipped.is_empty() {
            observer.detail(&format!("{}: {skipped}", self.path.display()));
        }
    }

    fn read<T>(
        &self,
        loaded: &LoadedModel,
        observer: &dyn Observer,
        read: impl FnOnce(&CorpusStream<'_>, &Tokenise<'_>, &mut dyn FnMut(u64)) -> Result<T, DataError>,
    ) -> Result<T, TrainingError> {
        let chat = loaded.chat()?;
        let render = chat.as_ref().map(renderer);
        let stream = CorpusStream {
            path: &self.path,
            options: &self.options,
            render_chat: render.as_ref().map(|render| render as &RenderChat<'_>),
            spill_folder: &self.spill_folder,
        };
        let tokenise = |text: &str| -> Result<TokenisedText, TokeniseError> {
            Ok(loaded.tokenizer.encode_with_ends(text)?)
        };
        let total = match Format::of(&self.path)? {
            // The text that is read of these is about as long as the file.
            Format::Text | Format::JsonLines | Format::Json | Format::Csv | Format::Tsv => {
                std::fs::metadata(&self.path).ok().map(|found| found.len())
            }
            _ => None,
        };
        let mut progress = observer.begin(Work {
            name: "reading",
            unit: WorkUnit::Bytes,
            total,
        });
        Ok(read(&stream, &tokenise, &mut |num_bytes| {
            progress.set_position(num_bytes);
        })?)
    }
}

/// Texts cut into examples.
#[derive(Debug)]
pub struct CutTexts {
    /// The documents.
    pub corpus: TokenisedCorpus,
    /// The examples.
    pub examples: Vec<Example>,
}

/// Renders conversations with the model's chat template.
fn renderer(
    chat: &ModelChat,
) -> impl Fn(&[ChatMessage], ChatEnding) -> Result<String, TokeniseError> + '_ {
    let now = SystemTime::now();
    move |messages, ending| Ok(chat.render(messages, ending, now)?)
}

/// The examples of some documents, up to the largest number.
///
/// # Errors
///
/// When there is none.
pub(crate) fn examples(
    corpus: &TokenisedCorpus,
    documents: &[usize],
    span: SpanConfig,
    max_examples: Option<usize>,
    seed: RunSeed,
    observer: &dyn Observer,
) -> Result<Vec<Example>, TrainingError> {
    let Examples { examples, skipped } = match max_examples {
        Some(max_examples) => corpus.limited_examples(documents, max_examples, seed)?,
        None => corpus.examples(documents)?,
    };
    let num_documents = documents.len();
    if skipped.too_short > 0 {
        observer.detail(&format!(
            "{} of {num_documents} documents are too short and left out",
            skipped.too_short,
        ));
    }
    if skipped.long_prompts + skipped.cut_answers > 0 {
        observer.detail(&format!(
            "of {num_documents} documents {} are left out because {} tokens hold no more than their prompts, \
             and {} answers are cut off there",
            skipped.long_prompts, span.seq_len, skipped.cut_answers
        ));
    }
    Ok(examples)
}
