//! The front desk: the gateway's own endpoints, below `api.prefix`. The wire has read the path,
//! bounded the body and authenticated the caller; a refusal leaves here as an empty answer with a
//! [`Refused`] beside it, for the one writer of errors.

pub mod admin;
mod answer;
mod auth;
mod backend;
mod body;
mod cors;
mod origin;
mod page;
mod query;
mod sessions;
mod view;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::Method;

use crate::accounts::Accounts;
use crate::admission::Identity;
use crate::events::Events;
use crate::refusal::Refusal;
use crate::routing::Path;
use crate::session::SessionId;
use crate::settings::{Api, Live};
use crate::store::Store;
use crate::token::Claims;

pub use answer::{Noted, Refused};
pub use origin::same_origin;

/// Counts the open WebSockets, streams and other long answers that a session has on this gateway.
pub type LiveOf = Arc<dyn Fn(SessionId) -> u64 + Send + Sync>;

/// What the endpoints work with; the gateway builds it.
#[derive(Clone)]
pub struct Desk {
    pub live: Arc<ArcSwap<Live>>,
    pub accounts: Accounts,
    pub store: Store,
    pub events: Events,
    pub live_of: LiveOf,
}

/// Who calls, as admission found: a request extension on the endpoints of [`needs_caller`].
#[derive(Debug, Clone)]
pub struct Caller(pub Result<Option<Identity>, Refusal>);

/// What a genuine but expired access token said: a request extension beside a [`Caller`] that is
/// `TOKEN_EXPIRED`.
#[derive(Debug, Clone)]
pub struct ExpiredClaims(pub Claims);

/// The request's id: a request extension.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Tells whether a path below the prefix (it begins with a slash) is an endpoint. Any other is
/// routed as usual.
pub fn serves(path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["auth", story] => matches!(
            *story,
            "register" | "signup" | "login" | "signin" | "refresh" | "logout" | "signout"
        ),
        ["sign-in" | "sign-out"] => true,
        ["sessions"] | ["health"] | ["jwks.json"] => true,
        ["sessions", id] => !id.is_empty(),
        _ => false,
    }
}

/// The path below the prefix, if it is one of the gateway's own endpoints.
pub fn below_prefix(path: &Path<'_>, api: &Api) -> Option<String> {
    let mut segments = path.segments();
    for expected in api.prefix.split('/').skip(1) {
        if *segments.next()? != *expected.as_bytes() {
            return None;
        }
    }
    let mut below = String::new();
    for segment in segments {
        below.push('/');
        below.push_str(std::str::from_utf8(segment).ok()?);
    }
    let ours = serves(&below)
        && (api.users || !is_about_users(&below))
        && (api.pages || !page::is_page(&below));
    ours.then_some(below)
}

/// Whether an endpoint is about the users that the gateway keeps. Where a backend keeps them, it
/// has endpoints of its own there.
fn is_about_users(path: &str) -> bool {
    matches!(path, "/auth/register" | "/auth/signup" | "/profile") || path.starts_with("/profile/")
}

/// Tells whether the wire has to authenticate the caller of an endpoint.
pub fn needs_caller(method: &Method, path: &str) -> bool {
    if *method == Method::POST {
        return matches!(path, "/auth/logout" | "/auth/signout" | page::SIGN_OUT);
    }
    let reads_or_ends = matches!(*method, Method::GET | Method::HEAD | Method::DELETE);
    let looks_at_page = matches!(*method, Method::GET | Method::HEAD) && page::is_page(path);
    looks_at_page || reads_or_ends && (path == "/sessions" || path.starts_with("/sessions/"))
}

/// The public endpoints. Requests come with the prefix taken off, and with the extensions
/// [`crate::admission::Client`], [`RequestId`] and, where it is needed, [`Caller`].
pub fn router(desk: Desk) -> Router {
    let sign_in = || post(auth::sign_in);
    let sign_out = || post(auth::sign_out);
    Router::new()
        .route("/auth/register", post(auth::register))
        .route("/auth/signup", post(auth::register))
        .route("/auth/login", sign_in())
        .route("/auth/signin", sign_in())
        .route("/auth/refresh", post(auth::refresh))
        .route("/auth/logout", sign_out())
        .route("/auth/signout", sign_out())
        .route(
            "/sessions",
            get(sessions::list).delete(sessions::end_others),
        )
        .route("/sessions/{id}", get(sessions::show).delete(sessions::end))
        .merge(page::routes())
        .route("/health", get(health))
        .route("/jwks.json", get(jwks))
        .fallback(|| async { Refused::from(Refusal::NotFound) })
        .method_not_allowed_fallback(|| async { Refused::from(Refusal::MethodNotAllowed) })
        .layer(axum::middleware::from_fn_with_state(
            desk.clone(),
            cors::share,
        ))
        .layer(axum::middleware::map_response(answer::no_store))
        .with_state(desk)
}

async fn health() -> Response {
    answer::data(&serde_json::json!({"status": "OK"}))
}

/// The one endpoint whose answer is not wrapped: RFC 7517 says what a key set looks like.
async fn jwks(State(desk): State<Desk>) -> Response {
    answer::json(http::StatusCode::OK, &desk.live.load().tokens.jwks())
}

#[cfg(test)]
mod tests;
