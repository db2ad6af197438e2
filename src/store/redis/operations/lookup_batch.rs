//! Who requests are, where nothing but that is asked: their sessions, the blacklist, cut-offs. One script
//! answers all that ask at the same moment: a server's time goes into calls more than into looking up.

use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::oneshot;

use super::sessions::idle_millis;
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{BATCH_SIZE, Redis};
use crate::store::{Query, StoreError};

/// What one inquiry asks: its keys, and what `look_up.lua` is told of it.
struct LookupRequest {
    keys: Vec<String>,
    arguments: [u8; 25],
}

struct PendingLookup {
    request: LookupRequest,
    reply: oneshot::Sender<Result<Value, StoreError>>,
}

/// Those that wait on one link.
#[derive(Default)]
pub(in crate::store::redis) struct LookupBatch(Mutex<Vec<PendingLookup>>);

impl Redis {
    /// Asks in a task of its own, together with all who ask before that has its turn: at once, where nobody
    /// else is ready. Not in a cluster, where their keys lie apart.
    pub(in crate::store::redis) async fn look_up_identity(
        &self,
        inquiry: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<Value, StoreError> {
        let (answer, answered) = oneshot::channel();
        let question = self.lookup_request(inquiry, idle);
        let first = {
            let mut waiting = self.lookup_batch.0.lock();
            waiting.push(PendingLookup {
                request: question,
                reply: answer,
            });
            waiting.len() == 1
        };
        if first {
            // A task of its own: whoever came first may leave, and the others still wait.
            let redis = self.clone();
            tokio::spawn(async move { redis.flush_lookups().await });
        }
        // It is gone without an answer only where the runtime ends.
        answered.await.unwrap_or(Err(StoreError::Unreachable))
    }

    async fn flush_lookups(&self) {
        let waiting = std::mem::take(&mut *self.lookup_batch.0.lock());
        let questions: Vec<&LookupRequest> = waiting.iter().map(|one| &one.request).collect();
        let calls = questions
            .chunks(BATCH_SIZE)
            .map(|some| self.lookup_call(some));
        let mut answers = match self.run_all(calls.collect()).await {
            Ok(replies) => {
                let sizes = questions.chunks(BATCH_SIZE).map(<[_]>::len);
                sizes
                    .zip(replies)
                    .flat_map(|(many, it)| split_replies(it, many))
                    .collect()
            }
            Err(error) => vec![Err(error); waiting.len()],
        }
        .into_iter();
        for PendingLookup { reply: answer, .. } in waiting {
            // Who has left in the meantime needs none.
            let _ = answer.send(answers.next().unwrap_or(Err(StoreError::Malformed)));
        }
    }

    /// The call that asks one thing, or several whose keys lie in one slot.
    fn lookup_call(&self, questions: &[&LookupRequest]) -> ScriptCall {
        let keys: Vec<&String> = questions.iter().flat_map(|one| &one.keys).collect();
        let call = self.scripts.look_up.call(&keys);
        let told = questions.iter().map(|one| &one.arguments);
        told.fold(call, |call, told| call.arg(told))
    }

    /// The call that asks one inquiry alone.
    pub(in crate::store::redis) fn single_lookup_call(
        &self,
        inquiry: &Query<'_>,
        idle: Option<Duration>,
    ) -> ScriptCall {
        self.lookup_call(&[&self.lookup_request(inquiry, idle)])
    }

    fn lookup_request(&self, inquiry: &Query<'_>, idle: Option<Duration>) -> LookupRequest {
        let (mut keys, mut asks) = (Vec::with_capacity(3), 0);
        if let Some(id) = inquiry.session {
            asks |= 1;
            keys.extend(self.keys.record_and_usage(&id));
        }
        if let Some(key) = inquiry.blacklist_key {
            asks |= 2;
            keys.push(self.keys.blacklist(key));
        }
        if let Some(person) = inquiry.cut_off_user {
            asks |= 4;
            keys.push(self.keys.cut_off(&person));
        }
        let has = inquiry
            .cached
            .as_ref()
            .map_or(0, |it| it.revision.saturating_add(1));
        let numbers = [inquiry.last_access, idle_millis(idle), has].map(u64::to_le_bytes);
        let mut told = [asks; 25];
        let bytes = numbers.into_iter().flatten();
        told.iter_mut()
            .skip(1)
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        LookupRequest {
            keys,
            arguments: told,
        }
    }
}

/// The answers to so many, which are one reply.
fn split_replies(reply: Value, many: usize) -> Vec<Result<Value, StoreError>> {
    match exchange_error::reject_server_error(reply) {
        Ok(Value::Array(answers)) if answers.len() == many => answers.into_iter().map(Ok).collect(),
        Ok(_) => vec![Err(StoreError::Malformed); many],
        Err(error) => vec![Err(error); many],
    }
}
