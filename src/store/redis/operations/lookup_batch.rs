//! Batched look-ups of sessions, blacklist entries and cut-offs for queries without limits.
//!
//! Look-ups that arrive together share a script: a server spends more time on calls than on look-ups.

use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::oneshot;

use super::sessions::idle_millis;
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{BATCH_SIZE, Redis};
use crate::store::{Query, StoreError};

/// Keys of one look-up, and its argument for `look_up.lua`.
struct LookupRequest {
    keys: Vec<String>,
    arguments: [u8; 25],
}

struct PendingLookup {
    request: LookupRequest,
    reply: oneshot::Sender<Result<Value, StoreError>>,
}

/// Pending look-ups of one connection.
#[derive(Default)]
pub(in crate::store::redis) struct LookupBatch(Mutex<Vec<PendingLookup>>);

impl Redis {
    /// Looks a query's identity up, together with look-ups that are queued before the task runs.
    ///
    /// The task runs at once if no other task is ready. Not for clusters, where keys are apart.
    pub(in crate::store::redis) async fn look_up_identity(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<Value, StoreError> {
        let (reply, receiver) = oneshot::channel();
        let request = self.lookup_request(query, idle);
        let is_first = {
            let mut pending = self.lookup_batch.0.lock();
            pending.push(PendingLookup { request, reply });
            pending.len() == 1
        };
        if is_first {
            // A task, so that the others get their replies even if the first request is dropped.
            let redis = self.clone();
            tokio::spawn(async move { redis.flush_lookups().await });
        }
        // The sender is dropped only when the runtime shuts down.
        receiver.await.unwrap_or(Err(StoreError::Unreachable))
    }

    async fn flush_lookups(&self) {
        let pending = std::mem::take(&mut *self.lookup_batch.0.lock());
        let requests: Vec<&LookupRequest> =
            pending.iter().map(|pending| &pending.request).collect();
        let calls = requests
            .chunks(BATCH_SIZE)
            .map(|batch| self.lookup_call(batch));
        let mut results = match self.run_all(calls.collect()).await {
            Ok(replies) => {
                let sizes = requests.chunks(BATCH_SIZE).map(<[_]>::len);
                sizes
                    .zip(replies)
                    .flat_map(|(count, reply)| split_replies(reply, count))
                    .collect()
            }
            Err(error) => vec![Err(error); pending.len()],
        }
        .into_iter();
        for PendingLookup { reply, .. } in pending {
            // Fails only if the request has been dropped.
            let _ = reply.send(results.next().unwrap_or(Err(StoreError::Malformed)));
        }
    }

    /// The call for one look-up, or for several whose keys are in one slot.
    fn lookup_call(&self, requests: &[&LookupRequest]) -> ScriptCall {
        let keys: Vec<&String> = requests.iter().flat_map(|request| &request.keys).collect();
        let call = self.scripts.look_up.call(&keys);
        requests
            .iter()
            .fold(call, |call, request| call.arg(&request.arguments))
    }

    /// The call for a single query.
    pub(in crate::store::redis) fn single_lookup_call(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
    ) -> ScriptCall {
        self.lookup_call(&[&self.lookup_request(query, idle)])
    }

    fn lookup_request(&self, query: &Query<'_>, idle: Option<Duration>) -> LookupRequest {
        let (mut keys, mut parts) = (Vec::with_capacity(3), 0);
        if let Some(id) = query.session {
            parts |= 1;
            keys.extend(self.keys.record_and_usage(&id));
        }
        if let Some(key) = query.blacklist_key {
            parts |= 2;
            keys.push(self.keys.blacklist(key));
        }
        if let Some(user) = query.cut_off_user {
            parts |= 4;
            keys.push(self.keys.cut_off(&user));
        }
        let cached = query
            .cached
            .as_ref()
            .map_or(0, |session| session.revision.saturating_add(1));
        let numbers = [query.last_access, idle_millis(idle), cached].map(u64::to_le_bytes);
        let mut arguments = [parts; 25];
        let bytes = numbers.into_iter().flatten();
        arguments
            .iter_mut()
            .skip(1)
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        LookupRequest { keys, arguments }
    }
}

/// Splits the reply of one script into the replies of its look-ups.
fn split_replies(reply: Value, count: usize) -> Vec<Result<Value, StoreError>> {
    match exchange_error::reject_server_error(reply) {
        Ok(Value::Array(replies)) if replies.len() == count => {
            replies.into_iter().map(Ok).collect()
        }
        Ok(_) => vec![Err(StoreError::Malformed); count],
        Err(error) => vec![Err(error); count],
    }
}
