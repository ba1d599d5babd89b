#![doc = include_str!("../README.md")]

pub mod condition;
pub mod control;
mod error;
pub mod generator;
pub mod grouped;
pub mod head;
mod init;
pub mod layer_factors;
pub mod layers;
pub mod memory;
pub mod network;
#[cfg(test)]
mod testing;

pub use condition::{Condition, ConditionNorm, PromptGroup};
pub use control::{ConditionControl, ConditionSource, ControlPlan};
pub use error::HypernetError;
pub use generator::{
    Core, CoreConfig, Dense, DenseConfig, FactorGenerator, FactorGeneratorConfig, FactorInit,
    Generator, GeneratorKind,
};
pub use grouped::{GroupedFactors, RowGroups};
pub use head::{
    ConditionScaling, Generated, HyperLoraHead, HyperLoraHeadConfig, LoraHeadConfig, StaticHead,
    adapted_linear,
};
pub use layer_factors::LayerFactors;
pub use layers::{
    AdaptedLayers, AdaptedLayersConfig, GroupLayers, LayerCores, LayerModule, SharedLayers,
};
pub use memory::{
    GateEvidence, GateObservations, GroupMemory, KeyProjection, MemoryGate, Similarities, Votes,
};
pub use network::{HyperNetwork, HyperNetworkConfig, OutputInit};
