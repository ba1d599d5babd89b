#![doc = include_str!("../README.md")]

mod condition;
mod control;
mod error;
mod generator;
mod grouped;
mod head;
mod init;
mod layer_factors;
mod layers;
mod learned_steps;
mod lora;
pub mod memory;
mod network;
#[cfg(test)]
mod testing;

pub use condition::{Condition, ConditionNorm, PromptGroup};
pub use control::{ConditionControl, ConditionSource, ControlPlan};
pub use error::HypernetError;
pub use generator::{
    Core, CoreConfig, Dense, DenseConfig, Generator, GeneratorConfig, GeneratorKind,
};
pub use grouped::{GroupedFactors, RowGroups};
pub use head::{ConditionScaling, GeneratedFactors, HyperLoraHead, HyperLoraHeadConfig};
pub use init::FactorInit;
pub use layer_factors::LayerFactors;
pub use layers::{
    AdaptedLayers, AdaptedLayersConfig, GroupLayers, LayerCores, LayerModule, SharedLayers,
};
pub use learned_steps::{LearnedSteps, after_steps, normalised};
pub use lora::{Lora, LoraConfig};
pub use network::{HyperNetwork, HyperNetworkConfig, OutputInit};
