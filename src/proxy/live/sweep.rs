//! The look at every open answer's session and token, again and again: whatever is missed otherwise,
//! an end that another gateway wrote or one that came during an outage, is found here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::{Open, Registry, close};
use crate::durable::Durable;
use crate::session::{Millis, SessionId};
use crate::store::{Store, StoreError};

/// How often.
const SWEEP: Duration = Duration::from_millis(300);
/// How many ended sessions of one sweep are asked when they ended.
const MEASURED: usize = 16;

impl Registry {
    /// Looks every open answer's session and token up, for ever. What the store cannot tell stays
    /// open: unknown is not gone.
    pub async fn sweep(
        self: Arc<Self>,
        store: Store,
        durable: Durable,
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
        durable: &Durable,
        idle: Option<Duration>,
    ) -> Result<HashSet<SessionId>, StoreError> {
        let open = self.collect(Open::is_closable);
        let live = open.iter().filter(|open| open.is_live()).count();
        self.metrics.live_connections.set(live as i64);
        // Tokens go by this gateway's clock, as they did when they were verified.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as Millis);
        let past = |open: &Arc<Open>| open.token_end.is_some_and(|end| end <= now);
        close(open.iter().filter(|open| past(open)).cloned().collect());
        let sessions: HashSet<SessionId> = open.iter().filter_map(|open| open.session).collect();
        let sessions: Vec<SessionId> = sessions.into_iter().collect();
        let ended: HashSet<SessionId> = durable
            .ended_among(store, &sessions, idle, now)
            .await?
            .into_iter()
            .collect();
        let gone = |open: &&Arc<Open>| open.session.is_some_and(|id| ended.contains(&id));
        let mut closed = close(open.iter().filter(gone).cloned().collect());
        let keys = open.iter().filter_map(|open| open.blacklist_key.as_deref());
        let tokens: Vec<&str> = keys.collect::<HashSet<_>>().into_iter().collect();
        let listed = store.is_blacklisted(&tokens).await?;
        let listed: HashSet<&str> = tokens
            .iter()
            .zip(listed)
            .filter_map(|(token, listed)| listed.then_some(*token))
            .collect();
        let revoked = |open: &&Arc<Open>| {
            let key = open.blacklist_key.as_deref();
            key.is_some_and(|key| listed.contains(key))
        };
        closed.extend(close(open.iter().filter(revoked).cloned().collect()));
        Ok(closed)
    }

    /// Observes how long after their end the answers of these sessions were closed.
    async fn measure_lag(&self, store: &Store, closed: HashSet<SessionId>) {
        for id in closed.into_iter().take(MEASURED) {
            let (Ok(Some(entry)), Ok(now)) = (store.session(id).await, store.now().await) else {
                // Nothing depends on the measurement.
                return;
            };
            if let Some(ended) = entry.session.ended {
                self.metrics.revoked_after(now.saturating_sub(ended.at));
            }
        }
    }
}
