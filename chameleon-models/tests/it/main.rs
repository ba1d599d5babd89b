//! What the crate promises, tested from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its input fails"
)]

mod bootstrap; // intervals against numpy
mod chat; // chat templates against transformers
mod checkpoint; // files against what gguf and transformers read from them
mod configs; // what a config.json describes, and what is refused
mod engine;
mod exemplar_attention; // requests that attend to exemplars against PyTorch
mod exemplar_case; // the model, exemplars and requests of the two
mod families; // every family against transformers
mod fixture; // weights and expectations exported from Hugging Face transformers
mod generate; // cached decoding, batches of prompts, texts
mod gguf_builder; // GGUF files written byte by byte
mod gpt2; // the GPT-2 family against transformers
mod groups; // groups by key: exemplars that change their own group's answers and no others
mod hostile; // broken and lying files
mod layer_cores; // generated cores inside the layers against PyTorch
mod learned_steps; // gradient steps on exemplars against PyTorch
mod llama; // the Llama family against transformers
mod load; // from a path to a model that runs
mod memory; // what groups remember: written, read, and told while decoding
mod published; // the recipe of the paper against PyTorch
mod real_model; // the same texts as transformers, when a model is there
mod stored_weights; // weights as files store them against f32
mod stream; // texts larger than memory against texts in memory
mod text_metrics; // BLEU, ROUGE and METEOR against the Python packages
mod tokenizers; // tokenizers rebuilt from GGUF files against transformers
mod training; // adapters: train, interrupt, save, load, score
