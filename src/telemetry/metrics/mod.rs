//! All metrics of the gateway, with one prefix, base units and bounded labels.
//!
//! Label values are names from the configuration or variants of enums, never a user, a session, an
//! address or a path.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::rejection::Refusal;

mod forward_auth;
mod initial_series;
mod introspection_series;
mod labels;
mod provider_series;
mod routing_series;
mod series;
mod sharded;
mod sharded_histogram;
mod sign_ins;

pub use introspection_series::IntrospectionSeries;
pub use labels::{
    AcmeOutcome, BackchannelOutcome, CacheName, CacheOutcome, CleanUpKind, CleanUpStatus,
    ConnectionRefusal, Dialect, FetchStatus, IntrospectionOutcome, LimitOutcome, ProviderEndpoint,
    ProviderOutcome, RecheckOutcome, ReloadStatus, StoreOperation,
};
pub use prometheus::IntCounter;
pub use provider_series::ProviderSeries;
pub use routing_series::{NO_ROUTE, RouteLabel, RoutingSeries};
use series::{SeriesMap, SeriesTable};
pub use sharded::{ShardedCounter, ShardedCounterVec, ShardedGauge, claim_shards};
pub use sharded_histogram::{ShardedHistogram, ShardedHistogramVec};
pub use sign_ins::SignInMethod;

/// Buckets in seconds, from a local response on loopback to a slow upstream.
const REQUEST_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Buckets in seconds; store operations are far shorter than requests.
const STORE_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// A metric type that can be used in the table below.
trait RegisteredMetric: Collector + Clone + 'static {
    fn build(opts: Opts, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error>;
}

/// Implements [`RegisteredMetric`] for gauges and counters, with and without labels.
macro_rules! registered_metrics {
    (plain: $($plain:ty),*; labelled: $($labelled:ty),*) => {
        $(impl RegisteredMetric for $plain {
            fn build(opts: Opts, _: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
                <$plain>::with_opts(opts)
            }
        })*
        $(impl RegisteredMetric for $labelled {
            fn build(opts: Opts, labels: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
                <$labelled>::new(opts, labels)
            }
        })*
    };
}

registered_metrics!(
    plain: Gauge, IntCounter, IntGauge, ShardedGauge;
    labelled: IntCounterVec, IntGaugeVec, ShardedCounterVec
);

impl RegisteredMetric for Histogram {
    fn build(opts: Opts, _: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()))
    }
}

impl RegisteredMetric for ShardedHistogramVec {
    fn build(opts: Opts, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        sharded_histogram::histogram_vec(opts, labels, buckets)
    }
}

/// Declares the metrics, and registers each under its name on creation.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $name:literal, [$($label:literal),*], $buckets:expr, $help:literal;)*) => {
        /// The gateway's metrics and the registry that renders them.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            process: Registry,
            request_series: RequestSeries,
            $(pub $field: $kind,)*
        }

        impl Metrics {
            fn register_all(registry: Registry, process: Registry) -> Result<Metrics, prometheus::Error> {
                $(
                    let $field = <$kind as RegisteredMetric>::build(Opts::new($name, $help), &[$($label),*], $buckets)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Metrics { registry, process, request_series: RequestSeries::default(), $($field,)* })
            }
        }
    };
}

