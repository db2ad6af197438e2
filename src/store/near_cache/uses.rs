//! What sessions were used for since the store was last told.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::super::SessionUse;
use super::NearCache;
use crate::auth::session::{Millis, SessionId};

#[derive(Default)]
pub(super) struct PendingUses(Mutex<HashMap<SessionId, SessionUse, RandomState>>);

impl PendingUses {
    /// The latest use that the store may not know of; 0: none.
    pub(super) fn latest(&self, id: SessionId) -> Millis {
        self.0.lock().get(&id).map_or(0, |used| used.last_access)
    }
}

impl NearCache {
    /// Takes note of a request; it is written later, off the request's path.
    pub fn record_request(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.record_use(id, now, address, 1);
    }

    /// Takes note of data on a stream that a request opened before: a use, but no request.
    pub fn record_stream_activity(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.record_use(id, now, address, 0);
    }

    fn record_use(&self, id: SessionId, now: Millis, address: IpAddr, requests: u64) {
        if let Some(seen) = self.sessions.get(&id) {
            seen.last_access.fetch_max(now, Ordering::Relaxed);
        }
        self.uses
            .0
            .lock()
            .entry(id)
            .and_modify(|used| {
                used.last_access = used.last_access.max(now);
                used.requests += requests;
                used.address = address;
            })
            .or_insert(SessionUse {
                session: id,
                last_access: now,
                requests,
                address,
            });
    }

    /// Hands over what is to be written.
    pub fn take_uses(&self) -> Vec<SessionUse> {
        std::mem::take(&mut *self.uses.0.lock())
            .into_values()
            .collect()
    }

    /// Takes back what could not be written, so that an outage loses no use.
    pub fn restore_uses(&self, unwritten: Vec<SessionUse>) {
        let mut uses = self.uses.0.lock();
        for old in unwritten {
            uses.entry(old.session)
                .and_modify(|used| {
                    used.requests += old.requests;
                    used.last_access = used.last_access.max(old.last_access);
                })
                .or_insert(old);
        }
    }
}
