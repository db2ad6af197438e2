//! Routes and upstreams in force, and configuration reload.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::super::response;
use super::{AdminState, ReloadOutcome};
use crate::auth::credential::CredentialType;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Rejection;
use crate::routing::{Auth, HostPattern, PathPattern, Requirements, Route};
use crate::settings::Reloadable;

/// `GET /admin/routes`, in configuration order.
pub(super) async fn routes(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    let settings = &snapshot.settings;
    let routes: Vec<Value> = settings
        .routes
        .routes()
        .iter()
        .map(|route| route_view(settings, route))
        .collect();
    response::data(&json!({"routes": routes}))
}

fn route_view(settings: &Reloadable, route: &Route) -> Value {
    let path = |segments: &[String]| format!("/{}", segments.join("/"));
    let (path, prefix) = match &route.matches.path {
        PathPattern::Exact(segments) => (Some(path(segments)), None),
        PathPattern::Prefix(segments) => (None, Some(path(segments))),
    };
    let host = route.matches.host.as_ref().map(|host| match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(name) => format!("*.{name}"),
    });
    let methods: Vec<&str> = route
        .matches
        .methods
        .iter()
        .map(|method| method.as_str())
        .collect();
    let limits = route.limits_before.iter().chain(&route.limits_after);
    let limits: Vec<&str> = limits.map(|limit| &*limit.name).collect();
    json!({
        "name": &*route.name,
        "match": {"host": host, "path": path, "prefix": prefix, "methods": methods},
        "auth": match route.auth {
            Auth::Required => "required",
            Auth::Optional => "optional",
            Auth::None => "none",
        },
        "accept": CredentialType::ALL
            .into_iter()
            .filter(|known| route.accept.includes(*known))
            .map(CredentialType::as_str)
            .collect::<Vec<_>>(),
        "require": describe_requirements(&route.require),
        "limits": limits,
        "upstream": route.upstream.and_then(|index| settings.upstreams.get(index)).map(|upstream| &*upstream.name),
    })
}

fn describe_requirements(require: &Requirements) -> Value {
    let sign_in = require.sign_in.as_deref().cloned().unwrap_or_default();
    json!({
        "roles": require.roles,
        "scopes": require.scopes,
        "providers": sign_in.providers,
        "acr": sign_in.acr,
        "max_auth_age_seconds": sign_in.max_age.map(|age| age.as_secs_f64()),
    })
}

/// `GET /admin/upstreams`: the state of each server.
pub(super) async fn upstreams(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    response::data(&json!({"upstreams": snapshot.upstreams.describe()}))
}

/// `POST /admin/reload`: all or nothing; mistakes are reported as `check` prints them.
pub(super) async fn reload(State(state): State<AdminState>) -> Result<Response, Rejection> {
    match (state.reload)().await {
        ReloadOutcome::Applied => Ok(response::data(&json!({"outcome": "applied"}))),
        // FILE:LINE:COLUMN is the field, the remainder the problem.
        ReloadOutcome::Rejected(mistakes) => Err(Rejection::invalid_fields(
            mistakes
                .into_iter()
                .map(|mistake| match mistake.split_once(": ") {
                    Some((place, problem)) => (place.to_owned(), problem.to_owned()),
                    None => ("config".to_owned(), mistake),
                })
                .collect(),
        )),
        ReloadOutcome::RestartRequired(keys) => Err(Rejection::invalid_fields(
            keys.into_iter()
                .map(|key| (key, "restart_required".to_owned()))
                .collect(),
        )),
    }
}
