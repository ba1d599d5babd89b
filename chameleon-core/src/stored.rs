//! Values as model files store them: formats, their decoding to f32, and weights that stay in that form.
//!
//! Nothing here reads a file or knows a model. Products with stored weights are in [`fused`](crate::fused).

mod decode;
mod dtype;
mod matrix;

pub use dtype::TensorDtype;
pub use matrix::{StoredBytes, StoredMatrix, StoredMatrixError};
