//! `GET auth/providers`.

use std::sync::Arc;

use axum::extract::Extension;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::response;
use super::super::view::Success;
use super::start_path;
use crate::pipeline::snapshot::Snapshot;

/// A provider at which users sign in.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct ProviderView {
    name: String,
    /// For people.
    title: String,
    /// The path that starts a sign-in; `return_to` may be added.
    start: String,
}

/// List the providers
///
/// For an application's own sign-in page, in the order of the configuration.
#[utoipa::path(
    get,
    path = "/auth/providers",
    tag = "auth",
    responses((status = 200, description = "The providers", body = Success<Vec<ProviderView>>)),
)]
pub(in crate::api) async fn list(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    let settings = &snapshot.settings;
    let providers = settings.identity.providers.iter();
    let providers: Vec<ProviderView> = providers
        .map(|provider| ProviderView {
            name: provider.name.to_string(),
            title: provider.title.clone(),
            start: start_path(settings, &provider.name),
        })
        .collect();
    response::data(&providers)
}
