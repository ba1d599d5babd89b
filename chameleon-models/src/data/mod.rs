//! Training and scoring data: one streaming path from files to examples.
//!
//! Owns: reading one path (a text file, a folder, `.parquet`, `.csv`, `.jsonl`, `.json`) document by document; which
//! fields of a row are its text, label and source; tokenising documents as they are read and cutting them into
//! [`Example`]s with a conditioning and a scored span; splitting documents into train, valid and test; the windows in
//! which a whole text is scored for perplexity; and fetching data sets of the Hugging Face hub. Does not own: the
//! tokenizer and chat templates (they arrive as closures), and batches.
//!
//! A further format of rows is one more variant of [`Format`] and one reader; nothing after the reader depends on where
//! a document came from.
//!
//! ```
//! use chameleon_core::RunSeed;
//! use chameleon_models::data::{CorpusStream, ReadOptions, SplitFractions, TokenisedText, WindowOptions};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("notes.jsonl");
//! # std::io::Write::write_all(
//! #     &mut std::fs::File::create(&path)?,
//! #     b"{\"text\": \"a b c d e\", \"kind\": \"letters\"}\n{\"text\": \"1 2 3 4\", \"kind\": \"digits\"}\n",
//! # )?;
//! let stream = CorpusStream {
//!     path: &path,
//!     options: &ReadOptions::default(),
//!     render_chat: None,
//!     spill_folder: folder.path(),
//! };
//! let tokenise = |text: &str| {
//!     let bytes = text.bytes().map(u32::from).collect::<Vec<_>>();
//!     let ends = (1..=bytes.len()).collect();
//!     Ok(TokenisedText::new(bytes, ends))
//! };
//! let windows = WindowOptions::new(4, 2)?;
//! let corpus = stream.examples(windows, RunSeed(7), &tokenise, &mut |_num_bytes| {})?;
//! let split = corpus.split(SplitFractions::new(0.5, 0.0)?);
//! let train = corpus.examples(&split.train)?.examples;
//! assert!(train.iter().all(|example| example.sequence.boundary() == 2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod hub_dataset;

mod conversation;
mod csv_file;
mod cut;
mod document;
mod error;
mod eval_windows;
mod example;
mod exchange;
mod fields;
mod folder;
mod instruction;
mod joined;
mod json;
mod jsonl;
mod options;
mod parquet_file;
mod pieces;
mod read;
mod record;
mod sink;
mod split;
mod stream;
mod token_store;
mod tokenised;
mod tokenised_corpus;
mod txt;
mod units;
mod visit;
mod windows;

pub use conversation::RenderChat;
pub use document::{AnswerEnd, Document, Exchange, Origin, Place, SkippedInput};
pub use error::DataError;
pub use eval_windows::{EvalWindow, sliding};
pub use example::{Example, Examples, Skipped};
pub(crate) use exchange::exchange_sequence;
pub use hub_dataset::{HubDataset, HubDatasetError};
pub use instruction::InstructionCondition;
pub use options::{Format, InstructionFields, LabelField, ReadOptions, TextFields};
pub use read::{Documents, read_documents};
pub use split::{Split, SplitFractions, split};
pub use stream::{CorpusStream, Tokenise, TokeniseError, tokenise_documents};
pub use token_store::StoredTokens;
pub use tokenised::TokenisedText;
pub use tokenised_corpus::TokenisedCorpus;
pub use units::{ResamplingUnits, UnitKind};
pub use visit::read_column;
pub use windows::WindowOptions;

pub(crate) use visit::visit_records;
