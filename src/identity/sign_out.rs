//! Ends of sessions: signed out, terminated by their owner, ended by an administrator.

use std::net::IpAddr;
use std::time::Duration;

use super::{AccountError, Accounts, RefreshToken};
use crate::auth::session::{EndReason, Session, SessionId};
use crate::events::{Event, EventKind};
use crate::rejection::Refusal;
use crate::sessions::SessionError;
use crate::settings::Reloadable;
use crate::store::{SessionEntry, SessionListQuery, StoreError};

impl Accounts {
    /// Ends one session. Returns `false` if it had already expired, by age or idle time.
    ///
    /// # Errors
    /// The store could not confirm the end.
    pub async fn end_session(
        &self,
        session: &Session,
        reason: EndReason,
        by: Option<IpAddr>,
        idle: Option<Duration>,
    ) -> Result<bool, AccountError> {
        let outcome = self.sessions.end(session.id, reason, idle).await;
        if matches!(outcome, Ok(true)) || is_unreplicated(&outcome) {
            self.report_end(&session.user, session.id, reason, by);
        }
        Ok(outcome?)
    }

    /// Ends all sessions of a user but one; returns the number that were active.
    ///
    /// # Errors
    /// The store could not confirm the end.
    pub async fn end_user_sessions(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        by: Option<IpAddr>,
        idle: Option<Duration>,
    ) -> Result<usize, AccountError> {
        let ended = self.sessions.end_all(user, except, reason, idle).await?;
        for id in &ended {
            self.report_end(user, *id, reason, by);
        }
        Ok(ended.len())
    }

    /// Ends those of a user's sessions that `ends` selects.
    ///
    /// # Errors
    /// The store could not confirm the ends.
    pub(super) async fn end_sessions_where(
        &self,
        user: &str,
        ends: impl Fn(&Session) -> bool,
        reason: EndReason,
        by: Option<IpAddr>,
    ) -> Result<(), AccountError> {
        let query = SessionListQuery {
            status: None,
            address: None,
            idle: None,
            limit: usize::MAX,
            cursor: None,
        };
        let page = self.sessions.list(user, query).await?;
        for entry in page.entries {
            let session = &entry.session;
            if session.ended.is_none() && ends(session) {
                self.end_session(session, reason, by, None).await?;
            }
        }
        Ok(())
    }

    /// Ends one of a user's own sessions; another user's does not exist.
    ///
    /// # Errors
    /// `NOT_FOUND`, or the store could not confirm the end.
    pub async fn terminate(
        &self,
        user: &str,
        id: SessionId,
        by: Option<IpAddr>,
        idle: Option<Duration>,
    ) -> Result<(), AccountError> {
        match self.sessions.find(id).await? {
            Some(entry) if entry.session.user == user => {
                self.end_session(&entry.session, EndReason::Terminated, by, idle)
                    .await?;
                Ok(())
            }
            _ => Err(Refusal::NotFound.into()),
        }
    }

    /// Signs out: ends the session, if any is left. With `of` it must be that user's.
    ///
    /// # Errors
    /// The store could not confirm the end.
    pub async fn sign_out(
        &self,
        id: SessionId,
        of: Option<&str>,
        by: Option<IpAddr>,
        idle: Option<Duration>,
    ) -> Result<(), AccountError> {
        let is_theirs = |entry: &SessionEntry| of.is_none_or(|user| entry.session.user == user);
        let Some(entry) = self.sessions.find(id).await?.filter(is_theirs) else {
            return Ok(());
        };
        let outcome = self.sessions.end(id, EndReason::SignOut, idle).await;
        if matches!(outcome, Ok(true)) || is_unreplicated(&outcome) {
            let event = Event::new(EventKind::SignOut)
                .user(&entry.session.user)
                .session(id);
            self.events.record(with_address(event, by));
        }
        outcome?;
        Ok(())
    }

    /// Signs out with a refresh token, which must have been issued for the session. Another one
    /// ends nothing, which the client does not learn.
    ///
    /// # Errors
    /// The store could not confirm the end.
    pub async fn sign_out_with_refresh(
        &self,
        settings: &Reloadable,
        text: &str,
        by: Option<IpAddr>,
    ) -> Result<(), AccountError> {
        let Some(token) = RefreshToken::parse(text) else {
            return Ok(());
        };
        let ours = token.is_genuine(&self.refresh_key(settings)?)
            || self
                .sessions
                .is_current_refresh(token.session(), token.hash())
                .await?;
        if ours {
            let idle = settings.sessions.idle_timeout;
            self.sign_out(token.session(), None, by, idle).await?;
        }
        Ok(())
    }

    /// Blacklists a token for the rest of its lifetime.
    ///
    /// # Errors
    /// The store could not confirm the entry.
    pub async fn blacklist(
        &self,
        key: &str,
        ttl: Duration,
        by: Option<IpAddr>,
    ) -> Result<(), AccountError> {
        let outcome = self.sessions.revoke_token(key, ttl).await;
        if outcome.is_ok() || is_unreplicated(&outcome) {
            let event = Event::new(EventKind::TokenBlacklisted);
            self.events.record(with_address(event, by));
        }
        Ok(outcome?)
    }

    /// Records the end of a session.
    pub(super) fn report_end(
        &self,
        user: &str,
        id: SessionId,
        reason: EndReason,
        by: Option<IpAddr>,
    ) {
        let kind = match reason {
            EndReason::Evicted => EventKind::Evicted,
            _ => EventKind::Revoked,
        };
        let event = Event::new(kind)
            .user(user)
            .session(id)
            .reason(reason.as_str());
        self.events.record(with_address(event, by));
    }
}

/// Whether the change was made but not replicated: the journal records it, though the caller must
/// not rely on it.
fn is_unreplicated<T>(outcome: &Result<T, SessionError>) -> bool {
    matches!(outcome, Err(SessionError::Store(StoreError::Unreplicated)))
}

fn with_address(event: Event, by: Option<IpAddr>) -> Event {
    match by {
        Some(ip) => event.ip(ip),
        None => event,
    }
}
