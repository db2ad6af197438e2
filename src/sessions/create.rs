//! New sessions, and those whose sign-in failed after they were written.

use super::durable::DurableSessions;
use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::session::{EndReason, OnSessionLimit, Session, SessionId, SessionRules};
use crate::store::{CreateOutcome, InitialRefreshToken};

impl Sessions {
    /// Writes a new session with its first refresh token, within the limit of sessions per user.
    ///
    /// # Errors
    /// When it is not certain that the session exists.
    pub async fn create(
        &self,
        session: &Session,
        grant: InitialRefreshToken,
        rules: &SessionRules,
    ) -> Result<CreateOutcome, SessionError> {
        match self.source() {
            SessionSource::Store => {
                self.store.index_provider_sign_in(session).await?;
                let (max, on_limit) = (rules.max_per_user, rules.on_limit);
                let idle = rules.idle_timeout;
                let created = self
                    .store
                    .create_session(session, Some(grant), max, on_limit, idle);
                Ok(created.await?)
            }
            SessionSource::Durable(durable) => {
                self.create_durable(durable, session, grant, rules).await
            }
        }
    }

    async fn create_durable(
        &self,
        durable: &DurableSessions,
        session: &Session,
        grant: InitialRefreshToken,
        rules: &SessionRules,
    ) -> Result<CreateOutcome, SessionError> {
        let (max, on_limit, idle) = (rules.max_per_user, rules.on_limit, rules.idle_timeout);
        if let Err(error) = self.store.index_provider_sign_in(session).await {
            // A logout finds the session by its row.
            tracing::debug!(%error, "a sign-in at a provider is not in the store's index");
        }
        let evicted = durable.create(session, grant, max, on_limit, idle).await?;
        let Some(evicted) = evicted else {
            return Ok(CreateOutcome::LimitReached);
        };
        // The limit is applied already: the copy in the store evicts nothing.
        let copied =
            self.store
                .create_session(session, None, u32::MAX, OnSessionLimit::EvictOldest, idle);
        match copied.await {
            Ok(_) => self.end_copy_of_ended_row(durable, session.id).await?,
            Err(_) => self.metrics.sessions_created.inc(),
        }
        for id in &evicted {
            if let Err(error) = self.copy_end(*id, EndReason::Evicted, idle).await {
                // The client does not receive the new session, so it must not count as one.
                let ended = self.end(session.id, EndReason::Terminated, None).await;
                return Err(ended.err().unwrap_or_else(|| error.into()));
            }
        }
        Ok(CreateOutcome::Created { evicted })
    }

    /// Ends the copy of a session whose row was ended before the copy was written: that end found no
    /// session in the store.
    async fn end_copy_of_ended_row(
        &self,
        durable: &DurableSessions,
        id: SessionId,
    ) -> Result<(), SessionError> {
        match durable.read_end(id).await? {
            Some(end) => Ok(self.copy_end(id, end.reason, None).await?),
            None => Ok(()),
        }
    }

    /// Ends a session that no client received: it may have been written, or may still be.
    ///
    /// # Errors
    /// When it is not certain that it has ended.
    pub async fn abandon(&self, user: &str, id: SessionId) -> Result<(), SessionError> {
        if let SessionSource::Durable(durable) = self.source() {
            let now = self.now().await?;
            durable.end(id, EndReason::Terminated, None, now).await?;
        }
        Ok(self.store.abandon_session(user, id).await?)
    }
}
