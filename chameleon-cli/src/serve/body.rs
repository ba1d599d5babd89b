//! Bodies of requests: of bounded size and time, and JSON of the declared shape.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use serde::de::DeserializeOwned;

use super::{
    error::ApiError,
    strict::{Object, whole_numbers},
    unsupported,
};

/// From the end of the head to the end of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the body of a request.
pub(crate) async fn read<T: DeserializeOwned>(
    request: Request<Body>,
    max_bytes: usize,
) -> Result<T, ApiError> {
    check_kind(request.headers())?;
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body has more than {max_bytes} bytes"),
        )
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), max_bytes)).await;
    let Ok(read) = read else {
        let message = format!(
            "the body did not arrive within {} s",
            BODY_TIMEOUT.as_secs()
        );
        return Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            message,
        ));
    };
    // Either the body is too large, or the client has disconnected and this response is not read.
    let bytes = read.map_err(|_| too_large())?;
    parse(&bytes)
}

/// JSON only: a browser sends JSON to another origin only after a preflight request, which this server never grants.
fn check_kind(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "send the body as `Content-Type: application/json`",
    ))
}

/// Parses a request; the error names the parameter that is wrong.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut value = serde_json::from_slice(bytes).map_err(|error| refused(&error, None))?;
    whole_numbers(&mut value);
    let Object(request) = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let param = (path != "." && !path.contains('?')).then_some(path);
        refused(error.inner(), param)
    })?;
    Ok(request)
}

fn refused(error: &serde_json::Error, param: Option<String>) -> ApiError {
    if let Some(param) = &param
        && error.to_string() == unsupported::MESSAGE
    {
        return ApiError::unsupported(param);
    }
    let code = if error.is_data() {
        "invalid_value"
    } else {
        "invalid_json"
    };
    let message = match &param {
        Some(param) => format!("`{param}`: {error}"),
        None => format!("the body is not valid: {error}"),
    };
    let refused = ApiError::new(StatusCode::BAD_REQUEST, code, message);
    match param {
        Some(param) => refused.about(param),
        None => refused,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "inner")]
        _inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "count")]
        _count: u32,
    }

    fn error(text: &str) -> ApiError {
        parse::<Outer>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = error(r#"{"inner": [{"count": 1}, {"count": "x"}]}"#);
        assert_eq!(wrong.param.as_deref(), Some("inner[1].count"));
        assert_eq!(wrong.code, "invalid_value");
        let unknown = error(r#"{"inner": [], "other": 1}"#);
        assert_eq!(unknown.param.as_deref(), Some("other"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "{} x", "\u{feff}{}", &"[".repeat(100_000)] {
            assert_eq!(error(text).status, StatusCode::BAD_REQUEST);
        }
        assert!(parse::<Outer>(b"\xff").is_err());
        assert!(parse::<Outer>(br#"{"inner": [{"count": 1.0}]}"#).is_ok());
        assert!(parse::<Outer>(b"[[]]").is_err());
    }
}
