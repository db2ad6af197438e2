//! Refreshing: a refresh token is given for its successor and a new access token. Giving it again
//! within the grace time gets the same successor; later it is reuse, and ends the session.

use std::net::IpAddr;

use crate::events::{Event, Kind};
use crate::refusal::Refusal;
use crate::session::{EndReason, SessionId, Status};
use crate::settings::Live;
use crate::store::{Entry, Rotation, Turnover, Use};
use crate::token;

use super::refresh_token::{Key, RefreshToken};
use super::sign_in::{mint, refresh_end};
use super::{Accounts, Failure, SignedIn};

/// Names the key for refresh tokens among those derived from the signing key.
const KEY_LABEL: &str = "portcullis refresh token";

impl Accounts {
    /// Gives the successor of a refresh token, and a new access token.
    ///
    /// # Errors
    /// `TOKEN_INVALID`, `TOKEN_EXPIRED`, `REFRESH_TOKEN_REUSED`, the session's own end, or the
    /// store or directory without an answer.
    pub async fn refresh(
        &self,
        live: &Live,
        text: &str,
        from: IpAddr,
    ) -> Result<SignedIn, Failure> {
        let presented = RefreshToken::parse(text).ok_or(Refusal::TokenInvalid)?;
        let key = self.refresh_key(live)?;
        let id = presented.session();
        let entry = self.store.session(id).await?;
        let now = self.store.now().await?;
        let successor = presented.successor(&key);
        let until = entry
            .as_ref()
            .map_or(now, |entry| refresh_end(live, &entry.session, now));
        let turnover = Turnover {
            presented: presented.hash(),
            ours: presented.is_ours(&key),
            successor: successor.hash(),
            grace: live.tokens.refresh_grace,
            until,
        };
        let rotation = self.store.rotate_refresh(id, &turnover).await?;
        let alive = |entry: &Entry| {
            let idle = live.sessions.idle_timeout;
            entry.session.status(entry.activity.last_access, idle, now)
        };
        let entry = match (rotation, entry) {
            (Rotation::Rotated | Rotation::Replayed, Some(entry))
                if alive(&entry) == Status::Active =>
            {
                entry
            }
            (Rotation::Unknown, _) => return Err(Refusal::TokenInvalid.into()),
            (Rotation::Expired, _) => return Err(Refusal::TokenExpired.into()),
            (Rotation::Reused, entry) => return Err(self.reused(id, entry, from).await),
            (_, entry) => return Err(gone(entry.as_ref().map(alive)).into()),
        };
        self.hand_out(live, entry, &successor, from).await
    }

    async fn hand_out(
        &self,
        live: &Live,
        mut entry: Entry,
        successor: &RefreshToken,
        from: IpAddr,
    ) -> Result<SignedIn, Failure> {
        let session = &entry.session;
        let user = self.directory.user(&session.user).await?;
        let Some(user) = user.filter(|user| !user.disabled) else {
            self.end_session(session, EndReason::UserDisabled, Some(from), None)
                .await?;
            return Err(Refusal::SessionRevoked.into());
        };
        let now = self.store.now().await?;
        let access_token = mint(live, session)?;
        // A refresh is a use; it counts as one even if writing it fails.
        let used = Use {
            session: session.id,
            last_access: now,
            requests: 1,
            address: from,
        };
        let _ = self.store.record_uses(std::slice::from_ref(&used)).await;
        self.events.record(
            Event::new(Kind::Refresh)
                .user(&user.id)
                .session(session.id)
                .ip(from),
        );
        entry.activity.last_access = now;
        entry.activity.request_count += 1;
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
    async fn reused(&self, id: SessionId, entry: Option<Entry>, from: IpAddr) -> Failure {
        let mut event = Event::new(Kind::RefreshReused).session(id).ip(from);
        if let Some(entry) = &entry {
            event = event.user(&entry.session.user);
        }
        self.events.record(event);
        if let Some(entry) = entry {
            let ended = self
                .end_session(&entry.session, EndReason::RefreshReused, Some(from), None)
                .await;
            if let Err(error) = ended {
                return error.into();
            }
        }
        Refusal::RefreshTokenReused.into()
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
