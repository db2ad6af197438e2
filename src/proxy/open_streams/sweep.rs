//! The look at every open answer's session and token, again and again: whatever is missed otherwise,
//! an end that another gateway wrote or one that came during an outage, is found here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::{OpenStream, OpenStreams, close};
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::clock;
use crate::sessions::durable::DurableSessions;
use crate::store::{Store, StoreError, cut_off_covers};

/// How often.
const SWEEP: Duration = Duration::from_millis(300);
/// How many ended sessions of one sweep are asked when they ended.
const MEASURED: usize = 16;

impl OpenStreams {
    /// Looks every open answer's session and token up, for ever. What the store cannot tell stays
    /// open: unknown is not gone.
    pub async fn sweep(
        self: Arc<Self>,
        store: Store,
        durable: DurableSessions,
        idle: impl Fn() -> Option<Duration>,
    ) {
        let mut revocations = store.subscribe();
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let closed = tokio::select! {
                revocation = revocations.recv() => match revocation {
                    Ok(revocation) => self.close_revoked(&revocation),
                    // Some were missed: the next sweep finds them.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
                _ = tick.tick() => match self.sweep_once(&store, &durable, idle()).await {
                    Ok(closed) => closed,
                    Err(error) => {
                        tracing::debug!(%error, "open answers could not be checked");
                        continue;
                    }
                },
            };
            self.measure_lag(&store, closed).await;
        }
    }

    async fn sweep_once(
        &self,
        store: &Store,
        durable: &DurableSessions,
        idle: Option<Duration>,
    ) -> Result<HashSet<SessionId>, StoreError> {
        let open = self.collect(OpenStream::is_closable);
        note_client_data(store, &open);
        let live = open.iter().filter(|open| open.is_long_lived()).count();
        self.metrics.live_connections.set(live as i64);
        // Tokens go by this gateway's clock, as they did when they were verified.
        let now = clock::unix_millis();
        let past = |open: &&Arc<OpenStream>| {
            open.sessionless_token()
                .is_some_and(|it| it.expires_at <= now)
        };
        close(open.iter().filter(past).cloned().collect());
        let sessions: HashSet<SessionId> = open.iter().filter_map(|open| open.session).collect();
        self.watched.write().clone_from(&sessions);
        let sessions: Vec<SessionId> = sessions.into_iter().collect();
        let ended: HashSet<SessionId> = durable
            .ended_among(store, &sessions, idle, now)
            .await?
            .into_iter()
            .collect();
        let gone = |open: &&Arc<OpenStream>| open.session.is_some_and(|id| ended.contains(&id));
        let mut closed = close(open.iter().filter(gone).cloned().collect());
        closed.extend(Self::close_blacklisted(store, &open).await?);
        Self::close_issued_before(store, &open).await?;
        Ok(closed)
    }

    async fn close_blacklisted(
        store: &Store,
        open: &[Arc<OpenStream>],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let keys = open.iter().filter_map(|open| open.blacklist_key());
        let tokens: Vec<&str> = keys.collect::<HashSet<_>>().into_iter().collect();
        let listed = store.are_blacklisted(&tokens).await?;
        let listed: HashSet<&str> = tokens
            .iter()
            .zip(listed)
            .filter_map(|(token, listed)| listed.then_some(*token))
            .collect();
        let revoked = |open: &&Arc<OpenStream>| {
            let key = open.blacklist_key();
            key.is_some_and(|key| listed.contains(key))
        };
        Ok(close(open.iter().filter(revoked).cloned().collect()))
    }

    /// Closes what tokens without a session opened whose person was signed out everywhere since.
    async fn close_issued_before(
        store: &Store,
        open: &[Arc<OpenStream>],
    ) -> Result<(), StoreError> {
        let mut people: HashMap<String, Vec<&Arc<OpenStream>>> = HashMap::new();
        for open in open {
            if let Some(claims) = open.sessionless_token() {
                people
                    .entry(claims.user_key().into_owned())
                    .or_default()
                    .push(open);
            }
        }
        let keys: Vec<&str> = people.keys().map(String::as_str).collect();
        let cut_offs = store.cut_offs(&keys).await?;
        let mut cut: Vec<Arc<OpenStream>> = Vec::new();
        for (theirs, cut_off) in people.values().zip(cut_offs) {
            let covered = theirs.iter().filter(|open| {
                let issued_at = open.sessionless_token().and_then(Claims::issued_at_seconds);
                cut_off.is_some_and(|second| cut_off_covers(second, issued_at))
            });
            cut.extend(covered.map(|open| Arc::clone(open)));
        }
        close(cut);
        Ok(())
    }

    /// Observes how long after their end the answers of these sessions were closed.
    async fn measure_lag(&self, store: &Store, closed: HashSet<SessionId>) {
        for id in closed.into_iter().take(MEASURED) {
            let (Ok(Some(entry)), Ok(now)) = (store.session(id).await, store.now().await) else {
                // Nothing depends on the measurement.
                return;
            };
            if let Some(ended) = entry.session.ended {
                self.metrics
                    .observe_revocation_lag(now.saturating_sub(ended.at));
            }
        }
    }
}

/// Counts what clients have sent since the last sweep as a use of their sessions, before the sweep
/// judges which have not been used for too long.
fn note_client_data(store: &Store, open: &[Arc<OpenStream>]) {
    let now = store.clock();
    for open in open {
        if let (Some(session), Some(address)) = (open.session, open.address)
            && open.control.take_client_data()
        {
            store
                .near_cache()
                .record_stream_activity(session, now, address);
        }
    }
}
