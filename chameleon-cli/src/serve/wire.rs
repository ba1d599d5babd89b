//! JSON that several routes share.

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// A JSON response.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(to_text(&self.0)));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// The JSON text of a response, or of one event of a stream.
pub(crate) fn to_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("responses have text keys and finite depth")
}

/// What kind of thing a JSON object is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ObjectKind {
    Adapter,
    #[serde(rename = "chat.completion")]
    ChatCompletion,
    #[serde(rename = "chat.completion.chunk")]
    ChatCompletionChunk,
    Clusters,
    Embedding,
    Example,
    Group,
    List,
    Model,
    Stats,
    TextCompletion,
}

/// A list of objects.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    object: ObjectKind,
    data: Vec<T>,
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self {
            object: ObjectKind::List,
            data: items.into_iter().collect(),
        }
    }
}
