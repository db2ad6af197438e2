//! Sessions and revocations, wherever they live. Callers name an operation; whether the near cache, the
//! store or the database performs it is decided here.
//!
//! A durable session is written to the database first, and the database decides how it stands. The
//! store receives a copy as far as it responds; what it misses is replayed later.

pub mod api_keys;
mod background;
mod create;
mod credential;
mod degraded;
mod durable;
mod end;
mod list;
mod liveness;
mod lookup;
mod miss_limiter;
mod provider_logout;
mod provider_tokens;
mod refresh;
mod revoke;
mod row_lookup;
mod source;
mod update;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use api_keys::ApiKeys;
pub use credential::{Credential, CredentialCheck};
use durable::DurableSessions;
pub use lookup::{LastSeen, LookupCharges};
pub use provider_logout::{ProviderLogoutOutcome, SignInStart};
use source::SessionSource;
pub use update::{ExternalIdentity, identity_of};
pub use verdict::{Gone, LookupResult, Verdict};

use crate::auth::session::Millis;
use crate::clock;
use crate::database::{self, Database};
use crate::events::Events;
use crate::settings::{self, SessionsOnOutage};
use crate::store::Store;
pub use crate::store::near_cache::{RecordedSession, ValidEntries};
pub use crate::store::{
    REPORT_TTL, Revocation, SessionLookup, StoreError, UserHash, cut_off_covers, user_hash,
};
use crate::telemetry::metrics::Metrics;

/// A handle on all sessions and revocations; clones share their state.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    /// How a credential is verified while the store does not respond.
    on_outage: SessionsOnOutage,
    /// How old a cache entry may be by which it is.
    cached_for: Duration,
    database: Database,
    durable: DurableSessions,
    api_keys: ApiKeys,
    metrics: Arc<Metrics>,
}

/// Why an operation has no outcome. It may have been performed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the store did not respond")]
    Store(#[from] StoreError),
    #[error("the database did not respond")]
    Database(#[from] database::Error),
}

impl Sessions {
    /// `is_durable`: sessions have rows in the database.
    pub fn new(
        store: Store,
        settings: &settings::Store,
        database: Database,
        metrics: Arc<Metrics>,
        is_durable: bool,
    ) -> Sessions {
        Sessions {
            api_keys: ApiKeys::new(database.clone(), store.clone(), Arc::clone(&metrics)),
            store,
            on_outage: settings.sessions_on_outage,
            cached_for: settings.cached_for,
            durable: DurableSessions::new(database.clone(), is_durable),
            database,
            metrics,
        }
    }

    /// The same sessions; changes of API keys are reported.
    #[must_use]
    pub fn with_events(self, events: Events) -> Sessions {
        let api_keys = self.api_keys.with_events(events);
        Sessions { api_keys, ..self }
    }

    /// The same sessions over another connection to the store, for another runtime.
    #[must_use]
    pub fn with_store(&self, store: Store) -> Sessions {
        Sessions {
            api_keys: self.api_keys.with_store(store.clone()),
            store,
            ..self.clone()
        }
    }

    /// The keys of users and services.
    pub fn api_keys(&self) -> &ApiKeys {
        &self.api_keys
    }

    /// Whether sessions outlive the store.
    pub fn is_durable(&self) -> bool {
        match self.source() {
            SessionSource::Store => false,
            SessionSource::Durable(_) => true,
        }
    }

    /// The store's clock; for durable sessions this gateway's while the store does not respond.
    ///
    /// # Errors
    /// When the store does not respond and sessions need it.
    pub async fn now(&self) -> Result<Millis, StoreError> {
        match (self.store.now().await, self.source()) {
            (Err(_), SessionSource::Durable(_)) => Ok(clock::unix_millis()),
            (now, _) => now,
        }
    }

    /// Whether an end may be incomplete after it was reported to have failed, so that asking again has to
    /// complete it.
    pub fn ends_may_be_partial(&self) -> bool {
        self.store.requires_replicas() || self.is_durable()
    }

    /// Follows a reload.
    pub fn set_durable(&self, is_durable: bool) {
        self.durable.set_enabled(is_durable);
    }

    fn source(&self) -> SessionSource<'_> {
        match self.durable.if_enabled() {
            Some(durable) => SessionSource::Durable(durable),
            None => SessionSource::Store,
        }
    }
}

#[cfg(test)]
mod tests;
