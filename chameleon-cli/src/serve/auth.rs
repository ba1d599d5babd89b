//! Access: keys are compared in constant time, and web pages of other origins are refused.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use subtle::{Choice, ConstantTimeEq as _};

use super::error::ApiError;

/// Who has access.
#[derive(Clone)]
pub(crate) enum Access {
    /// Clients that send one of these keys.
    Keys(Vec<String>),
    /// Programs on this machine. A `Host` header with another name is refused: it is how a web page reads responses
    /// by DNS rebinding.
    Loopback,
    /// Every client that reaches the address.
    Everybody,
}

impl Access {
    /// Rejects clients without access.
    pub(crate) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
        match self {
            Self::Keys(keys) => check_key(keys, headers),
            Self::Loopback => check_host(headers, uri),
            Self::Everybody => Ok(()),
        }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Keys(_) => "Keys",
            Self::Loopback => "Loopback",
            Self::Everybody => "Everybody",
        })
    }
}

fn check_key(keys: &[String], headers: &HeaderMap) -> Result<(), ApiError> {
    let refused = |message| {
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            message,
        ))
    };
    let Some(header) = headers.get(header::AUTHORIZATION) else {
        return refused("there is no key; send it as `Authorization: Bearer KEY`");
    };
    let given = header.as_bytes();
    let is_bearer = given
        .get(..7)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    // Every key is compared in constant time: the duration does not depend on the keys.
    let given = given.get(7..).unwrap_or_default();
    let is_known = keys.iter().fold(Choice::from(0), |known, key| {
        known | key.as_bytes().ct_eq(given)
    });
    if is_bearer && bool::from(is_known) {
        Ok(())
    } else {
        refused("the key is not valid")
    }
}

fn check_host(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let host = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok().and_then(|host| host.parse().ok()),
        None => uri.authority().cloned(),
    };
    let is_local = host.is_some_and(|host: axum::http::uri::Authority| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    });
    if is_local {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "foreign_host",
        "this server has no key and accepts only `localhost` and IP addresses as `Host`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(access: &Access, name: header::HeaderName, value: &str) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let uri = Uri::from_static("/v1/models");
        access.check(&headers, &uri).err().map(|error| error.status)
    }

    #[test]
    fn only_whole_keys_are_accepted() {
        let access = Access::Keys(vec!["first".to_owned(), "second".to_owned()]);
        let with = |value| asked(&access, header::AUTHORIZATION, value);
        assert_eq!(with("Bearer first"), None);
        assert_eq!(with("bearer second"), None);
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer firs",
            "Bearer first ",
            "Basic first",
            "first",
        ] {
            assert_eq!(with(wrong), Some(StatusCode::UNAUTHORIZED), "{wrong}");
        }
        assert_eq!(
            asked(&access, header::HOST, "localhost"),
            Some(StatusCode::UNAUTHORIZED)
        );
    }

    #[test]
    fn foreign_host_names_are_refused_without_a_key() {
        let with = |value| asked(&Access::Loopback, header::HOST, value);
        for local in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:80"] {
            assert_eq!(with(local), None, "{local}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "",
            "@",
        ] {
            assert_eq!(with(foreign), Some(StatusCode::FORBIDDEN), "{foreign}");
        }
        assert_eq!(asked(&Access::Everybody, header::HOST, "x.example"), None);
    }
}
