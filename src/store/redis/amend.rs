//! What the holder of a session changes of it.

use std::time::Duration;

use redis::Value;

use super::super::{Amended, Amendment, Entry, StoreError};
use super::scripts::Call;
use super::sessions::millis;
use super::{Redis, live};
use crate::auth::session::SessionId;

impl Redis {
    /// The merge is made here, and written if the record is still the one that was read; if not, it
    /// is made again. Whoever is overtaken again and again runs into the deadline.
    pub(in super::super) async fn amend(
        &self,
        id: SessionId,
        amendment: &Amendment,
        idle: Option<Duration>,
    ) -> Result<Amended, StoreError> {
        loop {
            let Some(mut entry) = self.session(id).await? else {
                return Ok(Amended::Gone);
            };
            let read = entry.session.revision;
            if amendment.apply(&mut entry.session).is_err() {
                return Ok(Amended::DataTooLong);
            }
            let session = &entry.session;
            let call = self.scripts.amend.on(&self.keys.both(&id));
            let call = call.arg(millis(idle)).arg(read).arg(&*session.data);
            let call = match &session.device.name {
                Some(name) => call.arg(&**name),
                None => call,
            };
            match self.run(call).await? {
                Value::Int(1) => {}
                Value::Int(_) => return Ok(Amended::Gone),
                reply => {
                    let live = entry.activity.live_connections;
                    let written = self.written("amend_session", id, &reply)?;
                    let mut entry = written.ok_or(StoreError::Malformed)?;
                    entry.activity.live_connections = live;
                    return Ok(Amended::Done(entry));
                }
            }
        }
    }

    pub(in super::super) async fn touch(
        &self,
        id: SessionId,
        idle: Option<Duration>,
    ) -> Result<Option<Entry>, StoreError> {
        let call = self.scripts.touch.on(&self.keys.both(&id));
        let call = call.arg(millis(idle));
        let mut replies = self.run_all(self.with_live(call, id)).await?.into_iter();
        let reply = replies.next().ok_or(StoreError::Malformed)?;
        let Some(mut entry) = self.written("touch", id, &reply)? else {
            return Ok(None);
        };
        let reports = replies.next().ok_or(StoreError::Malformed)?;
        entry.activity.live_connections = live::count(&reports, entry.activity.last_access);
        Ok(Some(entry))
    }

    /// A call about one session, and the question for its open connections.
    pub(super) fn with_live(&self, call: Call, id: SessionId) -> Vec<Call> {
        let mut question = redis::cmd("HGETALL");
        question.arg(self.keys.live(&id));
        vec![call, question.into()]
    }
}
