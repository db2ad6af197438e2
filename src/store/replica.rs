//! What this gateway knows without asking: sessions that it has seen, their latest use, and what it
//! knows to be revoked. It answers for the store only while the store does not, and only as long as
//! the operator allows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{UnitWeighter, Weighter};

use super::{Found, Revocation, Use, covers};
use crate::refusal::Refusal;
use crate::session::{Millis, Session, SessionId, Status};

/// Bytes that remembered sessions may take, roughly.
const SESSIONS_WEIGHT: u64 = 64 * 1024 * 1024;
/// What was noted this recently is not noted again.
const FRESH: Duration = Duration::from_millis(500);
/// Tokens remembered as revoked, or as accepted; people remembered as cut off.
const TOKENS: u64 = 50_000;
/// What room is made for at the start; the rest is taken when it is needed.
const EXPECTED: usize = 1_000;

/// What is remembered of one session.
#[derive(Debug, Clone)]
struct Seen {
    session: Option<Arc<Session>>,
    /// Why it is no longer valid, if it is not.
    ended: Option<Refusal>,
    last_access: Millis,
    at: Instant,
}

#[derive(Debug, Clone)]
struct SessionWeight;

impl Weighter<SessionId, Seen> for SessionWeight {
    fn weight(&self, _: &SessionId, seen: &Seen) -> u64 {
        let text = seen.session.as_ref().map_or(0, |session| {
            session.user.len()
                + session.email.len()
                + session.user_agent.len()
                + session
                    .roles
                    .iter()
                    .chain(&session.scopes)
                    .map(String::len)
                    .sum::<usize>()
        });
        (text + 400) as u64
    }
}

/// Shared by all workers of one gateway.
pub struct Replica {
    sessions: Cache<SessionId, Seen, SessionWeight>,
    revoked: Cache<String, ()>,
    accepted: Cache<String, Instant>,
    /// By person: the second up to which tokens without a session are refused.
    cut_offs: Cache<String, u64>,
    /// Uses that the store has not been told of yet.
    uses: Mutex<HashMap<SessionId, Use>>,
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
        Replica {
            sessions: Cache::with_weighter(EXPECTED, SESSIONS_WEIGHT, SessionWeight),
            revoked: Cache::with_weighter(EXPECTED, TOKENS, UnitWeighter),
            accepted: Cache::with_weighter(EXPECTED, TOKENS, UnitWeighter),
            cut_offs: Cache::with_weighter(EXPECTED, TOKENS, UnitWeighter),
            uses: Mutex::default(),
        }
    }
}

impl Replica {
    /// Takes note of what the store found. A revocation that is known stays known: an answer that
    /// was overtaken by it does not bring the session back.
    pub fn remember(&self, id: SessionId, found: &Found) {
        let (session, ended, last_access) = match found {
            Found::NotAsked => return,
            Found::Active(session, last_access) => (Arc::clone(session), None, *last_access),
            Found::Expired(session) => {
                (Arc::new(session.clone()), Some(Refusal::SessionExpired), 0)
            }
            Found::Revoked(session) => {
                (Arc::new(session.clone()), Some(Refusal::SessionRevoked), 0)
            }
            // Not kept: anybody can ask for sessions that never were.
            Found::Missing => {
                self.sessions.remove(&id);
                return;
            }
        };
        if let Some(known) = self.sessions.get(&id) {
            if known.ended == Some(Refusal::SessionRevoked) {
                return;
            }
            let same = known
                .session
                .is_some_and(|known| Arc::ptr_eq(&known, &session));
            if same && ended == known.ended && known.at.elapsed() < FRESH {
                return;
            }
        }
        let session = Some(session);
        self.sessions.insert(
            id,
            Seen {
                session,
                ended,
                last_access,
                at: Instant::now(),
            },
        );
    }

    /// How long ago a session was ended that this gateway believed alive until now, in milliseconds.
    /// It has to be asked before the finding is remembered.
    pub fn lag(&self, id: SessionId, found: &Found, now: Millis) -> Option<Millis> {
        let Found::Revoked(session) = found else {
            return None;
        };
        let believed = self.sessions.get(&id)?.ended.is_none();
        let ended = session.ended.filter(|_| believed)?;
        Some(now.saturating_sub(ended.at))
    }

    /// Takes note of a revocation by this gateway, or one that it heard of.
    pub fn apply(&self, revocation: &Revocation) {
        match revocation {
            Revocation::Session(id) => {
                let session = self.sessions.get(id).and_then(|seen| seen.session);
                let ended = Some(Refusal::SessionRevoked);
                self.sessions.insert(
                    *id,
                    Seen {
                        session,
                        ended,
                        last_access: 0,
                        at: Instant::now(),
                    },
                );
            }
            Revocation::Token(key) => self.remember_revoked(key),
            Revocation::Person(person, second) => self.cut_offs.insert(person.clone(), *second),
        }
    }

    /// Takes note of a blacklisted token.
    pub fn remember_revoked(&self, blacklist_key: &str) {
        self.revoked.insert(blacklist_key.to_owned(), ());
        self.accepted.remove(blacklist_key);
    }

    /// Takes note of a foreign token that the store did not object to.
    pub fn remember_accepted(&self, blacklist_key: &str) {
        self.accepted
            .insert(blacklist_key.to_owned(), Instant::now());
    }

    pub fn is_revoked(&self, blacklist_key: &str) -> bool {
        self.revoked.get(blacklist_key).is_some()
    }

    /// Whether a person's token without a session, issued at this second, is known to be cut off.
    pub fn is_cut_off(&self, person: &str, issued_at: Option<u64>) -> bool {
        let cut_off = self.cut_offs.get(person);
        cut_off.is_some_and(|second| covers(second, issued_at))
    }

    /// Whether a foreign token was accepted within `bound`.
    pub fn was_accepted(&self, blacklist_key: &str, bound: Duration) -> bool {
        self.accepted
            .get(blacklist_key)
            .is_some_and(|at| at.elapsed() <= bound)
    }

    /// The record as it was last seen.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(&id)?.session
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
            .filter(|_| seen.ended.is_none() && seen.at.elapsed() <= bound)?;
        let used = seen.last_access.max(self.last_access(id));
        (session.status(used, idle, now) == Status::Active).then_some(session)
    }

    /// The latest use that the store may not know of; 0: none.
    pub fn last_access(&self, id: SessionId) -> Millis {
        self.uses.lock().get(&id).map_or(0, |used| used.last_access)
    }

    /// Takes note of a use; it is written later, off the request's path.
    pub fn used(&self, id: SessionId, now: Millis, address: std::net::IpAddr) {
        self.uses
            .lock()
            .entry(id)
            .and_modify(|used| {
                used.last_access = used.last_access.max(now);
                used.requests += 1;
                used.address = address;
            })
            .or_insert(Use {
                session: id,
                last_access: now,
                requests: 1,
                address,
            });
    }

    /// Hands over what is to be written.
    pub fn take_uses(&self) -> Vec<Use> {
        std::mem::take(&mut *self.uses.lock())
            .into_values()
            .collect()
    }

    /// Takes back what could not be written, so that an outage loses no use.
    pub fn put_back(&self, unwritten: Vec<Use>) {
        let mut uses = self.uses.lock();
        for old in unwritten {
            uses.entry(old.session)
                .and_modify(|used| {
                    used.requests += old.requests;
                    used.last_access = used.last_access.max(old.last_access);
                })
                .or_insert(old);
        }
    }
}
