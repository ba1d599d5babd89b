#![doc = include_str!("../README.md")]

pub mod adapter;
pub mod data;
pub mod engine;
mod error;
pub mod families;
pub mod files;
pub mod training;

pub use error::ModelError;
pub use families::causal_lm::CausalLm;
pub use families::language_model::LanguageModel;
pub use families::load::{LoadedModel, load, load_as};
pub use families::stored_weights::WeightStorage;
pub use files::architecture::Architecture;
pub use files::chat::{ChatEnding, ChatInput, ChatMessage, ChatTemplate, ModelChat};
pub use files::checkpoint::Checkpoint;
pub use files::hub::{HubAccess, HubOptions, HubProgress};
pub use files::hub_model::HubModel;
pub use files::source::ModelSource;
pub use files::tensor_info::TensorInfo;
pub use files::tokenizer::{SpecialTokenIds, TextStream, Tokenizer};
