//! What this gateway knows without asking: sessions that it has seen, their latest use, which tokens
//! and people it knows to be refused or not. While every change of the store is sure to be heard it
//! answers for the store; while the store does not answer, as long as the operator allows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use uses::PendingUses;
pub(super) use validity::ReadStamp;
use validity::{Fresh, Validity};
use weights::{EntryWeight, SESSION_BUDGET, TOKEN_BUDGET};

use super::{CacheKey, Revocation, SessionLookup, UserHash, cut_off_covers};
use crate::auth::session::{Millis, Session, SessionId, SessionStatus};
use crate::rejection::Refusal;

mod reads;
mod uses;
mod validity;
mod weights;
mod writes;

/// What was noted this recently is not noted again.
const REWRITE_INTERVAL: Duration = Duration::from_millis(500);
/// The store is asked again after so long in any case.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Whoever comes again after so long has it asked behind their back, and does not wait for it later.
const REFRESH_AFTER: Duration = Duration::from_millis(7_500);
/// Tokens remembered as revoked; sessions that never were.
const MAX_REVOKED: u64 = 50_000;
/// What room is made for at the start; the rest is taken when it is needed.
const INITIAL_CAPACITY: usize = 1_000;

/// What is remembered of one session.
#[derive(Debug)]
struct CachedSession {
    session: Option<Arc<Session>>,
    /// Why it is no longer valid, if it is not.
    ended: Option<Refusal>,
    last_access: AtomicU64,
    read_at: Instant,
    /// 0: something has changed since, or may have.
    epoch: AtomicU64,
    /// When a change was heard of, by the store's clock; 0: none was.
    changed_at: AtomicU64,
}

/// What is remembered of a token or a person, as of when.
#[derive(Debug, Clone, Copy)]
struct CachedValue<T> {
    value: T,
    at: Instant,
    epoch: u64,
}

/// Shared by all workers of one gateway.
pub struct NearCache {
    validity: Validity,
    sessions: Cache<SessionId, Arc<CachedSession>, EntryWeight>,
    /// Sessions that the store does not have: apart, for anybody can ask for these.
    missing: Cache<SessionId, CachedValue<()>>,
    revoked: Cache<String, CachedValue<()>>,
    accepted: Cache<String, CachedValue<()>, EntryWeight>,
    /// By person: the second up to which tokens without a session are refused.
    cut_offs: Cache<UserHash, CachedValue<Option<u64>>, EntryWeight>,
    /// The same for everybody, since the store lost its data; 0: none.
    global_cut_off: AtomicU64,
    /// Uses that the store has not been told of yet.
    uses: PendingUses,
    /// What is being asked again, behind somebody's back.
    pub(super) refreshing: Mutex<HashSet<CacheKey>>,
}

