//! What the holder of a session changes of it.

use std::time::Duration;

use super::super::{Amended, Amendment, Entry};
use super::Memory;
use crate::auth::session::SessionId;

impl Memory {
    pub(in crate::store) fn amend(
        &self,
        id: SessionId,
        amendment: &Amendment,
        idle: Option<Duration>,
    ) -> Amended {
        let (mut content, now) = self.enter();
        let now = now / 1000;
        let Some(entry) = content.sessions.alive(id, idle, now) else {
            return Amended::Gone;
        };
        // Where it is too long, nothing has changed.
        if amendment.apply(&mut entry.session).is_err() {
            return Amended::DataTooLong;
        }
        let entry = entry.clone();
        Amended::Done(content.with_live(entry, now))
    }

    pub(in crate::store) fn touch(&self, id: SessionId, idle: Option<Duration>) -> Option<Entry> {
        let (mut content, now) = self.enter();
        let now = now / 1000;
        let entry = content.sessions.alive(id, idle, now)?;
        entry.activity.last_access = entry.activity.last_access.max(now);
        let entry = entry.clone();
        Some(content.with_live(entry, now))
    }
}
