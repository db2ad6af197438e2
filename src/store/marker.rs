//! By what it is noticed that the store has lost its data: a marker that is in it from the first start
//! on. In a cluster there are many, in slots far apart, so that every master's loss shows.

use std::time::Duration;

use super::{Engine, Item, Revocation, Store, StoreError};
use crate::auth::session::Millis;

/// How long it lives if no gateway is there to prolong that.
pub(super) const KEPT: Duration = Duration::from_secs(366 * 86_400);
/// How many revocations one step of a restoration writes.
const STEP: usize = 256;

/// What the store is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Made at the first start, and again after all was lost.
    pub id: String,
    /// Tokens without a session that were issued up to this second are refused, whosever they are: of
    /// what was revoked then, not all is known any more. 0: none.
    pub refused: u64,
}

/// What there is of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marked {
    /// Nothing was ever here, or everything is lost.
    Nowhere,
    /// Some of it is lost.
    Partly(Marker),
    Whole(Marker),
}

impl Marked {
    /// Puts together what is at each of its places.
    pub(super) fn of(places: &[Option<Marker>]) -> Marked {
        let mut found = places.iter().flatten();
        let Some(first) = found.next() else {
            return Marked::Nowhere;
        };
        let refused = found.map(|marker| marker.refused).max().unwrap_or(0);
        let marker = Marker {
            id: first.id.clone(),
            refused: refused.max(first.refused),
        };
        let is_it = |place: &Option<Marker>| place.as_ref().is_some_and(|it| it.id == marker.id);
        if places.iter().all(is_it) {
            Marked::Whole(marker)
        } else {
            Marked::Partly(marker)
        }
    }
}

impl Store {
    /// What tells the store's content from that of others: its keys begin with it.
    pub fn prefix(&self) -> &str {
        &self.shared.prefix
    }

    /// Whether the store is a part of this process, and ends with it.
    pub fn is_in_process(&self) -> bool {
        matches!(self.engine, Engine::Memory(_))
    }

    /// For any one operation.
    pub fn patience(&self) -> Duration {
        self.shared.timeout
    }

    /// Waits until there is a reason to look at the marker: the store was found, or said that
    /// everything in it has changed. One that came before counts.
    pub async fn doubted(&self) {
        match &self.engine {
            Engine::Memory(_) => std::future::pending().await,
            Engine::Redis(redis) => redis.doubted().await,
        }
    }

    /// Looks for the marker.
    pub async fn marked(&self) -> Result<Marked, StoreError> {
        self.measured("marker", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.marked()),
                Engine::Redis(redis) => redis.marked().await,
            }
        })
        .await
    }

    /// Puts the marker where it is missing, with tokens up to this second refused at least. Of
    /// gateways that do so at once all find the same one afterwards.
    pub async fn mark(&self, refused: u64) -> Result<Marker, StoreError> {
        self.measured("marker", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.mark(refused)),
                Engine::Redis(redis) => redis.mark(refused).await,
            }
        })
        .await
    }

    /// Prolongs the marker's life.
    pub async fn keep_marker(&self) -> Result<(), StoreError> {
        let Engine::Redis(redis) = &self.engine else {
            return Ok(());
        };
        self.measured("marker", redis.keep_marker()).await
    }

    /// Tells this gateway that tokens without a session issued up to this second are refused.
    pub fn refuse_up_to(&self, second: u64) {
        self.shared.replica.refuse_up_to(second);
    }

    /// Brings revocations back, each until a moment by the store's clock. What is there and reaches
    /// further stays. Each step has the deadline, not the whole.
    pub async fn restore(
        &self,
        revocations: &[(Revocation, Millis)],
        now: Millis,
    ) -> Result<(), StoreError> {
        self.measured_steps("restore", async {
            for step in revocations.chunks(STEP) {
                match &self.engine {
                    Engine::Memory(memory) => memory.restore(step, now),
                    Engine::Redis(redis) => {
                        redis.restore(step, now, self.shared.timeout).await?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// The blacklist and the cut-offs of a store that others write to. It looks at every key; each step
    /// has the deadline, not the whole.
    pub async fn standing(&self) -> Result<Vec<Item>, StoreError> {
        self.measured_steps("restore", async {
            match &self.engine {
                Engine::Memory(_) => Ok(Vec::new()),
                Engine::Redis(redis) => redis.standing(self.shared.timeout).await,
            }
        })
        .await
    }

    /// Takes note of what is in force although the store may not have it yet.
    pub fn revoked(&self, revocation: Revocation) {
        self.announce(revocation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(id: &str, refused: u64) -> Marker {
        Marker {
            id: id.to_owned(),
            refused,
        }
    }

    #[test]
    fn a_marker_is_whole_when_it_is_the_same_everywhere() {
        let (a, b) = (Some(marker("a", 1)), Some(marker("b", 3)));
        let later = Some(marker("a", 2));
        for (places, expected) in [
            (vec![None, None], Marked::Nowhere),
            (vec![a.clone()], Marked::Whole(marker("a", 1))),
            (
                vec![a.clone(), later.clone()],
                Marked::Whole(marker("a", 2)),
            ),
            (vec![None, later], Marked::Partly(marker("a", 2))),
            (vec![a, b], Marked::Partly(marker("a", 3))),
        ] {
            assert_eq!(Marked::of(&places), expected, "{places:?}");
        }
    }
}
