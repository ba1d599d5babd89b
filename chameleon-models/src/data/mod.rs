//! Text on disk, and the examples made of it.
//!
//! Owns: reading one path (a text file, a folder, `.parquet`, `.csv`, `.jsonl`, `.json`) into a [`Corpus`]; which
//! fields of a row are its text, label and source; splitting documents into train, valid and test; cutting them
//! into [`Example`]s with a conditioning and a scored span; and the windows in which a whole text is scored for
//! perplexity. Does not own: the tokenizer and chat templates (they arrive as closures), batches, and anything that
//! is downloaded.
//!
//! A further format of rows is one more variant of [`Format`] and one reader behind [`visit_records`]; nothing
//! behind it knows where a document came from.
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

mod conversation;
mod corpus;
mod csv_file;
mod error;
mod fields;
mod folder;
mod instruction;
mod json;
mod jsonl;
mod parquet_file;
mod pieces;
mod read;
mod record;
mod split;
mod stream;
mod token_store;
mod tokenised;
mod tokenised_corpus;
mod txt;
mod units;
mod windows;

pub use conversation::RenderChat;
pub use corpus::{
    AnswerEnd, Corpus, CorpusBuilder, Document, Exchange, NewDocument, Origin, Place, SkippedInput,
};
pub use error::DataError;
pub use fields::{InstructionFields, TextFields};
pub use instruction::{Instruction, InstructionCondition};
pub use read::{FolderLabels, Format, LabelField, ReadOptions, read, read_with_chats};
pub use record::{Record, Wanted, read_column, visit_records};
pub use split::{Split, SplitFractions, limit, split};
pub use stream::{CorpusStream, Tokenise, TokeniseError};
pub use token_store::StoredTokens;
pub use tokenised::TokenisedText;
pub use tokenised_corpus::TokenisedCorpus;
pub use units::{ResamplingUnits, UnitKind};
pub use windows::{
    EvalWindow, Example, Examples, Skipped, WindowOptions, cut, non_overlapping, sliding,
};
