//! Near cache of session records, blacklist results and issued-before revocations.
//!
//! While invalidations are confirmed to be complete, fresh entries replace look-ups in the store.
//! While the store is unavailable, entries are used for as long as the operator allows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, UnitWeighter};
pub use uses::RecordedSession;
use uses::{PendingUses, UnwrittenUses};
use valid_entries::MarkStale;
pub use valid_entries::ValidEntries;
pub(super) use validity::ReadStamp;
use validity::{Fresh, Validity};
use weights::{EntryWeight, SESSION_BUDGET, TOKEN_BUDGET};

use super::{CacheKey, Revocation, SessionLookup, UserHash, cut_off_covers};
use crate::auth::session::{Millis, Session, SessionId, SessionStatus};
use crate::rejection::Refusal;

mod reads;
mod uses;
mod valid_entries;
mod validity;
mod weights;
mod writes;

/// Interval within which an unchanged entry is not written again.
const REWRITE_INTERVAL: Duration = Duration::from_millis(500);
/// Age up to which an entry replaces a look-up in the store.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Age from which an entry is refreshed in the background when it is used.
const REFRESH_AFTER: Duration = Duration::from_millis(7_500);
/// Capacity for revoked tokens, and for ids of sessions that do not exist.
const MAX_REVOKED: u64 = 50_000;
/// Number of entries that are allocated at the start; the caches grow when needed.
const INITIAL_CAPACITY: usize = 1_000;

/// Cached state of one session.
#[derive(Debug)]
struct CachedSession {
    session: Option<Arc<Session>>,
    /// Why the session is no longer valid; `None`: it is.
    ended: Option<Refusal>,
    last_access: AtomicU64,
    uses: UnwrittenUses,
    read_at: Instant,
    /// Epoch of the entry; 0: the session may have changed since.
    epoch: AtomicU64,
    /// Time of the first invalidation by the store's clock; 0: none was received.
    changed_at: AtomicU64,
}

/// Cached value of a token or a user, with its time and epoch.
#[derive(Debug, Clone, Copy)]
struct CachedValue<T> {
    value: T,
    at: Instant,
    epoch: u64,
}

/// Near cache, shared by all workers of one gateway.
pub struct NearCache {
    validity: Validity,
    sessions: Cache<SessionId, Arc<CachedSession>, EntryWeight, DefaultHashBuilder, MarkStale>,
    /// Session ids that the store does not have. A separate cache, because clients can send any id.
    missing: Cache<SessionId, CachedValue<()>>,
    revoked: Cache<String, CachedValue<()>>,
    accepted: Cache<String, CachedValue<()>, EntryWeight>,
    /// Per user, the second up to which issued tokens without a session are rejected.
    cut_offs: Cache<UserHash, CachedValue<Option<u64>>, EntryWeight>,
    /// The same for all users, set when the store has lost data; 0: none.
    global_cut_off: AtomicU64,
    /// Uses that have not been written to the store yet.
    uses: PendingUses,
    /// Entries that are being refreshed in the background.
    pub(super) refreshing: Mutex<HashSet<CacheKey>>,
}

impl std::fmt::Debug for NearCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NearCache")
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Default for NearCache {
    fn default() -> NearCache {
        NearCache::with_validity(Validity::default())
    }
}

impl NearCache {
    fn with_validity(validity: Validity) -> NearCache {
        let token_budget = TOKEN_BUDGET.bytes();
        NearCache {
            validity,
            sessions: Cache::with(
                INITIAL_CAPACITY,
                SESSION_BUDGET.bytes(),
                EntryWeight,
                DefaultHashBuilder::default(),
                MarkStale,
            ),
            missing: Cache::with_weighter(INITIAL_CAPACITY, MAX_REVOKED, UnitWeighter),
            revoked: Cache::with_weighter(INITIAL_CAPACITY, MAX_REVOKED, UnitWeighter),
            accepted: Cache::with_weighter(INITIAL_CAPACITY, token_budget, EntryWeight),
            cut_offs: Cache::with_weighter(INITIAL_CAPACITY, token_budget, EntryWeight),
            global_cut_off: AtomicU64::new(0),
            uses: PendingUses::default(),
            refreshing: Mutex::default(),
        }
    }

    /// Records that all invalidations up to `as_of` have arrived; this holds for `valid_for`.
    pub(crate) fn confirm_up_to(&self, as_of: Instant, valid_for: Duration) {
        self.validity.confirm_up_to(as_of, valid_for);
    }

    /// Invalidates all entries: invalidations may have been missed, or all data has changed.
    pub(crate) fn invalidate_all(&self) {
        self.validity.invalidate_all();
    }

