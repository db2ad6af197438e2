//! The keys of trusted issuers that publish them under a URL: fetched in the background, kept when
//! a fetch fails, fetched again when a token names a key that is not known.

pub mod verifier;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use url::{Host, Url};

use crate::auth::token::{
    Algorithm, Ignored, Key, KeyError, KeySet, KeySource, Tokens, TrustedIssuer, parse_jwks,
};
use crate::telemetry::metrics::Metrics;

/// For a whole fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a key set.
const MAX_BODY: usize = 1024 * 1024;
/// Between two fetches when nobody asks and none fails.
const REFRESH: Duration = Duration::from_secs(10 * 60);
/// After a first failed fetch; doubled for each further one.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Between two fetches asked for by tokens with unknown keys, which anybody can send.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// How long such a token waits for the fetch.
const PATIENCE: Duration = Duration::from_secs(1);

/// The fetched keys of every trusted issuer with a URL, by the issuer's index in
/// [`Tokens::trusted`].
#[derive(Clone)]
pub struct Issuers {
    fetched: Arc<Vec<Option<Arc<Issuer>>>>,
}

/// One issuer's keys, and the task that fetches them as long as somebody wants them.
struct Issuer {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    issuer: String,
    url: Url,
    algorithms: Vec<Algorithm>,
    /// `None`: no client could be made, so every fetch fails.
    client: Option<reqwest::Client>,
    metrics: Arc<Metrics>,
    keys: ArcSwap<Vec<Key>>,
    /// Counts the times that `keys` was set.
    generation: AtomicU64,
    /// A fetch is under way or asked for.
    pending: Mutex<bool>,
    asked: Notify,
    /// Counts the fetches that have ended.
    ended: watch::Sender<u64>,
    cool_down: DefaultDirectRateLimiter,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("key sets are fetched over https, or over http from a loopback address")]
    Insecure,
    #[error("no HTTP client could be made")]
    NoClient,
    #[error("the issuer cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the issuer answered with status {0}")]
    Status(u16),
    #[error("the key set has more than {MAX_BODY} bytes")]
    TooLong,
    #[error("the key set cannot be used")]
    Keys(#[source] KeyError),
}

/// Tells whether keys may be fetched from there: over https, or from this very machine. Whoever can
/// change what is fetched can sign in as anybody.
pub fn is_safe(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(Host::Ipv6(address))) => address.is_loopback(),
        ("http", Some(Host::Domain(name))) => name == "localhost",
        _ => false,
    }
}

impl Issuers {
    /// Starts to fetch on the current runtime. Issuers that `previous` has just so keep their keys
    /// and their task.
    pub fn new(tokens: &Tokens, metrics: &Arc<Metrics>, previous: Option<&Issuers>) -> Issuers {
        for outcome in ["ok", "failed"] {
            metrics.jwks_fetches.with_label_values(&[outcome]);
        }
        let fetched = tokens.trusted.iter().map(|trusted| match &trusted.keys {
            KeySource::File(set) => {
                warn_of(&trusted.issuer, &set.ignored);
                None
            }
            KeySource::Url(url) => previous
                .and_then(|previous| previous.same(trusted, url))
                .or_else(|| Some(Arc::new(Issuer::start(trusted, url, metrics)))),
        });
        Issuers {
            fetched: Arc::new(fetched.collect()),
        }
    }

    fn same(&self, trusted: &TrustedIssuer, url: &Url) -> Option<Arc<Issuer>> {
        let same = self.fetched.iter().flatten().find(|issuer| {
            let shared = &issuer.shared;
            shared.url == *url
                && shared.issuer == trusted.issuer
                && shared.algorithms == public_algorithms(trusted)
        });
        same.cloned()
    }

    /// The keys fetched last for a trusted issuer; empty when none ever were.
    pub(crate) fn keys(&self, issuer: usize) -> Arc<Vec<Key>> {
        match self.issuer(issuer) {
            Some(issuer) => issuer.shared.keys.load_full(),
            None => Arc::default(),
        }
    }

    /// Changes whenever any keys may have changed.
    pub(crate) fn generation(&self) -> u64 {
        let issuers = self.fetched.iter().flatten();
        issuers
            .map(|issuer| issuer.shared.generation.load(Ordering::SeqCst))
            .sum()
    }

