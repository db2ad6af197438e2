//! The keys of trusted issuers, introspection endpoints, and the verifier that uses both.

mod client_authentication;
mod fetch_signal;
pub mod introspection;
mod issuer_metadata;
mod metadata_document;
mod remote_key_set;
pub mod verifier;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use client_authentication::{Form, authenticate};
pub use fetch_signal::{FetchSignal, FetchWait};
pub use metadata_document::MetadataError;
pub(crate) use metadata_document::{MetadataDocument, is_loopback_issuer};
pub(crate) use remote_key_set::is_secure_url;
use remote_key_set::warn_ignored_keys;
pub use remote_key_set::{
    KeyFetchOutcome, KeyRefresh, KeySetAddress, KeySetFetching, KeySetSource, RemoteKeySet,
};

use crate::auth::token::{Algorithm, Key, KeySource, Tokens, TrustedIssuer};
use crate::http_client::{HttpClient, HttpClientConfig};
use crate::telemetry::metrics::{FetchStatus, Metrics};

/// Time limit for a whole fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a token with an unknown key waits for a fetch.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// The remote key sets of a configuration, by the index of their issuer in [`Tokens::trusted`].
/// Indices are those of one configuration: across a reload, key sets are matched by their source.
#[derive(Clone, Default)]
pub struct Issuers {
    key_sets: Arc<[Option<Arc<RemoteKeySet>>]>,
}

impl Issuers {
    /// Starts to fetch on the current runtime. A key set that `previous` fetches from the same source
    /// keeps its keys and its task.
    pub fn new(tokens: &Tokens, metrics: &Arc<Metrics>, previous: Option<&Issuers>) -> Issuers {
        for status in FetchStatus::ALL {
            metrics.jwks_fetches.with_label_values(&[status.as_str()]);
        }
        let key_sets = tokens.trusted.iter().map(|trusted| match &trusted.keys {
            KeySource::File(set) => {
                warn_ignored_keys(&trusted.issuer, &set.ignored);
                None
            }
            KeySource::Url(url) => Some(source_of(trusted, KeySetAddress::Url(url.clone()))),
            KeySource::Discovered => Some(source_of(trusted, KeySetAddress::Discovered)),
        });
        let key_sets = key_sets.map(|source| {
            let source = source?;
            let kept = previous.and_then(|previous| previous.find(&source));
            let start = || Arc::new(RemoteKeySet::start(source, fetching(metrics)));
            Some(kept.unwrap_or_else(start))
        });
        Issuers {
            key_sets: key_sets.collect(),
        }
    }

    fn find(&self, source: &KeySetSource) -> Option<Arc<RemoteKeySet>> {
        let mut key_sets = self.key_sets.iter().flatten();
        key_sets.find(|set| set.source() == source).cloned()
    }

    /// Returns the keys of a trusted issuer; empty if they were never fetched.
    pub(crate) fn keys(&self, issuer: usize) -> Arc<Vec<Key>> {
        let keys = self.key_set(issuer).map(RemoteKeySet::keys);
        keys.unwrap_or_default()
    }

    /// Returns a number that changes whenever any keys may have changed.
    pub(crate) fn generation(&self) -> u64 {
        let key_sets = self.key_sets.iter().flatten();
        key_sets.map(|set| set.generation()).sum()
    }

    /// Waits for newer keys of a trusted issuer, as [`RemoteKeySet::refresh`] does.
    pub(crate) async fn refresh(&self, issuer: usize) {
        if let Some(key_set) = self.key_set(issuer) {
            key_set.refresh().await;
        }
    }

    fn key_set(&self, issuer: usize) -> Option<&RemoteKeySet> {
        self.key_sets.get(issuer)?.as_deref()
    }
}

/// How the keys of trusted issuers are fetched.
fn fetching(metrics: &Arc<Metrics>) -> KeySetFetching {
    let client = HttpClient::new(&HttpClientConfig {
        environment_proxies: true,
        ..HttpClientConfig::default()
    });
    let metrics = Arc::clone(metrics);
    KeySetFetching {
        client: client.ok(),
        timeout: FETCH_TIMEOUT,
        wait: REFRESH_TIMEOUT,
        initial_cool_down: None,
        observe: Box::new(move |outcome, _| {
            let status = match outcome {
                KeyFetchOutcome::Ok => FetchStatus::Ok,
                KeyFetchOutcome::Failed | KeyFetchOutcome::TimedOut => FetchStatus::Failed,
            };
            let fetches = &metrics.jwks_fetches;
            fetches.with_label_values(&[status.as_str()]).inc();
        }),
    }
}

fn source_of(trusted: &TrustedIssuer, address: KeySetAddress) -> KeySetSource {
    let mut algorithms = trusted.algorithms.clone();
    // A published key set holds no secrets.
    algorithms.retain(|algorithm| *algorithm != Algorithm::HS256);
    KeySetSource {
        issuer: trusted.issuer.clone(),
        address,
        algorithms,
    }
}

#[cfg(test)]
mod tests;
