//! Metrics of one introspection endpoint.

use std::time::Duration;

use prometheus::IntCounter;

use super::{IntrospectionOutcome, Metrics, ShardedHistogram};

/// The series of one entry, all of which exist from the start.
#[derive(Debug, Clone)]
pub struct IntrospectionSeries {
    active: IntCounter,
    inactive: IntCounter,
    unknown: IntCounter,
    cached: IntCounter,
    duration: ShardedHistogram,
}

impl IntrospectionSeries {
    /// Creates the series at 0, and keeps those that exist.
    pub fn new(metrics: &Metrics, name: &str) -> IntrospectionSeries {
        let counter = |outcome: IntrospectionOutcome| {
            let labels = [name, outcome.as_str()];
            metrics.introspections.with_label_values(&labels)
        };
        IntrospectionSeries {
            active: counter(IntrospectionOutcome::Active),
            inactive: counter(IntrospectionOutcome::Inactive),
            unknown: counter(IntrospectionOutcome::Unknown),
            cached: counter(IntrospectionOutcome::Cached),
            duration: metrics.introspection_duration.with_label_values(&[name]),
        }
    }

    /// Counts the verification of a token.
    pub fn count(&self, outcome: IntrospectionOutcome) {
        match outcome {
            IntrospectionOutcome::Active => &self.active,
            IntrospectionOutcome::Inactive => &self.inactive,
            IntrospectionOutcome::Unknown => &self.unknown,
            IntrospectionOutcome::Cached => &self.cached,
        }
        .inc();
    }

    /// Counts verifications without a call.
    pub fn cached(&self) -> &IntCounter {
        &self.cached
    }

    /// Observes the duration of a call.
    pub fn observe_call(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }
}
