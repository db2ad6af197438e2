//! Refresh tokens, by their hashes: they lie with the use of their session.

use std::time::Duration;

use redis::Value;

use super::super::{Reuse, Rotation, StoreError, Turned, Turnover};
use super::sessions::millis;
use super::{Redis, activity, fault, live, record};
use crate::auth::session::{Millis, SessionId};

impl Redis {
    pub(in super::super) async fn holds_refresh(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<bool, StoreError> {
        let mut question = redis::cmd("GET");
        let used = match self.ask(question.arg(self.keys.used(&id))).await {
            // As good as none.
            Err(StoreError::Malformed) => Value::Nil,
            used => used?,
        };
        Ok(activity::current_refresh(&used).as_deref() == Some(activity::half(&hash)))
    }

    pub(in super::super) async fn rotate_refresh(
        &self,
        id: SessionId,
        turnover: &Turnover,
        idle: Option<Duration>,
    ) -> Result<Turned, StoreError> {
        let call = self
            .scripts
            .rotate_refresh
            .on(&self.keys.both(&id))
            .arg(activity::half(&turnover.presented))
            .arg(u8::from(turnover.ours))
            .arg(activity::half(&turnover.successor))
            .arg(whole_millis(turnover.grace))
            .arg(whole_millis(turnover.ttl))
            .arg(millis(idle))
            .arg(record::octets(turnover.address));
        let mut replies = self.run_all(self.with_live(call, id)).await?.into_iter();
        let reply = replies.next().ok_or(StoreError::Malformed)?;
        let reports = replies.next().ok_or(StoreError::Malformed)?;
        let Value::Array(parts) = fault::settled(reply)? else {
            return Err(StoreError::Malformed);
        };
        let Ok([Value::Int(outcome), Value::Int(now), record, used]) =
            <[Value; 4]>::try_from(parts)
        else {
            return Err(StoreError::Malformed);
        };
        let now = Millis::try_from(now).map_err(|_| StoreError::Malformed)?;
        let mut entry = self.entry("rotate_refresh", id, &record, &used)?;
        if let Some(entry) = &mut entry {
            entry.activity.live_connections = live::count(&reports, now);
        }
        Ok(Turned {
            rotation: rotation(outcome).ok_or(StoreError::Malformed)?,
            entry,
            now,
        })
    }
}

fn rotation(outcome: i64) -> Option<Rotation> {
    Some(match outcome {
        1 => Rotation::Rotated,
        2 => Rotation::Replayed,
        4 => Rotation::Unknown,
        5 => Rotation::Expired,
        6 => Rotation::Gone,
        7 => Rotation::Reused(Reuse::Predecessor),
        8 => Rotation::Reused(Reuse::Ancestor),
        9 => Rotation::Reused(Reuse::Unknown),
        _ => return None,
    })
}

fn whole_millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
