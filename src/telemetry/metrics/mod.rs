//! Every metric of the gateway: one struct, one prefix, base units, bounded labels. Label values
//! are names from the configuration or variants of our own enums; never a user, a session, an
//! address or a path.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::auth::session::EndReason;
use crate::rejection::Refusal;
use crate::telemetry::logging::StandardStream;

mod routing_series;
mod series;
mod sign_ins;

pub use routing_series::{API_ROUTE, NO_ROUTE, RoutingSeries};
pub use series::SeriesCache;
pub use sign_ins::SignInMethod;

/// Seconds; from a cached answer on loopback to a slow upstream.
const REQUEST_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Seconds; a store operation is far below a request.
const STORE_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// The operations of the store's face.
const STORE_OPERATIONS: [&str; 39] = [
    "all_sessions",
    "amend_session",
    "begin_clean_up",
    "blacklist",
    "charge",
    "clean_up",
    "counts",
    "create_session",
    "cut_off",
    "cut_offs",
    "decide",
    "end_clean_up",
    "ended_among",
    "events",
    "follow",
    "forget_profile",
    "holds_refresh",
    "is_blacklisted",
    "marker",
    "now",
    "peek_limit",
    "presence",
    "probe",
    "profile",
    "put_profile",
    "record_uses",
    "refund",
    "report_live",
    "reset_limit",
    "restore",
    "revoke",
    "revoke_user",
    "rotate_refresh",
    "session",
    "sessions_of",
    "set_identity",
    "touch",
    "unblacklist",
    "write_events",
];
/// Why the store gave no answer.
const STORE_ERRORS: [&str; 7] = [
    "timeout",
    "unreachable",
    "breaker_open",
    "refused",
    "read_only",
    "malformed",
    "unreplicated",
];
/// Why a connection or a head is turned away before there is a request.
const CONNECTION_REFUSALS: [&str; 12] = [
    "connections",
    "connections_per_address",
    "admin_connections",
    "proxy_protocol",
    "handshake_rate",
    "handshake",
    "handshake_timeout",
    "http2_preface",
    "bad_request",
    "headers_too_large",
    "request_timeout",
    "method_not_allowed",
];

/// A metric that can be made from a row of the table below.
trait Kind: Collector + Clone + 'static {
    fn made(opts: Opts, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error>;
}

/// Gauges and counters: without labels, and with them.
macro_rules! kinds {
    (plain: $($plain:ty),*; labelled: $($labelled:ty),*) => {
        $(impl Kind for $plain {
            fn made(opts: Opts, _: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
                <$plain>::with_opts(opts)
            }
        })*
        $(impl Kind for $labelled {
            fn made(opts: Opts, labels: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
                <$labelled>::new(opts, labels)
            }
        })*
    };
}

kinds!(plain: Gauge, IntCounter, IntGauge; labelled: IntCounterVec, IntGaugeVec);

impl Kind for Histogram {
    fn made(opts: Opts, _: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()))
    }
}

impl Kind for HistogramVec {
    fn made(opts: Opts, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        HistogramVec::new(HistogramOpts::from(opts).buckets(buckets.to_vec()), labels)
    }
}

/// Declares the metrics, and registers each under its name when they are made.
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
            fn registered(registry: Registry, process: Registry) -> Result<Metrics, prometheus::Error> {
                $(
                    let $field = <$kind as Kind>::made(Opts::new($name, $help), &[$($label),*], $buckets)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Metrics { registry, process, request_series: RequestSeries::default(), $($field,)* })
            }
        }
    };
}

