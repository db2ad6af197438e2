//! Records of API keys and their leases in the embedded engine.

use std::collections::HashMap;

use super::super::api_keys::{API_KEY_TTL, LEASE_TTL};
use super::super::{SessionEntry, SessionLookup};
use super::{Memory, millis};
use crate::auth::session::{Activity, Millis, Session, SessionId};

/// Records and leases, each with its expiry.
#[derive(Default)]
pub(super) struct ApiKeyRecords {
    entries: HashMap<SessionId, (SessionEntry, Millis)>,
    leases: HashMap<SessionId, (u64, Millis)>,
}

impl ApiKeyRecords {
    pub(super) fn entry(&self, id: &SessionId, now: Millis) -> Option<&SessionEntry> {
        let (entry, until) = self.entries.get(id)?;
        (now < *until).then_some(entry)
    }

    pub(super) fn clean_up(&mut self, now: Millis) {
        self.entries.retain(|_, (_, until)| now < *until);
        self.leases.retain(|_, (_, until)| now < *until);
    }
}

impl Memory {
    pub(in crate::store) fn lease_api_key(&self, id: SessionId) -> Option<u64> {
        let (mut state, now) = self.lock();
        let (keys, now) = (&mut state.sessions.api_keys, now / 1000);
        if keys.entry(&id, now).is_some() {
            return None;
        }
        let fresh = || (rand::random(), now + millis(LEASE_TTL));
        let lease = keys.leases.entry(id).or_insert_with(fresh);
        if now >= lease.1 {
            *lease = fresh();
        }
        Some(lease.0)
    }

    pub(in crate::store) fn put_api_key(&self, lease: u64, record: &Session) {
        let (mut state, now) = self.lock();
        let (keys, now) = (&mut state.sessions.api_keys, now / 1000);
        let held = keys.leases.get(&record.id);
        if held.is_some_and(|(held, until)| *held == lease && now < *until) {
            keys.leases.remove(&record.id);
            let entry = SessionEntry {
                session: record.clone(),
                activity: Activity::default(),
            };
            let until = now + millis(API_KEY_TTL);
            keys.entries.insert(record.id, (entry, until));
        }
    }

    pub(in crate::store) fn invalidate_api_keys(&self, ids: &[SessionId]) {
        let (mut state, _) = self.lock();
        let keys = &mut state.sessions.api_keys;
        for id in ids {
            keys.entries.remove(id);
            keys.leases.remove(id);
        }
    }

    pub(in crate::store) fn extend_api_keys(&self, ids: &[SessionId]) {
        let (mut state, now) = self.lock();
        let (keys, now) = (&mut state.sessions.api_keys, now / 1000);
        for id in ids {
            if let Some((_, until)) = keys.entries.get_mut(id)
                && now < *until
            {
                *until = now + millis(API_KEY_TTL);
            }
        }
    }

    pub(in crate::store) fn look_up_api_keys(
        &self,
        ids: &[SessionId],
    ) -> Vec<(SessionId, SessionLookup)> {
        let (state, now) = self.lock();
        let look_up = |id: &SessionId| state.sessions.look_up(id, None, 0, None, now / 1000);
        ids.iter().map(|id| (*id, look_up(id))).collect()
    }
}