metrics! {
    requests: ShardedCounterVec = "requests_total", ["route", "method", "code"], &[],
        "Requests that were responded to.";
    requests_in_flight: ShardedGauge = "requests_in_flight", [], &[],
        "Requests in flight.";
    request_duration: ShardedHistogramVec = "request_duration_seconds", ["route", "class"], REQUEST_BUCKETS,
        "Time from the request head to the last byte of the response, by status class.";
    upstream_duration: ShardedHistogramVec = "upstream_duration_seconds", ["upstream"], REQUEST_BUCKETS,
        "Time from the selection of a server to the head of its response.";
    upstream_errors: IntCounterVec = "upstream_errors_total", ["upstream", "kind"], &[],
        "Failed attempts to get a response from a server, by kind.";
    auth: ShardedCounterVec = "auth_total", ["outcome"], &[],
        "Authentications, by outcome.";
    sign_ins: IntCounterVec = "sign_ins_total", ["method", "outcome"], &[],
        "Sign-ins, by method and outcome.";
    forward_auth: ShardedCounterVec = "forward_auth_total", ["dialect", "outcome"], &[],
        "Decisions for front proxies, by dialect and outcome.";
    ratelimit: ShardedCounterVec = "ratelimit_total", ["limit", "outcome"], &[],
        "Limit decisions, by limit and outcome.";
    store_operation_duration: ShardedHistogramVec = "store_operation_duration_seconds", ["operation"], STORE_BUCKETS,
        "Duration of store operations, until the response or the timeout.";
    store_errors: IntCounterVec = "store_errors_total", ["operation", "kind"], &[],
        "Failed store operations, by kind.";
    store_up: IntGauge = "store_up", [], &[],
        "1 while the store responds.";
    store_listening: IntGauge = "store_listening", [], &[],
        "1 while every invalidation from the store is received.";
    store_breaker: IntGauge = "store_breaker", [], &[],
        "State of the connections to the store: 0 all in use, 1 some, 2 none.";
    store_data_lost: IntCounter = "store_data_lost_total", [], &[],
        "Detected losses of the store's data.";
    cache: ShardedCounterVec = "cache_total", ["cache", "outcome"], &[],
        "Cache look-ups, by cache and outcome.";
    sessions_created: IntCounter = "sessions_created_total", [], &[],
        "Sessions created by a sign-in.";
    sessions_ended: IntCounterVec = "sessions_ended_total", ["reason"], &[],
        "Sessions ended before their expiry, by reason.";
    sessions_active: IntGauge = "sessions_active", [], &[],
        "Active sessions in the store, as of the last cleanup run.";
    api_keys_active: IntGauge = "api_keys_active", [], &[],
        "API keys in the database that are neither expired nor revoked.";
    live_connections: IntGauge = "live_connections", [], &[],
        "Open WebSockets, event streams and other long responses.";
    revocation_lag: Histogram = "revocation_lag_seconds", [], REQUEST_BUCKETS,
        "Time from a revocation until this gateway enforced it.";
    config_reloads: IntCounterVec = "config_reloads_total", ["outcome"], &[],
        "Attempts to reload the configuration, by outcome.";
    upstream_healthy: IntGaugeVec = "upstream_healthy", ["upstream", "server"], &[],
        "1 while a server is in rotation.";
    cleanup_runs: IntCounterVec = "cleanup_runs_total", ["outcome"], &[],
        "Cleanup runs of store and database, by outcome.";
    cleanup_removed: IntCounterVec = "cleanup_removed_total", ["kind"], &[],
        "Items removed by cleanup runs, by kind.";
    events_lost: IntCounter = "events_lost_total", [], &[],
        "Security events that were not written to the store; they are in the log.";
    connections: IntGauge = "connections_open", [], &[],
        "Open client connections.";
    connections_refused: IntCounterVec = "connections_refused_total", ["reason"], &[],
        "Connections and heads rejected before a request existed, by reason.";
    log_lines_dropped: IntCounterVec = "log_lines_dropped_total", ["stream"], &[],
        "Log lines dropped because the stream failed or was not read in time.";
    tls_certificate_not_after: IntGaugeVec = "tls_certificate_not_after_seconds", ["certificate"], &[],
        "Expiry of a listener's certificate, in Unix time.";
    acme_orders: IntCounterVec = "acme_orders_total", ["outcome"], &[],
        "Orders of certificates by ACME, by outcome.";
    jwks_fetches: IntCounterVec = "jwks_fetches_total", ["outcome"], &[],
        "Fetches of the keys of trusted issuers, by outcome.";
    provider_requests: IntCounterVec = "provider_requests_total", ["provider", "endpoint", "outcome"], &[],
        "Requests to providers, by endpoint and outcome.";
    provider_request_duration: ShardedHistogramVec = "provider_request_duration_seconds", ["provider", "endpoint"], REQUEST_BUCKETS,
        "Duration of requests to providers, with the wait for a slot, until the outcome.";
    provider_up: IntGaugeVec = "provider_up", ["provider"], &[],
        "1 while a provider responds.";
    backchannel_logouts: IntCounterVec = "backchannel_logouts_total", ["provider", "outcome"], &[],
        "Back-channel logout requests of providers, by outcome.";
    provider_rechecks: IntCounterVec = "provider_rechecks_total", ["provider", "outcome"], &[],
        "Exchanges of the tokens that sessions keep of a provider with `tokens.recheck`, by what they say of the session.";
    introspections: IntCounterVec = "introspections_total", ["name", "outcome"], &[],
        "Introspections of tokens, by outcome.";
    introspection_duration: ShardedHistogramVec = "introspection_duration_seconds", ["name"], REQUEST_BUCKETS,
        "Duration of calls of introspection endpoints.";
    last_reload_success: Gauge = "config_last_reload_success_timestamp_seconds", [], &[],
        "Load time of the running configuration, in Unix time.";
}

/// Series that requests use frequently.
#[derive(Debug)]
struct RequestSeries {
    /// First that of successes, then those of refusals.
    auth: SeriesTable<ShardedCounter>,
    /// Those of the first dialect, as of `auth`, then those of the next one.
    forward_auth: SeriesTable<ShardedCounter>,
    /// Those of the first cache, then those of the next one.
    caches: SeriesTable<ShardedCounter>,
    /// By name, and then by outcome.
    limits: SeriesMap<Arc<str>, SeriesTable<ShardedCounter>>,
    store: SeriesTable<ShardedHistogram>,
}

