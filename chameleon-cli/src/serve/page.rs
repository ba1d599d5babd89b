//! The page at `/`: its files are embedded in the program, so that it needs neither a folder nor a network.
//!
//! The page needs no key, because it contains no data; everything it shows it requests under `/v1`, with a key where
//! one is needed.

use std::hash::{DefaultHasher, Hasher as _};

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

/// The files by their routes.
const FILES: &[PageFile] = &[
    PageFile::new(
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    PageFile::new("/style.css", STYLE, include_str!("page/style.css")),
    PageFile::new("/page.js", SCRIPT, include_str!("page/page.js")),
    PageFile::new("/chat.js", SCRIPT, include_str!("page/chat.js")),
    PageFile::new("/groups.js", SCRIPT, include_str!("page/groups.js")),
    PageFile::new("/api.js", SCRIPT, include_str!("page/api.js")),
    PageFile::new("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page loads these files and talks to this server only; text cannot become markup or script, and other pages
/// cannot frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
#[derive(Debug)]
struct PageFile {
    route: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// The routes of the page.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        let answer = move |headers: HeaderMap| async move { file.answer(&headers) };
        router.route(file.route, get(answer))
    })
}

impl PageFile {
    const fn new(route: &'static str, kind: &'static str, text: &'static str) -> Self {
        Self { route, kind, text }
    }

    /// The file, or status 304 if the browser has it. Browsers revalidate each time: a new program has a new page.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let tag = entity_tag(self.text);
        let known = asked.get_all(header::IF_NONE_MATCH).iter();
        let is_known = known
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().trim_start_matches("W/") == tag);
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.text.into_response()
        };
        let tag = HeaderValue::from_str(&tag).expect("digits and quotes make a header value");
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag);
        let fixed: [(HeaderName, &'static str); 4] = [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Differs between builds whose files differ.
fn entity_tag(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(route: &str) -> &'static PageFile {
        FILES.iter().find(|file| file.route == route).unwrap()
    }

    #[test]
    fn what_a_file_names_is_served() {
        for file in FILES {
            let quoted = file.text.split('"').skip(1).step_by(2);
            let named = quoted.filter_map(|text| {
                let path = text.strip_prefix("./").unwrap_or(text);
                let is_file = [".js", ".css", ".svg"]
                    .iter()
                    .any(|end| path.ends_with(end));
                is_file.then(|| format!("/{path}"))
            });
            for route in named {
                assert!(
                    FILES.iter().any(|file| file.route == route),
                    "{} in {}",
                    route,
                    file.route
                );
            }
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
        for file in FILES {
            let text = file.text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=\"",
                " onclick",
                "<style",
            ] {
                assert!(!text.contains(forbidden), "{forbidden} in {}", file.route);
            }
        }
    }

    #[test]
    fn a_cached_file_is_not_sent_again() {
        let first = file("/page.js").answer(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], SCRIPT);
        let mut asked = HeaderMap::new();
        asked.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let second = file("/page.js").answer(&asked);
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(second.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        let other = file("/chat.js").answer(&asked);
        assert_eq!(other.status(), StatusCode::OK);
    }
}
