//! What this gateway knows without asking: sessions that it has seen, their latest use, which tokens
//! and people it knows to be refused or not. While every change of the store is sure to be heard it
//! answers for the store; while the store does not answer, as long as the operator allows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) use guard::Before;
use guard::{Guard, Hearing};
use memory::{MARKS, SESSIONS, Weight};
use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use uses::Uses;

use super::{Found, Item, PersonHash, Revocation, covers};
use crate::auth::session::{Millis, Session, SessionId, Status};
use crate::refusal::Refusal;

mod answers;
mod guard;
mod memory;
mod notes;
mod uses;

/// What was noted this recently is not noted again.
const FRESH: Duration = Duration::from_millis(500);
/// The store is asked again after so long in any case.
const SURE_FOR: Duration = Duration::from_secs(10);
/// Whoever comes again after so long has it asked behind their back, and does not wait for it later.
const RENEWED_AFTER: Duration = Duration::from_millis(7_500);
/// Tokens remembered as revoked; sessions that never were.
const REFUSED: u64 = 50_000;
/// What room is made for at the start; the rest is taken when it is needed.
const EXPECTED: usize = 1_000;

/// What is remembered of one session.
#[derive(Debug)]
struct Seen {
    session: Option<Arc<Session>>,
    /// Why it is no longer valid, if it is not.
    ended: Option<Refusal>,
    last_access: AtomicU64,
    at: Instant,
    /// 0: something has changed since, or may have.
    epoch: AtomicU64,
    /// When a change was heard of, by the store's clock; 0: none was.
    changed_at: AtomicU64,
}

/// What is remembered of a token or a person, as of when.
#[derive(Debug, Clone, Copy)]
struct Noted<T> {
    says: T,
    at: Instant,
    epoch: u64,
}

/// Shared by all workers of one gateway.
pub struct Replica {
    guard: Guard,
    sessions: Cache<SessionId, Arc<Seen>, Weight>,
    /// Sessions that the store does not have: apart, for anybody can ask for these.
    missing: Cache<SessionId, Noted<()>>,
    revoked: Cache<String, Noted<()>>,
    accepted: Cache<String, Noted<()>, Weight>,
    /// By person: the second up to which tokens without a session are refused.
    cut_offs: Cache<PersonHash, Noted<Option<u64>>, Weight>,
    /// The same for everybody, since the store lost its data; 0: none.
    everybody: AtomicU64,
    /// Uses that the store has not been told of yet.
    uses: Uses,
    /// What is being asked again, behind somebody's back.
    pub(super) renewing: Mutex<HashSet<Item>>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Default for Replica {
    fn default() -> Replica {
        Replica::with(Guard::default())
    }
}

impl Replica {
    fn with(guard: Guard) -> Replica {
        let marks = MARKS.bytes();
        Replica {
            guard,
            sessions: Cache::with_weighter(EXPECTED, SESSIONS.bytes(), Weight),
            missing: Cache::with_weighter(EXPECTED, REFUSED, UnitWeighter),
            revoked: Cache::with_weighter(EXPECTED, REFUSED, UnitWeighter),
            accepted: Cache::with_weighter(EXPECTED, marks, Weight),
            cut_offs: Cache::with_weighter(EXPECTED, marks, Weight),
            everybody: AtomicU64::new(0),
            uses: Uses::default(),
            renewing: Mutex::default(),
        }
    }

    /// Every change of the store up to `as_of` has been heard.
    pub(super) fn heard_all(&self, as_of: Instant, good_for: Duration) {
        self.guard.heard_all(as_of, good_for);
    }

    /// Changes may have been missed, or everything has changed.
    pub(super) fn gap(&self) {
        self.guard.gap();
    }

    /// Nothing is heard for now.
    pub(super) fn deaf(&self) {
        self.guard.deaf();
    }

    /// Whether the store need not be asked about what is remembered.
    pub fn is_sure(&self) -> bool {
        self.guard.sure().is_some()
    }

