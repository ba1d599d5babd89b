#![doc = include_str!("../README.md")]

pub mod checkpoint;
pub mod error;
pub mod tokenizer;

mod file_bytes;
mod gguf;
mod gguf_translation;
mod safetensors_folder;
mod tensor_dtype;
mod tokenizer_gguf;

pub use checkpoint::{Architecture, Checkpoint, TensorInfo};
pub use error::ModelError;
pub use tensor_dtype::TensorDtype;
pub use tokenizer::{SpecialTokenIds, TextStream, Tokenizer};
