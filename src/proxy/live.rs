//! The answers that are open, so that they can be closed when their session or their token ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::control::{Closing, Control};
use crate::metrics::Metrics;
use crate::session::{Millis, SessionId};
use crate::store::{Revocation, Store, StoreError};

/// An answer that is open for longer counts as live, whatever it is: a long poll, a download.
const LONG: Duration = Duration::from_secs(5);
/// How often every live answer's session and token are looked at. With the store's deadline it stays
/// well within the second that a revocation may take.
const SWEEP: Duration = Duration::from_millis(300);

/// One request that was let through with a credential.
#[derive(Debug)]
pub struct Open {
    pub control: Arc<Control>,
    pub session: Option<SessionId>,
    /// What the blacklist would name its token by.
    pub blacklist_key: Option<String>,
    /// For a token without a session: its own end.
    pub token_end: Option<Millis>,
    since: Instant,
    kind: AtomicU8,
}

/// What kind of answer it turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// It will be over soon, as far as anyone can tell.
    Short = 0,
    /// It may take long and ends by itself: a gRPC call.
    Call = 1,
    /// It has no end of its own: a WebSocket, an event stream.
    Endless = 2,
}

impl Open {
    pub fn new(
        control: Arc<Control>,
        session: Option<SessionId>,
        blacklist_key: Option<String>,
        token_end: Option<Millis>,
    ) -> Open {
        Open {
            control,
            session,
            blacklist_key,
            token_end,
            since: Instant::now(),
            kind: AtomicU8::new(Kind::Short as u8),
        }
    }

    /// Whether a revocation closes it. A short answer is let finish: it was let through before.
    fn is_live(&self) -> bool {
        self.kind.load(Ordering::Relaxed) > Kind::Short as u8 || self.since.elapsed() > LONG
    }
}

/// Every open request of this gateway, in one shard a worker so that workers do not meet.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Mutex<HashMap<u64, Arc<Open>>>>,
    next: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Keeps a request in the registry until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    registry: Arc<Registry>,
    shard: usize,
    key: u64,
    open: Arc<Open>,
}

impl Registry {
    pub fn new(workers: usize, metrics: Arc<Metrics>) -> Registry {
        Registry {
            shards: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(0),
            metrics,
        }
    }

    /// Enters a request; dropping the ticket takes it out.
    pub fn enter(self: &Arc<Self>, worker: usize, open: Open) -> Ticket {
        let shard = worker % self.shards.len();
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(open);
        if let Some(shard) = self.shards.get(shard) {
            shard.lock().insert(key, Arc::clone(&open));
        }
        Ticket {
            registry: Arc::clone(self),
            shard,
            key,
            open,
        }
    }

    /// How many live answers a session has on this gateway.
    pub fn live_of(&self, session: SessionId) -> usize {
        self.collect(|open| open.session == Some(session)).len()
    }

    /// Closes at once what a revocation made by this gateway ends.
    pub fn close_revoked(&self, revocation: &Revocation) {
        let ended = self.collect(|open| match revocation {
            Revocation::Session(id) => open.session == Some(*id),
            Revocation::Token(key) => open.blacklist_key.as_ref() == Some(key),
        });
        for open in ended {
            open.control.close(Closing::Ended);
        }
    }

    /// Tells every endless answer that the gateway is going away; all others may finish.
    pub fn drain(&self) {
        let endless = |open: &Open| open.kind.load(Ordering::Relaxed) == Kind::Endless as u8;
        for open in self.collect(endless) {
            open.control.close(Closing::Drain);
        }
    }

    /// Looks every live answer's session and token up, for ever. What the store cannot tell stays
    /// open: unknown is not gone.
    pub async fn sweep(self: Arc<Self>, store: Store, idle: impl Fn() -> Option<Duration>) {
        let mut revocations = store.subscribe();
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                revocation = revocations.recv() => match revocation {
                    Ok(revocation) => self.close_revoked(&revocation),
                    // Some were missed: the next sweep finds them.
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
                _ = tick.tick() => {
                    if let Err(error) = self.sweep_once(&store, idle()).await {
                        tracing::debug!(%error, "open answers could not be checked");
                    }
                }
            }
        }
    }

    async fn sweep_once(&self, store: &Store, idle: Option<Duration>) -> Result<(), StoreError> {
        let live = self.collect(|_| true);
        self.metrics.live_connections.set(live.len() as i64);
        if live.is_empty() {
            return Ok(());
        }
        // Tokens go by this gateway's clock, as they did when they were verified.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as Millis);
        for open in &live {
            if open.token_end.is_some_and(|end| end <= now) {
                open.control.close(Closing::Ended);
            }
        }
        let sessions: Vec<SessionId> = live
            .iter()
            .filter_map(|open| open.session)
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let ended: HashSet<SessionId> = store
            .ended_among(&sessions, idle)
            .await?
            .into_iter()
            .collect();
        let tokens: Vec<&str> = live
            .iter()
            .filter_map(|open| open.blacklist_key.as_deref())
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let listed = store.is_blacklisted(&tokens).await?;
        let listed: HashSet<&str> = tokens
            .iter()
            .zip(listed)
            .filter_map(|(token, listed)| listed.then_some(*token))
            .collect();
        for open in &live {
            let gone = open.session.is_some_and(|id| ended.contains(&id))
                || open
                    .blacklist_key
                    .as_deref()
                    .is_some_and(|key| listed.contains(key));
            if gone {
                open.control.close(Closing::Ended);
            }
        }
        Ok(())
    }

    /// Looks at the silences of one worker's requests, for ever. It has to run on that worker, so
    /// that no request goes on meanwhile.
    pub async fn watch_silences(self: Arc<Self>, worker: usize) {
        let mut tick = tokio::time::interval(super::silence::LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let Some(shard) = self.shards.get(worker % self.shards.len()) else {
            return;
        };
        loop {
            tick.tick().await;
            let now = Instant::now();
            for open in shard.lock().values() {
                if open.control.silence.look(now) {
                    open.control.close(Closing::Ended);
                }
            }
        }
    }

    fn collect(&self, wanted: impl Fn(&Open) -> bool) -> Vec<Arc<Open>> {
        self.shards
            .iter()
            .flat_map(|shard| {
                shard
                    .lock()
                    .values()
                    .filter(|open| open.is_live() && wanted(open))
                    .cloned()
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Ticket {
    /// Notes what kind of answer it is.
    pub fn becomes(&self, kind: Kind) {
        self.open.kind.store(kind as u8, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(shard) = self.registry.shards.get(self.shard) {
            shard.lock().remove(&self.key);
        }
    }
}
