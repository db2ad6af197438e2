//! Refreshing: a refresh token is given for its successor and a new access token. Giving it again
//! within the grace time gets the same successor; later it is reuse, and ends the session.

use std::net::IpAddr;

use super::refresh_token::{Key, RefreshToken};
use super::sign_in::mint;
use super::{Accounts, Failure, SignedIn, Visitor, backend};
use crate::auth::session::{Binding, EndReason, Session, SessionId, Status};
use crate::auth::token;
use crate::events::{Event, Kind};
use crate::refusal::Refusal;
use crate::settings::Live;
use crate::store::{Entry, Reuse, Rotation, Turnover};

/// Names the key for refresh tokens among those derived from the signing key.
const KEY_LABEL: &str = "portcullis refresh token";

impl Accounts {
    /// Gives the successor of a refresh token, and a new access token.
    ///
    /// # Errors
    /// `TOKEN_INVALID`, `TOKEN_EXPIRED`, `REFRESH_TOKEN_REUSED`, `SESSION_BINDING_MISMATCH`, the
    /// session's own end, or the store or directory without an answer.
    pub async fn refresh(
        &self,
        live: &Live,
        text: &str,
        visitor: &Visitor,
    ) -> Result<SignedIn, Failure> {
        let from = visitor.ip;
        let presented = RefreshToken::parse(text).ok_or(Refusal::TokenInvalid)?;
        let key = self.refresh_key(live)?;
        let id = presented.session();
        let successor = presented.successor(&key);
        let turnover = Turnover {
            presented: presented.hash(),
            ours: presented.is_ours(&key),
            successor: successor.hash(),
            grace: live.tokens.refresh_grace,
            ttl: live.tokens.refresh_ttl,
            address: from,
        };
        let idle = live.sessions.idle_timeout;
        let is_bound_here = self.is_bound_here(live, &presented, visitor).await?;
        let turned = self.turn(id, &turnover, idle).await?;
        let status = |entry: &Entry| {
            let last_access = entry.activity.last_access;
            entry.session.status(last_access, idle, turned.now)
        };
        let entry = match (turned.rotation, turned.entry) {
            (Rotation::Rotated | Rotation::Replayed, Some(entry)) => {
                if !is_bound_here {
                    self.check_binding(live, &entry.session, visitor)?;
                }
                entry
            }
            (Rotation::Unknown, _) => return Err(Refusal::TokenInvalid.into()),
            (Rotation::Expired, _) => return Err(Refusal::TokenExpired.into()),
            (Rotation::Reused(reuse), entry) => {
                return Err(self.reused(id, entry, reuse, from).await);
            }
            (_, entry) => {
                let refusal = gone(entry.as_ref().map(status));
                self.ensure_ended_here(entry.as_ref()).await?;
                return Err(refusal.into());
            }
        };
        self.hand_out(live, entry, &successor, from).await
    }

    /// Compares the client with the one that signed in, where sessions are bound and this is the current
    /// token: one that is rejected here stays current. Whether it was compared is returned; an older
    /// token may be reuse, which ends the session whoever presents it.
    async fn is_bound_here(
        &self,
        live: &Live,
        presented: &RefreshToken,
        visitor: &Visitor,
    ) -> Result<bool, Failure> {
        let rules = &live.sessions;
        if rules.bind_ip == Binding::Off && rules.bind_user_agent == Binding::Off {
            return Ok(true);
        }
        let id = presented.session();
        if !self.holds_refresh(id, presented.hash()).await? {
            return Ok(false);
        }
        match self.session(id).await? {
            Some(entry) if entry.session.ended.is_none() => {
                self.check_binding(live, &entry.session, visitor)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn check_binding(
        &self,
        live: &Live,
        session: &Session,
        visitor: &Visitor,
    ) -> Result<(), Failure> {
        let agent = || visitor.user_agent.clone();
        for (binding, what) in live.sessions.mismatches(session, visitor.ip, agent) {
            let event = Event::new(Kind::BindingMismatch)
                .user(&session.user)
                .session(session.id);
            self.events.record(event.ip(visitor.ip).detail(what));
            if binding == Binding::Deny {
                return Err(Refusal::SessionBindingMismatch.into());
            }
        }
        Ok(())
    }

    async fn hand_out(
        &self,
        live: &Live,
        entry: Entry,
        successor: &RefreshToken,
        from: IpAddr,
    ) -> Result<SignedIn, Failure> {
        let session = &entry.session;
        let user = match &live.identity.backend {
            // The backend was asked at the sign-in, and is not again while the session lives.
            Some(_) => Some(backend::user_of(session)),
            None => self.directory.user(&session.user).await?,
        };
        let Some(user) = user.filter(|user| !user.disabled) else {
            self.end_session(session, EndReason::UserDisabled, Some(from), None)
                .await?;
            return Err(Refusal::SessionRevoked.into());
        };
        let access_token = mint(live, session)?;
        self.events.record(
            Event::new(Kind::Refresh)
                .user(&user.id)
                .session(session.id)
                .ip(from),
        );
        Ok(SignedIn {
            user,
            session: entry,
            session_token: None,
            access_token,
            expires_in: live.tokens.access_ttl,
            refresh_token: successor.expose(),
        })
    }

    /// An old token came back: somebody has a copy, so nobody keeps the session.
    async fn reused(
        &self,
        id: SessionId,
        entry: Option<Entry>,
        reuse: Reuse,
        from: IpAddr,
    ) -> Failure {
        let event = Event::new(Kind::RefreshReused).session(id).ip(from);
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

    /// Makes the end of a session sure that an earlier refresh ended.
    async fn ensure_ended_here(&self, entry: Option<&Entry>) -> Result<(), Failure> {
        let session = entry.map(|entry| &entry.session);
        let ended = session.and_then(|session| Some((session, session.ended?.reason)));
        let ours = [EndReason::RefreshReused, EndReason::UserDisabled];
        match ended.filter(|(_, reason)| ours.contains(reason)) {
            Some((session, reason)) => self.end(session.id, reason, None).await.map(drop),
            None => Ok(()),
        }
    }

    /// The key that marks this fleet's refresh tokens. It follows the signing key: after a rotation
    /// the tokens handed out before still work, for the store knows them.
    pub(super) fn refresh_key(&self, live: &Live) -> Result<Key, Failure> {
        live.tokens
            .derive(KEY_LABEL)
            .ok_or(Failure::Token(token::Error::NoSigningKey))
    }
}

fn gone(status: Option<Status>) -> Refusal {
    match status {
        Some(Status::Revoked) => Refusal::SessionRevoked,
        Some(Status::Expired) => Refusal::SessionExpired,
        Some(Status::Active) | None => Refusal::TokenInvalid,
    }
}