impl Default for RequestSeries {
    fn default() -> RequestSeries {
        RequestSeries {
            auth: SeriesTable::new(1 + Refusal::ALL.len()),
            forward_auth: SeriesTable::new(Dialect::ALL.len() * (1 + Refusal::ALL.len())),
            caches: SeriesTable::new(CacheName::ALL.len() * CacheOutcome::ALL.len()),
            limits: SeriesMap::default(),
            store: SeriesTable::new(StoreOperation::ALL.len()),
        }
    }
}

impl Metrics {
    /// Registers all metrics. Series with labels known in advance start at 0.
    ///
    /// # Errors
    ///
    /// A name in this file is a duplicate or malformed.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new_custom(Some("portcullis".to_owned()), None)?;
        // The process metrics have standard names without the prefix.
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let build = Opts::new("build_info", "1, with the running version as label.");
        let build = IntGaugeVec::new(build, &["version"])?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Metrics::register_all(registry, process)?;
        metrics.initialize_series();
        Ok(metrics)
    }

    /// Renders the Prometheus text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Observes the time from a revocation to its enforcement, in milliseconds.
    pub fn observe_revocation_lag(&self, lag: u64) {
        self.revocation_lag
            .observe(Duration::from_millis(lag).as_secs_f64());
    }

    /// Counts a store operation: its duration, and its error if it had one.
    pub fn observe_store_operation(
        &self,
        operation: StoreOperation,
        took: Duration,
        error: Option<&'static str>,
    ) {
        let look_up = || {
            self.store_operation_duration
                .with_label_values(&[operation.as_str()])
        };
        let series = &self.request_series.store;
        if let Some(series) = series.get(operation as usize, look_up) {
            series.observe(took.as_secs_f64());
        }
        if let Some(error) = error {
            self.count_store_errors(operation, error, 1);
        }
    }

    /// Counts errors of a store operation.
    pub fn count_store_errors(&self, operation: StoreOperation, error: &'static str, count: u64) {
        self.store_errors
            .with_label_values(&[operation.as_str(), error])
            .inc_by(count);
    }

    /// Returns the series of a cache and an outcome, for a cache that counts its look-ups itself.
    pub fn cache_series(&self, cache: CacheName, outcome: CacheOutcome) -> ShardedCounter {
        self.cache
            .with_label_values(&[cache.as_str(), outcome.as_str()])
    }

    /// Counts a look-up in a cache of this gateway.
    pub fn count_cache_lookup(&self, cache: CacheName, hit: bool) {
        let outcome = if hit {
            CacheOutcome::Hit
        } else {
            CacheOutcome::Miss
        };
        let index = cache as usize * CacheOutcome::ALL.len() + outcome as usize;
        let look_up = || self.cache_series(cache, outcome);
        if let Some(series) = self.request_series.caches.get(index, look_up) {
            series.inc();
        }
    }

    /// Counts an authentication; `None` for a success.
    pub fn count_authentication(&self, refusal: Option<Refusal>) {
        let index = refusal.map_or(0, |refusal| 1 + refusal as usize);
        let look_up = || {
            let label = refusal.map_or("ok".to_owned(), refusal_label);
            self.auth.with_label_values(&[label])
        };
        if let Some(series) = self.request_series.auth.get(index, look_up) {
            series.inc();
        }
    }

    /// Counts a decision of a limit.
    pub fn count_limit_decision(&self, limit: &Arc<str>, outcome: LimitOutcome) {
        let look_up = || {
            self.ratelimit
                .with_label_values(&[&**limit, outcome.as_str()])
        };
        let limits = &self.request_series.limits;
        let outcomes = limits.get(limit, |_| SeriesTable::new(LimitOutcome::ALL.len()));
        if let Some(series) = outcomes.and_then(|all| all.get(outcome as usize, look_up)) {
            series.inc();
        }
    }

    /// Counts a connection that is closed before its first request.
    pub fn count_refused_connection(&self, reason: ConnectionRefusal) {
        self.connections_refused
            .with_label_values(&[reason.as_str()])
            .inc();
    }

    /// Counts a rejected head that never became a request.
    pub fn count_refused_head(&self, refusal: Refusal) {
        self.connections_refused
            .with_label_values(&[refusal_label(refusal)])
            .inc();
    }

    /// Counts items removed by a cleanup run.
    pub fn count_removed(&self, kind: CleanUpKind, count: u64) {
        self.cleanup_removed
            .with_label_values(&[kind.as_str()])
            .inc_by(count);
    }
}

/// A refusal as a label: its code in lower case.
fn refusal_label(refusal: Refusal) -> String {
    refusal.code().to_ascii_lowercase()
}
