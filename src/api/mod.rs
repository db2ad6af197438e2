//! The gateway's own endpoints, below `api.prefix`. The proxy has parsed the path, limited the body
//! and authenticated the caller; a [`Rejection`] leaves as an extension of an empty response, for the
//! one writer of local responses.

pub mod admin;
mod api_keys;
mod auth;
mod avatar;
mod backend;
mod body;
mod caller;
mod cors;
mod identities;
mod introspection;
mod oidc;
mod openapi;
mod page;
mod presented_session;
mod profile;
mod query;
mod response;
mod return_to;
mod session_changes;
mod sessions;
mod sign_in;
mod sign_out;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Collected};
pub use response::ResponseInfo;
use serde::Serialize;
use tower::ServiceExt;
use utoipa::ToSchema;
use utoipa::openapi::Paths;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;
use view::Success;

use crate::auth::session::SessionId;
use crate::events::Events;
use crate::identity::Accounts;
use crate::pipeline::admission::Identity;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::sessions::Sessions;
use crate::store::Store;
use crate::telemetry::request_id::RequestId;

/// Counts a session's open streams on this gateway, including WebSockets and long responses.
pub type CountOpenStreams = Arc<dyn Fn(SessionId) -> u64 + Send + Sync>;

/// State of the endpoints; the gateway builds it.
#[derive(Clone)]
pub struct ApiState {
    pub accounts: Accounts,
    pub sessions: Sessions,
    pub store: Store,
    pub events: Events,
    pub count_open_streams: CountOpenStreams,
}

/// The caller as admission authenticated it: a request extension of endpoints that use
/// credentials.
#[derive(Debug, Clone)]
pub struct Caller(pub Result<Option<Identity>, Rejection>);

/// Verifies a token that a backend has received, as [`Admission::introspect`](crate::pipeline::admission::Admission::introspect)
/// does: a request extension of the endpoint `introspect`.
#[derive(Clone)]
pub struct IntrospectToken(pub Arc<IntrospectTokenFn>);

pub type IntrospectTokenFn =
    dyn Fn(String) -> BoxFuture<'static, Result<Option<Identity>, Rejection>> + Send + Sync;

/// The public endpoints, as a function from a request to its response.
#[derive(Clone)]
pub struct PublicApi(Router);

/// The outcome of a call.
pub enum ApiResponse {
    /// A rejection, with the headers that its response needs.
    Rejected(Rejection, HeaderMap),
    Complete {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        info: ResponseInfo,
    },
}

impl PublicApi {
    pub fn new(state: ApiState) -> PublicApi {
        PublicApi(router(state))
    }

    /// Serves a call. Requests arrive without the prefix, and with the extensions
    /// [`Client`](crate::pipeline::facts::Client), [`RequestId`] and, where needed, [`Caller`].
    pub async fn call(&self, request: http::Request<Bytes>) -> ApiResponse {
        // The router never fails.
        let response = match self.0.clone().oneshot(request.map(Body::from)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (mut head, body) = response.into_parts();
        if let Some(rejection) = head.extensions.remove::<Rejection>() {
            return ApiResponse::Rejected(rejection, head.headers);
        }
        let Ok(body) = body.collect().await.map(Collected::to_bytes) else {
            return ApiResponse::Rejected(Refusal::Internal.into(), HeaderMap::new());
        };
        ApiResponse::Complete {
            status: head.status,
            info: head.extensions.remove::<ResponseInfo>().unwrap_or_default(),
            headers: head.headers,
            body,
        }
    }
}

fn router(state: ApiState) -> Router {
    routes()
        .split_for_parts()
        .0
        .merge(page::routes())
        .fallback(|| async { Rejection::from(Refusal::NotFound) })
        .method_not_allowed_fallback(|| async { Rejection::from(Refusal::MethodNotAllowed) })
        .layer(axum::middleware::from_fn_with_state(
            state.clone(),
            cors::handle_cors,
        ))
        .layer(axum::middleware::map_response(response::no_store))
        .with_state(state)
}

/// The endpoints and their OpenAPI descriptions.
fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(auth::register))
        .routes(alias("/auth/signup", routes!(auth::register)))
        .routes(routes!(auth::sign_in))
        .routes(alias("/auth/signin", routes!(auth::sign_in)))
        .routes(routes!(auth::refresh))
        .routes(routes!(sign_out::sign_out))
        .routes(alias("/auth/signout", routes!(sign_out::sign_out)))
        .routes(routes!(sign_out::sign_out_everywhere))
        .routes(routes!(oidc::providers::list))
        .routes(routes!(oidc::start::start))
        .routes(routes!(oidc::jwks::keys))
        .routes(routes!(oidc::callback::finish))
        .routes(routes!(oidc::link::link))
        .routes(routes!(oidc::backchannel_logout::log_out))
        .routes(routes!(sessions::list, sessions::end_others))
        .routes(routes!(
            sessions::show_current,
            sessions::end_current,
            session_changes::change
        ))
        .routes(routes!(session_changes::extend))
        .routes(routes!(sessions::show, sessions::end))
        .routes(routes!(profile::show, profile::change))
        .routes(routes!(profile::change_password))
        .routes(routes!(avatar::show, avatar::put, avatar::remove))
        .routes(routes!(identities::list))
        .routes(routes!(identities::unlink))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::show, api_keys::change, api_keys::revoke))
        .routes(routes!(api_keys::rotate))
        .routes(routes!(introspection::introspect))
        .routes(routes!(health))
        .routes(routes!(openapi::show))
        .routes(routes!(jwks))
}

/// The same endpoint under another path.
fn alias(
    path: &str,
    (schemas, paths, methods): UtoipaMethodRouter<ApiState>,
) -> UtoipaMethodRouter<ApiState> {
    let mut renamed = Paths::new();
    for item in paths.paths.into_values() {
        renamed.paths.insert(path.to_owned(), item);
    }
    (schemas, renamed, methods)
}

/// Get the gateway's health
#[utoipa::path(
    get,
    path = "/health",
    tag = "gateway",
    responses((status = 200, description = "The gateway is up", body = Success<Health>)),
)]
async fn health() -> Response {
    response::data(&Health { status: "OK" })
}

/// Health of the gateway.
#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// Get the public keys
///
/// The keys that verify access tokens: a JSON Web Key Set (RFC 7517) without envelope.
#[utoipa::path(
    get,
    path = "/jwks.json",
    tag = "gateway",
    responses((status = 200, description = "The public keys", body = Object)),
)]
async fn jwks(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    response::json(StatusCode::OK, &snapshot.settings.tokens.jwks())
}

#[cfg(test)]
mod tests;
