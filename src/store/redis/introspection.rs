//! Who requests are, where nothing but that is asked: their sessions, the blacklist, cut-offs. One script
//! answers all that ask at the same moment: a server's time goes into calls more than into looking up.

use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::oneshot;

use super::super::{Inquiry, StoreError};
use super::scripts::Call;
use super::sessions::millis;
use super::{Redis, TOGETHER, fault};

/// What one inquiry asks: its keys, and what `introspect.lua` is told of it.
struct Question {
    keys: Vec<String>,
    told: [u8; 25],
}

struct Waiting {
    question: Question,
    answer: oneshot::Sender<Result<Value, StoreError>>,
}

/// Those that wait on one link.
#[derive(Default)]
pub(super) struct Introspection(Mutex<Vec<Waiting>>);

impl Redis {
    /// Asks in a task of its own, together with all who ask before that has its turn: at once, where nobody
    /// else is ready. Not in a cluster, where their keys lie apart.
    pub(super) async fn introspect(
        &self,
        inquiry: &Inquiry<'_>,
        idle: Option<Duration>,
    ) -> Result<Value, StoreError> {
        let (answer, answered) = oneshot::channel();
        let question = self.asked_of(inquiry, idle);
        let first = {
            let mut waiting = self.introspection.0.lock();
            waiting.push(Waiting { question, answer });
            waiting.len() == 1
        };
        if first {
            // A task of its own: whoever came first may leave, and the others still wait.
            let redis = self.clone();
            tokio::spawn(async move { redis.introspect_all().await });
        }
        // It is gone without an answer only where the runtime ends.
        answered.await.unwrap_or(Err(StoreError::Unreachable))
    }

    async fn introspect_all(&self) {
        let waiting = std::mem::take(&mut *self.introspection.0.lock());
        let questions: Vec<&Question> = waiting.iter().map(|one| &one.question).collect();
        let calls = questions
            .chunks(TOGETHER)
            .map(|some| self.introspection_of(some));
        let mut answers = match self.run_all(calls.collect()).await {
            Ok(replies) => {
                let sizes = questions.chunks(TOGETHER).map(<[_]>::len);
                sizes
                    .zip(replies)
                    .flat_map(|(many, it)| each(it, many))
                    .collect()
            }
            Err(error) => vec![Err(error); waiting.len()],
        }
        .into_iter();
        for Waiting { answer, .. } in waiting {
            // Who has left in the meantime needs none.
            let _ = answer.send(answers.next().unwrap_or(Err(StoreError::Malformed)));
        }
    }

    /// The call that asks one thing, or several whose keys lie in one slot.
    fn introspection_of(&self, questions: &[&Question]) -> Call {
        let keys: Vec<&String> = questions.iter().flat_map(|one| &one.keys).collect();
        let call = self.scripts.introspect.on(&keys);
        let told = questions.iter().map(|one| &one.told);
        told.fold(call, |call, told| call.arg(told))
    }

    /// The call that asks one inquiry alone.
    pub(super) fn introspection_alone(
        &self,
        inquiry: &Inquiry<'_>,
        idle: Option<Duration>,
    ) -> Call {
        self.introspection_of(&[&self.asked_of(inquiry, idle)])
    }

    fn asked_of(&self, inquiry: &Inquiry<'_>, idle: Option<Duration>) -> Question {
        let (mut keys, mut asks) = (Vec::with_capacity(3), 0);
        if let Some(id) = inquiry.session {
            asks |= 1;
            keys.extend(self.keys.both(&id));
        }
        if let Some(key) = inquiry.blacklist_key {
            asks |= 2;
            keys.push(self.keys.blacklist(key));
        }
        if let Some(person) = inquiry.cut_off_of {
            asks |= 4;
            keys.push(self.keys.cut_off(&person));
        }
        let has = inquiry
            .known
            .as_ref()
            .map_or(0, |it| it.revision.saturating_add(1));
        let numbers = [inquiry.last_access, millis(idle), has].map(u64::to_le_bytes);
        let mut told = [asks; 25];
        let bytes = numbers.into_iter().flatten();
        told.iter_mut()
            .skip(1)
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        Question { keys, told }
    }
}

/// The answers to so many, which are one reply.
fn each(reply: Value, many: usize) -> Vec<Result<Value, StoreError>> {
    match fault::settled(reply) {
        Ok(Value::Array(answers)) if answers.len() == many => answers.into_iter().map(Ok).collect(),
        Ok(_) => vec![Err(StoreError::Malformed); many],
        Err(error) => vec![Err(error); many],
    }
}
