//! Series of requests by the routes and upstreams of one configuration.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::series::SeriesTable;
use super::{LimitOutcome, Metrics, ShardedCounter, ShardedHistogram};
use crate::settings::Reloadable;

/// The `route` label of the gateway's own endpoints.
const API_ROUTE: &str = "(api)";
/// The `route` label of requests that match no route.
pub const NO_ROUTE: &str = "(none)";

/// The `class` label of durations, by the first digit of the status; `none` where no response began.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The `method` labels; any other method could be anything.
const METHODS: [&str; 8] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    OTHER_METHOD,
];
const OTHER_METHOD: &str = "OTHER";

/// The part of the gateway that a request belongs to, as the `route` label names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteLabel {
    /// The index of a route.
    Route(usize),
    Api,
    None,
}

/// The series in which a request counts, resolved once per configuration.
pub struct RoutingSeries {
    /// By the route's index.
    routes: Vec<RouteSeries>,
    api: RouteSeries,
    none: RouteSeries,
    /// By the upstream's index.
    upstream_durations: Vec<ShardedHistogram>,
}

/// The series of one route.
struct RouteSeries {
    name: Arc<str>,
    /// By class of the status.
    durations: [ShardedHistogram; CLASSES.len()],
    /// By method, then by the first digit of the status, then by the other two: only those that occur
    /// take memory.
    requests: SeriesTable<SeriesTable<SeriesTable<ShardedCounter>>>,
}

impl RoutingSeries {
    /// Resolves the series of a configuration, so that they exist at 0.
    pub fn new(settings: &Reloadable, metrics: &Metrics) -> RoutingSeries {
        let series = |name: &Arc<str>| RouteSeries::new(Arc::clone(name), metrics);
        let routes = settings.routes.routes().iter();
        let upstream_durations = settings.upstreams.iter().map(|upstream| {
            let durations = &metrics.upstream_duration;
            durations.with_label_values(&[&*upstream.name])
        });
        let series = RoutingSeries {
            routes: routes.map(|route| series(&route.name)).collect(),
            api: series(&API_ROUTE.into()),
            none: series(&NO_ROUTE.into()),
            upstream_durations: upstream_durations.collect(),
        };
        register_at_zero(settings, metrics);
        series
    }

    /// Counts a request that is over.
    pub fn count(
        &self,
        metrics: &Metrics,
        route: RouteLabel,
        (method, status): (&Method, u16),
        took: Duration,
    ) {
        let series = match route {
            RouteLabel::Route(index) => self.routes.get(index).unwrap_or(&self.none),
            RouteLabel::Api => &self.api,
            RouteLabel::None => &self.none,
        };
        let class = usize::from(status / 100);
        let duration = series.durations.get(class);
        if let Some(duration) = duration.or(series.durations.first()) {
            duration.observe(took.as_secs_f64());
        }
        if let Some(requests) = series.requests(metrics, method, status) {
            requests.inc();
        }
    }

    /// Records how long an upstream took.
    pub fn observe_upstream(&self, index: usize, took: Duration) {
        if let Some(histogram) = self.upstream_durations.get(index) {
            histogram.observe(took.as_secs_f64());
        }
    }
}

impl RouteSeries {
    fn new(name: Arc<str>, metrics: &Metrics) -> RouteSeries {
        let of_class = |class| {
            let durations = &metrics.request_duration;
            durations.with_label_values(&[&*name, class])
        };
        RouteSeries {
            durations: CLASSES.map(of_class),
            requests: SeriesTable::new(METHODS.len()),
            name,
        }
    }

    /// The counter of a method and a status; `None` for a status of more than three digits.
    fn requests(&self, metrics: &Metrics, method: &Method, status: u16) -> Option<&ShardedCounter> {
        let known = METHODS.iter().position(|label| *label == method.as_str());
        let method = known.unwrap_or(METHODS.len() - 1);
        let (first, rest) = (usize::from(status / 100), usize::from(status % 100));
        let classes = self.requests.get(method, || SeriesTable::new(10))?;
        let statuses = classes.get(first, || SeriesTable::new(100))?;
        statuses.get(rest, || {
            let status = StatusCode::from_u16(status);
            let code = status.as_ref().map_or("000", StatusCode::as_str);
            let method = METHODS.get(method).copied().unwrap_or(OTHER_METHOD);
            let requests = &metrics.requests;
            requests.with_label_values(&[&*self.name, method, code])
        })
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
    for certificate in settings
        .served_listeners()
        .flat_map(|one| &one.certificates)
    {
        let series = certificates.with_label_values(&[&certificate.file]);
        series.set(certificate.not_after);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_method_and_status_has_its_series() {
        let metrics = Metrics::new().unwrap();
        let series = RouteSeries::new("shop".into(), &metrics);
        for (method, status, labels) in [
            ("GET", 200, ["GET", "200"]),
            ("GET", 204, ["GET", "204"]),
            ("POST", 200, ["POST", "200"]),
            ("OPTIONS", 599, ["OPTIONS", "599"]),
            ("OTHER", 404, ["OTHER", "404"]),
            ("BREW", 418, ["OTHER", "418"]),
            // No response was begun.
            ("GET", 0, ["GET", "000"]),
            ("GET", 99, ["GET", "000"]),
            ("GET", 999, ["GET", "999"]),
        ] {
            let [method_label, code] = labels;
            let requests = &metrics.requests;
            let by_labels = requests.with_label_values(&["shop", method_label, code]);
            let before = by_labels.get();
            let method: Method = method.parse().unwrap();
            // The first look-up creates the entry, the second one finds it.
            for _ in 0..2 {
                series.requests(&metrics, &method, status).unwrap().inc();
            }
            assert_eq!(by_labels.get(), before + 2, "{method} {status}");
        }
        assert!(series.requests(&metrics, &Method::GET, 1000).is_none());
    }
}
