//! What is in this file? Containers of weights, names and layouts of tensors, tokenizers, chat templates, and where
//! they come from.

pub mod atomic_file;
pub(crate) mod chat;
pub(crate) mod chat_methods;
pub mod fingerprint;

pub(crate) mod architecture;
pub(crate) mod checkpoint;
pub(crate) mod file_bytes;
pub(crate) mod gguf;
pub(crate) mod gguf_config;
pub(crate) mod gguf_keys;
mod gguf_parts;
pub(crate) mod hub;
pub(crate) mod hub_model;
pub(crate) mod name_table;
pub(crate) mod safetensors_folder;
pub(crate) mod source;
pub(crate) mod split_rule;
pub(crate) mod stored_layout;
pub(crate) mod tensor_info;
pub(crate) mod tokenizer;
pub(crate) mod tokenizer_checks;
pub(crate) mod tokenizer_files;
pub(crate) mod tokenizer_gguf;
