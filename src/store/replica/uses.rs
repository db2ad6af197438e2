//! What sessions were used for since the store was last told.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::super::Use;
use super::Replica;
use crate::auth::session::{Millis, SessionId};

#[derive(Default)]
pub(super) struct Uses(Mutex<HashMap<SessionId, Use, RandomState>>);

impl Uses {
    /// The latest use that the store may not know of; 0: none.
    pub(super) fn latest(&self, id: SessionId) -> Millis {
        self.0.lock().get(&id).map_or(0, |used| used.last_access)
    }
}

impl Replica {
    /// Takes note of a request; it is written later, off the request's path.
    pub fn used(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.note_use(id, now, address, 1);
    }

    /// Takes note of data on a stream that a request opened before: a use, but no request.
    pub fn still_used(&self, id: SessionId, now: Millis, address: IpAddr) {
        self.note_use(id, now, address, 0);
    }

    fn note_use(&self, id: SessionId, now: Millis, address: IpAddr, requests: u64) {
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
            .or_insert(Use {
                session: id,
                last_access: now,
                requests,
                address,
            });
    }

    /// Hands over what is to be written.
    pub fn take_uses(&self) -> Vec<Use> {
        std::mem::take(&mut *self.uses.0.lock())
            .into_values()
            .collect()
    }

    /// Takes back what could not be written, so that an outage loses no use.
    pub fn put_back(&self, unwritten: Vec<Use>) {
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
