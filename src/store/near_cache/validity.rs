//! When what was heard of the store's changes is enough to answer without asking it.
//!
//! An answer of the store may be overtaken by the news that it is out of date: it is kept only if
//! nothing was heard meanwhile of what it is about. And it answers again only while every change is
//! sure to be heard: as of a moment that the listening connection proved, for a bound from then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::CacheKey;
use crate::clock;

/// Changes are counted by a hash of what they are about: more would be finer, not safer.
const CHANGE_SLOTS: usize = 1024;

#[derive(Debug)]
pub(super) struct Validity {
    /// The steady clock of this machine, or of a simulated one.
    clock: fn() -> Instant,
    started: Instant,
    changes: Vec<AtomicU64>,
    /// What is known from before a gap in what was heard has another epoch. 0 is none.
    epoch: AtomicU64,
    /// In milliseconds since `started`; 0: not at all.
    fresh_until: AtomicU64,
}

/// Every change is sure to be heard: what is known of this epoch is so, at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fresh {
    pub(super) epoch: u64,
    pub(super) now: Instant,
}

/// The state of things before the store was asked.
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

    /// The epoch, while every change is sure to be heard.
    pub(super) fn fresh(&self) -> Option<Fresh> {
        let until = self.fresh_until.load(Ordering::SeqCst);
        if until == 0 {
            // Gateways without a listener do not read the clock here.
            return None;
        }
        let now = self.now();
        (self.millis(now) < until).then(|| Fresh {
            epoch: self.epoch.load(Ordering::SeqCst),
            now,
        })
    }

    /// Every change up to `as_of` has been heard: that is enough for so long.
    pub(super) fn confirm_up_to(&self, as_of: Instant, good_for: Duration) {
        let until = self.millis(as_of + good_for);
        self.fresh_until.store(until, Ordering::SeqCst);
    }

    /// Changes may have been missed: nothing from before is sure any more.
    pub(super) fn invalidate_all(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Nothing is heard for now.
    pub(super) fn suspend(&self) {
        self.fresh_until.store(0, Ordering::SeqCst);
        self.invalidate_all();
    }

    pub(super) fn mark_changed(&self, item: &CacheKey) {
        if let Some(changes) = self.changes.get(slot(item)) {
            changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(super) fn stamp(&self, item: &CacheKey) -> ReadStamp {
        let slot = slot(item);
        ReadStamp {
            epoch: self.epoch.load(Ordering::SeqCst),
            slot,
            changes: self.change_count(slot),
        }
    }

    /// The epoch that an answer belongs to; 0 if something was heard of it since it was asked for.
    /// To be asked again once the answer is kept: what is heard in between finds nothing to forget.
    pub(super) fn epoch_if_unchanged(&self, before: ReadStamp) -> u64 {
        let same = self.epoch.load(Ordering::SeqCst) == before.epoch
            && self.change_count(before.slot) == before.changes;
        if same { before.epoch } else { 0 }
    }

    fn change_count(&self, slot: usize) -> u64 {
        let changes = self.changes.get(slot);
        changes.map_or(0, |changes| changes.load(Ordering::SeqCst))
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started);
        // Never 0, which says that nothing is heard.
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// FNV-1a over what is hashed or random already.
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
        let guard = Validity::default();
        let before = guard.stamp(&ONE);
        assert_eq!(guard.epoch_if_unchanged(before), 1);
        guard.mark_changed(&ONE);
        assert_eq!(guard.epoch_if_unchanged(before), 0);
        let before = guard.stamp(&ONE);
        guard.invalidate_all();
        assert_eq!(guard.epoch_if_unchanged(before), 0);
    }

    #[test]
    fn cache_is_fresh_only_while_confirmed() {
        let guard = Validity::default();
        assert_eq!(guard.fresh(), None);
        guard.confirm_up_to(Instant::now(), LONG);
        assert_eq!(guard.fresh().map(|sure| sure.epoch), Some(1));
        guard.suspend();
        assert_eq!(guard.fresh(), None);
        guard.confirm_up_to(Instant::now(), LONG);
        assert_eq!(guard.fresh().map(|sure| sure.epoch), Some(2));
        guard.confirm_up_to(Instant::now(), Duration::ZERO);
        assert_eq!(guard.fresh(), None);
    }
}
