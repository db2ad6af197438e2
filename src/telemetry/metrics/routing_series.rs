//! Series of requests by the routes and upstreams of one configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use http::{Method, StatusCode};

use super::series::SeriesList;
use super::{LimitOutcome, Metrics, ShardedCounter, ShardedHistogram};
use crate::settings::Reloadable;

/// The `route` label of the gateway's own endpoints.
pub const API_ROUTE: &str = "(api)";
/// The `route` label of requests that match no route.
pub const NO_ROUTE: &str = "(none)";

/// The `class` label of durations, by the first digit of the status; `none` where no response began.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The series in which a request counts, resolved once per configuration.
pub struct RoutingSeries {
    routes: HashMap<Arc<str>, RouteSeries, RandomState>,
    /// By the upstream's index.
    upstream_durations: Vec<ShardedHistogram>,
}

/// The series of one route.
struct RouteSeries {
    /// By class of the status.
    durations: [ShardedHistogram; CLASSES.len()],
    /// By status and method.
    requests: SeriesList<(u16, &'static str), ShardedCounter>,
}

impl RoutingSeries {
    /// Resolves the series of a configuration, so that they exist at 0.
    pub fn new(settings: &Reloadable, metrics: &Metrics) -> RoutingSeries {
        let names = settings.routes.routes().iter().map(|route| &route.name);
        let names = names.cloned().chain([API_ROUTE.into(), NO_ROUTE.into()]);
        let routes = names.map(|name| {
            let series = RouteSeries::new(&name, metrics);
            (name, series)
        });
        let upstream_durations = settings.upstreams.iter().map(|upstream| {
            let durations = &metrics.upstream_duration;
            durations.with_label_values(&[&*upstream.name])
        });
        let series = RoutingSeries {
            routes: routes.collect(),
            upstream_durations: upstream_durations.collect(),
        };
        register_at_zero(settings, metrics);
        series
    }

    /// Counts a request that is over.
    pub fn count(
        &self,
        metrics: &Metrics,
        route: &str,
        (method, status): (&Method, u16),
        took: Duration,
    ) {
        let Some(series) = self.routes.get(route) else {
            return;
        };
        let class = usize::from(status / 100);
        let duration = series.durations.get(class);
        if let Some(duration) = duration.or(series.durations.first()) {
            duration.observe(took.as_secs_f64());
        }
        let look_up = |&(status, method): &(u16, &str)| {
            let status = StatusCode::from_u16(status);
            let code = status.as_ref().map_or("000", StatusCode::as_str);
            metrics.requests.with_label_values(&[route, method, code])
        };
        let key = (status, method_label(method));
        series.requests.get(&key, look_up).inc();
    }

    /// Records how long an upstream took.
    pub fn observe_upstream(&self, index: usize, took: Duration) {
        if let Some(histogram) = self.upstream_durations.get(index) {
            histogram.observe(took.as_secs_f64());
        }
    }
}

impl RouteSeries {
    fn new(route: &str, metrics: &Metrics) -> RouteSeries {
        let of_class = |class| metrics.request_duration.with_label_values(&[route, class]);
        RouteSeries {
            durations: CLASSES.map(of_class),
            requests: SeriesList::default(),
        }
    }
}

/// Creates the series of routes and limits, and replaces those of certificates.
fn register_at_zero(settings: &Reloadable, metrics: &Metrics) {
    for route in settings.routes.routes() {
        let requests = &metrics.requests;
        requests.with_label_values(&[&*route.name, "GET", "200"]);
    }
    for limit in &settings.limits {
        for outcome in LimitOutcome::ALL {
            let decisions = &metrics.ratelimit;
            decisions.with_label_values(&[&*limit.name, outcome.as_str()]);
        }
    }
    let certificates = &metrics.tls_certificate_not_after;
    certificates.reset();
    for certificate in settings.listeners.iter().flat_map(|one| &one.certificates) {
        let series = certificates.with_label_values(&[&certificate.file]);
        series.set(certificate.not_after);
    }
}

/// Methods that a label may name; any other could be anything.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}
