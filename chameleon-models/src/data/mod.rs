//! Text on disk, and the examples made of it.
//!
//! Owns: reading one path (a text file, a folder, `.jsonl`, `.json`) into a [`Corpus`]; splitting its documents
//! into train, valid and test; cutting documents into [`Example`]s with a conditioning and a scored span; and the
//! windows in which a whole text is scored for perplexity. Does not own: the tokenizer (it arrives as a closure),
//! chat templates, batches, and anything that is downloaded.
//!
//! A further format is one more variant of [`Format`] and one reader that fills a [`CorpusBuilder`]; nothing
//! behind the corpus knows where a document came from.
//!
//! ```
//! use chameleon_core::RunSeed;
//! use chameleon_models::data::{self, ReadOptions, SplitFractions, TokenisedText, WindowOptions};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("notes.jsonl");
//! # std::io::Write::write_all(
//! #     &mut std::fs::File::create(&path)?,
//! #     b"{\"text\": \"a b c d e\", \"kind\": \"letters\"}\n{\"text\": \"1 2 3 4\", \"kind\": \"digits\"}\n",
//! # )?;
//! let corpus = data::read(&path, &ReadOptions::default())?;
//! let split = data::split(&corpus, SplitFractions::new(0.5, 0.0)?, RunSeed(7));
//! let tokenise = |text: &str| {
//!     let bytes = text.bytes().map(u32::from).collect::<Vec<_>>();
//!     let ends = (1..=bytes.len()).collect();
//!     Ok::<_, std::io::Error>(TokenisedText::new(bytes, ends))
//! };
//! let examples = data::cut(&corpus, &split.train, WindowOptions::new(4, 2)?, tokenise)?;
//! assert!(examples.examples.iter().all(|example| example.sequence.boundary() == 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod corpus;
mod error;
mod folder;
mod json;
mod jsonl;
mod read;
mod record;
mod split;
mod txt;
mod windows;

pub use corpus::{Corpus, CorpusBuilder, Document, Origin, SkippedInput};
pub use error::DataError;
pub use read::{FolderLabels, Format, LabelField, ReadOptions, read};
pub use split::{Split, SplitFractions, limit, split};
pub use windows::{
    EvalWindow, Example, Examples, Skipped, TokenisedText, WindowOptions, cut, non_overlapping,
    sliding,
};
