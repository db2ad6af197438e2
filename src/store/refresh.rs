//! Refresh-token operations of the store, which holds the tokens' hashes only.

use std::net::IpAddr;
use std::time::Duration;

use super::{Engine, SessionEntry, Store, StoreError};
use crate::auth::session::{Millis, SessionId};
use crate::telemetry::metrics::StoreOperation;

/// A session's first refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialRefreshToken {
    pub hash: [u8; 32],
    /// When the token expires.
    pub until: Millis,
}

/// Exchange of a refresh token for its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshRotation {
    pub presented: [u8; 32],
    /// Whether the token's MAC is valid: a gateway issued it, even if the store does not have it.
    pub is_authentic: bool,
    pub successor: [u8; 32],
    /// Time for which a rotated token still yields the same successor.
    pub grace: Duration,
    /// Lifetime of the successor, bounded by its session's.
    pub ttl: Duration,
    /// The client's address: a refresh is a use of its session.
    pub address: IpAddr,
}

/// Outcome of a refresh-token rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationOutcome {
    /// The successor is now the current token.
    Rotated,
    /// The token was rotated to the same successor within the grace time.
    Replayed,
    /// The token was rotated earlier. No token of the session is rotated from now on.
    Reused(Reuse),
    /// The token does not belong to the session.
    Unknown,
    /// The current token has expired.
    Expired,
    /// The session has ended.
    SessionEnded,
}

/// Which token was reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reuse {
    /// The token before the current one, or one that was rotated within the grace time.
    Predecessor,
    /// An earlier token.
    Ancestor,
    /// The current token, after an earlier reuse: its holder may be the owner or the thief.
    Unknown,
}

impl Reuse {
    /// The description in the security event.
    pub fn as_str(self) -> &'static str {
        match self {
            Reuse::Predecessor => "recent predecessor",
            Reuse::Ancestor => "older ancestor",
            Reuse::Unknown => "unknown",
        }
    }
}

/// Outcome of a rotation with the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationResult {
    pub outcome: RotationOutcome,
    /// The session after the rotation, if it exists.
    pub entry: Option<SessionEntry>,
    /// The store's time.
    pub now: Millis,
}

impl Store {
    /// Whether this is the hash of the session's current refresh token.
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

    /// Replaces the presented token with its successor, atomically.
    ///
    /// Of concurrent requests with the same token, one rotates and the others replay. A rotation or
    /// replay counts as a use of the session. A session that was written without a token accepts the
    /// first authentic one as its current token.
    pub async fn rotate_refresh(
        &self,
        session: SessionId,
        rotation: &RefreshRotation,
        idle: Option<Duration>,
    ) -> Result<RotationResult, StoreError> {
        self.measured(StoreOperation::RotateRefresh, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.rotate_refresh(session, rotation, idle)),
                Engine::Redis(redis) => redis.rotate_refresh(session, rotation, idle).await,
            }
        })
        .await
    }
}
