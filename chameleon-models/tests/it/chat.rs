//! Chat templates against transformers.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use chameleon_models::{ChatEnding, ChatInput, ChatMessage, ChatTemplate};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<ChatMessage>,
    await_reply: bool,
    /// Nothing when the template refuses the conversation.
    text: Option<String>,
}

#[test]
fn conversations_read_as_transformers_writes_them() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat");
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    for case in cases {
        let template =
            std::fs::read_to_string(folder.join(format!("{}.jinja", case.template))).unwrap();
        let template = ChatTemplate::new(&template).unwrap();
        let rendered = template.render(&ChatInput {
            messages: &case.messages,
            ending: if case.await_reply {
                ChatEnding::AwaitReply
            } else {
                ChatEnding::Complete
            },
            bos_token: "<s>",
            eos_token: "</s>",
            now: SystemTime::UNIX_EPOCH + Duration::from_hours(474_780), // 29 February 2024
        });
        assert_eq!(
            rendered.ok(),
            case.text,
            "{} {:?}",
            case.template,
            case.messages
        );
    }
}
