//! Refresh tokens of sessions with a second home: the database alone turns them over, by the rule of
//! the store, so that a store that is lost loses none.

use std::time::Duration;

use super::DurableSessions;
use crate::auth::session::{Millis, SessionId, SessionStatus};
use crate::database::{self, DurableRefreshTokens, DurableSession};
use crate::store::{RefreshRotation, RefreshTokens, RotationOutcome, RotationResult, SessionEntry};

/// How often a turn is tried again that another one overtook: each time one of the others got
/// through.
const MAX_ATTEMPTS: usize = 1000;

impl DurableSessions {
    /// Puts the successor in the place of the token presented: of those who present the same one at
    /// once, one rotates and the others replay. `None`: the session is not kept here.
    ///
    /// # Errors
    /// When the database does not do it.
    pub(in crate::sessions) async fn rotate_refresh(
        &self,
        id: SessionId,
        turnover: &RefreshRotation,
        idle: Option<Duration>,
        now: Millis,
        last_access: Millis,
    ) -> Result<Option<RotationResult>, database::Error> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(kept) = self.database.session(id).await? else {
                return Ok(None);
            };
            let used = kept.last_activity.max(last_access);
            let alive = kept.session.status(used, idle, now) == SessionStatus::Active;
            let mut refresh = to_refresh_tokens(&kept.refresh);
            let rotation = refresh.rotate(turnover, alive.then_some(kept.session.expires_at), now);
            let after = to_durable_tokens(refresh);
            if after == kept.refresh
                || self
                    .database
                    .rotate_refresh(id, &kept.refresh, &after)
                    .await?
            {
                return Ok(Some(rotation_result(kept, rotation, now)));
            }
        }
        Err(database::Error::Contended)
    }

    /// Tells whether this is the session's current refresh token. `None`: it is not kept here.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(in crate::sessions) async fn is_current_refresh_token(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<Option<bool>, database::Error> {
        let kept = self.database.session(id).await?;
        Ok(kept.map(|kept| kept.refresh.current == hash))
    }
}

fn rotation_result(kept: DurableSession, rotation: RotationOutcome, now: Millis) -> RotationResult {
    RotationResult {
        outcome: rotation,
        entry: Some(SessionEntry::from(kept)),
        now,
    }
}

fn to_refresh_tokens(kept: &DurableRefreshTokens) -> RefreshTokens {
    RefreshTokens {
        current: kept.current,
        until: kept.until,
        rotated: kept.rotated.clone(),
        reused: kept.reused,
    }
}

fn to_durable_tokens(refresh: RefreshTokens) -> DurableRefreshTokens {
    DurableRefreshTokens {
        current: refresh.current,
        until: refresh.until,
        rotated: refresh.rotated,
        reused: refresh.reused,
    }
}

/// Only what the row has: how often and from where a session was used is the store's to know.
impl From<DurableSession> for SessionEntry {
    fn from(kept: DurableSession) -> SessionEntry {
        let activity = crate::auth::session::Activity {
            last_access: kept.last_activity,
            request_count: 0,
            ip_addresses: vec![kept.session.ip],
            live_connections: 0,
        };
        SessionEntry {
            session: kept.session,
            activity,
        }
    }
}
