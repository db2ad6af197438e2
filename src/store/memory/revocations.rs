//! Marker, blacklist TTLs and restoration of revocations in the embedded engine.

use std::time::Duration;

use super::super::Revocation;
use super::super::marker::{Marker, MarkerState};
use super::Memory;
use crate::auth::session::Millis;

impl Memory {
    pub(in super::super) fn marker_state(&self) -> MarkerState {
        match &self.lock().0.marker {
            Some(marker) => MarkerState::Complete(marker.clone()),
            None => MarkerState::Absent,
        }
    }

    pub(in super::super) fn write_marker(&self, global_cut_off: u64) -> Marker {
        let (mut state, _) = self.lock();
        let marker = state.marker.get_or_insert_with(|| Marker {
            id: format!("{:016x}", rand::random::<u64>()),
            global_cut_off,
        });
        marker.global_cut_off = marker.global_cut_off.max(global_cut_off);
        marker.clone()
    }

    pub(in super::super) fn blacklist_ttls(&self, keys: &[&str]) -> Vec<Option<Duration>> {
        let (state, now) = self.lock();
        let ttl = |key: &&str| {
            let until = state.blacklist.get(*key)?;
            let ttl = until.checked_sub(now / 1000).filter(|ttl| *ttl > 0)?;
            Some(Duration::from_millis(ttl))
        };
        keys.iter().map(ttl).collect()
    }

    /// Restores revocations; an existing entry that lasts longer or covers more is kept.
    pub(in super::super) fn restore_revocations(
        &self,
        revocations: &[(Revocation, Millis)],
        now: Millis,
    ) {
        let (mut state, _) = self.lock();
        for (revocation, until) in revocations.iter().filter(|(_, until)| now < *until) {
            match revocation {
                Revocation::Token(key) => {
                    let entry = state.blacklist.entry(key.clone()).or_default();
                    *entry = (*entry).max(*until);
                }
                Revocation::IssuedBefore(user, second) => {
                    let cut_off = state.cut_offs.entry(*user).or_default();
                    *cut_off = (*cut_off).max(*second);
                }
                Revocation::Session(_) => {}
            }
        }
    }
}
