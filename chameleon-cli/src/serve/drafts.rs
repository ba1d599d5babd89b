//! The answers of one request as they are generated, if they are kept for feedback.

use super::{
    prompts::EncodedPrompt,
    recent_answers::{GroupAddress, RecentAnswer},
    settings::AnswerSettings,
    state::Server,
};

/// The answers of one request as they are generated.
#[derive(Debug)]
pub(crate) struct Drafts {
    id: String,
    group: GroupAddress,
    /// The prompt and the answer so far of each choice.
    texts: Vec<(String, String)>,
}

impl Drafts {
    /// The answers of a request, if they are to be kept.
    pub(crate) fn of(
        server: &Server,
        settings: &AnswerSettings,
        prompts: &[EncodedPrompt],
        id: &str,
    ) -> Option<Self> {
        server.recent_answers.as_ref()?;
        let group = GroupAddress {
            adapter: settings.model.adapter.clone()?,
            key: settings.group()?.to_owned(),
        };
        let texts = prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(&prompt.text, settings.num_choices))
            .map(|prompt| (prompt.clone(), String::new()));
        Some(Self {
            id: id.to_owned(),
            group,
            texts: texts.collect(),
        })
    }

    pub(crate) fn push(&mut self, choice_idx: usize, text: &str) {
        self.texts[choice_idx].1.push_str(text);
    }

    /// Keeps an answer that is complete.
    pub(crate) fn finish(&mut self, choice_idx: usize, server: &Server) {
        let (prompt, text) = std::mem::take(&mut self.texts[choice_idx]);
        if let Some(recent) = &server.recent_answers {
            recent.push(RecentAnswer {
                id: self.id.clone(),
                choice_idx,
                group: self.group.clone(),
                prompt,
                text,
            });
        }
    }
}
