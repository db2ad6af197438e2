//! By what it is noticed that the store has lost its data: a marker that is in it from the first start
//! on. In a cluster there are many, in slots far apart, so that every master's loss shows.

use std::time::Duration;

use super::{CacheKey, Engine, Revocation, Store, StoreError};
use crate::auth::session::Millis;
use crate::telemetry::metrics::StoreOperation;

/// How long it lives if no gateway is there to prolong that.
pub(super) const MARKER_TTL: Duration = Duration::from_secs(366 * 86_400);
/// How many revocations one step of a restoration writes.
const BATCH_SIZE: usize = 256;

/// What the store is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Made at the first start, and again after all was lost.
    pub id: String,
    /// Tokens without a session that were issued up to this second are refused, whosever they are: of
    /// what was revoked then, not all is known any more. 0: none.
    pub global_cut_off: u64,
}

/// What there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkerState {
    /// Nothing was ever here, or everything is lost.
    Absent,
    /// Some of it is lost.
    Partial(Marker),
    Complete(Marker),
}

impl MarkerState {
    /// Puts together what is at each of its places.
    pub(super) fn from_markers(places: &[Option<Marker>]) -> MarkerState {
        let mut found = places.iter().flatten();
        let Some(first) = found.next() else {
            return MarkerState::Absent;
        };
        let refused = found.map(|marker| marker.global_cut_off).max().unwrap_or(0);
        let marker = Marker {
            id: first.id.clone(),
            global_cut_off: refused.max(first.global_cut_off),
        };
        let is_it = |place: &Option<Marker>| place.as_ref().is_some_and(|it| it.id == marker.id);
        if places.iter().all(is_it) {
            MarkerState::Complete(marker)
        } else {
            MarkerState::Partial(marker)
        }
    }
}

impl Store {
    /// What tells the store's content from that of others: its keys begin with it.
    pub fn key_prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// Whether the store is a part of this process, and ends with it.
    pub fn is_in_process(&self) -> bool {
        matches!(self.engine, Engine::Memory(_))
    }

    /// For any one operation.
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// Waits until there is a reason to look at the marker: the store was found, or said that
    /// everything in it has changed. One that came before counts.
    pub async fn data_may_have_changed(&self) {
        match &self.engine {
            Engine::Memory(_) => std::future::pending().await,
            Engine::Redis(redis) => redis.data_may_have_changed().await,
        }
    }

    /// Looks for the marker.
    pub async fn marker_state(&self) -> Result<MarkerState, StoreError> {
        self.measured(StoreOperation::Marker, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.marker_state()),
                Engine::Redis(redis) => redis.marker_state().await,
            }
        })
        .await
    }

    /// Puts the marker where it is missing, with tokens up to this second refused at least. Of
    /// gateways that do so at once all find the same one afterwards.
    pub async fn write_marker(&self, refused: u64) -> Result<Marker, StoreError> {
        self.measured(StoreOperation::Marker, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.write_marker(refused)),
                Engine::Redis(redis) => redis.write_marker(refused).await,
            }
        })
        .await
    }

    /// Prolongs the marker's life.
    pub async fn extend_marker(&self) -> Result<(), StoreError> {
        let Engine::Redis(redis) = &self.engine else {
            return Ok(());
        };
        self.measured(StoreOperation::Marker, redis.extend_marker())
            .await
    }

    /// Tells this gateway that tokens without a session issued up to this second are refused.
    pub fn set_global_cut_off(&self, second: u64) {
        self.shared.near_cache.set_global_cut_off(second);
    }

    /// Brings revocations back, each until a moment by the store's clock. What is there and reaches
    /// further stays. Each step has the deadline, not the whole.
    pub async fn restore_revocations(
        &self,
        revocations: &[(Revocation, Millis)],
        now: Millis,
    ) -> Result<(), StoreError> {
        self.measured_steps(StoreOperation::Restore, async {
            for step in revocations.chunks(BATCH_SIZE) {
                match &self.engine {
                    Engine::Memory(memory) => memory.restore_revocations(step, now),
                    Engine::Redis(redis) => {
                        redis
                            .restore_revocations(step, now, self.shared.timeout)
                            .await?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// The blacklist and the cut-offs of a store that others write to. It looks at every key; each step
    /// has the deadline, not the whole.
    pub async fn list_revocations(&self) -> Result<Vec<CacheKey>, StoreError> {
        self.measured_steps(StoreOperation::Restore, async {
            match &self.engine {
                Engine::Memory(_) => Ok(Vec::new()),
                Engine::Redis(redis) => redis.list_revocations(self.shared.timeout).await,
            }
        })
        .await
    }

    /// Takes note of what is in force although the store may not have it yet.
    pub fn announce_revocation(&self, revocation: Revocation) {
        self.announce(revocation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(id: &str, refused: u64) -> Marker {
        Marker {
            id: id.to_owned(),
            global_cut_off: refused,
        }
    }

    #[test]
    fn marker_is_complete_when_all_places_agree() {
        let (a, b) = (Some(marker("a", 1)), Some(marker("b", 3)));
        let later = Some(marker("a", 2));
        for (places, expected) in [
            (vec![None, None], MarkerState::Absent),
            (vec![a.clone()], MarkerState::Complete(marker("a", 1))),
            (
                vec![a.clone(), later.clone()],
                MarkerState::Complete(marker("a", 2)),
            ),
            (vec![None, later], MarkerState::Partial(marker("a", 2))),
            (vec![a, b], MarkerState::Partial(marker("a", 3))),
        ] {
            assert_eq!(MarkerState::from_markers(&places), expected, "{places:?}");
        }
    }
}
