//! `POST /v1/feedback`: an answer that was accepted, or corrected, becomes an example of its group.

use std::sync::Arc;

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
    recent_answers::GroupAddress,
    state::Server,
    wire::Json,
};

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
