//! What a tensor of a model file looks like.

use chameleon_core::stored::TensorDtype;

/// What a tensor of a checkpoint looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Outermost axis first; of a linear layer `[in, out]`.
    pub shape: Vec<usize>,
    /// How the values are stored; reading always gives `f32`.
    pub dtype: TensorDtype,
}
