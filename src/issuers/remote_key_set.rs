//! A key set that is published under a URL (JWKS): fetched in the background, kept when a fetch
//! fails, fetched again when a token names an unknown key.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use url::{Host, Url};

use super::fetch_signal::{FetchSignal, FetchWait};
use super::issuer_metadata::{DiscoveryError, IssuerAddress, discover};
use crate::auth::token::{Algorithm, IgnoredKey, Key, KeyError, KeySet, parse_jwks};
use crate::http_client::{HttpClient, HttpError};

const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
/// Maximum size of a key set, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;
/// Time between two fetches without failures or unknown keys.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Delay after the first failed fetch, doubled for each further one.
const INITIAL_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// Minimum time between two fetches for tokens with unknown keys, which any client can send.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// Where a key set is published, and what its keys may be used for.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySetSource {
    /// Names the issuer in the log.
    pub issuer: String,
    pub address: KeySetAddress,
    pub algorithms: Vec<Algorithm>,
}

/// The address of a key set.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySetAddress {
    Url(Url),
    /// In the issuer's metadata, which is fetched each time.
    Discovered,
}

/// How a key set is fetched.
pub struct KeySetFetching {
    /// `None` if the client could not be created, so that every fetch fails.
    pub client: Option<HttpClient>,
    /// For a whole fetch.
    pub timeout: Duration,
    /// How long a token with an unknown key waits for a fetch.
    pub wait: Duration,
    /// Minimum time between two requested fetches before the first success; `None`: as later.
    pub initial_cool_down: Option<Duration>,
    /// Called after each fetch with its outcome and its duration.
    pub observe: Box<dyn Fn(KeyFetchOutcome, Duration) + Send + Sync>,
}

/// The outcome of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFetchOutcome {
    Ok,
    Failed,
    TimedOut,
}

/// The outcome of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefresh {
    /// The keys are those of now.
    Fetched,
    /// The keys could not be fetched, now or when they were requested last.
    Failed,
    /// The keys are those of a short while ago.
    CoolDown,
}

/// The keys of one source, and the task that fetches them until the key set is dropped.
pub struct RemoteKeySet {
    pub(super) state: Arc<FetchState>,
    task: AbortHandle,
}

pub(super) struct FetchState {
    source: KeySetSource,
    fetching: KeySetFetching,
    keys: ArcSwap<Vec<Key>>,
    /// Incremented whenever `keys` is replaced.
    generation: AtomicU64,
    signal: FetchSignal,
    initial_cool_down: Option<DefaultDirectRateLimiter>,
    cool_down: DefaultDirectRateLimiter,
}

/// Reason why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("key sets are fetched over https, or over http from a loopback address")]
    Insecure,
    #[error("the HTTP client could not be created")]
    NoClient,
    #[error("the address of the key set is not known")]
    Discovery(#[source] DiscoveryError),
    #[error("the issuer cannot be reached")]
    Unreachable(#[source] HttpError),
    #[error("the issuer did not respond in time")]
    TimedOut,
    #[error("the issuer responded with status {0}")]
    Status(u16),
    #[error("the key set has more than {MAX_BODY} bytes")]
    TooLong,
    #[error("the key set cannot be used")]
    Keys(#[source] KeyError),
}

/// Whether keys may be fetched from a URL: over https, or from a loopback address. An attacker who
/// can modify the response can sign in as any user.
pub(crate) fn is_secure_url(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(Host::Ipv6(address))) => address.is_loopback(),
        ("http", Some(Host::Domain(name))) => name == "localhost",
        _ => false,
    }
}

impl RemoteKeySet {
    /// Starts to fetch on the current runtime.
    pub fn start(source: KeySetSource, fetching: KeySetFetching) -> RemoteKeySet {
        let once_in = |period| {
            let quota = Quota::with_period(period).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
            RateLimiter::direct(quota)
        };
        let state = Arc::new(FetchState {
            source,
            keys: ArcSwap::default(),
            generation: AtomicU64::new(0),
            signal: FetchSignal::pending(),
            initial_cool_down: fetching.initial_cool_down.map(once_in),
            cool_down: once_in(COOL_DOWN),
            fetching,
        });
        let task = tokio::spawn(state.clone().run_fetch_loop()).abort_handle();
        RemoteKeySet { state, task }
    }

    pub fn source(&self) -> &KeySetSource {
        &self.state.source
    }

    /// The keys fetched last; empty when none ever were.
    pub fn keys(&self) -> Arc<Vec<Key>> {
        self.state.keys.load_full()
    }

