//! Refresh tokens of sessions with a second home: the database alone turns them over, by the rule of
//! the store, so that a store that is lost loses none.

use std::time::Duration;

use super::Durable;
use crate::auth::session::{Millis, SessionId, Status};
use crate::directory::{self, Kept, KeptRefresh};
use crate::store::{Entry, Refresh, Rotation, Turned, Turnover};

/// How often a turn is tried again that another one overtook: each time one of the others got
/// through.
const ATTEMPTS: usize = 1000;

impl Durable {
    /// Puts the successor in the place of the token presented: of those who present the same one at
    /// once, one rotates and the others replay. `None`: the session is not kept here.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn rotate(
        &self,
        id: SessionId,
        turnover: &Turnover,
        idle: Option<Duration>,
        now: Millis,
        last_access: Millis,
    ) -> Result<Option<Turned>, directory::Error> {
        for _ in 0..ATTEMPTS {
            let Some(kept) = self.directory.kept(id).await? else {
                return Ok(None);
            };
            let used = kept.last_activity.max(last_access);
            let alive = kept.session.status(used, idle, now) == Status::Active;
            let mut refresh = read(&kept.refresh);
            let rotation = refresh.rotate(turnover, alive.then_some(kept.session.expires_at), now);
            let after = written(refresh);
            if after == kept.refresh || self.directory.turn_kept(id, &kept.refresh, &after).await? {
                return Ok(Some(turned(kept, rotation, now)));
            }
        }
        Err(directory::Error::Contended)
    }

    /// Tells whether this is the session's current refresh token. `None`: it is not kept here.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn holds_refresh(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<Option<bool>, directory::Error> {
        let kept = self.directory.kept(id).await?;
        Ok(kept.map(|kept| kept.refresh.current == hash))
    }
}

fn turned(kept: Kept, rotation: Rotation, now: Millis) -> Turned {
    Turned {
        rotation,
        entry: Some(Entry::from(kept)),
        now,
    }
}

fn read(kept: &KeptRefresh) -> Refresh {
    Refresh {
        current: kept.current,
        until: kept.until,
        rotated: kept.rotated.clone(),
        reused: kept.reused,
    }
}

fn written(refresh: Refresh) -> KeptRefresh {
    KeptRefresh {
        current: refresh.current,
        until: refresh.until,
        rotated: refresh.rotated,
        reused: refresh.reused,
    }
}

/// Only what the row has: how often and from where a session was used is the store's to know.
impl From<Kept> for Entry {
    fn from(kept: Kept) -> Entry {
        let activity = crate::auth::session::Activity {
            last_access: kept.last_activity,
            request_count: 0,
            ip_addresses: vec![kept.session.ip],
            live_connections: 0,
        };
        Entry {
            session: kept.session,
            activity,
        }
    }
}
