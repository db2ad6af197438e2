//! A call of an endpoint of one provider.

use std::sync::Arc;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path};
use http::request::Parts;

use crate::identity::oidc::ProviderClient;
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;
use crate::settings::provider::Provider;

/// A call whose path names a provider. Extracting it rejects other names.
pub(in crate::api) struct ProviderCall {
    pub(super) client: Client,
    pub(super) provider: Arc<ProviderClient>,
    snapshot: Arc<Snapshot>,
}

impl ProviderCall {
    /// The settings of the request.
    pub(super) fn settings(&self) -> &Reloadable {
        &self.snapshot.settings
    }

    /// The settings of the provider.
    pub(super) fn provider_settings(&self) -> &Provider {
        self.provider.settings()
    }
}

impl<S: Sync> FromRequestParts<S> for ProviderCall {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<ProviderCall, Rejection> {
        let snapshot = parts.extensions.get::<Arc<Snapshot>>().cloned();
        let snapshot = snapshot.ok_or(Refusal::Internal)?;
        let client = parts.extensions.get::<Client>().cloned();
        let client = client.ok_or(Refusal::Internal)?;
        let named: Result<Path<String>, _> = parts.extract().await;
        let Path(name) = named.map_err(|_| Refusal::NotFound)?;
        let provider = snapshot.providers.get(&name).ok_or(Refusal::NotFound)?;
        Ok(ProviderCall {
            client,
            provider: Arc::clone(provider),
            snapshot,
        })
    }
}
