//! Session uses that have not been written to the store yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::super::SessionUse;
use super::{CachedSession, NearCache};
use crate::auth::session::{Millis, SessionId};

/// The entries of sessions with uses to write.
#[derive(Default)]
pub(super) struct PendingUses(Mutex<HashMap<SessionId, Arc<CachedSession>, RandomState>>);

/// Uses of one session since the last write.
///
/// A use is counted before `is_pending` is set, and `is_pending` is cleared before the count is read:
/// a use that comes too late for one write is in the next.
#[derive(Debug)]
pub(super) struct UnwrittenUses {
    requests: AtomicU64,
    /// Client address of the latest use.
    address: Mutex<IpAddr>,
    /// Whether [`PendingUses`] has the entry.
    is_pending: AtomicBool,
}

/// A cached session whose uses are recorded without a look-up.
#[derive(Debug, Clone)]
pub struct RecordedSession {
    pub(super) id: SessionId,
    pub(super) entry: Arc<CachedSession>,
}

impl Default for UnwrittenUses {
    fn default() -> UnwrittenUses {
        UnwrittenUses {
            requests: AtomicU64::new(0),
            address: Mutex::new(Ipv4Addr::UNSPECIFIED.into()),
            is_pending: AtomicBool::new(false),
        }
    }
}

impl UnwrittenUses {
    /// Takes the number of requests.
    fn take(&self) -> u64 {
        self.is_pending.store(false, Ordering::SeqCst);
        self.requests.swap(0, Ordering::SeqCst)
    }
}

impl CachedSession {
    fn take_uses(&self, session: SessionId) -> SessionUse {
        let requests = self.uses.take();
        SessionUse {
            session,
            last_access: self.last_access.load(Ordering::SeqCst),
            requests,
            address: *self.uses.address.lock(),
        }
    }

    /// Takes over the uses of an entry that this one replaces.
    fn take_over(&self, other: &CachedSession) {
        let requests = other.uses.take();
        self.uses.requests.fetch_add(requests, Ordering::SeqCst);
        let last_access = other.last_access.load(Ordering::SeqCst);
        self.last_access.fetch_max(last_access, Ordering::SeqCst);
    }
}

impl PendingUses {
    /// Latest use that is not written yet; 0: none.
    pub(super) fn latest(&self, id: SessionId) -> Millis {
        self.entry(id)
            .map_or(0, |entry| entry.last_access.load(Ordering::SeqCst))
    }

    fn entry(&self, id: SessionId) -> Option<Arc<CachedSession>> {
        self.0.lock().get(&id).cloned()
    }

    /// Adds an entry with a use that was counted just now.
    fn add(&self, id: SessionId, entry: &Arc<CachedSession>) {
        if entry.uses.is_pending.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut pending = self.0.lock();
        if let Some(replaced) = pending.insert(id, Arc::clone(entry)) {
            // While no other thread can take the entry.
            entry.take_over(&replaced);
        }
    }
}

impl NearCache {
    /// Records a request, to be written later in the background.
    pub fn record_request(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.record_use(id, &self.entry_of_uses(id), (now, address), 1);
    }

    /// As [`NearCache::record_request`], without a look-up.
    pub fn record_request_of(&self, session: &RecordedSession, now: Millis, address: IpAddr) {
        self.record_use(session.id, &session.entry, (now, address), 1);
    }

    /// Records data on an open stream: a use, but not a request.
    pub fn record_stream_activity(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.record_use(id, &self.entry_of_uses(id), (now, address), 0);
    }

    fn record_use(
        &self,
        id: SessionId,
        entry: &Arc<CachedSession>,
        (now, address): (Millis, IpAddr),
        requests: u64,
    ) {
        entry.last_access.fetch_max(now, Ordering::SeqCst);
        *entry.uses.address.lock() = address;
        entry.uses.requests.fetch_add(requests, Ordering::SeqCst);
        self.uses.add(id, entry);
    }

    /// The entry that collects the uses of a session; one of its own if the session is not cached.
    fn entry_of_uses(&self, id: SessionId) -> Arc<CachedSession> {
        self.sessions
            .get(&id)
            .or_else(|| self.uses.entry(id))
            .unwrap_or_else(|| Arc::new(CachedSession::stale(self.validity.now())))
    }

    /// Takes the uses to write.
    pub fn take_uses(&self) -> Vec<SessionUse> {
        let pending = std::mem::take(&mut *self.uses.0.lock());
        let uses = pending.into_iter();
        uses.map(|(id, entry)| entry.take_uses(id)).collect()
    }

