//! Periodic sweep over the sessions and tokens of open streams. It finds the ends that
//! announcements miss: those written by another gateway, or during an outage.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::OpenStreams;
use crate::auth::api_key::PresentedApiKey;
use crate::auth::session::{Millis, SessionId};
use crate::auth::token::Claims;
use crate::clock;
use crate::sessions::{Sessions, StoreError, cut_off_covers};

/// Interval between sweeps.
const SWEEP: Duration = Duration::from_millis(300);
/// Maximum number of ended sessions per sweep whose time of end is looked up.
const MEASURED: usize = 16;

/// The open streams, as a sweep finds them.
#[derive(Default)]
struct Observed {
    sessions: HashSet<SessionId>,
    tokens: Vec<Arc<Claims>>,
    /// API keys, each with the address of a client that has presented it.
    api_keys: HashSet<(PresentedApiKey, IpAddr)>,
    /// Sessions whose clients have sent data since the last sweep.
    used: Vec<(SessionId, IpAddr)>,
    long_lived: i64,
}

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
        let open = self.collect();
        // Before the sweep judges which sessions have been idle for too long.
        for (session, address) in open.used {
            sessions.record_stream_activity(session, address);
        }
        self.metrics.live_connections.set(open.long_lived);
        // Tokens are judged by this gateway's clock, as at their verification.
        let now = clock::unix_millis();
        let is_past = |claims: &Claims| claims.expires_at <= now;
        self.close_ended(|stream| stream.sessionless_token().is_some_and(is_past));
        self.close_ended_api_keys(sessions, open.api_keys, now)
            .await;
        self.watched.write().clone_from(&open.sessions);
        let ids: Vec<SessionId> = open.sessions.into_iter().collect();
        let ended = sessions.ended_among(&ids, idle, now).await?;
        let mut closed =
            self.close_ended(|stream| stream.session.is_some_and(|id| ended.contains(&id)));
        closed.extend(self.close_blacklisted(sessions, &open.tokens).await?);
        self.close_issued_before(sessions, &open.tokens).await?;
        Ok(closed)
    }

    /// What the open streams are to be looked up by.
    fn collect(&self) -> Observed {
        let mut open = Observed::default();
        self.visit(|control, stream| {
            if !stream.is_closable() {
                return;
            }
            open.long_lived += i64::from(stream.is_long_lived(control));
            if let (Some(session), Some(address)) = (stream.session, stream.address)
                && control.take_client_data()
            {
                open.used.push((session, address));
            }
            open.sessions.extend(stream.session);
            open.tokens.extend(stream.token.clone());
            open.api_keys.extend(stream.presented_api_key());
        });
        open
    }

    /// Closes the streams of keys that have been revoked, have expired, whose secret has been replaced,
    /// whose owner is disabled, or that may no longer be used from the address of the client.
    async fn close_ended_api_keys(
        &self,
        sessions: &Sessions,
        open: HashSet<(PresentedApiKey, IpAddr)>,
        now: Millis,
    ) {
        if open.is_empty() {
            return;
        }
        let ended = sessions.ended_api_keys(&open, now).await;
        if !ended.is_empty() {
            let is_ended = |key| ended.contains(&key);
            self.close_ended(|stream| stream.presented_api_key().is_some_and(is_ended));
        }
    }

    async fn close_blacklisted(
        &self,
        sessions: &Sessions,
        tokens: &[Arc<Claims>],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let keys = tokens.iter().map(|claims| &*claims.blacklist_key);
        let keys: Vec<&str> = keys.collect::<HashSet<_>>().into_iter().collect();
        let listed = sessions.revoked_among(&keys).await?;
        Ok(self.close_ended(|stream| {
            let key = stream.blacklist_key();
            key.is_some_and(|key| listed.contains(key))
        }))
    }

    /// Closes streams of tokens without a session whose user has been signed out everywhere since.
    async fn close_issued_before(
        &self,
        sessions: &Sessions,
        tokens: &[Arc<Claims>],
    ) -> Result<(), StoreError> {
        let tokens = tokens.iter().filter(|claims| claims.session.is_none());
        let users: HashSet<_> = tokens.map(|claims| claims.user_key()).collect();
        let keys: Vec<&str> = users.iter().map(|key| &**key).collect();
        let cut_offs = sessions.issued_before_revocations(&keys).await?;
        let cut_offs = keys.into_iter().zip(cut_offs);
        let cut_offs: HashMap<&str, u64> = cut_offs
            .filter_map(|(user, second)| Some((user, second?)))
            .collect();
        self.close_ended(|stream| {
            stream.sessionless_token().is_some_and(|claims| {
                let second = cut_offs.get(&*claims.user_key());
                second.is_some_and(|second| cut_off_covers(*second, claims.issued_at_seconds()))
            })
        });
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
