//! Experiments as values: methods on the same texts, their controls, and confidence intervals of the differences.

mod bootstrap;
mod comparison;
mod config;
mod memories;
pub mod peak_memory;
mod protocol;
mod report;
mod runs;
mod scores;
mod store;
mod tenants;
mod texts;

pub use bootstrap::{Interval, PairedSequence, paired_interval};
pub use comparison::Comparison;
pub use config::ComparisonConfig;
pub use memories::{ExperimentMemories, MemoryFacts};
pub use report::{Choice, ComparisonReport, ComparisonRow, Headline, MethodRow, Resampled};
pub use runs::{MethodRuns, ScoredRun, TrainedRun};
pub use scores::{
    Against, BreakdownRow, Finding, FindingKind, MethodScores, PairedComparison, breakdown,
    finding, percent, signed,
};
pub use store::RunStore;
pub use tenants::{
    Adapted, Exemplars, TenantComparison, TenantConfig, TenantMethod, TenantReport, TenantRow,
};
pub use texts::ComparisonTexts;
