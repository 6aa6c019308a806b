//! `POST /-/reload`: reads the model again, for whoever has the token. Off where none is configured.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Shared;
use super::routes::{error, json_text};
use crate::reload::{Models, Reloaded};

/// Where it is asked for.
pub const PATH: &str = "/-/reload";

/// What a reload over HTTP needs.
#[derive(Debug)]
pub struct Reloading {
    token: Token,
    models: Arc<Models>,
}

impl Reloading {
    pub fn new(token: &str, models: Arc<Models>) -> Reloading {
        Reloading { token: Token::new(token), models }
    }
}

/// The hash of a token. The token itself is not kept.
#[derive(Clone, Copy)]
struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    fn new(token: &str) -> Token {
        Token(Sha256::digest(token.as_bytes()).into())
    }

    /// In a time that depends on neither: hashes are of one length, and every byte is looked at.
    fn is(&self, given: &str) -> bool {
        let differing = self.0.iter().zip(Token::new(given).0).fold(0, |bits, (a, b)| bits | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub async fn reload(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(reloading) = &shared.reloading else {
        return error(
            StatusCode::FORBIDDEN,
            "reloading over HTTP is off; set http.token or http.token_file, or send the process a SIGHUP",
        );
    };
    if !bearer(&headers).is_some_and(|given| reloading.token.is(given)) {
        let what =
            "say who you are with the header `Authorization: Bearer TOKEN`, with the token of http.token";
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        return (challenge, error(StatusCode::UNAUTHORIZED, what)).into_response();
    }
    let models = Arc::clone(&reloading.models);
    match tokio::task::spawn_blocking(move || (models.reload(), models.plan())).await {
        Ok((reloaded, plan)) => {
            let model = json!({ "name": plan.model_name, "version": plan.model_version });
            answer(reloaded, model)
        }
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the reload came to no end; the log says why"),
    }
}

/// `model` is the one in use afterwards.
fn answer(reloaded: Reloaded, model: serde_json::Value) -> Response {
    let (status, body) = match reloaded {
        Reloaded::Ok => (StatusCode::OK, json!({ "result": "ok", "model": model })),
        Reloaded::Unchanged => (StatusCode::OK, json!({ "result": "unchanged", "model": model })),
        Reloaded::Refused(why) => {
            let body = json!({ "result": "refused", "error": why.to_string(), "model": model });
            (StatusCode::UNPROCESSABLE_ENTITY, body)
        }
    };
    json_text(status, body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_all_others_and_never_shown() {
        let token = Token::new("sesame");
        assert!(token.is("sesame"));
        for other in ["", "sesam", "sesame ", "Sesame", "sesamesesame"] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn only_a_bearer_token_counts() {
        let of = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer x"), Some("x".into()));
        assert_eq!(of("bearer  x"), Some("x".into()));
        assert_eq!((of("Basic x"), of("x"), of("")), (None, None, None));
    }
}
