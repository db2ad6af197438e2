//! What the store does with refresh tokens. It knows them by hash only.

use std::time::Duration;

use super::{Engine, Store, StoreError};
use crate::session::{Millis, SessionId};

/// A refresh token that is given for its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turnover {
    pub presented: [u8; 32],
    /// The token bears the gateway's own mark: it was handed out once, whether or not it is still
    /// known here.
    pub ours: bool,
    pub successor: [u8; 32],
    /// How long a rotated token still gets the same successor.
    pub grace: Duration,
    /// When the successor ends.
    pub until: Millis,
}

/// What became of a refresh token that was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The successor is the current one now.
    Rotated,
    /// It was rotated a moment ago, to this same successor.
    Replayed,
    /// It was rotated longer ago. From now on no token of the session is rotated any more.
    Reused,
    /// It is none of this session's.
    Unknown,
    /// It is the current one, and over its time.
    Expired,
    /// The session that it belonged to has ended.
    Gone,
}

impl Store {
    /// Makes this the current refresh token of a new session, until then.
    pub async fn grant_refresh(
        &self,
        session: SessionId,
        hash: [u8; 32],
        until: Millis,
    ) -> Result<(), StoreError> {
        self.measured("grant_refresh", async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.grant_refresh(session, hash, until);
                    Ok(())
                }
                Engine::Redis(redis) => redis.grant_refresh(session, hash, until).await,
            }
        })
        .await
    }

    /// Tells whether this is the session's current refresh token.
    pub async fn holds_refresh(
        &self,
        session: SessionId,
        hash: [u8; 32],
    ) -> Result<bool, StoreError> {
        self.measured("holds_refresh", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.holds_refresh(session, hash)),
                Engine::Redis(redis) => redis.holds_refresh(session, hash).await,
            }
        })
        .await
    }

    /// Puts the successor in the place of the token presented, in one step: of those who present
    /// the same one at once, one rotates and the others replay.
    pub async fn rotate_refresh(
        &self,
        session: SessionId,
        turnover: &Turnover,
    ) -> Result<Rotation, StoreError> {
        self.measured("rotate_refresh", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.rotate_refresh(session, turnover)),
                Engine::Redis(redis) => redis.rotate_refresh(session, turnover).await,
            }
        })
        .await
    }
}
