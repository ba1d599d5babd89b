#![doc = include_str!("../README.md")]

pub mod adaptation;
pub mod adapter;
pub mod atomic_file;
pub mod bootstrap;
pub mod causal_lm;
pub mod chat;
pub mod checkpoint;
pub mod config_error;
pub mod data;
pub mod engine;
pub mod error;
pub mod eval;
pub mod generate;
pub mod gpt2;
pub mod group_memory;
pub mod grouped_examples;
pub mod hidden_cache;
pub mod hub;
pub mod hub_dataset;
pub mod identity;
pub mod key_map;
pub mod kv_cache;
pub mod language_model;
pub mod layer_adaptation;
pub mod llama;
pub mod load;
pub mod prompts;
pub mod recipes;
pub mod sampling;
pub mod source;
pub mod states;
pub mod text_metrics;
pub mod tokenizer;
pub mod train;
pub mod training_state;

mod attention;
mod decoder;
mod file_bytes;
mod gguf;
mod gguf_translation;
mod gradients;
mod indices;
mod lane;
mod packed;
mod safetensors_folder;
mod tensor_dtype;
mod tokenizer_gguf;

pub use adaptation::{Adaptation, FactorWriter, GroupFactors, HeadAdapter, Trainee};
pub use adapter::{Adapter, AdapterConfig, AdapterError, AdapterMemory, MemoryDescription, Recipe};
pub use bootstrap::{Interval, PairedSequence, paired_interval};
pub use causal_lm::{
    CachedStates, CausalLm, LinearModule, ModelSizes, PassEnd, PassInput, SequencePass, TokenIds,
};
pub use chat::{ChatEnding, ChatInput, ChatMessage, ChatTemplate};
pub use checkpoint::{Architecture, Checkpoint, TensorInfo};
pub use config_error::ConfigError;
pub use data::{Corpus, Document, Example, Examples};
pub use error::ModelError;
pub use eval::{ExampleScore, ScoreSummary, Scorer, TokenScores};
pub use generate::{
    FinishReason, GenerateOptions, GenerateOutput, GenerateTimings, Generation, NewToken, generate,
};
pub use gpt2::{Gpt2, Gpt2Config};
pub use group_memory::{GroupMemories, MemoryConfig, MemoryError, MemorySource};
pub use grouped_examples::{GroupedExamples, Proceed};
pub use hidden_cache::{CacheSpec, CacheWriter, HiddenCache, OpenedCache};
pub use hub::{HubAccess, HubOptions, HubProgress};
pub use hub_dataset::{HubDataset, HubDatasetError};
pub use identity::ModelIdentity;
pub use key_map::ImportReport;
pub use kv_cache::{CacheRow, KvCache, Segment};
pub use language_model::LanguageModel;
pub use layer_adaptation::{LayerAdaptation, LayerKind, LayerRange};
pub use llama::{Llama, LlamaConfig};
pub use load::{LoadedModel, load, load_as};
pub use packed::WeightStorage;
pub use prompts::{PromptEncoding, Representation, embed_prompts, represent_prompts};
pub use sampling::{RandomSampling, Sampler, Sampling};
pub use source::{HubModel, ModelSource};
pub use states::HiddenStates;
pub use tensor_dtype::TensorDtype;
pub use tokenizer::{SpecialTokenIds, TextStream, Tokenizer};
pub use train::{Cursor, StepReport, TrainError, TrainOptions, TrainSetup, Trainer};
pub use training_state::{TrainingCheckpoint, TrainingState};
