//! What can be wrong with settings that come from outside.
//!
//! Broken tensor shapes are our own bugs and panic instead; see each function's `# Panics`.

use thiserror::Error;

/// A setting that this crate cannot work with.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum HypernetError {
    /// A name that no [`Condition`](crate::Condition) has.
    #[error(
        "unknown condition `{found}`, expected `batch`, `centroid`, `prompt`, `blend` or `blend:STRENGTH`"
    )]
    UnknownCondition {
        /// What was given.
        found: String,
    },
    /// A blend strength that is not a number from zero up.
    #[error("blend strength is `{found}`, expected a finite number, zero or larger")]
    BlendStrength {
        /// What was given.
        found: String,
    },
    /// A name that no [`ConditionControl`](crate::ConditionControl) has.
    #[error(
        "unknown condition control `{found}`, expected `none`, `shuffled`, `redrawn` or `constant`"
    )]
    UnknownControl {
        /// What was given.
        found: String,
    },
    /// A name that no [`GeneratorKind`](crate::GeneratorKind) has.
    #[error("unknown generator `{found}`, expected `core`, `dense` or `dense-as-published`")]
    UnknownGenerator {
        /// What was given.
        found: String,
    },
    /// A control that swaps clusters has nothing to swap.
    #[error("the `{control}` control needs at least 2 clusters, found {num_clusters}")]
    NoOtherCluster {
        /// The control that was asked for.
        control: crate::ConditionControl,
        /// How many clusters there are.
        num_clusters: usize,
    },
    /// A size that must be at least one is zero.
    #[error("{size} is 0, expected at least 1")]
    ZeroSize {
        /// Which size.
        size: &'static str,
    },
    /// Static and generated factors are sized for different layers.
    #[error("static factors are for a layer of shape {found:?}, generated ones for {expected:?}")]
    DifferentLayers {
        /// `[in, out]` of the static factors.
        found: [usize; 2],
        /// `[in, out]` of the generated factors.
        expected: [usize; 2],
    },
    /// A module of the layers is adapted twice.
    #[error("module `{path}` of layer {layer_idx} is named twice")]
    ModuleTwice {
        /// The layer.
        layer_idx: usize,
        /// The module within the layer.
        path: String,
    },
    /// A dropout probability outside `[0, 1)`.
    #[error("dropout is {found}, expected a number from 0 up to but not including 1")]
    Dropout {
        /// What was given.
        found: f64,
    },
    /// Keys that are wider than what they are made of, or nothing.
    #[error(
        "keys of {found} numbers, expected a number between 1 and the hidden size {hidden_size}"
    )]
    KeySize {
        /// What was asked for.
        found: usize,
        /// Width of a state.
        hidden_size: usize,
    },
    /// States from which no directions can be found.
    #[error("the hidden states are all alike, or hold values that are not finite")]
    States,
}
