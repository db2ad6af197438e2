//! The store's own health: clean-up, counts, and whether it takes writes and gives them back.

use std::time::Duration;

use super::{CacheKey, Engine, Store, StoreError};
use crate::auth::session::Millis;
use crate::telemetry::metrics::{CleanUpKind, StoreOperation};

/// What was there at the last clean-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Neither revoked nor past their absolute end.
    pub active_sessions: u64,
    pub cached_profiles: u64,
    pub blacklisted_tokens: u64,
    /// When the clean-up ran.
    pub at: Millis,
}

/// What a clean-up took away: the labels of `portcullis_cleanup_removed_total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RemovedCounts {
    pub sessions: u64,
    pub index_entries: u64,
    pub blacklist: u64,
    pub live_reports: u64,
}

/// The turn to clean up, which one gateway of a fleet has at a time.
#[derive(Debug, PartialEq, Eq)]
pub struct CleanUpLease(pub(super) u64);

/// How long a write and a read took, or why they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeResult {
    pub write: Result<Duration, StoreError>,
    pub read: Result<Duration, StoreError>,
}

/// The connections that this process holds to the store: one for each worker, one for what belongs to
/// no request, and one to wait for replicas where somebody has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCount {
    pub total: u64,
    pub up: u64,
}

impl Store {
    /// How many connections there are. `None`: it is in this process and needs none.
    pub fn connection_count(&self) -> Option<ConnectionCount> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis.connection_count()),
        }
    }

    /// Takes the fleet's turn to clean up. `None`: another gateway has it, or had it within this
    /// period. Whoever has it gives it back by [`Store::end_clean_up`]; from one that died it is
    /// taken after a minute.
    pub async fn begin_clean_up(
        &self,
        period: Duration,
    ) -> Result<Option<CleanUpLease>, StoreError> {
        self.measured(StoreOperation::BeginCleanUp, async {
            match &self.engine {
                // One process is the whole fleet.
                Engine::Memory(_) => Ok(Some(CleanUpLease(0))),
                Engine::Redis(redis) => redis.begin_clean_up(period).await,
            }
        })
        .await
    }

    /// Drops what has had its time, counts what is there and keeps the counts for the fleet. It
    /// takes a few times as long as the store works for it, so that nobody waits for it. Each step
    /// has the deadline, not the whole.
    ///
    /// `standing` gets the blacklist and the cut-offs that it came upon in a store that others write to.
    pub async fn clean_up(
        &self,
        turn: &CleanUpLease,
        standing: &mut Vec<CacheKey>,
    ) -> Result<StoreCounts, StoreError> {
        let (counts, removed) = self
            .measured_steps(StoreOperation::CleanUp, async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.clean_up()),
                    Engine::Redis(redis) => {
                        redis.clean_up(turn, self.shared.timeout, standing).await
                    }
                }
            })
            .await?;
        for (kind, many) in [
            (CleanUpKind::Sessions, removed.sessions),
            (CleanUpKind::IndexEntries, removed.index_entries),
            (CleanUpKind::Blacklist, removed.blacklist),
            (CleanUpKind::LiveReports, removed.live_reports),
        ] {
            self.shared.metrics.count_removed(kind, many);
        }
        Ok(counts)
    }

    /// Gives the turn back.
    pub async fn end_clean_up(&self, turn: CleanUpLease) -> Result<(), StoreError> {
        self.measured(StoreOperation::EndCleanUp, async {
            match &self.engine {
                Engine::Memory(_) => Ok(()),
                Engine::Redis(redis) => redis.end_clean_up(turn).await,
            }
        })
        .await
    }

    /// The counts of the last clean-up, the same on every gateway. `None`: there was none lately.
    pub async fn counts(&self) -> Result<Option<StoreCounts>, StoreError> {
        self.measured(StoreOperation::Counts, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.counts()),
                Engine::Redis(redis) => redis.counts().await,
            }
        })
        .await
    }

    /// Tries a write and a read. A store that takes no writes may serve reads.
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
