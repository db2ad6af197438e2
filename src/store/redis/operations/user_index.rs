//! Index of a user's sessions, active and ended.

use std::collections::HashMap;

use redis::Value;

use crate::auth::session::{Millis, SessionId};
use crate::store::StoreError;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};
use crate::telemetry::metrics::StoreOperation;

/// Entry of the index.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::redis) struct IndexEntry {
    pub ended: bool,
}

impl Redis {
    /// Reads a user's index. A key of the wrong type is counted and taken as empty.
    pub(in crate::store::redis) async fn user_index(
        &self,
        user: &str,
    ) -> Result<HashMap<SessionId, IndexEntry>, StoreError> {
        let mut commands = redis::pipe();
        commands.cmd("HGETALL").arg(self.keys.user(user));
        let reply = self.execute_all(&commands).await?.pop();
        let reply = reply.ok_or(StoreError::Malformed)?;
        if exchange_error::is_wrong_type(&reply) {
            self.count_malformed(StoreOperation::UserIndex, 1);
            return Ok(HashMap::new());
        }
        let fields: HashMap<Vec<u8>, Vec<u8>> = decode_reply(reply)?;
        let entries = fields.iter().filter_map(|(id, value)| {
            // Creation, expiry and end, six bytes each.
            let ended = value.get(12..18)?.iter().any(|byte| *byte != 0);
            Some((parse_session_id(id)?, IndexEntry { ended }))
        });
        Ok(entries.collect())
    }

    /// Returns a user's sessions that have not been ended.
    pub(in crate::store) async fn unended_session_ids(
        &self,
        user: &str,
    ) -> Result<Vec<SessionId>, StoreError> {
        let entries = self.user_index(user).await?.into_iter();
        let unended = entries.filter(|(_, entry)| !entry.ended);
        Ok(unended.map(|(id, _)| id).collect())
    }

    /// Marks sessions as ended in the index, and deletes all but the latest ended ones.
    pub(in crate::store::redis) async fn retire(
        &self,
        user: &str,
        ids: &[SessionId],
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut call = self.scripts.retire.call(&[self.keys.user(user)]);
        for id in ids {
            call = call.arg(&id.0[..]);
        }
        let reply = self.run(call).await?;
        self.delete_sessions(&parse_session_ids(reply)?).await
    }

    pub(in crate::store::redis) async fn delete_sessions(
        &self,
        ids: &[SessionId],
    ) -> Result<(), StoreError> {
        let mut commands = redis::pipe();
        for id in ids {
            commands.cmd("DEL").arg(&self.keys.record_and_usage(id));
        }
        self.execute_all(&commands).await.map(drop)
    }
}

/// Parses a list of session ids.
pub(in crate::store::redis) fn parse_session_ids(
    reply: Value,
) -> Result<Vec<SessionId>, StoreError> {
    let ids: Vec<Vec<u8>> = decode_reply(reply)?;
    Ok(ids.iter().filter_map(|id| parse_session_id(id)).collect())
}

/// Parses a list of session ids with creation times.
pub(in crate::store::redis) fn parse_dated_session_ids(
    reply: Value,
) -> Result<Vec<(SessionId, Millis)>, StoreError> {
    let pairs: Vec<(Vec<u8>, Millis)> = decode_reply(reply)?;
    let parsed = pairs.into_iter();
    Ok(parsed
        .filter_map(|(id, created_at)| Some((parse_session_id(&id)?, created_at)))
        .collect())
}

fn parse_session_id(bytes: &[u8]) -> Option<SessionId> {
    bytes.try_into().ok().map(SessionId)
}
