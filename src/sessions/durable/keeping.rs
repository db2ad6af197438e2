//! What is written to the second home before anybody hears of it: new sessions, their ends, changes.

use std::time::Duration;

use super::Durable;
use crate::auth::session::{EndReason, Millis, OnLimit, Session, SessionId};
use crate::directory::{self, Kept, KeptRefresh, Room};
use crate::store::Grant;

impl Durable {
    /// Writes a new session with its first refresh token. Beyond `max` alive ones the oldest are
    /// ended, and given; `None`: there is no room.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn keep(
        &self,
        session: &Session,
        grant: Grant,
        max: u32,
        on_limit: OnLimit,
        idle: Option<Duration>,
    ) -> Result<Option<Vec<SessionId>>, directory::Error> {
        let now = session.created_at;
        let refresh = KeptRefresh {
            current: grant.hash,
            until: grant.until,
            rotated: Vec::new(),
            reused: false,
        };
        let room = Room {
            max,
            on_limit,
            used_since: used_since(idle, now),
        };
        let evicted = self.directory.keep(session, &refresh, room, now).await?;
        for id in evicted.iter().flatten() {
            self.shared.changed(*id);
        }
        Ok(evicted)
    }

    /// Ends a session; tells whether it was alive.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn end(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<bool, directory::Error> {
        let used_since = used_since(idle, now);
        let ended = self.directory.end_kept(id, reason, used_since, now).await;
        self.shared.changed(id);
        ended
    }

    /// Ends all sessions of a user but one; gives those that were alive.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn end_of(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<Vec<SessionId>, directory::Error> {
        if is_foreign(user) {
            return Ok(Vec::new());
        }
        let used_since = used_since(idle, now);
        let ended = self
            .directory
            .end_kept_of(user, except, reason, used_since, now)
            .await?;
        for id in &ended {
            self.shared.changed(*id);
        }
        Ok(ended)
    }

    /// Changes who a user's live sessions belong to and what they may do.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn identify(&self, user: &str) -> Result<(), directory::Error> {
        self.directory.identify_kept(user).await?;
        for kept in self.directory.kept_of(user).await? {
            self.shared.changed(kept.session.id);
        }
        Ok(())
    }

    /// Writes what its holder has changed of a session.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn amend(&self, session: &Session) -> Result<(), directory::Error> {
        self.directory.amend_kept(session).await?;
        self.shared.changed(session.id);
        Ok(())
    }

    /// Reads the sessions of a user, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn of(&self, user: &str) -> Result<Vec<Kept>, directory::Error> {
        if is_foreign(user) {
            return Ok(Vec::new());
        }
        self.directory.kept_of(user).await
    }

    /// Drops what is over for good; tells how many sessions and how many revocations.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn trim(&self, now: Millis) -> Result<(u64, u64), directory::Error> {
        let sessions = self.directory.trim_kept(now).await?;
        Ok((sessions, self.directory.trim_revocations(now).await?))
    }
}

/// Whether this is a person of a trusted issuer, who has no session here: between the two is a NUL,
/// which PostgreSQL would not even compare.
fn is_foreign(user: &str) -> bool {
    user.contains('\0')
}

/// Sessions not used since then have expired by being idle.
pub(super) fn used_since(idle: Option<Duration>, now: Millis) -> Millis {
    let idle = idle.and_then(|idle| Millis::try_from(idle.as_millis()).ok());
    idle.map_or(0, |idle| now.saturating_sub(idle))
}
