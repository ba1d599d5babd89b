//! The weight of a frozen linear module.

use burn::tensor::{Device, Tensor};

use crate::stored::StoredMatrix;

/// The weight of a frozen linear module, `[in, out]`.
#[derive(Debug, Clone)]
pub enum FrozenWeight {
    /// As f32; may be a transposed view of a tied embedding.
    Dense(Tensor<2>),
    /// As a file stores it.
    Stored {
        /// The weight.
        matrix: StoredMatrix,
        /// The device of the rows that go through it.
        device: Device,
    },
}

impl FrozenWeight {
    /// Input and output width.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Stored { matrix, .. } => [matrix.in_size(), matrix.out_size()],
        }
    }

    /// The device of the rows that go through it.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(weight) => weight.device(),
            Self::Stored { device, .. } => device.clone(),
        }
    }

    /// All of it as f32, `[in, out]`; a stored weight is decoded.
    pub fn to_dense(&self) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.clone(),
            Self::Stored { matrix, device } => matrix.to_dense(device),
        }
    }

    /// The same without autodiff.
    #[must_use]
    pub(crate) fn without_autodiff(self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.without_autodiff()),
            Self::Stored { matrix, device } => Self::Stored {
                matrix,
                device: device.without_autodiff(),
            },
        }
    }
}

impl From<Tensor<2>> for FrozenWeight {
    fn from(weight: Tensor<2>) -> Self {
        Self::Dense(weight)
    }
}
