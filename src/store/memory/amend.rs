//! Changes that clients make to their own session, in the embedded engine.

use std::time::Duration;

use super::super::{AmendOutcome, Amendment, SessionEntry};
use super::Memory;
use crate::auth::session::SessionId;

impl Memory {
    pub(in crate::store) fn amend(
        &self,
        id: SessionId,
        amendment: &Amendment,
        idle: Option<Duration>,
    ) -> AmendOutcome {
        let (mut state, now) = self.lock();
        let now = now / 1000;
        let Some(entry) = state.sessions.active_mut(id, idle, now) else {
            return AmendOutcome::Gone;
        };
        // On error, `apply` has changed nothing.
        if amendment.apply(&mut entry.session).is_err() {
            return AmendOutcome::DataTooLong;
        }
        let entry = entry.clone();
        AmendOutcome::Amended(state.with_open_connections(entry, now))
    }

    pub(in crate::store) fn touch(
        &self,
        id: SessionId,
        idle: Option<Duration>,
    ) -> Option<SessionEntry> {
        let (mut state, now) = self.lock();
        let now = now / 1000;
        let entry = state.sessions.active_mut(id, idle, now)?;
        entry.activity.last_access = entry.activity.last_access.max(now);
        let entry = entry.clone();
        Some(state.with_open_connections(entry, now))
    }
}