    /// Waits for newer keys, at most a second: for a fetch that is under way, or for a new one
    /// unless one was asked for a short while ago.
    pub(crate) async fn refresh(&self, issuer: usize) {
        if let Some(issuer) = self.issuer(issuer) {
            issuer.shared.refresh().await;
        }
    }

    fn issuer(&self, issuer: usize) -> Option<&Issuer> {
        self.fetched.get(issuer)?.as_deref()
    }
}

/// A key set that everybody can read holds no secrets.
fn public_algorithms(trusted: &TrustedIssuer) -> Vec<Algorithm> {
    let mut algorithms = trusted.algorithms.clone();
    algorithms.retain(|algorithm| *algorithm != Algorithm::HS256);
    algorithms
}

impl Issuer {
    fn start(trusted: &TrustedIssuer, url: &Url, metrics: &Arc<Metrics>) -> Issuer {
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .build();
        let once = Quota::with_period(COOL_DOWN).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        let shared = Arc::new(Shared {
            issuer: trusted.issuer.clone(),
            url: url.clone(),
            algorithms: public_algorithms(trusted),
            client: client.ok(),
            metrics: metrics.clone(),
            keys: ArcSwap::default(),
            generation: AtomicU64::new(0),
            pending: Mutex::new(true),
            asked: Notify::new(),
            ended: watch::Sender::new(0),
            cool_down: RateLimiter::direct(once),
        });
        let task = tokio::spawn(shared.clone().keep_fetching()).abort_handle();
        Issuer { shared, task }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn refresh(&self) {
        // Subscribed before the look at `pending`, so that an end in between is not missed.
        let mut ended = self.ended.subscribe();
        if !self.ask() {
            return;
        }
        // Too late is no error: what is known then decides.
        let _ = tokio::time::timeout(PATIENCE, ended.changed()).await;
    }

    /// Asks for a fetch unless one is pending. `false`: one was asked for a short while ago.
    fn ask(&self) -> bool {
        // One look and one step, or a second token could find the cool-down begun but no fetch.
        let mut pending = self.pending.lock();
        if !*pending {
            if self.cool_down.check().is_err() {
                return false;
            }
            *pending = true;
            self.asked.notify_one();
        }
        true
    }

    async fn keep_fetching(self: Arc<Shared>) {
        let (mut failures, mut ignored) = (0, Vec::new());
        loop {
            let outcome = match self.fetch().await {
                Ok(KeySet { keys, ignored: now }) => {
                    if now != ignored {
                        warn_of(&self.issuer, &now);
                        ignored = now;
                    }
                    tracing::debug!(issuer = self.issuer, keys = keys.len(), "keys fetched");
                    self.keys.store(Arc::new(keys));
                    // Afterwards: who reads the new number must not use the old keys.
                    self.generation.fetch_add(1, Ordering::SeqCst);
                    failures = 0;
                    "ok"
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(issuer = self.issuer, "keys not fetched: {error:#}");
                    failures += 1;
                    "failed"
                }
            };
            self.metrics
                .jwks_fetches
                .with_label_values(&[outcome])
                .inc();
            *self.pending.lock() = false;
            self.ended.send_modify(|ended| *ended += 1);
            tokio::select! {
                () = tokio::time::sleep(pause(failures)) => {
                    *self.pending.lock() = true;
                }
                () = self.asked.notified() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        if !is_safe(&self.url) {
            return Err(FetchError::Insecure);
        }
        let client = self.client.as_ref().ok_or(FetchError::NoClient)?;
        // The URL may hold a password; an error is logged without it.
        let unreachable = |error: reqwest::Error| FetchError::Unreachable(error.without_url());
        let request = client.get(self.url.clone());
        let mut answer = request.send().await.map_err(unreachable)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        parse_jwks(&body, &self.algorithms).map_err(FetchError::Keys)
    }
}

/// Reports the keys of an issuer that are not used.
fn warn_of(issuer: &str, ignored: &[Ignored]) {
    for Ignored { id, reason } in ignored {
        let kid = id.as_deref();
        tracing::warn!(issuer, kid, %reason, "a key of a trusted issuer is ignored");
    }
}

/// How long to wait after so many failures in a row; up to a tenth more or less, so that a fleet
/// does not ask all at once.
fn pause(failures: u32) -> Duration {
    let pause = match failures.checked_sub(1) {
        None => REFRESH,
        Some(doublings) => RETRY.saturating_mul(1 << doublings.min(6)).min(MAX_RETRY),
    };
    pause.mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests;
