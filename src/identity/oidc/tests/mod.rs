//! Clients of providers against servers that lie.

#![expect(clippy::unwrap_used, reason = "tests")]

mod calls;
mod discovery;
mod lying_server;
mod requests;
mod verification;

use std::sync::Arc;

use super::fixtures::{oauth2_provider, provider};
use super::*;
use crate::settings::provider::Provider;
use crate::telemetry::metrics::{Metrics, ProviderEndpoint, ProviderOutcome};
use lying_server::{LyingServer, Reply};

/// Providers of a gateway, and its metrics.
struct Gateway {
    providers: Providers,
    metrics: Arc<Metrics>,
}

impl Gateway {
    fn with(settings: Provider) -> Gateway {
        // Fails if another test of this process has installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let metrics = Arc::new(Metrics::new().unwrap());
        let providers = Providers::start(&[Arc::new(settings)], None, &metrics);
        Gateway { providers, metrics }
    }

    /// A gateway with an OpenID provider at this server.
    fn of(server: &LyingServer) -> Gateway {
        Gateway::with(provider(&server.base()))
    }

    fn client(&self) -> &Arc<ProviderClient> {
        self.providers.get("corp").unwrap()
    }

    fn requests(&self, endpoint: ProviderEndpoint, outcome: ProviderOutcome) -> u64 {
        let labels = ["corp", endpoint.as_str(), outcome.as_str()];
        self.metrics
            .provider_requests
            .with_label_values(&labels)
            .get()
    }

    fn up(&self) -> i64 {
        self.metrics.provider_up.with_label_values(&["corp"]).get()
    }
}

/// An authorization request with fixed values.
fn authorization_request() -> AuthorizationRequest<'static> {
    AuthorizationRequest {
        redirect_uri: "https://app.example/api/v1/auth/callback/corp",
        state: "the-state",
        nonce: "the-nonce",
        code_challenge: "the-challenge",
        prompt: None,
        login_hint: None,
        acr_values: None,
        max_age: None,
    }
}
