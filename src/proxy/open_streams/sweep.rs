//! Periodic sweep over the sessions and tokens of open streams. It finds the ends that
//! announcements miss: those written by another gateway, or during an outage.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::{OpenStream, OpenStreams, close};
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::clock;
use crate::sessions::{Sessions, StoreError, cut_off_covers};

/// Interval between sweeps.
const SWEEP: Duration = Duration::from_millis(300);
/// Maximum number of ended sessions per sweep whose time of end is looked up.
const MEASURED: usize = 16;

impl OpenStreams {
    /// Looks up the session and token of every open stream, forever. A stream whose session cannot
    /// be looked up stays open: unknown is not gone.
    pub async fn sweep(self: Arc<Self>, sessions: Sessions, idle: impl Fn() -> Option<Duration>) {
        let mut revocations = sessions.subscribe();
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let closed = tokio::select! {
                revocation = revocations.recv() => match revocation {
                    Ok(revocation) => self.close_revoked(&revocation),
                    // Some announcements were missed: the next sweep finds their revocations.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
                _ = tick.tick() => match self.sweep_once(&sessions, idle()).await {
                    Ok(closed) => closed,
                    Err(error) => {
                        tracing::debug!(%error, "open streams could not be checked");
                        continue;
                    }
                },
            };
            self.measure_lag(&sessions, closed).await;
        }
    }

    async fn sweep_once(
        &self,
        sessions: &Sessions,
        idle: Option<Duration>,
    ) -> Result<HashSet<SessionId>, StoreError> {
        let open = self.collect(OpenStream::is_closable);
        record_client_data(sessions, &open);
        let live = open.iter().filter(|open| open.is_long_lived()).count();
        self.metrics.live_connections.set(live as i64);
        // Tokens are judged by this gateway's clock, as at their verification.
        let now = clock::unix_millis();
        let past = |open: &&Arc<OpenStream>| {
            open.sessionless_token()
                .is_some_and(|it| it.expires_at <= now)
        };
        close(open.iter().filter(past).cloned().collect());
        let ids: HashSet<SessionId> = open.iter().filter_map(|open| open.session).collect();
        self.watched.write().clone_from(&ids);
        let ids: Vec<SessionId> = ids.into_iter().collect();
        let ended = sessions.ended_among(&ids, idle, now).await?;
        let gone = |open: &&Arc<OpenStream>| open.session.is_some_and(|id| ended.contains(&id));
        let mut closed = close(open.iter().filter(gone).cloned().collect());
        closed.extend(Self::close_blacklisted(sessions, &open).await?);
        Self::close_issued_before(sessions, &open).await?;
        Ok(closed)
    }

    async fn close_blacklisted(
        sessions: &Sessions,
        open: &[Arc<OpenStream>],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let keys = open.iter().filter_map(|open| open.blacklist_key());
        let tokens: Vec<&str> = keys.collect::<HashSet<_>>().into_iter().collect();
        let listed = sessions.revoked_among(&tokens).await?;
        let revoked = |open: &&Arc<OpenStream>| {
            let key = open.blacklist_key();
            key.is_some_and(|key| listed.contains(key))
        };
        Ok(close(open.iter().filter(revoked).cloned().collect()))
    }

    /// Closes streams of tokens without a session whose user has been signed out everywhere since.
    async fn close_issued_before(
        sessions: &Sessions,
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
        let cut_offs = sessions.issued_before_revocations(&keys).await?;
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

    /// Observes the delay between the end of these sessions and the close of their streams.
    async fn measure_lag(&self, sessions: &Sessions, closed: HashSet<SessionId>) {
        for id in closed.into_iter().take(MEASURED) {
            match sessions.millis_since_end(id).await {
                Ok(Some(lag)) => self.metrics.observe_revocation_lag(lag),
                Ok(None) => {}
                // Nothing depends on the measurement.
                Err(_) => return,
            }
        }
    }
}

/// Counts data that clients have sent since the last sweep as a use of their sessions, before the
/// sweep judges which sessions have been idle for too long.
fn record_client_data(sessions: &Sessions, open: &[Arc<OpenStream>]) {
    for open in open {
        if let (Some(session), Some(address)) = (open.session, open.address)
            && open.control.take_client_data()
        {
            sessions.record_stream_activity(session, address);
        }
    }
}
