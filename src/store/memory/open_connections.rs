//! Reports of open connections in the embedded engine.

use std::collections::HashMap;

use super::super::open_connections::REPORT_TTL;
use super::{Memory, millis};
use crate::auth::session::{Millis, SessionId};

/// Number of open connections and expiry of the report, by session and gateway.
#[derive(Default)]
pub(super) struct ConnectionReports {
    sessions: HashMap<SessionId, HashMap<String, (u64, Millis)>>,
}

impl ConnectionReports {
    pub(super) fn count(&self, id: &SessionId, now: Millis) -> u64 {
        let gateways = self.sessions.get(id).into_iter().flat_map(HashMap::values);
        gateways
            .filter(|(_, until)| now < *until)
            .map(|(count, _)| count)
            .sum()
    }

    /// Drops expired reports; returns their number.
    pub(super) fn clean_up(&mut self, now: Millis) -> u64 {
        let mut removed = 0;
        self.sessions.retain(|_, gateways| {
            let before = gateways.len();
            gateways.retain(|_, (_, until)| now < *until);
            removed += before - gateways.len();
            !gateways.is_empty()
        });
        removed as u64
    }

    fn record(&mut self, gateway: &str, id: SessionId, count: u64, now: Millis) {
        if count > 0 {
            let until = now + millis(REPORT_TTL);
            let gateways = self.sessions.entry(id).or_default();
            gateways.insert(gateway.to_owned(), (count, until));
            return;
        }
        if let Some(gateways) = self.sessions.get_mut(&id) {
            gateways.remove(gateway);
            if gateways.is_empty() {
                self.sessions.remove(&id);
            }
        }
    }
}

impl Memory {
    pub(in crate::store) fn report_open_connections(
        &self,
        gateway: &str,
        counts: &[(SessionId, u64)],
    ) {
        let (mut state, now) = self.lock();
        for (id, count) in counts {
            state
                .open_connections
                .record(gateway, *id, *count, now / 1000);
        }
    }
}