    /// Stops serving entries until the next confirmation.
    pub(crate) fn suspend(&self) {
        self.validity.suspend();
    }

    /// Whether entries may currently replace look-ups in the store.
    pub fn is_fresh(&self) -> bool {
        self.validity.fresh().is_some()
    }

    /// Applies an invalidation; returns whether an entry was cached.
    pub(crate) fn invalidate(&self, item: &CacheKey, now: Millis) -> bool {
        self.validity.mark_changed(item);
        match item {
            CacheKey::Session(id) => {
                self.missing.remove(id);
                let Some(entry) = self.sessions.get(id) else {
                    return false;
                };
                entry.epoch.store(0, Ordering::SeqCst);
                if id.api_key().is_some() {
                    // It may have been revoked, which an outage must not hide.
                    self.sessions.remove(id);
                    return true;
                }
                // The first invalidation counts; later ones may have other causes.
                let _ =
                    entry
                        .changed_at
                        .compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
                true
            }
            // A revocation stays cached for outages, but no longer replaces a look-up.
            CacheKey::Token(key) => {
                if let Some(entry) = self.revoked.get(key) {
                    let entry = CachedValue { epoch: 0, ..entry };
                    self.revoked.insert(key.clone(), entry);
                }
                self.accepted.remove(key).is_some()
            }
            CacheKey::User(hash) => self.cut_offs.get(hash).is_some_and(|entry| {
                self.cut_offs
                    .insert(*hash, CachedValue { epoch: 0, ..entry });
                true
            }),
        }
    }

    /// Caches the state of a session from another source than a store look-up.
    ///
    /// A cached revocation is kept: a late reply must not revive the session.
    pub fn insert_unconfirmed(&self, id: SessionId, lookup: &SessionLookup) {
        self.insert_session(id, lookup, 0);
    }

    fn insert_session(
        &self,
        id: SessionId,
        lookup: &SessionLookup,
        epoch: u64,
    ) -> Option<Arc<CachedSession>> {
        let (session, ended, last_access) = match lookup {
            SessionLookup::NotQueried | SessionLookup::Missing => return None,
            SessionLookup::Active(session, last_access) => {
                (Arc::clone(session), None, *last_access)
            }
            SessionLookup::Expired(session) => {
                (Arc::clone(session), Some(Refusal::SessionExpired), 0)
            }
            SessionLookup::Revoked(session) => {
                (Arc::clone(session), Some(Refusal::SessionRevoked), 0)
            }
        };
        let mut last_access = last_access;
        if let Some(cached) = self.sessions.get(&id) {
            if cached.ended == Some(Refusal::SessionRevoked) && ended.is_none() {
                return None;
            }
            last_access = last_access.max(cached.last_access.load(Ordering::Relaxed));
            let same_record = cached
                .session
                .as_ref()
                .is_some_and(|cached| Arc::ptr_eq(cached, &session));
            let same_epoch = cached.epoch.load(Ordering::SeqCst) == epoch;
            let unchanged = same_record && same_epoch && ended == cached.ended;
            if unchanged && self.age(cached.read_at) < REWRITE_INTERVAL {
                return None;
            }
        }
        let entry = Arc::new(CachedSession {
            session: Some(session),
            ended,
            last_access: AtomicU64::new(last_access),
            epoch: AtomicU64::new(epoch),
            ..CachedSession::stale(self.validity.now())
        });
        self.sessions.insert(id, Arc::clone(&entry));
        Some(entry)
    }

    /// Milliseconds between the end of a session that is cached as active and its detection here.
    ///
    /// Must be called before the look-up result is cached.
    pub fn revocation_lag(
        &self,
        id: SessionId,
        lookup: &SessionLookup,
        now: Millis,
    ) -> Option<Millis> {
        let SessionLookup::Revoked(session) = lookup else {
            return None;
        };
        let entry = self
            .sessions
            .get(&id)
            .filter(|entry| entry.ended.is_none())?;
        let detected_at = match entry.changed_at.load(Ordering::SeqCst) {
            0 => now,
            changed_at => changed_at,
        };
        Some(detected_at.saturating_sub(session.ended?.at))
    }

