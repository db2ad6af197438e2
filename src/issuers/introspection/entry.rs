//! The client of one endpoint. Requests with the same token share one call, which goes on when they are
//! canceled.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::IntrospectionError;
use super::call::{self, CallError};
use super::endpoint::Endpoint;
use super::record::IntrospectionRecord;
use crate::auth::session::Millis;
use crate::auth::token::{IntrospectionVerdict, VerifiedToken, opaque_token_key};
use crate::clock;
use crate::http_client::{HttpClient, HttpClientConfig, HttpError};
use crate::issuers::verifier::TokenRejection;
use crate::memory_budget::{MIB, MemoryBudget};
use crate::settings::introspection::{IntrospectionEndpoint, IntrospectionEntry};
use crate::telemetry::metrics::{IntCounter, IntrospectionOutcome, IntrospectionSeries};

/// Memory budget of the responses of one endpoint.
const MEMORY_BUDGET: MemoryBudget = MemoryBudget {
    divisor: 32,
    min: 8 * MIB,
    max: 256 * MIB,
};
/// Initial capacity of the cache, which grows as needed.
const INITIAL_CAPACITY: usize = 1_000;
/// Interval at which failures are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// SHA-256 of a token: the token itself is kept nowhere.
type TokenHash = [u8; 32];
/// The outcome of a call in progress.
type Pending = watch::Receiver<Option<Arc<IntrospectionRecord>>>;

/// The client of one endpoint, and its latest response about each token.
pub(in crate::issuers) struct IntrospectionClient {
    settings: Arc<IntrospectionEntry>,
    /// `None` if it could not be created, so that every call fails.
    client: Option<HttpClient>,
    endpoint: Endpoint,
    /// Where calls run, and where their connections stay.
    runtime: Handle,
    slots: Arc<Semaphore>,
    /// The calls in progress, of which each has a slot.
    pending: Mutex<HashMap<TokenHash, Pending>>,
    cache: Cache<TokenHash, Arc<IntrospectionRecord>, RecordWeight>,
    series: IntrospectionSeries,
    failures: DefaultDirectRateLimiter,
}

/// A token that is active, for as long as the endpoint's response counts.
#[derive(Debug, Clone)]
pub(in crate::issuers) struct IntrospectedToken {
    pub(in crate::issuers) token: VerifiedToken,
    record: Arc<IntrospectionRecord>,
    /// Counts verifications without a call.
    uses: IntCounter,
}

impl IntrospectedToken {
    /// Whether the token need not be sent again.
    pub(in crate::issuers) fn is_current(&self, now: Millis) -> bool {
        self.record.is_current(now)
    }

    /// Counts a verification without a call.
    pub(in crate::issuers) fn count_use(&self) {
        self.uses.inc();
    }
}

#[derive(Clone)]
struct RecordWeight;

impl Weighter<TokenHash, Arc<IntrospectionRecord>> for RecordWeight {
    fn weight(&self, _: &TokenHash, record: &Arc<IntrospectionRecord>) -> u64 {
        record.weight()
    }
}

/// A call in progress, whose end lets the token be sent again.
struct CallInProgress {
    client: Arc<IntrospectionClient>,
    hash: TokenHash,
    _slot: OwnedSemaphorePermit,
}

impl Drop for CallInProgress {
    fn drop(&mut self) {
        self.client.pending.lock().remove(&self.hash);
    }
}

impl IntrospectionClient {
    pub(super) fn new(
        settings: Arc<IntrospectionEntry>,
        series: IntrospectionSeries,
        runtime: Handle,
    ) -> IntrospectionClient {
        let client = build_client(&settings).map_err(|error| {
            let introspection = &*settings.rules.name;
            let error = anyhow::Error::from(error);
            tracing::error!(
                introspection,
                "the client of an introspection endpoint cannot be built: {error:#}"
            );
        });
        let quota = Quota::with_period(LOG_INTERVAL).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        IntrospectionClient {
            client: client.ok(),
            endpoint: Endpoint::new(),
            runtime,
            slots: Arc::new(Semaphore::new(settings.concurrency)),
            pending: Mutex::default(),
            cache: Cache::with_weighter(INITIAL_CAPACITY, MEMORY_BUDGET.bytes(), RecordWeight),
            series,
            failures: RateLimiter::direct(quota),
            settings,
        }
    }

    pub(in crate::issuers) fn settings(&self) -> &IntrospectionEntry {
        &self.settings
    }

    /// The token, if the endpoint's latest response counts and is a yes.
    pub(in crate::issuers) fn cached(
        &self,
        token: &str,
        leeway: Millis,
        now: Millis,
    ) -> Option<IntrospectedToken> {
        let record = self.current(&hash_of(token), now)?;
        self.introspected(record, leeway, now).ok()
    }

    fn introspected(
        &self,
        record: Arc<IntrospectionRecord>,
        leeway: Millis,
        now: Millis,
    ) -> Result<IntrospectedToken, TokenRejection> {
        Ok(IntrospectedToken {
            token: record.token(leeway, now)?,
            record,
            uses: self.series.cached().clone(),
        })
    }

    /// Verifies a token by what the endpoint says, now or a short while ago.
    pub(in crate::issuers) async fn verify(
        self: &Arc<Self>,
        token: &str,
        leeway: Millis,
        now: Millis,
    ) -> Result<IntrospectedToken, TokenRejection> {
        let found = self.record(token, leeway, now).await;
        let (result, outcome) = match found {
            Ok((record, outcome)) => (self.introspected(record, leeway, now), outcome),
            Err(error) => (Err(TokenRejection::NotIntrospected(error)), None),
        };
        self.series.count(match (&result, outcome) {
            (Err(TokenRejection::NotIntrospected(_)), _) => IntrospectionOutcome::Unknown,
            (_, Some(outcome)) => outcome,
            (_, None) => IntrospectionOutcome::Cached,
        });
        result
    }

