//! What the store does with refresh tokens. It knows them by hash only.

use std::net::IpAddr;
use std::time::Duration;

use super::{Engine, SessionEntry, Store, StoreError};
use crate::auth::session::{Millis, SessionId};
use crate::telemetry::metrics::StoreOperation;

/// A session's first refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialRefreshToken {
    pub hash: [u8; 32],
    /// When it ends.
    pub until: Millis,
}

/// A refresh token that is given for its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshRotation {
    pub presented: [u8; 32],
    /// The token bears the gateway's own mark: it was handed out once, whether or not it is still
    /// known here.
    pub is_authentic: bool,
    pub successor: [u8; 32],
    /// How long a rotated token still gets the same successor.
    pub grace: Duration,
    /// How long the successor lasts, if its session does.
    pub ttl: Duration,
    /// Who presents it: a refresh is a use of its session.
    pub address: IpAddr,
}

/// What became of a refresh token that was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationOutcome {
    /// The successor is the current one now.
    Rotated,
    /// It was rotated a moment ago, to this same successor.
    Replayed,
    /// It was rotated longer ago. From now on no token of the session is rotated any more.
    Reused(Reuse),
    /// It is none of this session's.
    Unknown,
    /// It is the current one, and over its time.
    Expired,
    /// The session that it belonged to has ended.
    SessionEnded,
}

/// Which token it was that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reuse {
    /// The one before the current one, or one that was rotated within the grace time.
    Predecessor,
    /// One from before that.
    Ancestor,
    /// The current one, after another had come back: whether its holder is the thief or the owner
    /// nobody can tell.
    Unknown,
}

impl Reuse {
    /// The words of the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Reuse::Predecessor => "recent predecessor",
            Reuse::Ancestor => "older ancestor",
            Reuse::Unknown => "unknown",
        }
    }
}

/// What came of presenting a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationResult {
    pub outcome: RotationOutcome,
    /// The session as it stands afterwards, if it is there.
    pub entry: Option<SessionEntry>,
    /// The store's clock.
    pub now: Millis,
}

impl Store {
    /// Tells whether this is the session's current refresh token.
    pub async fn is_current_refresh_token(
        &self,
        session: SessionId,
        hash: [u8; 32],
    ) -> Result<bool, StoreError> {
        self.measured(StoreOperation::HoldsRefresh, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.is_current_refresh_token(session, hash)),
                Engine::Redis(redis) => redis.is_current_refresh_token(session, hash).await,
            }
        })
        .await
    }

    /// Puts the successor in the place of the token presented, in one step: of those who present
    /// the same one at once, one rotates and the others replay. Where a successor is given, the
    /// session was used. A session that was written without a grant takes the first token of ours
    /// that is presented for its current one.
    pub async fn rotate_refresh(
        &self,
        session: SessionId,
        turnover: &RefreshRotation,
        idle: Option<Duration>,
    ) -> Result<RotationResult, StoreError> {
        self.measured(StoreOperation::RotateRefresh, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.rotate_refresh(session, turnover, idle)),
                Engine::Redis(redis) => redis.rotate_refresh(session, turnover, idle).await,
            }
        })
        .await
    }
}