    /// Applies a revocation made by this gateway or reported by the store.
    pub fn apply(&self, revocation: &Revocation) {
        match revocation {
            Revocation::Session(id) => {
                self.validity.mark_changed(&CacheKey::Session(*id));
                let cached = self.sessions.get(id);
                let session = cached.and_then(|entry| entry.session.clone());
                let entry = CachedSession {
                    session,
                    ended: Some(Refusal::SessionRevoked),
                    ..CachedSession::stale(self.validity.now())
                };
                self.sessions.insert(*id, Arc::new(entry));
            }
            Revocation::Token(key) => {
                self.validity.mark_changed(&CacheKey::Token(key.clone()));
                self.insert_revoked(key);
            }
            Revocation::IssuedBefore(user, second) => {
                self.validity.mark_changed(&CacheKey::User(*user));
                let entry = CachedValue {
                    value: Some(*second),
                    at: self.validity.now(),
                    epoch: 0,
                };
                self.cut_offs.insert(*user, entry);
            }
        }
    }

    /// Records that the store reports the session as ended.
    pub(super) fn mark_ended(&self, id: SessionId, idle: Option<Duration>, now: Millis) {
        if self.active_within(id, Duration::MAX, idle, now).is_some() {
            self.apply(&Revocation::Session(id));
        } else {
            self.invalidate(&CacheKey::Session(id), 0);
        }
    }

    fn insert_revoked(&self, blacklist_key: &str) {
        let entry = CachedValue {
            value: (),
            at: self.validity.now(),
            epoch: 0,
        };
        self.revoked.insert(blacklist_key.to_owned(), entry);
        self.accepted.remove(blacklist_key);
    }

    pub fn is_revoked(&self, blacklist_key: &str) -> bool {
        self.revoked.get(blacklist_key).is_some()
    }

    /// Whether a cached revocation covers a user's token without a session, issued at this second.
    pub fn is_cut_off(&self, user: &UserHash, issued_at: Option<u64>) -> bool {
        let cut_off = self.cut_offs.get(user);
        let second = cut_off.and_then(|entry| entry.value);
        self.effective_cut_off(second)
            .is_some_and(|second| cut_off_covers(second, issued_at))
    }

    /// Rejects tokens of all users without a session that were issued up to this second.
    pub(super) fn set_global_cut_off(&self, second: u64) {
        if self.global_cut_off.swap(second, Ordering::SeqCst) != second {
            self.invalidate_all();
        }
    }

    /// Combines a user's cut-off with the one that applies to all users.
    pub(super) fn effective_cut_off(&self, cut_off: Option<u64>) -> Option<u64> {
        match self.global_cut_off.load(Ordering::SeqCst) {
            0 => cut_off,
            global => cut_off.max(Some(global)),
        }
    }

    /// Whether the store reported the token as not blacklisted within `max_age`.
    pub fn was_accepted(&self, blacklist_key: &str, max_age: Duration) -> bool {
        self.accepted
            .get(blacklist_key)
            .is_some_and(|entry| self.age(entry.at) <= max_age)
    }

    /// The cached record, fresh or not, and the session's latest use on this gateway (0: none).
    pub fn cached_record(&self, id: SessionId) -> (Option<Arc<Session>>, Millis) {
        match self.sessions.get(&id) {
            Some(entry) => {
                let last_access = entry.last_access.load(Ordering::Relaxed);
                (entry.session.clone(), last_access)
            }
            None => (None, self.uses.latest(id)),
        }
    }

    /// The cached record, fresh or not.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(&id)?.session.clone()
    }

    /// Why a session is cached as ended.
    pub fn end_refusal(&self, id: SessionId) -> Option<Refusal> {
        self.sessions.get(&id)?.ended
    }

    /// The record, if it was read as active within `max_age` and has not expired since.
    pub fn active_within(
        &self,
        id: SessionId,
        max_age: Duration,
        idle: Option<Duration>,
        now: Millis,
    ) -> Option<Arc<Session>> {
        let entry = self.sessions.get(&id)?;
        let session = entry
            .session
            .clone()
            .filter(|_| entry.ended.is_none() && self.age(entry.read_at) <= max_age)?;
        let last_access = self.last_access(id);
        (session.status(last_access, idle, now) == SessionStatus::Active).then_some(session)
    }

    /// Latest use of a session that is recorded on this gateway; 0: none.
    pub fn last_access(&self, id: SessionId) -> Millis {
        match self.sessions.get(&id) {
            Some(entry) => entry.last_access.load(Ordering::Relaxed),
            None => self.uses.latest(id),
        }
    }

    fn age(&self, at: Instant) -> Duration {
        self.validity.now().saturating_duration_since(at)
    }
}

impl<T> CachedValue<T> {
    fn is_fresh(&self, fresh: Fresh) -> bool {
        let age = fresh.now.saturating_duration_since(self.at);
        self.epoch == fresh.epoch && age < MAX_AGE
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod simulation;