    /// The record of a token, and the outcome of the call if one was made for this request.
    async fn record(
        self: &Arc<Self>,
        token: &str,
        leeway: Millis,
        now: Millis,
    ) -> Result<(Arc<IntrospectionRecord>, Option<IntrospectionOutcome>), IntrospectionError> {
        let hash = hash_of(token);
        if let Some(record) = self.current(&hash, now) {
            return Ok((record, None));
        }
        let (mut pending, is_own) = match self.join_or_start(hash, token, leeway, now)? {
            Call::Joined(pending) => (pending, false),
            Call::Started(pending) => (pending, true),
            Call::Ended(record) => return Ok((record, None)),
        };
        // The task is gone, and its result with it.
        let ended = pending.wait_for(Option::is_some).await;
        let record = ended.ok().and_then(|record| record.clone());
        let record = record.ok_or(IntrospectionError::Unavailable)?;
        let outcome = match (is_own && !record.is_unknown(), record.is_active()) {
            (false, _) => None,
            (true, true) => Some(IntrospectionOutcome::Active),
            (true, false) => Some(IntrospectionOutcome::Inactive),
        };
        Ok((record, outcome))
    }

    fn current(&self, hash: &TokenHash, now: Millis) -> Option<Arc<IntrospectionRecord>> {
        let record = self.cache.get(hash);
        record.filter(|record| record.is_current(now))
    }

    /// Joins the call about a token, or starts one.
    fn join_or_start(
        self: &Arc<Self>,
        hash: TokenHash,
        token: &str,
        leeway: Millis,
        now: Millis,
    ) -> Result<Call, IntrospectionError> {
        let mut all = self.pending.lock();
        if let Some(pending) = all.get(&hash) {
            return Ok(Call::Joined(pending.clone()));
        }
        // A call that ended since the first look has left its record before it left the table.
        if let Some(record) = self.current(&hash, now) {
            return Ok(Call::Ended(record));
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot = slot.map_err(|_| IntrospectionError::TooManyCalls)?;
        let (sender, pending) = watch::channel(None);
        all.insert(hash, pending.clone());
        drop(all);
        let call = CallInProgress {
            client: Arc::clone(self),
            hash,
            _slot: slot,
        };
        let token = token.to_owned();
        self.runtime.spawn(async move {
            let record = Arc::new(call.client.call(&call.hash, &token, leeway).await);
            call.client.cache.insert(call.hash, Arc::clone(&record));
            drop(call);
            sender.send_replace(Some(record));
        });
        Ok(Call::Started(pending))
    }

    /// Calls the endpoint, within the deadline.
    async fn call(&self, hash: &TokenHash, token: &str, leeway: Millis) -> IntrospectionRecord {
        let (sent_at, started) = (clock::unix_millis(), Instant::now());
        let response = timeout(self.settings.timeout, self.query(token, leeway)).await;
        self.series.observe_call(started.elapsed());
        match response.unwrap_or(Err(CallError::TimedOut)) {
            Ok((verdict, size)) => {
                let counts_for = self.settings.cached_for;
                IntrospectionRecord::of_verdict(verdict, size, sent_at, counts_for)
            }
            Err(error) => {
                self.log_failure(error);
                let previous = self.cache.get(hash);
                let (now, on_outage) = (clock::unix_millis(), self.settings.on_outage);
                IntrospectionRecord::unknown(previous.as_deref(), now, on_outage)
            }
        }
    }

    async fn query(
        &self,
        token: &str,
        leeway: Millis,
    ) -> Result<(IntrospectionVerdict, usize), CallError> {
        let client = self.client.as_ref().ok_or(CallError::NoClient)?;
        let url = self.endpoint.url(&self.settings, client).await?;
        let body = call::send(&self.settings, client, url, token).await?;
        let key = opaque_token_key(token);
        let verdict = self
            .settings
            .rules
            .read(&body, &key, leeway, clock::unix_millis());
        Ok((verdict.map_err(CallError::Unusable)?, body.len()))
    }

    /// Any client can make calls fail, so not each failure is logged.
    fn log_failure(&self, error: CallError) {
        if self.failures.check().is_ok() {
            let introspection = &*self.settings.rules.name;
            let error = anyhow::Error::from(error);
            tracing::warn!(
                introspection,
                "a token could not be introspected: {error:#}"
            );
        }
    }
}

/// The call about a token.
enum Call {
    Joined(Pending),
    Started(Pending),
    Ended(Arc<IntrospectionRecord>),
}

fn hash_of(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

pub(super) fn build_client(settings: &IntrospectionEntry) -> Result<HttpClient, HttpError> {
    let is_plain = match &settings.endpoint {
        IntrospectionEndpoint::Url(url) => url.scheme() == "http",
        IntrospectionEndpoint::Discovered => {
            let issuer = settings.rules.issuer.as_deref();
            issuer.is_some_and(|issuer| issuer.starts_with("http:"))
        }
    };
    HttpClient::new(&HttpClientConfig {
        // A proxy would read tokens and the client's secret, where they are not encrypted.
        environment_proxies: !is_plain,
        ca: settings.tls.ca.as_deref(),
        identity: match &settings.tls.client {
            Some((certificate, key)) => Some((certificate, key.as_slice())),
            None => None,
        },
        ..HttpClientConfig::default()
    })
}
