#![doc = include_str!("../README.md")]

pub mod adapter;
pub mod data;
pub mod engine;
pub mod error;
pub mod families;
pub mod files;
pub mod training;

pub use adapter::adaptation::{
    AdapterModule, FactorProducer, GroupFactors, HeadAdaptation, HeadAdapter,
};
pub use adapter::group_memory::{GroupMemories, MemoryConfig, MemoryError, MemorySource};
pub use adapter::identity::ModelIdentity;
pub use adapter::layer_adaptation::{LayerAdaptation, LayerKind, LayerRange};
pub use adapter::prompts::{PromptEncoding, Representation, embed_prompts, represent_prompts};
pub use adapter::{Adapter, AdapterConfig, AdapterError, AdapterMemory, MemoryDescription, Recipe};
pub use data::hub_dataset::{HubDataset, HubDatasetError};
pub use data::{Document, Example, Examples};
pub use engine::sampling::{RandomSampling, Sampler, Sampling};
pub use error::ModelError;
pub use families::causal_lm::{
    CachedStates, CausalLm, LinearModule, PassEnd, PassInput, SequencePass,
};
pub use families::config_error::ConfigError;
pub use families::gpt2::{Gpt2, Gpt2Config};
pub use families::import::ImportReport;
pub use families::kv_cache::{CacheRow, KvCache, Segment};
pub use families::language_model::LanguageModel;
pub use families::llama::{Llama, LlamaConfig};
pub use families::load::{LoadedModel, load, load_as};
pub use families::packed::WeightStorage;
pub use families::sizes::{ModelSizes, TokenIds};
pub use files::architecture::Architecture;
pub use files::chat::{ChatEnding, ChatInput, ChatMessage, ChatTemplate};
pub use files::checkpoint::Checkpoint;
pub use files::hub::{HubAccess, HubOptions, HubProgress};
pub use files::hub_model::HubModel;
pub use files::source::ModelSource;
pub use files::tensor_dtype::{TensorDtype, TensorInfo};
pub use files::tokenizer::{SpecialTokenIds, TextStream, Tokenizer};
pub use training::causal_objective::TrainSetup;
pub use training::eval::{ExampleScore, ScoreSummary, Scorer, TokenScores};
pub use training::experiment::{Interval, PairedSequence, paired_interval};
pub use training::grouped_examples::{GroupedExamples, Proceed};
pub use training::hidden_cache::HiddenCache;
pub use training::states::HiddenStates;
pub use training::train::{Cursor, StepReport, TrainError, TrainOptions, Trainer};
pub use training::training_state::{TrainingCheckpoint, TrainingState};
