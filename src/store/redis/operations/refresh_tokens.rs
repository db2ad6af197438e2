//! Refresh tokens, stored by their hashes in the use of their session.

use std::time::Duration;

use redis::Value;

use super::open_connections;
use super::sessions::idle_millis;
use crate::auth::session::{Millis, SessionId};
use crate::store::redis::Redis;
use crate::store::redis::codec::{activity, record};
use crate::store::redis::links::exchange_error;
use crate::store::{RefreshRotation, Reuse, RotationOutcome, RotationResult, StoreError};
use crate::telemetry::metrics::StoreOperation;

impl Redis {
    pub(in crate::store) async fn is_current_refresh_token(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<bool, StoreError> {
        let mut command = redis::cmd("GET");
        let usage = match self.execute(command.arg(self.keys.usage(&id))).await {
            // Malformed content counts as none.
            Err(StoreError::Malformed) => Value::Nil,
            usage => usage?,
        };
        Ok(activity::current_refresh_hash(&usage).as_deref() == Some(activity::half_hash(&hash)))
    }

    pub(in crate::store) async fn rotate_refresh(
        &self,
        id: SessionId,
        rotation: &RefreshRotation,
        idle: Option<Duration>,
    ) -> Result<RotationResult, StoreError> {
        let call = self
            .scripts
            .rotate_refresh
            .call(&self.keys.record_and_usage(&id))
            .arg(activity::half_hash(&rotation.presented))
            .arg(u8::from(rotation.is_authentic))
            .arg(activity::half_hash(&rotation.successor))
            .arg(whole_millis(rotation.grace))
            .arg(whole_millis(rotation.ttl))
            .arg(idle_millis(idle))
            .arg(record::encode_address(rotation.address));
        let mut replies = self
            .run_all(self.with_open_connections(call, id))
            .await?
            .into_iter();
        let reply = replies.next().ok_or(StoreError::Malformed)?;
        let reports = replies.next().ok_or(StoreError::Malformed)?;
        let Value::Array(parts) = exchange_error::reject_server_error(reply)? else {
            return Err(StoreError::Malformed);
        };
        let Ok([Value::Int(outcome), Value::Int(now), record, usage]) =
            <[Value; 4]>::try_from(parts)
        else {
            return Err(StoreError::Malformed);
        };
        let now = Millis::try_from(now).map_err(|_| StoreError::Malformed)?;
        let mut entry = self.decode_entry(StoreOperation::RotateRefresh, id, &record, &usage)?;
        if let Some(entry) = &mut entry {
            entry.activity.live_connections = open_connections::sum_reports(&reports, now);
        }
        Ok(RotationResult {
            outcome: parse_rotation(outcome).ok_or(StoreError::Malformed)?,
            entry,
            now,
        })
    }
}

fn parse_rotation(outcome: i64) -> Option<RotationOutcome> {
    Some(match outcome {
        1 => RotationOutcome::Rotated,
        2 => RotationOutcome::Replayed,
        4 => RotationOutcome::Unknown,
        5 => RotationOutcome::Expired,
        6 => RotationOutcome::SessionEnded,
        7 => RotationOutcome::Reused(Reuse::Predecessor),
        8 => RotationOutcome::Reused(Reuse::Ancestor),
        9 => RotationOutcome::Reused(Reuse::Unknown),
        _ => return None,
    })
}

fn whole_millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
