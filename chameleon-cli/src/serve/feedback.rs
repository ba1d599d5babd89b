//! `POST /v1/feedback`: an answer that was accepted, or corrected, becomes an example of its group.
//!
//! Recent answers to requests with a group are kept in memory, if the server was started so. They are not written
//! anywhere before a client accepts them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use chameleon_models::adapter::NewExemplar;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    blocking::compute,
    body,
    error::{ApiError, BodyErrors, GuardedErrors},
    groups::{AddedBody, add_examples},
    prompts::EncodedPrompt,
    settings::AnswerSettings,
    state::Server,
    wire::Json,
};

/// Answers that are kept; the oldest leave.
const MAX_ANSWERS: usize = 4096;
/// Bytes of their texts.
const MAX_BYTES: usize = 16 << 20;

/// An answer that was accepted or corrected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Feedback {
    /// The id of the response.
    id: String,
    /// The index of the choice in it.
    #[serde(default)]
    index: usize,
    /// The right answer, if the one that was given is wrong.
    completion: Option<String>,
}

/// Recent answers that may become examples.
#[derive(Debug, Default)]
pub(crate) struct RecentAnswers(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    answers: VecDeque<RecentAnswer>,
    num_bytes: usize,
}

#[derive(Debug)]
struct RecentAnswer {
    id: String,
    choice_idx: usize,
    group: GroupAddress,
    prompt: String,
    text: String,
}

/// A group of an adapter.
#[derive(Debug, Clone)]
struct GroupAddress {
    adapter: String,
    key: String,
}

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

impl RecentAnswer {
    fn num_bytes(&self) -> usize {
        self.prompt.len() + self.text.len()
    }
}

impl RecentAnswers {
    fn push(&self, answer: RecentAnswer) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.num_bytes += answer.num_bytes();
        recent.answers.push_back(answer);
        while recent.answers.len() > MAX_ANSWERS || recent.num_bytes > MAX_BYTES {
            let Some(oldest) = recent.answers.pop_front() else {
                break;
            };
            recent.num_bytes -= oldest.num_bytes();
        }
    }

    /// Takes an answer out; feedback counts once.
    fn take(&self, id: &str, choice_idx: usize) -> Option<RecentAnswer> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |answer: &RecentAnswer| answer.id == id && answer.choice_idx == choice_idx;
        let position = recent.answers.iter().position(is_it)?;
        let answer = recent.answers.remove(position)?;
        recent.num_bytes -= answer.num_bytes();
        Some(answer)
    }
}

/// Make an answer an example of its group
#[utoipa::path(post, path = "/v1/feedback", operation_id = "giveFeedback",
    request_body = Feedback,
    responses((status = 201, description = "The group", body = AddedBody), GuardedErrors, BodyErrors))]
pub(crate) async fn give(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let feedback: Feedback = body::read(request, server.limits.max_body_bytes).await?;
    let Some(recent) = &server.recent_answers else {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "feedback_forbidden",
            "this server was started without `--remember-answers`",
        ));
    };
    let answer = recent.take(&feedback.id, feedback.index).ok_or_else(|| {
        let message = "there is no such answer to a request with a group, or it is too long ago";
        ApiError::new(StatusCode::NOT_FOUND, "answer_not_found", message).about("id")
    })?;
    let added = compute(&server, move |server| {
        let exemplar = NewExemplar {
            prompt: answer.prompt,
            answer: feedback.completion.unwrap_or(answer.text),
        };
        let GroupAddress { adapter, key } = answer.group;
        add_examples(server, &adapter, &key, vec![exemplar])
    })
    .await?;
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: usize, num_bytes: usize) -> RecentAnswer {
        RecentAnswer {
            id: id.to_string(),
            choice_idx: 0,
            group: GroupAddress {
                adapter: "a".to_owned(),
                key: "k".to_owned(),
            },
            prompt: String::new(),
            text: "x".repeat(num_bytes),
        }
    }

    #[test]
    fn the_oldest_answers_leave_and_each_is_taken_once() {
        let recent = RecentAnswers::default();
        for id in 0..MAX_ANSWERS + 2 {
            recent.push(answer(id, 1));
        }
        assert!(recent.take("1", 0).is_none());
        assert!(recent.take("2", 1).is_none());
        assert!(recent.take("2", 0).is_some());
        assert!(recent.take("2", 0).is_none());
        recent.push(answer(9999, MAX_BYTES));
        assert!(recent.take("3", 0).is_none());
        assert!(recent.take("9999", 0).is_some());
    }
}