    /// Puts back uses that could not be written, so that an outage loses none.
    pub fn restore_uses(&self, unwritten: Vec<SessionUse>) {
        for restored in unwritten {
            let entry = self.entry_of_uses(restored.session);
            let uses = &entry.uses;
            entry
                .last_access
                .fetch_max(restored.last_access, Ordering::SeqCst);
            if !uses.is_pending.load(Ordering::SeqCst) {
                *uses.address.lock() = restored.address;
            }
            uses.requests.fetch_add(restored.requests, Ordering::SeqCst);
            self.uses.add(restored.session, &entry);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::auth::session::Session;
    use crate::store::SessionLookup;

    const ID: SessionId = SessionId([1; 32]);
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

    fn taken(last_access: Millis, requests: u64, address: IpAddr) -> Vec<SessionUse> {
        vec![SessionUse {
            session: ID,
            last_access,
            requests,
            address,
        }]
    }

    /// Caches another entry of the session.
    fn cache_anew(cache: &NearCache) -> RecordedSession {
        let session: Session = serde_json::from_value(serde_json::json!({
            "id": ID, "user": "u", "email": "", "ip": "127.0.0.1", "created_at": 0, "expires_at": 1,
        }))
        .unwrap();
        cache.insert_unconfirmed(ID, &SessionLookup::Active(Arc::new(session), 0));
        let entry = cache.sessions.get(&ID).unwrap();
        RecordedSession { id: ID, entry }
    }

    #[test]
    fn uses_are_counted_until_they_are_taken() {
        let cache = NearCache::default();
        cache.record_request(ID, 2, HERE);
        cache.record_stream_activity(ID, 5, THERE);
        cache.record_request(ID, 3, HERE);
        assert_eq!(cache.last_access(ID), 5);
        assert_eq!(cache.take_uses(), taken(5, 2, HERE));
        assert_eq!(cache.take_uses(), []);
    }

    #[test]
    fn uses_by_replaced_and_evicted_entries_are_not_lost() {
        let cache = NearCache::default();
        let old = cache_anew(&cache);
        cache.record_request_of(&old, 2, HERE);
        let new = cache_anew(&cache);
        assert!(!Arc::ptr_eq(&old.entry, &new.entry));
        cache.record_request_of(&new, 3, HERE);
        cache.record_request_of(&old, 4, THERE);
        cache.record_request(ID, 3, HERE);
        cache.sessions.clear();
        assert_eq!(cache.last_access(ID), 4);
        cache.record_request(ID, 5, HERE);
        assert_eq!(cache.take_uses(), taken(5, 5, HERE));
        assert_eq!(cache.take_uses(), []);
        cache.record_request_of(&old, 6, THERE);
        assert_eq!(cache.take_uses(), taken(6, 1, THERE));
    }

    #[test]
    fn restored_uses_are_added_to_later_ones() {
        for is_used_again in [false, true] {
            for is_cached in [false, true] {
                let cache = NearCache::default();
                let session = is_cached.then(|| cache_anew(&cache));
                cache.record_request(ID, 2, HERE);
                let unwritten = cache.take_uses();
                if is_used_again {
                    cache.record_request(ID, 3, THERE);
                } else if session.is_some() {
                    cache_anew(&cache);
                }
                cache.restore_uses(unwritten);
                let expected = match is_used_again {
                    true => taken(3, 2, THERE),
                    false => taken(2, 1, HERE),
                };
                assert_eq!(cache.take_uses(), expected);
            }
        }
    }

    #[test]
    fn threads_lose_no_use() {
        const EACH: u64 = 20_000;
        let cache = NearCache::default();
        let sessions = [cache_anew(&cache), cache_anew(&cache)];
        let written: u64 = std::thread::scope(|scope| {
            let users = sessions.map(|session| {
                let cache = &cache;
                scope.spawn(move || {
                    (0..EACH).for_each(|_| cache.record_request_of(&session, 1, HERE));
                })
            });
            let mut written = 0;
            while !users.iter().all(|user| user.is_finished()) {
                written += cache
                    .take_uses()
                    .iter()
                    .map(|one| one.requests)
                    .sum::<u64>();
            }
            written
        });
        let rest: u64 = cache.take_uses().iter().map(|one| one.requests).sum();
        assert_eq!(written + rest, 2 * EACH);
    }
}
