//! Refresh: exchanges a refresh token for its successor and a new access token. Presenting it again
//! within the grace time yields the same successor; later it is reuse and ends the session.

use std::net::IpAddr;

use super::refresh_token::{RefreshKey, RefreshToken};
use super::sign_in::mint_access_token;
use super::{AccountError, Accounts, ClientInfo, SignedIn, backend};
use crate::auth::session::{ClientBinding, EndReason, Session, SessionId, SessionStatus};
use crate::auth::token;
use crate::events::{Event, EventKind};
use crate::rejection::Refusal;
use crate::settings::Reloadable;
use crate::store::{RefreshRotation, Reuse, RotationOutcome, SessionEntry};

/// Label of the refresh token key among those derived from the signing key.
const KEY_LABEL: &str = "portcullis refresh token";

impl Accounts {
    /// Exchanges a refresh token for its successor and a new access token.
    ///
    /// # Errors
    /// `TOKEN_INVALID`, `TOKEN_EXPIRED`, `REFRESH_TOKEN_REUSED`, `SESSION_BINDING_MISMATCH`, the
    /// session's own end, or an unavailable store or database.
    pub async fn refresh(
        &self,
        settings: &Reloadable,
        text: &str,
        client_info: &ClientInfo,
    ) -> Result<SignedIn, AccountError> {
        let from = client_info.ip;
        let presented = RefreshToken::parse(text).ok_or(Refusal::TokenInvalid)?;
        let key = self.refresh_key(settings)?;
        let id = presented.session();
        let successor = presented.successor(&key);
        let turnover = RefreshRotation {
            presented: presented.hash(),
            is_authentic: presented.is_genuine(&key),
            successor: successor.hash(),
            grace: settings.tokens.refresh_grace,
            ttl: settings.tokens.refresh_ttl,
            address: from,
        };
        let idle = settings.sessions.idle_timeout;
        let is_bound_here = self
            .check_current_binding(settings, &presented, client_info)
            .await?;
        let turned = self.sessions.rotate_refresh(id, &turnover, idle).await?;
        let status = |entry: &SessionEntry| {
            let last_access = entry.activity.last_access;
            entry.session.status(last_access, idle, turned.now)
        };
        let entry = match (turned.outcome, turned.entry) {
            (RotationOutcome::Rotated | RotationOutcome::Replayed, Some(entry)) => {
                if !is_bound_here {
                    self.check_binding(settings, &entry.session, client_info)?;
                }
                entry
            }
            (RotationOutcome::Unknown, _) => return Err(Refusal::TokenInvalid.into()),
            (RotationOutcome::Expired, _) => return Err(Refusal::TokenExpired.into()),
            (RotationOutcome::Reused(reuse), entry) => {
                return Err(self.reject_reuse(id, entry, reuse, from).await);
            }
            (_, entry) => {
                let refusal = refusal_for_status(entry.as_ref().map(status));
                self.ensure_ended(entry.as_ref()).await?;
                return Err(refusal.into());
            }
        };
        self.issue_tokens(settings, entry, &successor, from).await
    }

    /// Compares the client with the one that signed in, if sessions are bound and this is the
    /// current token; a rejected token stays current. Returns whether it compared: an older token
    /// may be reuse, which ends the session for every client.
    async fn check_current_binding(
        &self,
        settings: &Reloadable,
        presented: &RefreshToken,
        client_info: &ClientInfo,
    ) -> Result<bool, AccountError> {
        let rules = &settings.sessions;
        if rules.bind_ip == ClientBinding::Off && rules.bind_user_agent == ClientBinding::Off {
            return Ok(true);
        }
        let id = presented.session();
        if !self
            .sessions
            .is_current_refresh(id, presented.hash())
            .await?
        {
            return Ok(false);
        }
        match self.sessions.find(id).await? {
            Some(entry) if entry.session.ended.is_none() => {
                self.check_binding(settings, &entry.session, client_info)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn check_binding(
        &self,
        settings: &Reloadable,
        session: &Session,
        client_info: &ClientInfo,
    ) -> Result<(), AccountError> {
        let agent = || client_info.user_agent.clone();
        for (binding, what) in settings
            .sessions
            .binding_mismatches(session, client_info.ip, agent)
        {
            let event = Event::new(EventKind::BindingMismatch)
                .user(&session.user)
                .session(session.id);
            self.events.record(event.ip(client_info.ip).detail(what));
            if binding == ClientBinding::Deny {
                return Err(Refusal::SessionBindingMismatch.into());
            }
        }
        Ok(())
    }

    async fn issue_tokens(
        &self,
        settings: &Reloadable,
        entry: SessionEntry,
        successor: &RefreshToken,
        from: IpAddr,
    ) -> Result<SignedIn, AccountError> {
        let session = &entry.session;
        let user = match settings.identity.has_row(session) {
            true => self.database.user_in_session(session).await?,
            // The backend or the provider verified the user at sign-in; it is not called again
            // while the session lasts.
            false => Some(backend::user_from_session(session)),
        };
        let Some(user) = user.filter(|user| !user.disabled) else {
            self.end_session(session, EndReason::UserDisabled, Some(from), None)
                .await?;
            return Err(Refusal::SessionRevoked.into());
        };
        let access_token = mint_access_token(settings, session)?;
        self.events.record(
            Event::new(EventKind::Refresh)
                .user(&user.id)
                .session(session.id)
                .ip(from),
        );
        Ok(SignedIn {
            user,
            session: entry,
            session_token: None,
            access_token,
            expires_in: settings.tokens.access_ttl,
            refresh_token: successor.expose(),
        })
    }

    /// An old token was presented, so it may have been stolen: the session ends for every client.
    async fn reject_reuse(
        &self,
        id: SessionId,
        entry: Option<SessionEntry>,
        reuse: Reuse,
        from: IpAddr,
    ) -> AccountError {
        let event = Event::new(EventKind::RefreshReused).session(id).ip(from);
        let mut event = event.detail(reuse.as_str());
        if let Some(entry) = &entry {
            event = event.user(&entry.session.user);
        }
        self.events.record(event);
        if let Some(entry) = entry {
            let ended = self
                .end_session(&entry.session, EndReason::RefreshReused, Some(from), None)
                .await;
            if let Err(error) = ended {
                return error;
            }
        }
        Refusal::RefreshTokenReused.into()
    }

    /// Ensures the end of a session that an earlier refresh ended.
    async fn ensure_ended(&self, entry: Option<&SessionEntry>) -> Result<(), AccountError> {
        let session = entry.map(|entry| &entry.session);
        let ended = session.and_then(|session| Some((session, session.ended?.reason)));
        let ours = [EndReason::RefreshReused, EndReason::UserDisabled];
        match ended.filter(|(_, reason)| ours.contains(reason)) {
            Some((session, reason)) => {
                self.sessions.end(session.id, reason, None).await?;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The key that authenticates this fleet's refresh tokens, derived from the signing key. After
    /// a rotation earlier tokens still work, because the store holds their hashes.
    pub(super) fn refresh_key(&self, settings: &Reloadable) -> Result<RefreshKey, AccountError> {
        settings
            .tokens
            .derive_secret(KEY_LABEL)
            .ok_or(AccountError::Token(token::SignError::NoSigningKey))
    }
}

fn refusal_for_status(status: Option<SessionStatus>) -> Refusal {
    match status {
        Some(SessionStatus::Revoked) => Refusal::SessionRevoked,
        Some(SessionStatus::Expired) => Refusal::SessionExpired,
        Some(SessionStatus::Active) | None => Refusal::TokenInvalid,
    }
}
