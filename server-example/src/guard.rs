//! What every request passes before its body is read: an id, the key, where it comes from, how long it
//! says it is. The body itself may only take so long.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::{Instrument, info, info_span};

use crate::error::ApiError;
use crate::{App, slow};

/// Paths that need no key: what a supervisor asks.
const OPEN: [&str; 2] = ["/health", "/ready"];

/// Pages that may be linked to.
const PAGES: [&str; 2] = ["/", "/docs"];

/// The hash of the key, so that comparing takes the same time whatever is sent.
pub(crate) struct Key([u8; 32]);

impl Key {
    /// Of the configured key.
    pub(crate) fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether a request knows the key: as the password of HTTP Basic, whoever the user is, as a bearer
    /// token, or in `X-API-KEY`.
    pub(crate) fn fits(&self, headers: &HeaderMap) -> bool {
        let own = headers.get("x-api-key").is_some_and(|key| self.is(key.as_bytes()));
        own || self.is_in_authorization(headers)
    }

    fn is(&self, given: &[u8]) -> bool {
        Sha256::digest(given).as_slice().ct_eq(&self.0).into()
    }

    fn is_in_authorization(&self, headers: &HeaderMap) -> bool {
        let Some((scheme, secret)) = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.trim().split_once(' '))
        else {
            return false;
        };
        let given = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(secret.trim().as_bytes().to_vec()),
            "basic" => STANDARD.decode(secret.trim()).ok().and_then(|pair| {
                let colon = pair.iter().position(|byte| *byte == b':')?;
                Some(pair[colon + 1..].to_vec())
            }),
            _ => None,
        };
        given.is_some_and(|given| self.is(&given))
    }
}

/// The middleware.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    // The pattern and not the path: as many series as there are routes, and no ids in them.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unknown".to_owned());
    let span = info_span!("request", %id, %method, %route);
    let mut response = match refusal(&app, &request) {
        Some(error) => error.into_response(),
        None => {
            let (request, given_up) = slow::bounded(request, app.config.bounds.body_pause);
            let response = next.run(request).instrument(span.clone()).await;
            match given_up.get() {
                true => ApiError::too_slow().into_response(),
                false => response,
            }
        }
    };
    let status = response.status();
    let seconds = start.elapsed().as_secs_f64();
    span.in_scope(|| info!(status = status.as_u16(), seconds, "answered"));
    let labels =
        [("route", route), ("method", method.to_string()), ("status", status.as_str().to_owned())];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_seconds", &labels[..1]).record(seconds);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    }
    response
}

/// Why a request is refused whose body nobody has looked at.
fn refusal(app: &App, request: &Request) -> Option<ApiError> {
    let headers = request.headers();
    if OPEN.contains(&request.uri().path())
        && matches!(*request.method(), Method::GET | Method::HEAD)
    {
        return None;
    }
    if let Some(key) = &app.key
        && !key.fits(headers)
    {
        metrics::counter!("auth_failures_total").increment(1);
        return Some(ApiError::unauthorized());
    }
    if comes_from_elsewhere(request) {
        return Some(ApiError::forbidden("requests from other sites' pages are not answered"));
    }
    if app.key.is_none() && app.config.is_local() && !names_this_machine(headers) {
        // A stranger's name that leads here (DNS rebinding); with a key it would not get far.
        return Some(ApiError::forbidden("without a key, only requests to localhost are answered"));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let limit = app.config.bounds.body;
    length.filter(|length: &u64| *length > limit as u64).map(|_| ApiError::too_large(limit))
}

/// Whether a page of another site sends this, open in the browser of someone who may use this server.
/// Only following a link to one of the pages is harmless.
fn comes_from_elsewhere(request: &Request) -> bool {
    let site = request.headers().get("sec-fetch-site").map(|site| site.as_bytes());
    let is_page = *request.method() == Method::GET && PAGES.contains(&request.uri().path());
    !matches!(site, None | Some(b"same-origin" | b"none")) && !is_page
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The client's own id if it is harmless in logs, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    given.filter(plain).map_or_else(crate::ids::new_id, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_key_is_a_password_or_a_token() {
        let key = Key::new("secret:key");
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (value, fits) in [
            (basic("user:secret:key"), true),
            (basic(":secret:key"), true),
            ("Bearer secret:key".to_owned(), true),
            ("bearer  secret:key ".to_owned(), true),
            (basic("secret:key"), false),
            (basic("user"), false),
            ("Bearer secret".to_owned(), false),
            ("Bearer".to_owned(), false),
            ("Digest secret:key".to_owned(), false),
            ("Basic %%%".to_owned(), false),
        ] {
            assert_eq!(key.fits(&headers(header::AUTHORIZATION, &value)), fits, "{value}");
        }
        assert!(!key.fits(&HeaderMap::new()));
        let own = header::HeaderName::from_static("x-api-key");
        assert!(key.fits(&headers(own.clone(), "secret:key")));
        assert!(!key.fits(&headers(own, "secret")));
    }

    #[test]
    fn only_names_of_this_machine_are_its_names() {
        for (host, is_local) in [
            ("localhost:8000", true),
            ("127.0.0.1", true),
            ("[::1]:8000", true),
            ("evil.example:8000", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:8000", false),
        ] {
            assert_eq!(names_this_machine(&headers(header::HOST, host)), is_local, "{host}");
        }
    }

    #[test]
    fn ids_that_could_forge_a_log_line_are_replaced() {
        let id = |value: &str| request_id(&headers("x-request-id".parse().unwrap(), value));
        assert_eq!(id("abc-1.2_3"), "abc-1.2_3");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id(&"a".repeat(65)), "a".repeat(65));
    }
}