metrics! {
    requests: IntCounterVec = "requests_total", ["route", "method", "code"], &[],
        "Requests answered.";
    requests_in_flight: IntGauge = "requests_in_flight", [], &[],
        "Requests that are being served.";
    request_duration: HistogramVec = "request_duration_seconds", ["route", "class"], REQUEST_BUCKETS,
        "From the request head to the last byte of the response, by class of the status.";
    upstream_duration: HistogramVec = "upstream_duration_seconds", ["upstream"], REQUEST_BUCKETS,
        "From the choice of a server to the head of its answer.";
    upstream_errors: IntCounterVec = "upstream_errors_total", ["upstream", "kind"], &[],
        "Failed attempts to get a response from a server, by kind.";
    auth: IntCounterVec = "auth_total", ["outcome"], &[],
        "Authentications, by outcome.";
    sign_ins: IntCounterVec = "sign_ins_total", ["method", "outcome"], &[],
        "Sign-ins, by what checks the password and by outcome.";
    ratelimit: IntCounterVec = "ratelimit_total", ["limit", "outcome"], &[],
        "Limit decisions, by limit and outcome.";
    store_operation_duration: HistogramVec = "store_operation_duration_seconds", ["operation"], STORE_BUCKETS,
        "Operations on the store, from asking to the answer or the deadline.";
    store_errors: IntCounterVec = "store_errors_total", ["operation", "kind"], &[],
        "Operations that the store did not answer, by kind.";
    store_up: IntGauge = "store_up", [], &[],
        "1 while the store answers.";
    store_listening: IntGauge = "store_listening", [], &[],
        "1 while every change in the store is sure to be heard.";
    store_breaker: IntGauge = "store_breaker", [], &[],
        "0: all connections to the store are used, 1: some, 2: none.";
    store_data_lost: IntCounter = "store_data_lost_total", [], &[],
        "Times that the store was found to have lost its data.";
    cache: IntCounterVec = "cache_total", ["cache", "outcome"], &[],
        "Look-ups in what this gateway remembers.";
    sessions_created: IntCounter = "sessions_created_total", [], &[],
        "Sessions made by a sign-in.";
    sessions_ended: IntCounterVec = "sessions_ended_total", ["reason"], &[],
        "Sessions ended before their time, by reason.";
    sessions_active: IntGauge = "sessions_active", [], &[],
        "Active sessions in the store, as of the last cleanup run.";
    live_connections: IntGauge = "live_connections", [], &[],
        "Open WebSockets, streams and other long answers.";
    revocation_lag: Histogram = "revocation_lag_seconds", [], REQUEST_BUCKETS,
        "From a revocation to the moment at which this gateway enforced it.";
    config_reloads: IntCounterVec = "config_reloads_total", ["outcome"], &[],
        "Attempts to reload the configuration, by outcome.";
    upstream_healthy: IntGaugeVec = "upstream_healthy", ["upstream", "server"], &[],
        "1 while a server is in rotation.";
    cleanup_runs: IntCounterVec = "cleanup_runs_total", ["outcome"], &[],
        "Clean-ups of store and database, by outcome.";
    cleanup_removed: IntCounterVec = "cleanup_removed_total", ["kind"], &[],
        "What clean-ups removed, by kind.";
    events_lost: IntCounter = "events_lost_total", [], &[],
        "Security events that the store was not told of; the log has them.";
    connections: IntGauge = "connections_open", [], &[],
        "Open client connections.";
    connections_refused: IntCounterVec = "connections_refused_total", ["reason"], &[],
        "Connections and heads refused before a request existed, by reason.";
    log_lines_dropped: IntCounterVec = "log_lines_dropped_total", ["stream"], &[],
        "Log lines dropped because the stream failed or was not read in time.";
    tls_certificate_not_after: IntGaugeVec = "tls_certificate_not_after_seconds", ["certificate"], &[],
        "When a listener's certificate expires, Unix time.";
    jwks_fetches: IntCounterVec = "jwks_fetches_total", ["outcome"], &[],
        "Fetches of trusted issuers' keys, by outcome.";
    last_reload_success: Gauge = "config_last_reload_success_timestamp_seconds", [], &[],
        "When the running configuration was loaded, Unix time.";
}

/// What a request counts in on its way.
#[derive(Debug, Default)]
struct RequestSeries {
    auth: SeriesCache<Option<Refusal>>,
    caches: SeriesCache<(&'static str, &'static str)>,
    limits: SeriesCache<(Arc<str>, &'static str)>,
    store: SeriesCache<&'static str, Histogram>,
}

impl Metrics {
    /// Registers every metric; series whose labels are known exist from now on, at 0.
    ///
    /// # Errors
    /// A name that is taken or malformed: a mistake in this file.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new_custom(Some("portcullis".to_owned()), None)?;
        // The process metrics have standard names of their own, without our prefix.
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let build = Opts::new("build_info", "1, with the version that runs.");
        let build = IntGaugeVec::new(build, &["version"])?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Metrics::registered(registry, process)?;
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

