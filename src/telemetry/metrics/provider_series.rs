//! Metrics of one provider.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;

use super::{BackchannelOutcome, Metrics, ProviderEndpoint, ProviderOutcome, RecheckOutcome};

/// The series of one provider, all of which exist from the start.
#[derive(Debug, Clone)]
pub struct ProviderSeries {
    metrics: Arc<Metrics>,
    provider: Arc<str>,
    up: IntGauge,
}

impl ProviderSeries {
    /// Creates the series at 0, and keeps those that exist.
    pub fn new(metrics: &Arc<Metrics>, provider: &Arc<str>) -> ProviderSeries {
        for endpoint in ProviderEndpoint::ALL {
            for outcome in ProviderOutcome::ALL {
                let labels = [provider, endpoint.as_str(), outcome.as_str()];
                metrics.provider_requests.with_label_values(&labels);
            }
            let labels = [provider, endpoint.as_str()];
            metrics.provider_request_duration.with_label_values(&labels);
        }
        for outcome in BackchannelOutcome::ALL {
            let labels = [provider, outcome.as_str()];
            metrics.backchannel_logouts.with_label_values(&labels);
        }
        for outcome in RecheckOutcome::ALL {
            let labels = [provider, outcome.as_str()];
            metrics.provider_rechecks.with_label_values(&labels);
        }
        metrics.initialize_provider_sign_in_series(provider);
        ProviderSeries {
            up: metrics.provider_up.with_label_values(&[&**provider]),
            metrics: Arc::clone(metrics),
            provider: Arc::clone(provider),
        }
    }

    /// Counts a request.
    pub fn observe(&self, endpoint: ProviderEndpoint, outcome: ProviderOutcome, took: Duration) {
        let labels = [&*self.provider, endpoint.as_str(), outcome.as_str()];
        self.metrics
            .provider_requests
            .with_label_values(&labels)
            .inc();
        self.metrics
            .provider_request_duration
            .with_label_values(&[&*self.provider, endpoint.as_str()])
            .observe(took.as_secs_f64());
    }

    /// Counts an exchange of the tokens of a session.
    pub fn count_recheck(&self, outcome: RecheckOutcome) {
        let labels = [&*self.provider, outcome.as_str()];
        self.metrics
            .provider_rechecks
            .with_label_values(&labels)
            .inc();
    }

    /// Sets whether the provider responds.
    pub fn set_up(&self, is_up: bool) {
        self.up.set(i64::from(is_up));
    }
}
