//! `/v1/groups`: the groups by key of an adapter, and their exemplars.
//!
//! A key is a customer, or whatever the operator groups requests by. Its exemplars are answered requests; they change
//! the answers to the key's requests, and to no others.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Query, Request, State, rejection::PathRejection, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use chameleon_models::ChatMessage;
use chameleon_models::adapter::NewExemplar;
use chameleon_models::engine::{GroupInfo, GroupState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    blocking::compute,
    body,
    chat::{Message, chat_messages},
    error::{ApiError, BodyErrors, GuardedErrors, NamedErrors, QueryErrors},
    prompts::render_chat,
    state::Server,
    strict::Object,
    wire::{Json, List, ObjectKind},
};

/// Examples of one request at most.
const MAX_EXAMPLES: usize = 1024;

/// The adapter whose groups are meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GroupQuery {
    /// The model with the adapter, `NAME:ADAPTER`; may be left out if one adapter that uses exemplars is loaded.
    model: Option<String>,
}

/// Examples to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddExamples {
    /// The model with the adapter, `NAME:ADAPTER`; may be left out if one adapter that uses exemplars is loaded.
    model: Option<String>,
    #[schema(value_type = Vec<NewExample>, min_items = 1)]
    examples: Vec<Object<NewExample>>,
}

/// An answered request: a prompt and its completion, or a conversation that ends with the answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewExample {
    prompt: Option<String>,
    completion: Option<String>,
    #[schema(value_type = Option<Vec<Message>>)]
    messages: Option<Vec<Object<Message>>>,
}

/// A group by key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Group)]
pub(crate) struct GroupBody {
    object: ObjectKind,
    key: String,
    /// The model with the adapter.
    model: String,
    num_examples: usize,
    num_bytes: usize,
    state: StateWord,
    /// Requests that used the examples.
    num_requests: u64,
}

/// A group, and the ids of the examples that were added.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AddedExamples)]
pub(crate) struct AddedBody {
    #[serde(flatten)]
    group: GroupBody,
    example_ids: Vec<u64>,
}

/// Whether answers follow the newest examples.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StateWord {
    /// They do.
    Ready,
    /// Soon; until then the former examples apply, or requests wait.
    Computing,
    /// They cannot be used.
    Failed,
}

/// An example.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Example)]
pub(crate) struct ExampleBody {
    object: ObjectKind,
    id: u64,
    prompt: String,
    completion: String,
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedGroup {
    object: ObjectKind,
    key: String,
    deleted: bool,
}

/// The groups with examples
#[utoipa::path(get, path = "/v1/groups", operation_id = "listGroups",
    params(GroupQuery),
    responses((status = 200, description = "The groups", body = List<GroupBody>), GuardedErrors, QueryErrors))]
pub(crate) async fn list(
    State(server): State<Arc<Server>>,
    query: Result<Query<GroupQuery>, QueryRejection>,
) -> Result<Json<List<GroupBody>>, ApiError> {
    let adapter = adapter_of(&server, read_query(query)?.model)?;
    let groups = server.engine.groups(&adapter)?;
    Ok(Json(
        groups
            .into_iter()
            .map(|info| GroupBody::new(&server, &adapter, info))
            .collect(),
    ))
}

/// Add examples to a group
#[utoipa::path(post, path = "/v1/groups/{key}/examples", operation_id = "addExamples",
    params(("key" = String, Path, min_length = 1, max_length = 256)),
    request_body = AddExamples,
    responses((status = 201, description = "The group", body = AddedBody),
        GuardedErrors, BodyErrors, NamedErrors))]
pub(crate) async fn add(
    State(server): State<Arc<Server>>,
    key: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let Path(key) = key.map_err(|_| ApiError::not_utf8())?;
    let asked: AddExamples = body::read(request, server.limits.max_body_bytes).await?;
    if server.is_draining() {
        return Err(ApiError::draining());
    }
    let adapter = adapter_of(&server, asked.model)?;
    if !(1..=MAX_EXAMPLES).contains(&asked.examples.len()) {
        let message = format!(
            "found {} examples, expected 1 to {MAX_EXAMPLES}",
            asked.examples.len()
        );
        return Err(ApiError::invalid("examples", message));
    }
    let added = compute(&server, move |server| {
        let exemplars = asked
            .examples
            .into_iter()
            .enumerate()
            .map(|(idx, Object(example))| example.into_exemplar(server, idx))
            .collect::<Result<Vec<_>, _>>()?;
        add_examples(server, &adapter, &key, exemplars)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

/// Adds examples, and describes their group.
pub(crate) fn add_examples(
    server: &Server,
    adapter: &str,
    key: &str,
    exemplars: Vec<NewExemplar>,
) -> Result<AddedBody, ApiError> {
    let example_ids = server.engine.remember(adapter, key, exemplars)?;
    let group = group(server, adapter, key)?;
    Ok(AddedBody { group, example_ids })
}

/// The examples of a group
#[utoipa::path(get, path = "/v1/groups/{key}/examples", operation_id = "listExamples",
    params(("key" = String, Path, min_length = 1), GroupQuery),
    responses((status = 200, description = "The examples", body = List<ExampleBody>),
        GuardedErrors, QueryErrors))]
pub(crate) async fn examples(
    State(server): State<Arc<Server>>,
    key: Result<Path<String>, PathRejection>,
    query: Result<Query<GroupQuery>, QueryRejection>,
) -> Result<Json<List<ExampleBody>>, ApiError> {
    let Path(key) = key.map_err(|_| ApiError::not_utf8())?;
    let adapter = adapter_of(&server, read_query(query)?.model)?;
    let group = server
        .engine
        .exemplars(&adapter, &key)?
        .ok_or_else(no_group)?;
    let exemplars = group.exemplars.iter().map(|exemplar| ExampleBody {
        object: ObjectKind::Example,
        id: exemplar.id,
        prompt: exemplar.prompt.clone(),
        completion: exemplar.answer.clone(),
    });
    Ok(Json(exemplars.collect()))
}

/// Delete an example
#[utoipa::path(delete, path = "/v1/groups/{key}/examples/{id}", operation_id = "deleteExample",
    params(("key" = String, Path, min_length = 1), ("id" = u64, Path), GroupQuery),
    responses((status = 200, description = "It is deleted", body = DeletedGroup), GuardedErrors, QueryErrors))]