    /// Something was heard to have changed; tells whether it is remembered here.
    pub(super) fn changed(&self, item: &Item, now: Millis) -> bool {
        self.guard.changed(item);
        match item {
            Item::Session(id) => {
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
            Item::Token(key) => {
                if let Some(noted) = self.revoked.get(key) {
                    let noted = Noted { epoch: 0, ..noted };
                    self.revoked.insert(key.clone(), noted);
                }
                self.accepted.remove(key).is_some()
            }
            Item::Person(hash) => self.cut_offs.get(hash).is_some_and(|noted| {
                self.cut_offs.insert(*hash, Noted { epoch: 0, ..noted });
                true
            }),
        }
    }

    /// Takes note of how a session stands by somebody else's word than the store's. A revocation
    /// that is known stays known: an answer that was overtaken by it does not bring the session back.
    pub fn remember(&self, id: SessionId, found: &Found) {
        self.remember_as_of(id, found, 0);
    }

    fn remember_as_of(&self, id: SessionId, found: &Found, epoch: u64) -> Option<Arc<Seen>> {
        let (session, ended, last_access) = match found {
            Found::NotAsked | Found::Missing => return None,
            Found::Active(session, last_access) => (Arc::clone(session), None, *last_access),
            Found::Expired(session) => {
                (Arc::new(session.clone()), Some(Refusal::SessionExpired), 0)
            }
            Found::Revoked(session) => {
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
            if same && ended == known.ended && current && self.age(known.at) < FRESH {
                return None;
            }
        }
        let seen = Arc::new(Seen {
            session: Some(session),
            ended,
            last_access: AtomicU64::new(last_access),
            at: self.guard.now(),
            epoch: AtomicU64::new(epoch),
            changed_at: AtomicU64::new(0),
        });
        self.sessions.insert(id, Arc::clone(&seen));
        Some(seen)
    }

    /// How long after its end this gateway knew of the end of a session that it believed alive, in
    /// milliseconds. It has to be asked before the finding is remembered.
    pub fn lag(&self, id: SessionId, found: &Found, now: Millis) -> Option<Millis> {
        let Found::Revoked(session) = found else {
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
                self.guard.changed(&Item::Session(*id));
                let session = self.sessions.get(id).and_then(|seen| seen.session.clone());
                let seen = Seen {
                    session,
                    ended: Some(Refusal::SessionRevoked),
                    last_access: AtomicU64::new(0),
                    at: self.guard.now(),
                    epoch: AtomicU64::new(0),
                    changed_at: AtomicU64::new(0),
                };
                self.sessions.insert(*id, Arc::new(seen));
            }
            Revocation::Token(key) => {
                self.guard.changed(&Item::Token(key.clone()));
                self.remember_revoked(key);
            }
            Revocation::Person(person, second) => {
                self.guard.changed(&Item::Person(*person));
                let noted = Noted {
                    says: Some(*second),
                    at: self.guard.now(),
                    epoch: 0,
                };
                self.cut_offs.insert(*person, noted);
            }
        }
    }

    /// Takes note of a session that the store knows to be over, whatever was believed here.
    pub(super) fn was_over(&self, id: SessionId, idle: Option<Duration>, now: Millis) {
        if self.still_active(id, Duration::MAX, idle, now).is_some() {
            self.apply(&Revocation::Session(id));
        } else {
            self.changed(&Item::Session(id), 0);
        }
    }

    /// Takes note of a blacklisted token.
    fn remember_revoked(&self, blacklist_key: &str) {
        let noted = Noted {
            says: (),
            at: self.guard.now(),
            epoch: 0,
        };
        self.revoked.insert(blacklist_key.to_owned(), noted);
        self.accepted.remove(blacklist_key);
    }

    pub fn is_revoked(&self, blacklist_key: &str) -> bool {
        self.revoked.get(blacklist_key).is_some()
    }

    /// Whether a person's token without a session, issued at this second, is known to be cut off.
    pub fn is_cut_off(&self, person: &PersonHash, issued_at: Option<u64>) -> bool {
        let cut_off = self.cut_offs.get(person);
        let second = cut_off.and_then(|noted| noted.says);
        self.at_least(second)
            .is_some_and(|second| covers(second, issued_at))
    }

    /// Refuses everybody's tokens without a session that were issued up to this second.
    pub(super) fn refuse_up_to(&self, second: u64) {
        self.everybody.store(second, Ordering::Relaxed);
    }

    /// The cut-off that holds where a person has this one.
    pub(super) fn at_least(&self, cut_off: Option<u64>) -> Option<u64> {
        match self.everybody.load(Ordering::Relaxed) {
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
    pub fn seen(&self, id: SessionId) -> (Option<Arc<Session>>, Millis) {
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
    pub fn ended(&self, id: SessionId) -> Option<Refusal> {
        self.sessions.get(&id)?.ended
    }

    /// The record, if it was seen alive within `bound` and has not expired since.
    pub fn still_active(
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
            .filter(|_| seen.ended.is_none() && self.age(seen.at) <= bound)?;
        let used = self.last_access(id);
        (session.status(used, idle, now) == Status::Active).then_some(session)
    }

    /// The latest use that this gateway knows of; 0: none.
    pub fn last_access(&self, id: SessionId) -> Millis {
        match self.sessions.get(&id) {
            Some(seen) => seen.last_access.load(Ordering::Relaxed),
            None => self.uses.latest(id),
        }
    }

    fn age(&self, at: Instant) -> Duration {
        self.guard.now().saturating_duration_since(at)
    }
}

impl<T> Noted<T> {
    fn is_sure(&self, hearing: Hearing) -> bool {
        let age = hearing.now.saturating_duration_since(self.at);
        self.epoch == hearing.epoch && age < SURE_FOR
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
mod simulation;
