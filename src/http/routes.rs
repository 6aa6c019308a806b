//! Which address answers what. Every error is JSON: `{"error": …}` with what to do where there is something.

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::queries::NoAnswer;
use super::{Shared, live, reload};
use crate::metrics;
use crate::time::Tick;

/// A body that comes with a request, though nothing here reads any.
const BODY_BYTES_MOST: u64 = 16 * 1024;
/// Of a customer id.
const ID_BYTES_MOST: usize = 256;

/// Every address, as errors and documents name them.
pub const PATHS: [&str; 7] = ["/", "/live", "/kpis", "/metrics", "/healthz", "/readyz", "/customers/{id}"];

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/live", get(events))
        .route("/kpis", get(kpis))
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/customers/{id}", get(customer))
        .route(reload::PATH, post(reload::reload))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn(guard))
        .with_state(shared)
}

/// The live page: markup, style and script in one file, so that it needs nothing but this program.
const PAGE: &str = include_str!("page.html");
/// The page may run its own script, talk to this server, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn page() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE)).into_response()
}

async fn events(State(shared): State<Arc<Shared>>) -> Response {
    match live::subscribe(&shared.live) {
        Ok(events) => events.into_response(),
        Err(live::Refused) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "as many watch already as may; close another page, or read /metrics",
        ),
    }
}

async fn kpis(State(shared): State<Arc<Shared>>) -> Response {
    match serde_json::to_string(&shared.metrics.kpis()) {
        Ok(json) => json_text(StatusCode::OK, json),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the key figures could not be written"),
    }
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.render()).into_response()
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    let failures = shared.health.failures(Tick::now());
    if failures.is_empty() {
        json_text(StatusCode::OK, json!({"status": "ok"}).to_string())
    } else {
        json_text(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "failing", "reasons": failures}).to_string(),
        )
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let missing = shared.health.missing();
    if missing.is_empty() {
        json_text(StatusCode::OK, json!({"status": "ready"}).to_string())
    } else {
        json_text(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "not ready", "missing": missing}).to_string(),
        )
    }
}

async fn customer(State(shared): State<Arc<Shared>>, id: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(id)) = id else {
        return error(
            StatusCode::BAD_REQUEST,
            "the customer id is not UTF-8 once its percent signs are decoded",
        );
    };
    if id.is_empty() || id.len() > ID_BYTES_MOST {
        let what = format!("a customer id has 1 to {ID_BYTES_MOST} bytes; this one has {}", id.len());
        return error(StatusCode::BAD_REQUEST, &what);
    }
    match shared.queries.ask(&id).await {
        Ok(Some(json)) => json_text(StatusCode::OK, json),
        Ok(None) if shared.health.missing().is_empty() => {
            error(StatusCode::NOT_FOUND, "no such customer in the partitions of this instance")
        }
        Ok(None) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "not known yet: not all partitions are assigned and restored; /readyz says what is missing",
        ),
        Err(NoAnswer::Late) => {
            error(StatusCode::GATEWAY_TIMEOUT, "the workers did not answer in time; ask again in a moment")
        }
        Err(NoAnswer::Unavailable) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "a worker takes no questions just now; ask again in a moment, and see /healthz",
        ),
    }
}

async fn unknown(uri: Uri) -> Response {
    let what = format!("nothing is at {}; there are {}", uri.path(), PATHS.join(", "));
    error(StatusCode::NOT_FOUND, &what)
}

async fn not_allowed(uri: Uri) -> Response {
    let what = match uri.path() == reload::PATH {
        true => "a reload is asked for with POST",
        false => "everything here but /-/reload is read with GET",
    };
    error(StatusCode::METHOD_NOT_ALLOWED, what)
}

/// Turns away large bodies, and keeps answers, which may be about people, out of caches.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if request.body().size_hint().lower() > BODY_BYTES_MOST {
        error(StatusCode::PAYLOAD_TOO_LARGE, "requests need no body")
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn error(status: StatusCode, what: &str) -> Response {
    json_text(status, json!({ "error": what }).to_string())
}

pub(super) fn json_text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
