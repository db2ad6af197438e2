//! Writes to the database that precede their report: new sessions, ends, and changes.

use std::time::Duration;

use super::super::update::ExternalIdentity;
use super::DurableSessions;
use crate::auth::session::{EndReason, Millis, OnSessionLimit, Session, SessionEnd, SessionId};
use crate::database::{self, DurableRefreshTokens, DurableSession, SessionQuota};
use crate::store::InitialRefreshToken;

impl DurableSessions {
    /// Writes a new session with its first refresh token. Beyond `max` live sessions, the oldest
    /// are ended and returned; `None`: there is no room.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn create(
        &self,
        session: &Session,
        grant: InitialRefreshToken,
        max: u32,
        on_limit: OnSessionLimit,
        idle: Option<Duration>,
    ) -> Result<Option<Vec<SessionId>>, database::Error> {
        let now = session.created_at;
        let refresh = DurableRefreshTokens {
            current: grant.hash,
            until: grant.until,
            rotated: Vec::new(),
            reused: false,
        };
        let quota = SessionQuota {
            max,
            on_limit,
            used_since: used_since(idle, now),
        };
        let evicted = self
            .database
            .insert_session(session, &refresh, quota, now)
            .await?;
        for id in evicted.iter().flatten() {
            self.shared.invalidate(*id);
        }
        Ok(evicted)
    }

    /// Ends a session; returns whether it was alive.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn end(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<bool, database::Error> {
        let used_since = used_since(idle, now);
        let ended = self.database.end_session(id, reason, used_since, now).await;
        self.shared.invalidate(id);
        ended
    }

    /// Reads from the row itself, past the cache, whether a session has ended.
    ///
    /// # Errors
    /// The database does not respond.
    pub(in crate::sessions) async fn read_end(
        &self,
        id: SessionId,
    ) -> Result<Option<SessionEnd>, database::Error> {
        let row = self.database.session(id).await?;
        Ok(row.and_then(|row| row.session.ended))
    }

    /// Ends all sessions of a user but one; returns those that were alive.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn end_all(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<Vec<SessionId>, database::Error> {
        if is_foreign_user(user) {
            return Ok(Vec::new());
        }
        let used_since = used_since(idle, now);
        let ended = self
            .database
            .end_user_sessions(user, except, reason, used_since, now)
            .await?;
        for id in &ended {
            self.shared.invalidate(*id);
        }
        Ok(ended)
    }

    /// Changes the user's identity in their live sessions.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn update_identity(
        &self,
        user: &str,
    ) -> Result<(), database::Error> {
        self.database.update_session_identity(user).await?;
        for row in self.database.user_sessions(user).await? {
            self.shared.invalidate(row.session.id);
        }
        Ok(())
    }

    /// Changes the user's identity in one live session.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn set_identity(
        &self,
        id: SessionId,
        identity: ExternalIdentity<'_>,
    ) -> Result<(), database::Error> {
        let ExternalIdentity {
            email,
            name,
            roles,
            scopes,
        } = identity;
        self.database
            .set_session_identity(id, email, name, roles, scopes)
            .await?;
        self.shared.invalidate(id);
        Ok(())
    }

    /// Writes changes that the holder made to a session.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn amend(
        &self,
        session: &Session,
    ) -> Result<(), database::Error> {
        self.database.update_session(session).await?;
        self.shared.invalidate(session.id);
        Ok(())
    }

    /// Reads the sessions of a user, newest first.
    ///
    /// # Errors
    /// The database does not respond.
    pub(in crate::sessions) async fn sessions_of(
        &self,
        user: &str,
    ) -> Result<Vec<DurableSession>, database::Error> {
        if is_foreign_user(user) {
            return Ok(Vec::new());
        }
        self.database.user_sessions(user).await
    }

    /// Deletes expired entries; returns the numbers of sessions and of revocations.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn delete_expired(
        &self,
        now: Millis,
    ) -> Result<(u64, u64), database::Error> {
        let sessions = self.database.delete_expired_sessions(now).await?;
        Ok((
            sessions,
            self.database.delete_expired_revocations(now).await?,
        ))
    }
}

/// Whether this is a user of a trusted issuer, who has no session here: their key contains a NUL,
/// which PostgreSQL does not even compare.
fn is_foreign_user(user: &str) -> bool {
    user.contains('\0')
}

/// The time of use before which sessions are idle and expired.
pub(super) fn used_since(idle: Option<Duration>, now: Millis) -> Millis {
    let idle = idle.and_then(|idle| Millis::try_from(idle.as_millis()).ok());
    idle.map_or(0, |idle| now.saturating_sub(idle))
}
