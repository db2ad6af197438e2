//! The providers of a configuration, and the client of each.

use std::sync::Arc;

use super::call::Caller;
use super::discovery::{Discovered, Discovery};
use super::health::ProviderStatus;
use super::metadata::ProviderMetadata;
use super::redeemed_codes::RedeemedCodes;
use crate::rejection::CallbackFault;
use crate::settings::provider::{Provider, ProviderKind};
use crate::telemetry::metrics::{Metrics, ProviderSeries, RecheckOutcome};

/// The providers of a configuration, in its order.
#[derive(Clone, Default)]
pub struct Providers {
    clients: Arc<[Arc<ProviderClient>]>,
}

/// A provider as a remote service.
pub struct ProviderClient {
    settings: Arc<Provider>,
    pub(super) caller: Arc<Caller>,
    pub(super) redeemed_codes: RedeemedCodes,
    source: MetadataSource,
}

/// Where the metadata of a provider comes from.
enum MetadataSource {
    /// `None` if an address is missing in the configuration.
    Configured(Option<Arc<Discovered>>),
    Document(Discovery),
}

impl Providers {
    /// Starts the clients on the current runtime. A client that `previous` has with the same settings
    /// is kept, with its metadata and its keys.
    pub fn start(
        settings: &[Arc<Provider>],
        previous: Option<&Providers>,
        metrics: &Arc<Metrics>,
    ) -> Providers {
        let clients = settings.iter().map(|settings| {
            let kept = previous.and_then(|previous| previous.get(&settings.name));
            match kept {
                Some(kept) if kept.settings == *settings => Arc::clone(kept),
                _ => {
                    let known = kept.and_then(|kept| kept.metadata_for(settings));
                    Arc::new(ProviderClient::start(Arc::clone(settings), known, metrics))
                }
            }
        });
        Providers {
            clients: clients.collect(),
        }
    }

    /// Returns the provider of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<ProviderClient>> {
        self.iter().find(|client| &*client.settings.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<ProviderClient>> {
        self.clients.iter()
    }
}

impl ProviderClient {
    fn start(
        settings: Arc<Provider>,
        known: Option<ProviderMetadata>,
        metrics: &Arc<Metrics>,
    ) -> ProviderClient {
        let series = ProviderSeries::new(metrics, &settings.name);
        let caller = Arc::new(Caller::new(&settings, series));
        let source = match settings.kind {
            ProviderKind::Oidc => {
                let discovery = Discovery::start(Arc::clone(&settings), Arc::clone(&caller), known);
                MetadataSource::Document(discovery)
            }
            ProviderKind::OAuth2 | ProviderKind::GitHub => {
                let metadata = ProviderMetadata::configured(&settings).map_err(|error| {
                    tracing::error!(provider = &*settings.name, "no address: {error}");
                });
                let discovered = metadata.map(|metadata| {
                    let keys = None;
                    Arc::new(Discovered { metadata, keys })
                });
                MetadataSource::Configured(discovered.ok())
            }
        };
        ProviderClient {
            settings,
            caller,
            redeemed_codes: RedeemedCodes::default(),
            source,
        }
    }

    pub fn settings(&self) -> &Arc<Provider> {
        &self.settings
    }

    /// Counts an exchange of the tokens of a session.
    pub(super) fn count_recheck(&self, outcome: RecheckOutcome) {
        self.caller.series().count_recheck(outcome);
    }

    /// Whether the provider responds, as far as its calls show.
    pub fn status(&self) -> ProviderStatus {
        self.caller.health.status()
    }

    /// The status, if it differs from the one that was taken last.
    pub fn take_status_change(&self) -> Option<ProviderStatus> {
        self.caller.health.take_change()
    }

    /// The metadata and keys, which are fetched first if they never were.
    pub(super) async fn discovered(&self) -> Result<Arc<Discovered>, CallbackFault> {
        match &self.source {
            MetadataSource::Configured(Some(configured)) => Ok(Arc::clone(configured)),
            MetadataSource::Configured(None) => Err(CallbackFault::EndpointMissing),
            MetadataSource::Document(discovery) => discovery.get().await,
        }
    }

    /// Fetches the metadata again.
    #[cfg(test)]
    pub(super) async fn refresh_metadata(&self) {
        if let MetadataSource::Document(discovery) = &self.source {
            discovery.refresh().await;
        }
    }

    /// The metadata at hand, if it is that of other settings too: a reload while the provider is down
    /// must not lose it.
    fn metadata_for(&self, other: &Provider) -> Option<ProviderMetadata> {
        let own = &self.settings;
        let is_same = own.kind == other.kind
            && own.issuer == other.issuer
            && own.endpoints == other.endpoints;
        self.metadata().filter(|_| is_same)
    }

    /// The metadata at hand, without a fetch.
    pub fn metadata(&self) -> Option<ProviderMetadata> {
        let discovered = match &self.source {
            MetadataSource::Configured(configured) => configured.clone(),
            MetadataSource::Document(discovery) => discovery.current(),
        };
        discovered.map(|discovered| discovered.metadata.clone())
    }
}
