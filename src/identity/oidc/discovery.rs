//! Lazy discovery: metadata is fetched in the background, kept when a fetch fails, and fetched again
//! for a start that lacks it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use url::Url;

use super::call::{Caller, ProviderRequest};
use super::metadata::{ProviderMetadata, discovery_url};
use crate::issuers::{
    FetchSignal, FetchWait, KeySetAddress, KeySetFetching, KeySetSource, MetadataError,
    RemoteKeySet,
};
use crate::rejection::CallbackFault;
use crate::settings::provider::Provider;
use crate::telemetry::metrics::ProviderEndpoint;

/// Time between two fetches that succeed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);
/// Minimum time between two fetches, and the delay after the first one that fails.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum delay after a failed fetch.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The metadata of a provider, and the keys at the address that it names.
pub(super) struct Discovered {
    pub(super) metadata: ProviderMetadata,
    /// Absent for a provider without ID tokens.
    pub(super) keys: Option<Arc<RemoteKeySet>>,
}

/// The task that fetches metadata until it is dropped.
pub(super) struct Discovery {
    state: Arc<DiscoveryState>,
    task: AbortHandle,
}

struct DiscoveryState {
    settings: Arc<Provider>,
    caller: Arc<Caller>,
    current: ArcSwapOption<Discovered>,
    signal: FetchSignal,
    /// When the latest fetch ended.
    latest: Mutex<Option<Instant>>,
}

impl Discovery {
    /// Starts to fetch on the current runtime. `known` is in force until a fetch succeeds.
    pub(super) fn start(
        settings: Arc<Provider>,
        caller: Arc<Caller>,
        known: Option<ProviderMetadata>,
    ) -> Discovery {
        let state = Arc::new(DiscoveryState {
            settings,
            caller,
            current: ArcSwapOption::empty(),
            signal: FetchSignal::pending(),
            latest: Mutex::new(None),
        });
        if let Some(known) = known {
            state.put_in_force(known);
        }
        let task = tokio::spawn(Arc::clone(&state).run_fetch_loop()).abort_handle();
        Discovery { state, task }
    }

    /// Returns the metadata fetched last. If none ever was, waits for the fetch in progress, or for a
    /// new one at most once per second.
    pub(super) async fn get(&self) -> Result<Arc<Discovered>, CallbackFault> {
        let state = &self.state;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let may_start = || {
            let latest = *state.latest.lock();
            latest.is_none_or(|latest| latest.elapsed() >= MIN_INTERVAL)
        };
        // Whatever becomes of the fetch, there is metadata afterward, or there is none.
        let _: FetchWait = state.signal.join(state.caller.timeout(), may_start).await;
        self.current().ok_or(CallbackFault::MetadataUnavailable)
    }

    /// Fetches the metadata again.
    #[cfg(test)]
    pub(super) async fn refresh(&self) {
        let timeout = 2 * self.state.caller.timeout();
        self.state.signal.join(timeout, || true).await;
    }

    /// The metadata fetched last, if any was.
    pub(super) fn current(&self) -> Option<Arc<Discovered>> {
        self.state.current.load_full()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DiscoveryState {
    async fn run_fetch_loop(self: Arc<DiscoveryState>) {
        let mut failures = 0;
        loop {
            let is_success = match self.fetch().await {
                Ok(metadata) => {
                    self.put_in_force(metadata);
                    failures = 0;
                    true
                }
                Err(_) => {
                    failures += 1;
                    false
                }
            };
            *self.latest.lock() = Some(Instant::now());
            self.signal.complete(is_success);
            self.signal.until_due(next_delay(failures)).await;
        }
    }

    async fn fetch(&self) -> Result<ProviderMetadata, CallbackFault> {
        let url = discovery_url(&self.settings).map_err(|error| self.unusable(&error))?;
        let request = ProviderRequest::get(url);
        let fetched = self
            .caller
            .call(ProviderEndpoint::Discovery, request, |response| {
                if response.status != StatusCode::OK {
                    let (provider, status) = (&*self.settings.name, response.status.as_u16());
                    tracing::warn!(
                        provider,
                        status,
                        "the metadata of a provider was not fetched"
                    );
                    return Err(CallbackFault::MetadataUnavailable);
                }
                let parsed = ProviderMetadata::parse(&response.body, &self.settings);
                parsed.map_err(|error| self.unusable(&error))
            });
        fetched.await
    }

    fn unusable(&self, error: &MetadataError) -> CallbackFault {
        let provider = &*self.settings.name;
        let error: &dyn std::error::Error = error;
        tracing::warn!(provider, error, "the metadata of a provider cannot be used");
        CallbackFault::MetadataUnavailable
    }

    /// Replaces the metadata. Keys are kept unless they have moved.
    fn put_in_force(&self, metadata: ProviderMetadata) {
        let previous = self.current.load_full();
        let kept = previous.and_then(|previous| previous.keys.clone());
        let keys = metadata
            .jwks
            .as_ref()
            .filter(|_| self.settings.has_id_tokens());
        let keys = keys.map(|url| {
            kept.filter(|kept| kept.source().address == KeySetAddress::Url(url.clone()))
                .unwrap_or_else(|| Arc::new(self.start_keys(url)))
        });
        self.current
            .store(Some(Arc::new(Discovered { metadata, keys })));
    }

    fn start_keys(&self, url: &Url) -> RemoteKeySet {
        let issuer = self.settings.issuer.as_ref();
        let source = KeySetSource {
            issuer: issuer
                .map(|issuer| issuer.text().to_owned())
                .unwrap_or_default(),
            address: KeySetAddress::Url(url.clone()),
            algorithms: self.settings.algorithms.clone(),
        };
        let caller = Arc::clone(&self.caller);
        let fetching = KeySetFetching {
            client: self.caller.client(),
            timeout: self.caller.timeout(),
            wait: self.caller.timeout(),
            initial_cool_down: Some(MIN_INTERVAL),
            observe: Box::new(move |outcome, took| caller.observe_key_fetch(outcome, took)),
        };
        RemoteKeySet::start(source, fetching)
    }
}

/// Returns the delay after a number of consecutive failures. It varies by up to a tenth, so that the
/// fetches of a fleet are spread out.
fn next_delay(failures: u32) -> Duration {
    let delay = match failures.checked_sub(1) {
        None => REFRESH_INTERVAL,
        Some(doublings) => MIN_INTERVAL
            .saturating_mul(1 << doublings.min(6))
            .min(MAX_RETRY_DELAY),
    };
    delay.mul_f64(rand::random_range(1.0..1.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_refreshed_daily_and_retried_at_most_once_per_second() {
        assert!(next_delay(0) < Duration::from_secs(24 * 60 * 60));
        for (failures, least) in [(1, 1), (2, 2), (6, 32), (7, 60), (u32::MAX, 60)] {
            let delay = next_delay(failures);
            assert!(delay >= Duration::from_secs(least), "{failures}: {delay:?}");
            assert!(
                delay <= MAX_RETRY_DELAY.mul_f64(1.1),
                "{failures}: {delay:?}"
            );
        }
    }
}