pub(crate) async fn delete_example(
    State(server): State<Arc<Server>>,
    path: Result<Path<(String, u64)>, PathRejection>,
    query: Result<Query<GroupQuery>, QueryRejection>,
) -> Result<Json<DeletedGroup>, ApiError> {
    let Path((key, id)) = path.map_err(|_| no_group())?;
    let adapter = adapter_of(&server, read_query(query)?.model)?;
    compute(&server, move |server| {
        if !server.engine.forget(&adapter, &key, id)? {
            return Err(no_group());
        }
        Ok(Json(DeletedGroup {
            object: ObjectKind::Example,
            key,
            deleted: true,
        }))
    })
    .await
}

/// Delete a group with all its examples
#[utoipa::path(delete, path = "/v1/groups/{key}", operation_id = "deleteGroup",
    params(("key" = String, Path, min_length = 1), GroupQuery),
    responses((status = 200, description = "It is deleted", body = DeletedGroup), GuardedErrors, QueryErrors))]
pub(crate) async fn delete(
    State(server): State<Arc<Server>>,
    key: Result<Path<String>, PathRejection>,
    query: Result<Query<GroupQuery>, QueryRejection>,
) -> Result<Json<DeletedGroup>, ApiError> {
    let Path(key) = key.map_err(|_| ApiError::not_utf8())?;
    let adapter = adapter_of(&server, read_query(query)?.model)?;
    compute(&server, move |server| {
        if !server.engine.forget_group(&adapter, &key)? {
            return Err(no_group());
        }
        Ok(Json(DeletedGroup {
            object: ObjectKind::Group,
            key,
            deleted: true,
        }))
    })
    .await
}

fn read_query(query: Result<Query<GroupQuery>, QueryRejection>) -> Result<GroupQuery, ApiError> {
    let Query(query) = query.map_err(ApiError::query)?;
    Ok(query)
}

/// The adapter that a client names, or the only one that uses examples.
fn adapter_of(server: &Server, model: Option<String>) -> Result<String, ApiError> {
    let choices = match model {
        Some(model) => server.choose_model(&model)?.adapter.into_iter().collect(),
        None => server
            .engine
            .adapters()
            .into_iter()
            .filter(|info| info.exemplars.is_some())
            .map(|info| info.name)
            .collect::<Vec<_>>(),
    };
    match <[String; 1]>::try_from(choices) {
        Ok([adapter]) => Ok(adapter),
        Err(choices) => {
            let message = if choices.is_empty() {
                "examples belong to an adapter that uses them: name `NAME:ADAPTER`"
            } else {
                "several adapters use examples: name one as `NAME:ADAPTER`"
            };
            Err(ApiError::invalid("model", message))
        }
    }
}

fn group(server: &Server, adapter: &str, key: &str) -> Result<GroupBody, ApiError> {
    let info = server.engine.group(adapter, key)?.ok_or_else(no_group)?;
    Ok(GroupBody::new(server, adapter, info))
}

fn no_group() -> ApiError {
    let message = "there is no such group, or no such example in it";
    ApiError::new(StatusCode::NOT_FOUND, "group_not_found", message).about("key")
}

impl GroupBody {
    fn new(server: &Server, adapter: &str, info: GroupInfo) -> Self {
        Self {
            object: ObjectKind::Group,
            key: info.key,
            model: format!("{}:{adapter}", server.name),
            num_examples: info.num_exemplars,
            num_bytes: info.num_bytes,
            state: match info.state {
                GroupState::Ready => StateWord::Ready,
                GroupState::Failed => StateWord::Failed,
                _ => StateWord::Computing,
            },
            num_requests: info.num_requests,
        }
    }
}

impl NewExample {
    fn into_exemplar(self, server: &Server, idx: usize) -> Result<NewExemplar, ApiError> {
        match (self.prompt, self.completion, self.messages) {
            (Some(prompt), Some(answer), None) => Ok(NewExemplar { prompt, answer }),
            (None, None, Some(messages)) => {
                let mut messages = chat_messages(messages)?;
                let answer = match messages.pop() {
                    Some(ChatMessage { role, content }) if role == "assistant" => content,
                    _ => {
                        let message = "the conversation does not end with an answer";
                        return Err(ApiError::invalid(format!("examples[{idx}]"), message));
                    }
                };
                let prompt = render_chat(server, &messages)?;
                Ok(NewExemplar { prompt, answer })
            }
            _ => {
                let message = "expected `prompt` and `completion`, or `messages`";
                Err(ApiError::invalid(format!("examples[{idx}]"), message))
            }
        }
    }
}
