//! The second home of sessions (`sessions.durable`): the database. A session is written there before
//! anybody hears of it and ended there before anybody hears of its end; where the store has lost a
//! session, or does not answer, the database says how it stands.
//!
//! The store is asked first, always: as long as it knows a session, no request asks the database.

mod keeping;
mod ledger;
mod refresh;
mod telling;
mod trust;

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
pub use ledger::Refused;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::timeout;
pub use trust::Ticket;

use crate::auth::session::{Millis, OnLimit, Session, SessionId, Status};
use crate::directory::{self, Directory, Kept, User};
use crate::store::{Found, Identity, Store, Use};

/// How long an answer of the database is good for. By so much a revocation that another gateway
/// makes while the store is away may be late here.
const FRESH: Duration = Duration::from_secs(1);
/// How many answers are kept.
const ANSWERS: usize = 20_000;
/// How many look-ups are under way at once, and how long one may take altogether.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nobody asks a database that has just not answered.
const PAUSE: Duration = Duration::from_secs(1);
/// Sessions that never were, asked for from one address: so many a second, in bursts of so many.
/// Beyond, that address' unknown sessions stay unknown for a second.
const MISSES_A_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
const MISSES_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
/// Addresses after which those that were quiet are forgotten.
const ADDRESSES_KEPT: usize = 10_000;

/// Neither no nor yes: the database did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database did not answer")]
pub struct NoAnswer;

/// A handle on the second home; clones share everything.
#[derive(Clone)]
pub struct Durable {
    directory: Directory,
    shared: Arc<Shared>,
}

struct Shared {
    on: AtomicBool,
    answers: Cache<SessionId, Answer>,
    /// Counts what was changed here: an answer from before a change is not kept.
    changes: AtomicU64,
    turns: Semaphore,
    misses: DefaultKeyedRateLimiter<IpAddr>,
    /// Addresses that asked for too many sessions that never were.
    blocked: Cache<IpAddr, Instant>,
    started: Instant,
    /// Until when the database is left alone, in milliseconds since `started`.
    silent_until: AtomicU64,
    telling: telling::Telling,
    trust: trust::Trust,
}

#[derive(Clone)]
struct Answer {
    kept: Option<Arc<Kept>>,
    at: Instant,
}

impl Durable {
    pub fn new(directory: Directory, on: bool) -> Durable {
        let quota = Quota::per_second(MISSES_A_SECOND).allow_burst(MISSES_AT_ONCE);
        Durable {
            directory,
            shared: Arc::new(Shared {
                on: AtomicBool::new(on),
                answers: Cache::new(ANSWERS),
                changes: AtomicU64::new(0),
                turns: Semaphore::new(AT_ONCE),
                misses: RateLimiter::keyed(quota),
                blocked: Cache::new(ADDRESSES_KEPT),
                started: Instant::now(),
                silent_until: AtomicU64::new(0),
                telling: telling::Telling::default(),
                trust: trust::Trust::new(on),
            }),
        }
    }

    /// The second home, where sessions have one.
    pub fn on(&self) -> Option<&Durable> {
        self.shared.on.load(Ordering::Relaxed).then_some(self)
    }

    /// Follows a reload.
    pub fn set(&self, on: bool) {
        if self.shared.on.swap(on, Ordering::Relaxed) != on {
            self.shared.trust.begin_anew();
        }
    }

    /// Judges what the store found of a session. What it has lost, or thinks expired, may live here;
    /// what it found alive just after it came back may have been ended here meanwhile. A session that
    /// lives is brought back to the store.
    ///
    /// # Errors
    /// When only the database could tell and it does not.
    pub async fn second_look(
        &self,
        store: &Store,
        id: SessionId,
        found: Found,
        view: View,
    ) -> Result<Found, NoAnswer> {
        let lost = match &found {
            Found::Missing | Found::Expired(_) => true,
            Found::Active(..) if self.is_behind(store) => false,
            Found::Active(..) | Found::Revoked(_) | Found::NotAsked => return Ok(found),
        };
        // Boxed, here and below: rarely needed, and far larger than what asks for it.
        let Some(kept) = Box::pin(self.look_up(id, lost.then_some(view.ip))).await? else {
            // One from before `durable` was on.
            return Ok(found);
        };
        let stands = view.of(&kept);
        match &stands {
            Found::Active(..) if lost => Box::pin(self.warm(store, &kept, view)).await,
            Found::Revoked(session) if !lost => Box::pin(self.tell(store, session)).await,
            _ => {}
        }
        // What the store has is fresher, but for an end.
        let keeps = !lost && !matches!(stands, Found::Revoked(_));
        Ok(if keeps { found } else { stands })
    }

