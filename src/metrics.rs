//! Every metric of the gateway: one struct, one prefix, base units, bounded labels. Label values
//! are names from the configuration or variants of our own enums; never a user, a session, an
//! address or a path.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::refusal::Refusal;
use crate::session::EndReason;

/// Seconds; from a cached answer on loopback to a slow upstream.
const REQUEST_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Seconds; a store operation is far below a request.
const STORE_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// The operations of the store's face.
const STORE_OPERATIONS: [&str; 37] = [
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
/// Why a connection or a head is turned away before there is a request.
const CONNECTION_REFUSALS: [&str; 10] = [
    "connections",
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

/// The gateway's metrics and the registry that renders them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Registry,
    pub requests: IntCounterVec,
    pub request_duration: HistogramVec,
    pub upstream_duration: HistogramVec,
    pub auth: IntCounterVec,
    pub ratelimit: IntCounterVec,
    pub store_operation_duration: HistogramVec,
    pub store_errors: IntCounterVec,
    pub store_up: IntGauge,
    pub cache: IntCounterVec,
    pub sessions_created: IntCounter,
    pub sessions_ended: IntCounterVec,
    pub sessions_active: IntGauge,
    pub live_connections: IntGauge,
    pub revocation_lag: Histogram,
    pub config_reloads: IntCounterVec,
    pub upstream_healthy: IntGaugeVec,
    pub cleanup_runs: IntCounterVec,
    pub cleanup_removed: IntCounterVec,
    pub events_lost: IntCounter,
    pub connections: IntGauge,
    pub connections_refused: IntCounterVec,
    pub access_log_dropped: IntCounter,
    pub jwks_fetches: IntCounterVec,
    pub last_reload_success: Gauge,
}

impl Metrics {
    /// Registers every metric; series whose labels are known exist from now on, at 0.
    ///
    /// # Errors
    /// A name that is taken or malformed: a mistake in this file.
    #[expect(
        clippy::too_many_lines,
        reason = "one list: name, help and labels of every metric"
    )]
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new_custom(Some("portcullis".to_owned()), None)?;
        // The process metrics have standard names of their own, without our prefix.
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let build = IntGaugeVec::new(
            Opts::new("build_info", "1, with the version that runs."),
            &["version"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Metrics {
            requests: counters(
                &registry,
                "requests_total",
                "Requests answered.",
                &["route", "method", "code"],
            )?,
            request_duration: histograms(
                &registry,
                "request_duration_seconds",
                "From the request head to the last byte of the answer.",
                &["route"],
                REQUEST_BUCKETS,
            )?,
            upstream_duration: histograms(
                &registry,
                "upstream_duration_seconds",
                "From the choice of a server to the head of its answer.",
                &["upstream"],
                REQUEST_BUCKETS,
            )?,
            auth: counters(
                &registry,
                "auth_total",
                "Authentications, by outcome.",
                &["outcome"],
            )?,
            ratelimit: counters(
                &registry,
                "ratelimit_total",
                "Limit decisions, by limit and outcome.",
                &["limit", "outcome"],
            )?,
            store_operation_duration: histograms(
                &registry,
                "store_operation_duration_seconds",
                "Operations on the store, from asking to the answer or the deadline.",
                &["operation"],
                STORE_BUCKETS,
            )?,
            store_errors: counters(
                &registry,
                "store_errors_total",
                "Operations that the store did not answer, by kind.",
                &["operation", "kind"],
            )?,
            store_up: register(
                &registry,
                IntGauge::new("store_up", "1 while the store answers.")?,
            )?,
            cache: counters(
                &registry,
                "cache_total",
                "Look-ups in what this gateway remembers.",
                &["cache", "outcome"],
            )?,
            sessions_created: register(
                &registry,
                IntCounter::new("sessions_created_total", "Sessions made by a sign-in.")?,
            )?,
            sessions_ended: counters(
                &registry,
                "sessions_ended_total",
                "Sessions ended before their time, by reason.",
                &["reason"],
            )?,
            sessions_active: register(
                &registry,
                IntGauge::new(
                    "sessions_active",
                    "Active sessions in the store, as of the last cleanup run.",
                )?,
            )?,
            live_connections: register(
                &registry,
                IntGauge::new(
                    "live_connections",
                    "Open WebSockets, streams and other long answers.",
                )?,
            )?,
            revocation_lag: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "revocation_lag_seconds",
                        "From a revocation to the moment at which this gateway enforced it.",
                    )
                    .buckets(REQUEST_BUCKETS.to_vec()),
                )?,
            )?,
            config_reloads: counters(
                &registry,
                "config_reloads_total",
                "Attempts to reload the configuration, by outcome.",
                &["outcome"],
            )?,
            upstream_healthy: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("upstream_healthy", "1 while a server is in rotation."),
                    &["upstream", "server"],
                )?,
            )?,
            cleanup_runs: counters(
                &registry,
                "cleanup_runs_total",
                "Clean-ups of store and database, by outcome.",
                &["outcome"],
            )?,
            cleanup_removed: counters(
                &registry,
                "cleanup_removed_total",
                "What clean-ups removed, by kind.",
                &["kind"],
            )?,
            events_lost: register(
                &registry,
                IntCounter::new(
                    "events_lost_total",
                    "Security events that the store was not told of; the log has them.",
                )?,
            )?,
            connections: register(
                &registry,
                IntGauge::new("connections", "Open client connections.")?,
            )?,
            connections_refused: counters(
                &registry,
                "connections_refused_total",
                "Connections and heads refused before a request existed, by reason.",
                &["reason"],
            )?,
            access_log_dropped: register(
                &registry,
                IntCounter::new(
                    "access_log_dropped_total",
                    "Access log lines dropped because the log could not keep up.",
                )?,
            )?,
            jwks_fetches: counters(
                &registry,
                "jwks_fetches_total",
                "Fetches of trusted issuers' keys, by outcome.",
                &["outcome"],
            )?,
            last_reload_success: register(
                &registry,
                Gauge::new(
                    "config_last_reload_success_timestamp_seconds",
                    "When the running configuration was loaded, Unix time.",
                )?,
            )?,
            registry,
            process,
        };
        metrics.start_at_zero();
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
    pub fn revoked_after(&self, lag: u64) {
        self.revocation_lag
            .observe(Duration::from_millis(lag).as_secs_f64());
    }

    /// Counts a store operation: how long it took, and its error if it had one.
    pub fn store_operation(
        &self,
        operation: &'static str,
        took: Duration,
        error: Option<&'static str>,
    ) {
        self.store_operation_duration
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
        if let Some(kind) = error {
            self.store_errors
                .with_label_values(&[operation, kind])
                .inc();
        }
    }

    fn start_at_zero(&self) {
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
            for kind in ["timeout", "unreachable", "refused", "malformed"] {
                self.store_errors.with_label_values(&[operation, kind]);
            }
        }
        for reason in CONNECTION_REFUSALS {
            self.connections_refused.with_label_values(&[reason]);
        }
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    register(
        registry,
        HistogramVec::new(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
            labels,
        )?,
    )
}