    /// Observes how many milliseconds after its end a session was closed or refused here.
    pub fn observe_revocation_lag(&self, lag: u64) {
        self.revocation_lag
            .observe(Duration::from_millis(lag).as_secs_f64());
    }

    /// Counts a store operation: how long it took, and its error if it had one.
    pub fn observe_store_operation(
        &self,
        operation: &'static str,
        took: Duration,
        error: Option<&'static str>,
    ) {
        self.request_series.store.with(
            operation,
            |operation| {
                self.store_operation_duration
                    .with_label_values(&[*operation])
            },
            |series| series.observe(took.as_secs_f64()),
        );
        if let Some(kind) = error {
            self.store_errors
                .with_label_values(&[operation, kind])
                .inc();
        }
    }

    /// Counts a look-up in what this gateway remembers.
    pub fn count_cache_lookup(&self, cache: &'static str, hit: bool) {
        let outcome = if hit { "hit" } else { "miss" };
        self.request_series.caches.with(
            (cache, outcome),
            |(cache, outcome)| self.cache.with_label_values(&[*cache, *outcome]),
            IntCounter::inc,
        );
    }

    /// Counts an authentication; `None`: it succeeded.
    pub fn count_authentication(&self, refusal: Option<Refusal>) {
        let label = |refusal: &Option<Refusal>| match refusal {
            Some(refusal) => refusal.code().to_ascii_lowercase(),
            None => "ok".to_owned(),
        };
        let look_up = |refusal: &_| self.auth.with_label_values(&[label(refusal)]);
        self.request_series
            .auth
            .with(refusal, look_up, IntCounter::inc);
    }

    /// Counts a limit's decision.
    pub fn count_limit_decision(&self, limit: &Arc<str>, outcome: &'static str) {
        self.request_series.limits.with(
            (Arc::clone(limit), outcome),
            |(limit, outcome)| self.ratelimit.with_label_values(&[&**limit, outcome]),
            IntCounter::inc,
        );
    }

    fn initialize_series(&self) {
        self.initialize_sign_in_series();
        self.auth.with_label_values(&["ok"]);
        for refusal in Refusal::ALL {
            if refusal.status() == http::StatusCode::UNAUTHORIZED {
                self.auth
                    .with_label_values(&[&refusal.code().to_ascii_lowercase()]);
            }
        }
        for outcome in ["ambiguous_credentials", "store_unavailable"] {
            self.auth.with_label_values(&[outcome]);
        }
        for reason in EndReason::ALL {
            self.sessions_ended.with_label_values(&[reason.as_str()]);
        }
        for outcome in ["applied", "rejected", "restart_required"] {
            self.config_reloads.with_label_values(&[outcome]);
        }
        for outcome in ["done", "failed", "skipped"] {
            self.cleanup_runs.with_label_values(&[outcome]);
        }
        for kind in [
            "sessions",
            "index_entries",
            "blacklist",
            "live_reports",
            "durable_sessions",
            "revocations",
        ] {
            self.cleanup_removed.with_label_values(&[kind]);
        }
        for cache in ["sessions", "tokens", "profiles", "assertions", "leases"] {
            for outcome in ["hit", "miss"] {
                self.cache.with_label_values(&[cache, outcome]);
            }
        }
        for operation in STORE_OPERATIONS {
            self.store_operation_duration
                .with_label_values(&[operation]);
            for kind in STORE_ERRORS {
                self.store_errors.with_label_values(&[operation, kind]);
            }
        }
        for stream in StandardStream::ALL {
            self.log_lines_dropped.with_label_values(&[stream.as_str()]);
        }
        for reason in CONNECTION_REFUSALS {
            self.connections_refused.with_label_values(&[reason]);
        }
    }
}
