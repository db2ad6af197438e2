//! Marker keys, by whose absence a loss of the store's data is detected.
//!
//! The marker is written at the first start. A cluster has many, spread over the slots, so that the
//! loss of any master's data is detected.

use std::time::Duration;

use super::{CacheKey, Engine, Revocation, Store, StoreError};
use crate::auth::session::Millis;
use crate::telemetry::metrics::StoreOperation;

/// Lifetime of the marker after the last extension by a gateway.
pub(super) const MARKER_TTL: Duration = Duration::from_secs(366 * 86_400);
/// Number of revocations written per step of a restoration.
const BATCH_SIZE: usize = 256;

/// Identity of the store's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Random; created at the first start and after a total loss of data.
    pub id: String,
    /// Second up to which all users' tokens without a session are rejected, because revocations of
    /// them may be lost; 0: none.
    pub global_cut_off: u64,
}

/// State of the marker keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkerState {
    /// The store is new or has lost all data.
    Absent,
    /// The store has lost some data.
    Partial(Marker),
    Complete(Marker),
}

impl MarkerState {
    /// Combines the markers at all of their keys.
    pub(super) fn from_markers(markers: &[Option<Marker>]) -> MarkerState {
        let mut present = markers.iter().flatten();
        let Some(first) = present.next() else {
            return MarkerState::Absent;
        };
        let cut_off = present
            .map(|marker| marker.global_cut_off)
            .max()
            .unwrap_or(0);
        let marker = Marker {
            id: first.id.clone(),
            global_cut_off: cut_off.max(first.global_cut_off),
        };
        let agrees =
            |other: &Option<Marker>| other.as_ref().is_some_and(|other| other.id == marker.id);
        if markers.iter().all(agrees) {
            MarkerState::Complete(marker)
        } else {
            MarkerState::Partial(marker)
        }
    }
}

impl Store {
    /// Prefix of all keys, which separates this store from others on the same servers.
    pub fn key_prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// Whether the store is embedded in this process and ends with it.
    pub fn is_in_process(&self) -> bool {
        matches!(self.engine, Engine::Memory(_))
    }

    /// Timeout of a single operation.
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// Waits for a reason to check the marker: a new connection or a flush that the store reported.
    ///
    /// A reason from before the call counts as well.
    pub async fn data_may_have_changed(&self) {
        match &self.engine {
            Engine::Memory(_) => std::future::pending().await,
            Engine::Redis(redis) => redis.data_may_have_changed().await,
        }
    }

    /// Reads the state of the marker.
    pub async fn marker_state(&self) -> Result<MarkerState, StoreError> {
        self.measured(StoreOperation::Marker, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.marker_state()),
                Engine::Redis(redis) => redis.marker_state().await,
            }
        })
        .await
    }

    /// Writes the marker where it is missing, with a global cut-off of at least this second.
    ///
    /// Gateways that write it concurrently end up with the same marker.
    pub async fn write_marker(&self, cut_off: u64) -> Result<Marker, StoreError> {
        self.measured(StoreOperation::Marker, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.write_marker(cut_off)),
                Engine::Redis(redis) => redis.write_marker(cut_off).await,
            }
        })
        .await
    }

    /// Extends the marker's TTL.
    pub async fn extend_marker(&self) -> Result<(), StoreError> {
        let Engine::Redis(redis) = &self.engine else {
            return Ok(());
        };
        self.measured(StoreOperation::Marker, redis.extend_marker())
            .await
    }

    /// Rejects tokens without a session issued up to this second, on this gateway.
    pub fn set_global_cut_off(&self, second: u64) {
        self.shared.near_cache.set_global_cut_off(second);
    }

    /// Restores revocations, each with its expiry by the store's clock.
    ///
    /// An existing entry that lasts longer or covers more is kept. The timeout applies to each step.
    pub async fn restore_revocations(
        &self,
        revocations: &[(Revocation, Millis)],
        now: Millis,
    ) -> Result<(), StoreError> {
        self.measured_steps(StoreOperation::Restore, async {
            for batch in revocations.chunks(BATCH_SIZE) {
                match &self.engine {
                    Engine::Memory(memory) => memory.restore_revocations(batch, now),
                    Engine::Redis(redis) => {
                        redis
                            .restore_revocations(batch, now, self.shared.timeout)
                            .await?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Lists the blacklist and the cut-offs of a store that other programs write to.
    ///
    /// It scans all keys; the timeout applies to each step.
    pub async fn list_revocations(&self) -> Result<Vec<CacheKey>, StoreError> {
        self.measured_steps(StoreOperation::Restore, async {
            match &self.engine {
                Engine::Memory(_) => Ok(Vec::new()),
                Engine::Redis(redis) => redis.list_revocations(self.shared.timeout).await,
            }
        })
        .await
    }

    /// Announces a revocation that is in force even if the store does not have it yet.
    pub fn announce_revocation(&self, revocation: Revocation) {
        self.announce(revocation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(id: &str, global_cut_off: u64) -> Marker {
        Marker {
            id: id.to_owned(),
            global_cut_off,
        }
    }

    #[test]
    fn marker_is_complete_when_all_places_agree() {
        let (a, b) = (Some(marker("a", 1)), Some(marker("b", 3)));
        let later = Some(marker("a", 2));
        for (markers, expected) in [
            (vec![None, None], MarkerState::Absent),
            (vec![a.clone()], MarkerState::Complete(marker("a", 1))),
            (
                vec![a.clone(), later.clone()],
                MarkerState::Complete(marker("a", 2)),
            ),
            (vec![None, later], MarkerState::Partial(marker("a", 2))),
            (vec![a, b], MarkerState::Partial(marker("a", 3))),
        ] {
            assert_eq!(MarkerState::from_markers(&markers), expected, "{markers:?}");
        }
    }
}
