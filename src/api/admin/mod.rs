//! The admin listener: health, readiness and metrics for machines, and `/admin/*` under the admin
//! token for operators. Never on a public listener.

mod api_keys;
mod events;
mod guard;
mod health;
mod identities;
mod limits;
mod listener;
mod listings;
mod named_user;
mod revocation;
mod sessions;
mod tokens;
mod users;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{delete, get, post};
pub use health::{Readiness, readiness};
pub use listener::{LocalEndpoints, serve};

use super::CountOpenStreams;
use super::response::no_store;
use crate::events::Events;
use crate::identity::Accounts;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::sessions::Sessions;
use crate::settings::SessionsOnOutage;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// State of the admin endpoints; the gateway builds it.
#[derive(Clone)]
pub struct AdminState {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub accounts: Accounts,
    pub sessions: Sessions,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    pub count_open_streams: CountOpenStreams,
    pub readiness: Readiness,
    pub sessions_on_outage: SessionsOnOutage,
    /// The machine's host name, in lower case: a host name that the listener accepts.
    pub host_name: Option<String>,
    /// Reloads the configuration.
    pub reload: Arc<ReloadFn>,
}

/// Starts a reload and resolves when it has been applied or rejected.
pub type ReloadFn = dyn Fn() -> Pin<Box<dyn Future<Output = ReloadOutcome> + Send>> + Send + Sync;

/// Outcome of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadOutcome {
    Applied,
    /// The mistakes, as `check` prints them.
    Rejected(Vec<String>),
    /// Changed keys that require a restart.
    RestartRequired(Vec<String>),
}

/// All endpoints of the admin listener. Rejections leave as response extensions, for the one writer
/// of local responses.
pub(in crate::api) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .merge(operator_routes(&state))
        .fallback(|| async { Rejection::from(Refusal::NotFound) })
        .method_not_allowed_fallback(|| async { Rejection::from(Refusal::MethodNotAllowed) })
        .layer(from_fn_with_state(state.clone(), guard::require_same_site))
        .layer(from_fn_with_state(state.clone(), attach_snapshot))
        .layer(map_response(no_store))
        .with_state(state)
}

/// Attaches one configuration snapshot to the request, for all handlers that serve it.
async fn attach_snapshot(
    State(state): State<AdminState>,
    mut request: Request,
    next: Next,
) -> Response {
    let snapshot = state.snapshot.load_full();
    request.extensions_mut().insert(snapshot);
    next.run(request).await
}

fn operator_routes(state: &AdminState) -> Router<AdminState> {
    Router::new()
        .route("/admin/sessions", get(sessions::list))
        .route(
            "/admin/sessions/{id}",
            get(sessions::show).delete(sessions::end),
        )
        .route("/admin/users", get(users::list).post(users::create))
        .route(
            "/admin/users/{id}",
            get(users::show).patch(users::change).delete(users::remove),
        )
        .route(
            "/admin/users/{id}/identities",
            get(identities::list)
                .post(identities::link)
                .delete(identities::unlink_named),
        )
        .route(
            "/admin/users/{id}/identities/{identity}",
            delete(identities::unlink),
        )
        .route(
            "/admin/users/{id}/sessions",
            delete(sessions::end_all).post(sessions::open),
        )
        .route(
            "/admin/api-keys",
            get(api_keys::list).post(api_keys::create),
        )
        .route(
            "/admin/api-keys/{id}",
            get(api_keys::show)
                .patch(api_keys::change)
                .delete(api_keys::revoke),
        )
        .route("/admin/api-keys/{id}/rotate", post(api_keys::rotate))
        .route("/admin/routes", get(listings::routes))
        .route("/admin/upstreams", get(listings::upstreams))
        .route("/admin/limits", get(limits::list))
        .route(
            "/admin/limits/{name}/{*key}",
            get(limits::peek).delete(limits::reset),
        )
        .route("/admin/blacklist", post(tokens::blacklist))
        .route("/admin/blacklist/{jti}", delete(tokens::unblacklist))
        .route("/admin/events", get(events::events))
        .route("/admin/reload", post(listings::reload))
        // Without the token, callers cannot learn which paths exist.
        .route(
            "/admin",
            get(|| async { Rejection::from(Refusal::NotFound) }),
        )
        .route(
            "/admin/{*rest}",
            axum::routing::any(|| async { Rejection::from(Refusal::NotFound) }),
        )
        .method_not_allowed_fallback(|| async { Rejection::from(Refusal::MethodNotAllowed) })
        .route_layer(from_fn_with_state(state.clone(), guard::require_operator))
}
