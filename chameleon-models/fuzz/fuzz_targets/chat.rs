//! Any text as a chat template. Nothing may panic or run without end.

#![no_main]

use std::time::SystemTime;

use chameleon_models::{ChatEnding, ChatInput, ChatMessage, ChatTemplate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|template: &str| {
    let Ok(template) = ChatTemplate::new(template) else {
        return;
    };
    let _ = template.render(&ChatInput {
        messages: &[ChatMessage::user("Hello")],
        ending: ChatEnding::AwaitReply,
        bos_token: "<s>",
        eos_token: "</s>",
        now: SystemTime::UNIX_EPOCH,
    });
});
