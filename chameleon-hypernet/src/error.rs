//! Errors of settings.
//!
//! Broken tensor shapes are our own bugs and panic instead; see each function's `# Panics`.

use chameleon_core::FactorShape;
use thiserror::Error;

/// An invalid setting.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum HypernetError {
    /// Not the name of a [`Condition`](crate::Condition).
    #[error(
        "unknown condition `{found}`, expected `batch`, `centroid`, `prompt`, `blend` or `blend:STRENGTH`"
    )]
    UnknownCondition {
        /// The value found.
        found: String,
    },
    /// A blend strength that is negative or not finite.
    #[error("blend strength is `{found}`, expected a finite number, zero or larger")]
    BlendStrength {
        /// The value found.
        found: String,
    },
    /// Not the name of a [`GeneratorKind`](crate::GeneratorKind).
    #[error("unknown generator `{found}`, expected `core`, `dense` or `dense-as-published`")]
    UnknownGenerator {
        /// The value found.
        found: String,
    },
    /// There is no other cluster whose centroid could be drawn.
    #[error("the `redrawn` control needs at least 2 clusters, found {num_clusters}")]
    NoOtherCluster {
        /// The number of clusters.
        num_clusters: usize,
    },
    /// A size that must be at least one is zero.
    #[error("{size} is 0, expected at least 1")]
    ZeroSize {
        /// The name of the size.
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
        /// The value found.
        found: f64,
    },
    /// States without principal directions.
    #[error("the hidden states are all equal")]
    EqualStates,
}

/// Rejects factors with a size of zero.
pub(crate) fn check_shape(shape: FactorShape) -> Result<(), HypernetError> {
    let sizes = [
        ("rank", shape.rank),
        ("input size of the adapted layer", shape.in_size),
        ("output size of the adapted layer", shape.out_size),
    ];
    match sizes.into_iter().find(|(_, size)| *size == 0) {
        Some((size, _)) => Err(HypernetError::ZeroSize { size }),
        None => Ok(()),
    }
}
