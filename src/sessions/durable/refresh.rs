//! Refresh tokens of durable sessions: the database alone rotates them, by the rules of the store,
//! so that the loss of a store loses none.

use std::time::Duration;

use super::DurableSessions;
use crate::auth::session::{Millis, SessionId, SessionStatus};
use crate::database::{self, DurableRefreshTokens, DurableSession};
use crate::store::{RefreshRotation, RefreshTokens, RotationOutcome, RotationResult, SessionEntry};

/// How often a rotation is retried after a conflict: each conflict means that another rotation
/// succeeded.
const MAX_ATTEMPTS: usize = 1000;

impl DurableSessions {
    /// Replaces the presented token by its successor: of concurrent requests with the same token,
    /// one rotates it and the others receive a replay. `None`: the session has no row.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn rotate_refresh(
        &self,
        id: SessionId,
        requested: &RefreshRotation,
        idle: Option<Duration>,
        now: Millis,
        last_access: Millis,
    ) -> Result<Option<RotationResult>, database::Error> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(row) = self.database.session(id).await? else {
                return Ok(None);
            };
            let used = row.last_activity.max(last_access);
            let alive = row.session.status(used, idle, now) == SessionStatus::Active;
            let mut refresh = to_refresh_tokens(&row.refresh);
            let rotation = refresh.rotate(requested, alive.then_some(row.session.expires_at), now);
            let after = to_durable_tokens(refresh);
            if after == row.refresh
                || self
                    .database
                    .rotate_refresh(id, &row.refresh, &after)
                    .await?
            {
                return Ok(Some(rotation_result(row, rotation, now)));
            }
        }
        Err(database::Error::Contended)
    }

    /// Whether this is the session's current refresh token. `None`: the session has no row.
    ///
    /// # Errors
    /// The database does not respond.
    pub(in crate::sessions) async fn is_current_refresh_token(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<Option<bool>, database::Error> {
        let row = self.database.session(id).await?;
        Ok(row.map(|row| row.refresh.current == hash))
    }
}

fn rotation_result(row: DurableSession, rotation: RotationOutcome, now: Millis) -> RotationResult {
    RotationResult {
        outcome: rotation,
        entry: Some(SessionEntry::from(row)),
        now,
    }
}

fn to_refresh_tokens(row: &DurableRefreshTokens) -> RefreshTokens {
    RefreshTokens {
        current: row.current,
        until: row.until,
        rotated: row.rotated.clone(),
        reused: row.reused,
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

/// Only the fields of the row: the count and the address of uses are in the store alone.
impl From<DurableSession> for SessionEntry {
    fn from(row: DurableSession) -> SessionEntry {
        let activity = crate::auth::session::Activity {
            last_access: row.last_activity,
            request_count: 0,
            ip_addresses: vec![row.session.ip],
            live_connections: 0,
        };
        SessionEntry {
            session: row.session,
            activity,
        }
    }
}
