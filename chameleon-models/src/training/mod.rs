//! Training and scoring: from grouped examples to a trained adapter and its scores.

pub(crate) mod causal_objective;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod eval;
pub(crate) mod evaluation;
pub(crate) mod exemplar_objective;
pub(crate) mod exemplar_scores;
pub(crate) mod exemplars;
pub mod experiment;
pub(crate) mod fit;
pub(crate) mod grouped_examples;
pub(crate) mod hidden_cache;
pub(crate) mod known_states;
pub(crate) mod memory;
pub(crate) mod method;
pub(crate) mod new_adapter;
pub(crate) mod observer;
pub(crate) mod prepare;
pub mod recipes;
pub(crate) mod session;
pub(crate) mod setup;
pub(crate) mod states;
pub mod text_metrics;
pub(crate) mod texts;
pub(crate) mod train;
pub mod training_state;

pub(crate) mod metrics_file;

mod gradients;
mod trainers;

pub use config::{AdapterOptions, MemoryOptions, TrainingConfig};
pub use error::TrainingError;
pub use eval::{ExampleScore, ScoreSummary, Scorer, TokenScores};
pub use evaluation::{AdapterScores, score_adapter, score_windows};
pub use exemplar_scores::AnswerScore;
pub use exemplars::ExemplarSplit;
pub use fit::{EpochRecord, KeptEpoch};
pub use grouped_examples::{
    CacheProgress, GroupedExamples, Proceed, cache_entering_states, cache_hidden_states,
    embed_examples,
};
pub use hidden_cache::{HiddenCache, HiddenCacheError, RowType};
pub use method::{Head, MemoryControl, Method, UnknownMethod};
pub use observer::{Observer, Progress, Silent, Work, WorkUnit};
pub use prepare::{
    EncodedPrompts, HeldOut, Split, TrainingData, TrainingSources, Units, check_encoding,
    encode_training_prompts,
};
pub use session::{MemoryReport, MemoryStage, Start, TrainingReport, TrainingRun};
pub use setup::TrainSetup;
pub use states::HiddenStates;
pub use texts::{CutTexts, SpanConfig, TextSource};
pub use train::{
    BatchLoss, Cursor, LearningRate, Objective, Schedule, StepReport, TrainError, TrainOptions,
    Trainer,
};
