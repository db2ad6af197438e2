//! Refresh tokens, by their hashes.

use super::super::{Rotation, StoreError, Turnover};
use super::{Redis, fault, read};
use crate::session::{Millis, SessionId};

/// How long past its end a token stays tellable, in milliseconds.
const KEPT_AFTER: Millis = 3_600_000;

impl Redis {
    pub(in super::super) async fn grant_refresh(
        &self,
        id: SessionId,
        hash: [u8; 32],
        until: Millis,
    ) -> Result<(), StoreError> {
        let key = self.keys.refresh(&id);
        let mut writes = redis::pipe();
        writes.cmd("DEL").arg(&key);
        writes
            .cmd("HSET")
            .arg(&key)
            .arg("current")
            .arg(hex::encode(hash))
            .arg("until")
            .arg(until);
        writes
            .cmd("PEXPIREAT")
            .arg(&key)
            .arg(until.saturating_add(KEPT_AFTER));
        for reply in self.ask_all(&writes).await? {
            fault::settled(reply)?;
        }
        Ok(())
    }

    pub(in super::super) async fn holds_refresh(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<bool, StoreError> {
        let mut question = redis::cmd("HGET");
        question.arg(self.keys.refresh(&id)).arg("current");
        let current: Option<String> = read(self.ask(&question).await?)?;
        Ok(current.is_some_and(|current| current == hex::encode(hash)))
    }

    pub(in super::super) async fn rotate_refresh(
        &self,
        id: SessionId,
        turnover: &Turnover,
    ) -> Result<Rotation, StoreError> {
        let grace = Millis::try_from(turnover.grace.as_millis()).unwrap_or(Millis::MAX);
        let call = self
            .scripts
            .rotate_refresh
            .on(&[self.keys.session(&id), self.keys.refresh(&id)])
            .arg(hex::encode(turnover.presented))
            .arg(u8::from(turnover.ours))
            .arg(hex::encode(turnover.successor))
            .arg(grace)
            .arg(turnover.until);
        match read(self.run(call).await?)? {
            1 => Ok(Rotation::Rotated),
            2 => Ok(Rotation::Replayed),
            3 => Ok(Rotation::Reused),
            4 => Ok(Rotation::Unknown),
            5 => Ok(Rotation::Expired),
            6 => Ok(Rotation::Gone),
            _ => Err(StoreError::Malformed),
        }
    }
}
