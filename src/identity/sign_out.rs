//! How sessions end: signed out, terminated by their owner, ended by an administrator.

use std::net::IpAddr;
use std::time::Duration;

use super::{AccountError, Accounts, RefreshToken};
use crate::auth::session::{EndReason, Session, SessionId};
use crate::events::{Event, EventKind};
use crate::rejection::Refusal;
use crate::sessions::SessionError;
use crate::settings::Reloadable;
use crate::store::{SessionEntry, StoreError};

impl Accounts {
    /// Ends one session. `false`: it was gone already, by age or by being idle for so long.
    ///
    /// # Errors
    /// When the store could not make sure.
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

    /// Ends all sessions of a user but one; tells how many were alive.
    ///
    /// # Errors
    /// When the store could not make sure.
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

    /// Ends one of a user's own sessions; another user's does not exist.
    ///
    /// # Errors
    /// `NOT_FOUND`, and when the store could not make sure.
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

    /// Signs out: ends the session, if there is one left. With `of` it has to be that user's.
    ///
    /// # Errors
    /// When the store could not make sure.
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

    /// Signs out with a refresh token: it must be one that was handed out for the session. One that
    /// was not ends nothing, and is not told so.
    ///
    /// # Errors
    /// When the store could not make sure.
    pub async fn sign_out_with_refresh(
        &self,
        live: &Reloadable,
        text: &str,
        by: Option<IpAddr>,
    ) -> Result<(), AccountError> {
        let Some(token) = RefreshToken::parse(text) else {
            return Ok(());
        };
        let ours = token.is_genuine(&self.refresh_key(live)?)
            || self
                .sessions
                .is_current_refresh(token.session(), token.hash())
                .await?;
        if ours {
            let idle = live.sessions.idle_timeout;
            self.sign_out(token.session(), None, by, idle).await?;
        }
        Ok(())
    }

    /// Refuses a token from now on, for the rest of its life.
    ///
    /// # Errors
    /// When the store could not make sure.
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

    /// Reports an end that has happened.
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

/// Whether it has happened, although its caller must not rely on it: the journal tells of it.
fn is_unreplicated<T>(outcome: &Result<T, SessionError>) -> bool {
    matches!(outcome, Err(SessionError::Store(StoreError::Unreplicated)))
}

fn with_address(event: Event, by: Option<IpAddr>) -> Event {
    match by {
        Some(ip) => event.ip(ip),
        None => event,
    }
}
