//! Any bytes as a GGUF file: header, every tensor, tokenizer. Nothing may panic.
//! Start from the files in `tests/fixtures/gguf_*`.

#![no_main]

use std::path::Path;

use chameleon_models::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_gguf_bytes(Path::new("fuzz.gguf"), bytes.to_vec()) else {
        return;
    };
    for (name, _) in checkpoint.tensors() {
        let _ = checkpoint.read_f32(name);
    }
    if let Ok(tokenizer) = checkpoint.tokenizer() {
        if let Ok(token_ids) = tokenizer.encode_with_special_tokens("It's 12 \u{e9} <s>\n") {
            let _ = tokenizer.decode(&token_ids);
        }
    }
});
