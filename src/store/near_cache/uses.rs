//! Session uses that have not been written to the store yet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::super::SessionUse;
use super::NearCache;
use crate::auth::session::{Millis, SessionId};

/// Uses to write, one entry per session.
#[derive(Default)]
pub(super) struct PendingUses(Mutex<HashMap<SessionId, SessionUse, RandomState>>);

impl PendingUses {
    /// Latest use that is not written yet; 0: none.
    pub(super) fn latest(&self, id: SessionId) -> Millis {
        self.0
            .lock()
            .get(&id)
            .map_or(0, |pending| pending.last_access)
    }
}

impl NearCache {
    /// Records a request, to be written later in the background.
    pub fn record_request(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.record_use(id, now, address, 1);
    }

    /// Records data on an open stream: a use, but not a request.
    pub fn record_stream_activity(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.record_use(id, now, address, 0);
    }

    fn record_use(&self, id: SessionId, now: Millis, address: IpAddr, requests: u64) {
        if let Some(entry) = self.sessions.get(&id) {
            entry.last_access.fetch_max(now, Ordering::Relaxed);
        }
        self.uses
            .0
            .lock()
            .entry(id)
            .and_modify(|pending| {
                pending.last_access = pending.last_access.max(now);
                pending.requests += requests;
                pending.address = address;
            })
            .or_insert(SessionUse {
                session: id,
                last_access: now,
                requests,
                address,
            });
    }

    /// Takes the uses to write.
    pub fn take_uses(&self) -> Vec<SessionUse> {
        std::mem::take(&mut *self.uses.0.lock())
            .into_values()
            .collect()
    }

    /// Puts back uses that could not be written, so that an outage loses none.
    pub fn restore_uses(&self, unwritten: Vec<SessionUse>) {
        let mut uses = self.uses.0.lock();
        for restored in unwritten {
            uses.entry(restored.session)
                .and_modify(|pending| {
                    pending.requests += restored.requests;
                    pending.last_access = pending.last_access.max(restored.last_access);
                })
                .or_insert(restored);
        }
    }
}