    /// How a session stands, by the database alone.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn stands(&self, id: SessionId, view: View) -> Result<Found, NoAnswer> {
        let kept = Box::pin(self.look_up(id, Some(view.ip))).await?;
        Ok(kept.map_or(Found::Missing, |kept| view.of(&kept)))
    }

    /// Reads a session, or says that the database has none. Of those who ask for the same one at
    /// once, one asks the database.
    ///
    /// # Errors
    /// When it does not answer, or is not to be asked now.
    pub async fn look_up(
        &self,
        id: SessionId,
        asker: Option<IpAddr>,
    ) -> Result<Option<Arc<Kept>>, NoAnswer> {
        let shared = &self.shared;
        if let Some(answer) = shared.answers.get(&id) {
            if answer.at.elapsed() < FRESH {
                return Ok(answer.kept);
            }
            shared.answers.remove(&id);
        }
        let asker = asker.map(network);
        if asker.as_ref().is_some_and(|asker| shared.is_blocked(asker)) {
            return Err(NoAnswer);
        }
        let asking = async {
            match shared.answers.get_value_or_guard_async(&id).await {
                Ok(answer) => Ok(answer.kept),
                Err(guard) => {
                    let before = shared.changes.load(Ordering::Acquire);
                    let kept = self.ask(id).await?.map(Arc::new);
                    if shared.changes.load(Ordering::Acquire) == before {
                        let at = Instant::now();
                        let kept = kept.clone();
                        // It is only that nothing is remembered where this fails.
                        let _ = guard.insert(Answer { kept, at });
                    }
                    Ok(kept)
                }
            }
        };
        let kept = timeout(PATIENCE, asking).await.unwrap_or(Err(NoAnswer))?;
        if let (None, Some(asker)) = (&kept, asker) {
            shared.count_miss(asker);
        }
        Ok(kept)
    }

    async fn ask(&self, id: SessionId) -> Result<Option<Kept>, NoAnswer> {
        self.shared.not_silent()?;
        let turn = self.shared.turns.acquire().await;
        let _turn = turn.map_err(|_| NoAnswer)?;
        self.shared.not_silent()?;
        match timeout(PATIENCE / 2, self.directory.kept(id)).await {
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(error)) => {
                self.complain(&error);
                Err(NoAnswer)
            }
            Err(_) => {
                self.shared.pause();
                Err(NoAnswer)
            }
        }
    }

    fn complain(&self, error: &directory::Error) {
        self.shared.pause();
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, "the database did not answer for a session");
    }

    /// Brings a session back to a store that has lost it.
    async fn warm(&self, store: &Store, kept: &Kept, view: View) {
        let id = kept.session.id;
        // No gateway may take it for a record that it remembers.
        let session = Session {
            revision: kept.session.revision.max(view.now / 1000),
            ..kept.session.clone()
        };
        let used = Use {
            session: id,
            last_access: kept.last_activity,
            requests: 0,
            address: session.ip,
        };
        let warmed = async {
            store
                .create_session(&session, None, u32::MAX, OnLimit::EvictOldest, view.idle)
                .await?;
            store.record_uses(std::slice::from_ref(&used)).await
        };
        if let Err(error) = warmed.await {
            tracing::debug!(%error, "a session could not be brought back to the store");
            return;
        }
        // Who changed the row meanwhile changed the store before it had the session.
        self.shared.changed(id);
        match self.look_up(id, None).await {
            Ok(Some(after)) if after.session.ended.is_some() => {
                self.tell(store, &after.session).await
            }
            Ok(Some(after)) if after.session.revision != kept.session.revision => {
                let user = self.directory.user(&after.session.user).await;
                let Ok(Some(user)) = user else { return };
                let (ids, identity) = ([id], identity_of(&user));
                if let Err(error) = store.set_identity(&ids, identity).await {
                    tracing::warn!(%error, "a session in the store may be behind its row");
                }
            }
            _ => {}
        }
    }
}

/// What sessions carry of a user.
pub fn identity_of(user: &User) -> Identity<'_> {
    Identity {
        version: user.updated_at,
        email: &user.email,
        name: user.name.as_deref(),
        roles: &user.roles,
        scopes: &user.scopes,
    }
}

/// From where and by which rules somebody looks at a session.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub idle: Option<Duration>,
    pub now: Millis,
    /// The latest use that this gateway knows of and may not have written.
    pub last_access: Millis,
    pub ip: IpAddr,
}

impl View {
    fn of(&self, kept: &Kept) -> Found {
        let session = &kept.session;
        let last_access = kept.last_activity.max(self.last_access);
        match session.status(last_access, self.idle, self.now) {
            Status::Active => Found::Active(Arc::new(session.clone()), last_access),
            Status::Expired => Found::Expired(session.clone()),
            Status::Revoked => Found::Revoked(session.clone()),
        }
    }
}

impl Shared {
    /// Takes note that a session is not what it was.
    fn changed(&self, id: SessionId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.answers.remove(&id);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn not_silent(&self) -> Result<(), NoAnswer> {
        if self.millis() < self.silent_until.load(Ordering::Relaxed) {
            return Err(NoAnswer);
        }
        Ok(())
    }

    fn pause(&self) {
        let until = self.millis().saturating_add(PAUSE.as_millis() as u64);
        self.silent_until.store(until, Ordering::Relaxed);
    }

    fn is_blocked(&self, asker: &IpAddr) -> bool {
        let since = self.blocked.get(asker);
        since.is_some_and(|since| since.elapsed() < FRESH)
    }

    fn count_miss(&self, asker: IpAddr) {
        if self.misses.len() > ADDRESSES_KEPT {
            self.misses.retain_recent();
        }
        if self.misses.check_key(&asker).is_err() {
            self.blocked.insert(asker, Instant::now());
        }
    }
}

/// One subscriber: an IPv4 address, or a /64.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}
