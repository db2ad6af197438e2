//! Maintenance of the store: clean-up, counts and the health probe.

use std::time::Duration;

use super::{CacheKey, Engine, Store, StoreError};
use crate::auth::session::Millis;
use crate::telemetry::metrics::{CleanUpKind, StoreOperation};

/// Counts of the last clean-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Sessions neither revoked nor past their absolute expiry.
    pub active_sessions: u64,
    pub cached_profiles: u64,
    pub blacklisted_tokens: u64,
    /// When the clean-up ran.
    pub at: Millis,
}

/// Numbers of removed entries, by the labels of `portcullis_cleanup_removed_total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RemovedCounts {
    pub sessions: u64,
    pub index_entries: u64,
    pub blacklist: u64,
    pub live_reports: u64,
}

/// Lease of the clean-up, which one gateway of the fleet holds at a time.
#[derive(Debug, PartialEq, Eq)]
pub struct CleanUpLease(pub(super) u64);

/// Duration or failure of the probe's write and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeResult {
    pub write: Result<Duration, StoreError>,
    pub read: Result<Duration, StoreError>,
}

/// Number of this process's connections to the store.
///
/// One per worker, one for background tasks, and one that waits for replicas if they are required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCount {
    pub total: u64,
    pub up: u64,
}

impl Store {
    /// Number of connections; `None`: the store is embedded.
    pub fn connection_count(&self) -> Option<ConnectionCount> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis.connection_count()),
        }
    }

    /// Acquires the clean-up lease; `None`: another gateway has it, or had it within this period.
    ///
    /// It is released by [`Store::end_clean_up`]; the lease of a gateway that crashed expires after a
    /// minute.
    pub async fn begin_clean_up(
        &self,
        period: Duration,
    ) -> Result<Option<CleanUpLease>, StoreError> {
        self.measured(StoreOperation::BeginCleanUp, async {
            match &self.engine {
                // The process is the whole fleet.
                Engine::Memory(_) => Ok(Some(CleanUpLease(0))),
                Engine::Redis(redis) => redis.begin_clean_up(period).await,
            }
        })
        .await
    }

    /// Removes expired entries, counts the others and publishes the counts to the fleet.
    ///
    /// It pauses between steps, so that it takes only a part of the store's time. The timeout applies
    /// to each step. `revocations` receives the blacklist entries and cut-offs of a store that other
    /// programs write to.
    pub async fn clean_up(
        &self,
        lease: &CleanUpLease,
        revocations: &mut Vec<CacheKey>,
    ) -> Result<StoreCounts, StoreError> {
        let (counts, removed) = self
            .measured_steps(StoreOperation::CleanUp, async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.clean_up()),
                    Engine::Redis(redis) => {
                        redis
                            .clean_up(lease, self.shared.timeout, revocations)
                            .await
                    }
                }
            })
            .await?;
        for (kind, count) in [
            (CleanUpKind::Sessions, removed.sessions),
            (CleanUpKind::IndexEntries, removed.index_entries),
            (CleanUpKind::Blacklist, removed.blacklist),
            (CleanUpKind::LiveReports, removed.live_reports),
        ] {
            self.shared.metrics.count_removed(kind, count);
        }
        Ok(counts)
    }

    /// Releases the clean-up lease.
    pub async fn end_clean_up(&self, lease: CleanUpLease) -> Result<(), StoreError> {
        self.measured(StoreOperation::EndCleanUp, async {
            match &self.engine {
                Engine::Memory(_) => Ok(()),
                Engine::Redis(redis) => redis.end_clean_up(lease).await,
            }
        })
        .await
    }

    /// Returns the fleet's counts of the last clean-up; `None`: there was none recently.
    pub async fn counts(&self) -> Result<Option<StoreCounts>, StoreError> {
        self.measured(StoreOperation::Counts, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.counts()),
                Engine::Redis(redis) => redis.counts().await,
            }
        })
        .await
    }

    /// Probes the store with a write and a read; a read-only store still serves reads.
    pub async fn probe(&self) -> Result<ProbeResult, StoreError> {
        self.measured(StoreOperation::Probe, async {
            match &self.engine {
                Engine::Memory(_) => Ok(ProbeResult {
                    write: Ok(Duration::ZERO),
                    read: Ok(Duration::ZERO),
                }),
                Engine::Redis(redis) => redis.probe().await,
            }
        })
        .await
    }
}
