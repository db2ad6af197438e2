//! Validity of the near cache: epochs, read stamps and the confirmation of invalidations.
//!
//! An invalidation may overtake a reply of the store. A reply is therefore cached as fresh only if no
//! invalidation of its item arrived since the query was sent. Entries are served only while the
//! tracking connection has confirmed, within a bound, that no invalidation was missed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::CacheKey;
use crate::clock;

/// Number of change counters, indexed by a hash of the item. A collision only discards a reply.
const CHANGE_SLOTS: usize = 1024;

#[derive(Debug)]
pub(super) struct Validity {
    /// Monotonic clock, real or simulated.
    clock: fn() -> Instant,
    started: Instant,
    changes: Vec<AtomicU64>,
    /// Current epoch; a gap in the invalidations begins a new one. Entries with epoch 0 are stale.
    epoch: AtomicU64,
    /// Milliseconds since `started`; 0: suspended.
    fresh_until: AtomicU64,
}

/// Evidence that entries of this epoch are fresh at `now`, subject to their age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fresh {
    pub(super) epoch: u64,
    pub(super) now: Instant,
}

/// Epoch and change count of an item before a query is sent.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct ReadStamp {
    epoch: u64,
    slot: usize,
    changes: u64,
}

impl Default for Validity {
    fn default() -> Validity {
        Validity::with_clock(clock::monotonic)
    }
}

impl Validity {
    pub(super) fn with_clock(clock: fn() -> Instant) -> Validity {
        Validity {
            clock,
            started: clock(),
            changes: (0..CHANGE_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            epoch: AtomicU64::new(1),
            fresh_until: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Instant {
        (self.clock)()
    }

    /// The current epoch, while invalidations are confirmed to be complete.
    pub(super) fn fresh(&self) -> Option<Fresh> {
        let until = self.fresh_until.load(Ordering::SeqCst);
        if until == 0 {
            // Avoids the clock read on gateways without a tracking connection.
            return None;
        }
        let now = self.now();
        (self.millis(now) < until).then(|| Fresh {
            epoch: self.epoch.load(Ordering::SeqCst),
            now,
        })
    }

    /// Records that all invalidations up to `as_of` have arrived; this holds for `valid_for`.
    pub(super) fn confirm_up_to(&self, as_of: Instant, valid_for: Duration) {
        let until = self.millis(as_of + valid_for);
        self.fresh_until.store(until, Ordering::SeqCst);
    }

    /// Begins a new epoch: invalidations may have been missed, so existing entries become stale.
    pub(super) fn invalidate_all(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends the confirmation and begins a new epoch.
    pub(super) fn suspend(&self) {
        self.fresh_until.store(0, Ordering::SeqCst);
        self.invalidate_all();
    }

    pub(super) fn mark_changed(&self, item: &CacheKey) {
        if let Some(changes) = self.changes.get(slot(item)) {
            changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Records a change that the reply of this stamp makes. Returns the stamp with it: any other change
    /// since the query was sent still counts.
    pub(super) fn mark_changed_by(&self, stamp: ReadStamp) -> ReadStamp {
        if let Some(changes) = self.changes.get(stamp.slot) {
            changes.fetch_add(1, Ordering::SeqCst);
        }
        let changes = stamp.changes.wrapping_add(1);
        ReadStamp { changes, ..stamp }
    }

    pub(super) fn stamp(&self, item: &CacheKey) -> ReadStamp {
        let slot = slot(item);
        ReadStamp {
            epoch: self.epoch.load(Ordering::SeqCst),
            slot,
            changes: self.change_count(slot),
        }
    }

    /// The epoch of a reply; 0 if its item was invalidated since the stamp was taken.
    ///
    /// Must be checked again after the reply is cached: an invalidation that arrives in between finds
    /// no entry to mark as stale.
    pub(super) fn epoch_if_unchanged(&self, stamp: ReadStamp) -> u64 {
        let unchanged = self.epoch.load(Ordering::SeqCst) == stamp.epoch
            && self.change_count(stamp.slot) == stamp.changes;
        if unchanged { stamp.epoch } else { 0 }
    }

    fn change_count(&self, slot: usize) -> u64 {
        let changes = self.changes.get(slot);
        changes.map_or(0, |changes| changes.load(Ordering::SeqCst))
    }

    fn millis(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.started);
        // Never 0, which means suspended.
        clock::millis(elapsed).max(1)
    }
}

/// Maps an item to its change counter, by FNV-1a: the keys are hashed or random already.
fn slot(item: &CacheKey) -> usize {
    let bytes = match item {
        CacheKey::Session(id) => &id.0[..],
        CacheKey::Token(key) => key.as_bytes(),
        CacheKey::User(hash) => &hash[..],
    };
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash % CHANGE_SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::session::SessionId;

    const ONE: CacheKey = CacheKey::Session(SessionId([1; 32]));
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn overtaken_reply_has_no_epoch() {
        let validity = Validity::default();
        let stamp = validity.stamp(&ONE);
        assert_eq!(validity.epoch_if_unchanged(stamp), 1);
        validity.mark_changed(&ONE);
        assert_eq!(validity.epoch_if_unchanged(stamp), 0);
        let stamp = validity.stamp(&ONE);
        validity.invalidate_all();
        assert_eq!(validity.epoch_if_unchanged(stamp), 0);
    }

    #[test]
    fn change_by_a_reply_hides_no_other() {
        let validity = Validity::default();
        let (late, stamp) = (validity.stamp(&ONE), validity.stamp(&ONE));
        let stamp = validity.mark_changed_by(stamp);
        assert_eq!(validity.epoch_if_unchanged(stamp), 1);
        assert_eq!(validity.epoch_if_unchanged(late), 0);
        let stamp = validity.stamp(&ONE);
        validity.mark_changed(&ONE);
        let stamp = validity.mark_changed_by(stamp);
        assert_eq!(validity.epoch_if_unchanged(stamp), 0);
    }

    #[test]
    fn cache_is_fresh_only_while_confirmed() {
        let validity = Validity::default();
        assert_eq!(validity.fresh(), None);
        validity.confirm_up_to(Instant::now(), LONG);
        assert_eq!(validity.fresh().map(|fresh| fresh.epoch), Some(1));
        validity.suspend();
        assert_eq!(validity.fresh(), None);
        validity.confirm_up_to(Instant::now(), LONG);
        assert_eq!(validity.fresh().map(|fresh| fresh.epoch), Some(2));
        validity.confirm_up_to(Instant::now(), Duration::ZERO);
        assert_eq!(validity.fresh(), None);
    }
}
