//! Errors as clients receive them: OpenAI's shape, a status, and the parameter that is wrong.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::rejection::QueryRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chameleon_models::engine::{EngineError, RequestFailure};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{Ref, RefOr, response},
};

use super::wire::Json;

/// Why a request is refused, or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// A word that programs can compare.
    pub(crate) code: &'static str,
    /// The parameter that is wrong, if one is.
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    retry_after: Option<Duration>,
}

/// Why a request was refused, or failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    error: ErrorObject,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorObject {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The parameter that is wrong, if one is.
    #[schema(required)]
    param: Option<String>,
    /// A word that programs can compare.
    code: &'static str,
}

/// Declares sets of error statuses, by which routes describe themselves.
macro_rules! error_statuses {
    ($($(#[$doc:meta])* $name:ident: $($status:literal)+;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<response::Response>> {
                let error = || RefOr::Ref(Ref::from_response_name("Error"));
                [$($status),+].map(|status: u16| (status.to_string(), error())).into()
            }
        }
    )+};
}

error_statuses! {
    /// A route that everybody may read.
    OpenErrors: 500;
    /// A route that needs a key if there are any.
    GuardedErrors: 401 403 500;
    /// A route with a name in its address.
    NamedErrors: 404;
    /// A route with a query.
    QueryErrors: 400 404;
    /// A route that reads a body.
    BodyErrors: 400 404 408 413 415 503;
    /// A route whose requests wait for the engine.
    EngineErrors: 429 504;
    /// A route that adds something with a name.
    ConflictErrors: 409;
    /// A route that stops before the server does.
    DrainErrors: 503;
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            param: None,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A value that is not valid.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).about(param)
    }

    /// A parameter of OpenAI's interface that this server does not support.
    pub(crate) fn unsupported(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("`{param}` is not supported by this server");
        Self::new(StatusCode::BAD_REQUEST, "unsupported_value", message).about(param)
    }

    /// A defect of the server; the details are in the log.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "internal server error; see the server's log",
        )
    }

    /// The request took longer than `--request-timeout`.
    pub(crate) fn timeout(limit: Duration) -> Self {
        let message = format!("the answer took more than {} s", limit.as_secs_f64());
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// The server is shutting down.
    pub(crate) fn draining() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(5)),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "the server is shutting down",
            )
        }
    }

    pub(crate) fn about(self, param: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..self
        }
    }

    /// The query of an address cannot be read.
    #[expect(clippy::needless_pass_by_value, reason = "a function for `map_err`")]
    pub(crate) fn query(rejection: QueryRejection) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_value",
            rejection.body_text(),
        )
    }

    /// The name in an address is not UTF-8.
    pub(crate) fn not_utf8() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "model_not_found",
            "the name in the address is not UTF-8",
        )
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorObject {
                message: self.message.clone(),
                kind: self.kind(),
                param: self.param.clone(),
                code: self.code,
            },
        }
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(refusal: EngineError) -> Self {
        let message = refusal.to_string();
        let bad = |code, param: &str| {
            Self::new(StatusCode::BAD_REQUEST, code, message.clone()).about(param)
        };
        let with_status = |status, code| Self::new(status, code, message.clone());
        match refusal {
            EngineError::QueueFull { retry_after, .. } => Self {
                retry_after: Some(retry_after),
                ..with_status(StatusCode::TOO_MANY_REQUESTS, "queue_full")
            },
            EngineError::PromptTooLong { .. } => bad("context_length_exceeded", "prompt"),
            EngineError::TooManyTokens { .. } => bad("context_length_exceeded", "max_tokens"),
            EngineError::EmptyPrompt | EngineError::UnknownToken { .. } => {
                bad("invalid_value", "prompt")
            }
            EngineError::Value { name, .. } => bad("invalid_value", name),
            EngineError::EmptyStop => bad("invalid_value", "stop"),
            EngineError::GivenCondition { .. } => bad("invalid_value", "chameleon.condition"),
            EngineError::UnknownAdapter { .. } => {
                with_status(StatusCode::NOT_FOUND, "model_not_found").about("model")
            }
            EngineError::AdapterName { .. } => bad("invalid_value", "name"),
            EngineError::NameTaken { .. } => {
                with_status(StatusCode::CONFLICT, "name_taken").about("name")
            }
            EngineError::WrongBase { .. } => {
                with_status(StatusCode::CONFLICT, "wrong_base").about("path")
            }
            EngineError::GroupKey { .. } => bad("invalid_value", "chameleon.group"),
            EngineError::NoExemplarUse { .. } | EngineError::NoGroups { .. } => {
                bad("no_examples", "model")
            }
            EngineError::Exemplars { ref source } if source.is_of_addition() => {
                bad("invalid_value", "examples")
            }
            EngineError::Centroids { source } => Self::new(
                StatusCode::BAD_REQUEST,
                "broken_adapter",
                source.to_string(),
            ),
            EngineError::Draining => Self::draining(),
            refusal => {
                tracing::error!("the engine refused: {refusal}");
                Self::internal()
            }
        }
    }
}

impl From<RequestFailure> for ApiError {
    fn from(failure: RequestFailure) -> Self {
        match failure {
            RequestFailure::Stopped => Self::draining(),
            failure => {
                tracing::error!("a request failed: {failure}");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0);
            let seconds = HeaderValue::from_str(&format!("{seconds:.0}"))
                .expect("digits make a header value");
            headers.insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let refusal = EngineError::QueueFull {
            num_requests: 3,
            num_tokens: 9,
            retry_after: Duration::from_millis(2500),
        };
        let response = ApiError::from(refusal).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    }

    #[test]
    fn errors_have_the_shape_that_clients_read() {
        let error = ApiError::unsupported("logit_bias");
        assert_eq!(
            serde_json::to_value(error.body()).unwrap(),
            serde_json::json!({"error": {
                "message": "`logit_bias` is not supported by this server",
                "type": "invalid_request_error",
                "param": "logit_bias",
                "code": "unsupported_value",
            }})
        );
    }
}