    /// Changes whenever the keys may have changed.
    pub fn generation(&self) -> u64 {
        self.state.generation.load(Ordering::SeqCst)
    }

    /// Waits for newer keys: for a fetch in progress, or for a new one unless one was requested a short
    /// while ago.
    pub async fn refresh(&self) -> KeyRefresh {
        self.state.refresh().await
    }
}

impl Drop for RemoteKeySet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FetchState {
    async fn refresh(&self) -> KeyRefresh {
        let is_unfetched = self.generation.load(Ordering::SeqCst) == 0;
        let initial = self.initial_cool_down.as_ref().filter(|_| is_unfetched);
        let cool_down = initial.unwrap_or(&self.cool_down);
        let may_start = || cool_down.check().is_ok();
        match self.signal.join(self.fetching.wait, may_start).await {
            FetchWait::Succeeded => KeyRefresh::Fetched,
            FetchWait::Failed => KeyRefresh::Failed,
            FetchWait::Declined if self.signal.has_failed() => KeyRefresh::Failed,
            FetchWait::Declined => KeyRefresh::CoolDown,
        }
    }

    async fn run_fetch_loop(self: Arc<FetchState>) {
        let (mut failures, mut ignored) = (0, Vec::new());
        loop {
            let started = Instant::now();
            let outcome = match self.fetch_in_time().await {
                Ok(KeySet { keys, ignored: now }) => {
                    if now != ignored {
                        warn_ignored_keys(&self.source.issuer, &now);
                        ignored = now;
                    }
                    tracing::debug!(
                        issuer = self.source.issuer,
                        keys = keys.len(),
                        "keys fetched"
                    );
                    self.keys.store(Arc::new(keys));
                    // After the keys: a reader of the new generation must not use the old keys.
                    self.generation.fetch_add(1, Ordering::SeqCst);
                    failures = 0;
                    KeyFetchOutcome::Ok
                }
                Err(error) => {
                    let outcome = error.outcome();
                    let error = anyhow::Error::from(error);
                    tracing::warn!(issuer = self.source.issuer, "keys not fetched: {error:#}");
                    failures += 1;
                    outcome
                }
            };
            (self.fetching.observe)(outcome, started.elapsed());
            self.signal.complete(outcome == KeyFetchOutcome::Ok);
            self.signal.until_due(next_fetch_delay(failures)).await;
        }
    }

    async fn fetch_in_time(&self) -> Result<KeySet, FetchError> {
        let fetched = tokio::time::timeout(self.fetching.timeout, self.fetch()).await;
        fetched.unwrap_or(Err(FetchError::TimedOut))
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let client = self.fetching.client.as_ref().ok_or(FetchError::NoClient)?;
        let url = match &self.source.address {
            KeySetAddress::Url(url) => url.clone(),
            KeySetAddress::Discovered => {
                let discovering = discover(client, &self.source.issuer, IssuerAddress::Jwks);
                discovering.await.map_err(FetchError::Discovery)?
            }
        };
        if !is_secure_url(&url) {
            return Err(FetchError::Insecure);
        }
        let agent = (header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let headers = HeaderMap::from_iter([agent]);
        let sent = client.send(Method::GET, url, headers, Bytes::new());
        let response = sent.await.map_err(FetchError::Unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let body = response.read_body(MAX_BODY).await;
        let body = body.map_err(|error| match error {
            HttpError::TooLarge(_) => FetchError::TooLong,
            error => FetchError::Unreachable(error),
        })?;
        parse_jwks(&body, &self.source.algorithms).map_err(FetchError::Keys)
    }
}

impl FetchError {
    fn outcome(&self) -> KeyFetchOutcome {
        match self {
            FetchError::TimedOut => KeyFetchOutcome::TimedOut,
            _ => KeyFetchOutcome::Failed,
        }
    }
}

/// Logs the ignored keys of an issuer.
pub(super) fn warn_ignored_keys(issuer: &str, ignored: &[IgnoredKey]) {
    for IgnoredKey { id, reason } in ignored {
        let kid = id.as_deref();
        tracing::warn!(issuer, kid, %reason, "a key of an issuer is ignored");
    }
}

/// Returns the delay after a number of consecutive failures. It varies by up to a tenth, so that
/// the fetches of a fleet are spread out.
pub(super) fn next_fetch_delay(failures: u32) -> Duration {
    let pause = match failures.checked_sub(1) {
        None => REFRESH_INTERVAL,
        Some(doublings) => INITIAL_RETRY_DELAY
            .saturating_mul(1 << doublings.min(6))
            .min(MAX_RETRY_DELAY),
    };
    pause.mul_f64(rand::random_range(0.9..1.1))
}
