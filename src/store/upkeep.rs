//! The store's own health: clean-up, counts, and whether it takes writes and gives them back.

use std::time::Duration;

use super::{Engine, Store, StoreError};
use crate::session::Millis;

/// What was there at the last clean-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Neither revoked nor past their absolute end.
    pub active_sessions: u64,
    pub cached_profiles: u64,
    pub blacklisted_tokens: u64,
    /// When the clean-up ran.
    pub at: Millis,
}

/// How long a trial took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub write: Duration,
    pub read: Duration,
}

/// The connections that this process holds to the store: one for each worker, and one for what
/// belongs to no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCount {
    pub made: u64,
    pub up: u64,
}

impl Store {
    /// How many connections there are. `None`: it is in this process and needs none.
    pub fn links(&self) -> Option<LinkCount> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis.links()),
        }
    }

    /// Drops what has had its time, and counts what is there. In a fleet one gateway does it and
    /// the others get its counts. Each step has the deadline, not the whole.
    pub async fn clean_up(&self) -> Result<Counts, StoreError> {
        self.shared.local.clean_up();
        let counts = self
            .measured_steps("clean_up", async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.clean_up()),
                    Engine::Redis(redis) => redis.clean_up(self.shared.timeout).await,
                }
            })
            .await?;
        let active = i64::try_from(counts.active_sessions).unwrap_or(i64::MAX);
        self.shared.metrics.sessions_active.set(active);
        Ok(counts)
    }

    /// The counts of the last clean-up, the same on every gateway. `None`: there was none lately.
    pub async fn counts(&self) -> Result<Option<Counts>, StoreError> {
        self.measured("counts", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.counts()),
                Engine::Redis(redis) => redis.counts().await,
            }
        })
        .await
    }

    /// Tries a write and a read.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        self.measured("probe", async {
            match &self.engine {
                Engine::Memory(_) => Ok(Probe {
                    write: Duration::ZERO,
                    read: Duration::ZERO,
                }),
                Engine::Redis(redis) => redis.probe().await,
            }
        })
        .await
    }
}
