//! The services of admission, which the requests of a worker share.

use std::sync::Arc;
use std::time::Duration;

use super::{Admission, Memo};
use crate::events::Events;
use crate::identity::oidc::ProviderTokens;
use crate::pipeline::snapshot::Snapshot;
use crate::sessions::Sessions;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::RequestId;

/// The services that decide requests, whatever the configuration.
pub struct AdmissionServices {
    pub store: Store,
    pub sessions: Sessions,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    pub memo: Memo,
    pub provider_tokens: ProviderTokens,
}

impl AdmissionServices {
    /// The admission of one request by one configuration.
    pub fn by<'a>(&'a self, snapshot: &'a Snapshot, request_id: &'a RequestId) -> Admission<'a> {
        Admission {
            snapshot,
            store: &self.store,
            sessions: &self.sessions,
            metrics: &self.metrics,
            events: Some(&self.events),
            memo: &self.memo,
            provider_tokens: &self.provider_tokens,
            request_id,
        }
    }

    /// The store's clock, by which limits are counted, since the epoch.
    pub fn store_clock(&self) -> Duration {
        Duration::from_millis(self.store.clock())
    }
}
