//! What the crate promises, tested from outside.

mod fixture; // weights and expectations exported from Hugging Face transformers
mod generate; // cached decoding, batches of prompts, texts
mod gpt2; // the GPT-2 family against transformers
mod llama; // the Llama family against transformers
mod real_model; // the same texts as transformers, when a model is there