impl std::fmt::Debug for NearCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
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
        let marks = TOKEN_BUDGET.bytes();
        NearCache {
            validity,
            sessions: Cache::with_weighter(INITIAL_CAPACITY, SESSION_BUDGET.bytes(), EntryWeight),
            missing: Cache::with_weighter(INITIAL_CAPACITY, MAX_REVOKED, UnitWeighter),
            revoked: Cache::with_weighter(INITIAL_CAPACITY, MAX_REVOKED, UnitWeighter),
            accepted: Cache::with_weighter(INITIAL_CAPACITY, marks, EntryWeight),
            cut_offs: Cache::with_weighter(INITIAL_CAPACITY, marks, EntryWeight),
            global_cut_off: AtomicU64::new(0),
            uses: PendingUses::default(),
            refreshing: Mutex::default(),
        }
    }

    /// Every change of the store up to `as_of` has been heard.
    pub(super) fn confirm_up_to(&self, as_of: Instant, good_for: Duration) {
        self.validity.confirm_up_to(as_of, good_for);
    }

    /// Changes may have been missed, or everything has changed.
    pub(super) fn invalidate_all(&self) {
        self.validity.invalidate_all();
    }

    /// Nothing is heard for now.
    pub(super) fn suspend(&self) {
        self.validity.suspend();
    }

    /// Whether the store need not be asked about what is remembered.
    pub fn is_fresh(&self) -> bool {
        self.validity.fresh().is_some()
    }

    /// Something was heard to have changed; tells whether it is remembered here.
    pub(super) fn invalidate(&self, item: &CacheKey, now: Millis) -> bool {
        self.validity.mark_changed(item);
        match item {
            CacheKey::Session(id) => {
                self.missing.remove(id);
                let Some(seen) = self.sessions.get(id) else {
                    return false;
                };
                seen.epoch.store(0, Ordering::SeqCst);
                // The first news counts: later ones may be of something else.
                let _ =
                    seen.changed_at
                        .compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
                true
            }
            // What was refused stays known for an outage, but answers for the store no more.
            CacheKey::Token(key) => {
                if let Some(noted) = self.revoked.get(key) {
                    let noted = CachedValue { epoch: 0, ..noted };
                    self.revoked.insert(key.clone(), noted);
                }
                self.accepted.remove(key).is_some()
            }
            CacheKey::User(hash) => self.cut_offs.get(hash).is_some_and(|noted| {
                self.cut_offs
                    .insert(*hash, CachedValue { epoch: 0, ..noted });
                true
            }),
        }
    }

    /// Takes note of how a session stands by somebody else's word than the store's. A revocation
    /// that is known stays known: an answer that was overtaken by it does not bring the session back.
    pub fn insert_unconfirmed(&self, id: SessionId, found: &SessionLookup) {
        self.insert_session(id, found, 0);
    }

    fn insert_session(
        &self,
        id: SessionId,
        found: &SessionLookup,
        epoch: u64,
    ) -> Option<Arc<CachedSession>> {
        let (session, ended, last_access) = match found {
            SessionLookup::NotQueried | SessionLookup::Missing => return None,
            SessionLookup::Active(session, last_access) => {
                (Arc::clone(session), None, *last_access)
            }
            SessionLookup::Expired(session) => {
                (Arc::new(session.clone()), Some(Refusal::SessionExpired), 0)
            }
            SessionLookup::Revoked(session) => {
                (Arc::new(session.clone()), Some(Refusal::SessionRevoked), 0)
            }
        };
        let mut last_access = last_access;
        if let Some(known) = self.sessions.get(&id) {
            if known.ended == Some(Refusal::SessionRevoked) && ended.is_none() {
                return None;
            }
            last_access = last_access.max(known.last_access.load(Ordering::Relaxed));
            let same = known
                .session
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, &session));
            let current = known.epoch.load(Ordering::SeqCst) == epoch;
            if same && ended == known.ended && current && self.age(known.read_at) < REWRITE_INTERVAL
            {
                return None;
            }
        }
        let seen = Arc::new(CachedSession {
            session: Some(session),
            ended,
            last_access: AtomicU64::new(last_access),
            read_at: self.validity.now(),
            epoch: AtomicU64::new(epoch),
            changed_at: AtomicU64::new(0),
        });
        self.sessions.insert(id, Arc::clone(&seen));
        Some(seen)
    }

    /// How long after its end this gateway knew of the end of a session that it believed alive, in
    /// milliseconds. It has to be asked before the finding is remembered.
    pub fn revocation_lag(
        &self,
        id: SessionId,
        found: &SessionLookup,
        now: Millis,
    ) -> Option<Millis> {
        let SessionLookup::Revoked(session) = found else {
            return None;
        };
        let seen = self.sessions.get(&id).filter(|seen| seen.ended.is_none())?;
        let knew = match seen.changed_at.load(Ordering::SeqCst) {
            0 => now,
            changed_at => changed_at,
        };
        Some(knew.saturating_sub(session.ended?.at))
    }

    /// Takes note of a revocation by this gateway, or one that it heard of.
    pub fn apply(&self, revocation: &Revocation) {
        match revocation {
            Revocation::Session(id) => {
                self.validity.mark_changed(&CacheKey::Session(*id));
                let session = self.sessions.get(id).and_then(|seen| seen.session.clone());
                let seen = CachedSession {
                    session,
                    ended: Some(Refusal::SessionRevoked),
                    last_access: AtomicU64::new(0),
                    read_at: self.validity.now(),
                    epoch: AtomicU64::new(0),
                    changed_at: AtomicU64::new(0),
                };
                self.sessions.insert(*id, Arc::new(seen));
            }
            Revocation::Token(key) => {
                self.validity.mark_changed(&CacheKey::Token(key.clone()));
                self.insert_revoked(key);
            }
            Revocation::IssuedBefore(person, second) => {
                self.validity.mark_changed(&CacheKey::User(*person));
                let noted = CachedValue {
                    value: Some(*second),
                    at: self.validity.now(),
                    epoch: 0,
                };
                self.cut_offs.insert(*person, noted);
            }
        }
    }

    /// Takes note of a session that the store knows to be over, whatever was believed here.
    pub(super) fn mark_ended(&self, id: SessionId, idle: Option<Duration>, now: Millis) {
        if self.active_within(id, Duration::MAX, idle, now).is_some() {
            self.apply(&Revocation::Session(id));
        } else {
            self.invalidate(&CacheKey::Session(id), 0);
        }
    }

    /// Takes note of a blacklisted token.
    fn insert_revoked(&self, blacklist_key: &str) {
        let noted = CachedValue {
            value: (),
            at: self.validity.now(),
            epoch: 0,
        };
        self.revoked.insert(blacklist_key.to_owned(), noted);
        self.accepted.remove(blacklist_key);
    }

    pub fn is_revoked(&self, blacklist_key: &str) -> bool {
        self.revoked.get(blacklist_key).is_some()
    }

    /// Whether a person's token without a session, issued at this second, is known to be cut off.
    pub fn is_cut_off(&self, person: &UserHash, issued_at: Option<u64>) -> bool {
        let cut_off = self.cut_offs.get(person);
        let second = cut_off.and_then(|noted| noted.value);
        self.effective_cut_off(second)
            .is_some_and(|second| cut_off_covers(second, issued_at))
    }

    /// Refuses everybody's tokens without a session that were issued up to this second.
    pub(super) fn set_global_cut_off(&self, second: u64) {
        self.global_cut_off.store(second, Ordering::Relaxed);
    }

    /// The cut-off that holds where a person has this one.
    pub(super) fn effective_cut_off(&self, cut_off: Option<u64>) -> Option<u64> {
        match self.global_cut_off.load(Ordering::Relaxed) {
            0 => cut_off,
            everybody => cut_off.max(Some(everybody)),
        }
    }

    /// Whether a foreign token was accepted within `bound`.
    pub fn was_accepted(&self, blacklist_key: &str, bound: Duration) -> bool {
        self.accepted
            .get(blacklist_key)
            .is_some_and(|noted| self.age(noted.at) <= bound)
    }

    /// The record as it was last seen, and the latest use that this gateway knows of; 0: none.
    pub fn cached_record(&self, id: SessionId) -> (Option<Arc<Session>>, Millis) {
        match self.sessions.get(&id) {
            Some(seen) => {
                let used = seen.last_access.load(Ordering::Relaxed);
                (seen.session.clone(), used)
            }
            None => (None, self.uses.latest(id)),
        }
    }

    /// The record as it was last seen.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(&id)?.session.clone()
    }

    /// Why a session is known to be over.
    pub fn end_refusal(&self, id: SessionId) -> Option<Refusal> {
        self.sessions.get(&id)?.ended
    }

    /// The record, if it was seen alive within `bound` and has not expired since.
    pub fn active_within(
        &self,
        id: SessionId,
        bound: Duration,
        idle: Option<Duration>,
        now: Millis,
    ) -> Option<Arc<Session>> {
        let seen = self.sessions.get(&id)?;
        let session = seen
            .session
            .clone()
            .filter(|_| seen.ended.is_none() && self.age(seen.read_at) <= bound)?;
        let used = self.last_access(id);
        (session.status(used, idle, now) == SessionStatus::Active).then_some(session)
    }

    /// The latest use that this gateway knows of; 0: none.
    pub fn last_access(&self, id: SessionId) -> Millis {
        match self.sessions.get(&id) {
            Some(seen) => seen.last_access.load(Ordering::Relaxed),
            None => self.uses.latest(id),
        }
    }

    fn age(&self, at: Instant) -> Duration {
        self.validity.now().saturating_duration_since(at)
    }
}

impl<T> CachedValue<T> {
    fn is_fresh(&self, hearing: Fresh) -> bool {
        let age = hearing.now.saturating_duration_since(self.at);
        self.epoch == hearing.epoch && age < MAX_AGE
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod simulation;
