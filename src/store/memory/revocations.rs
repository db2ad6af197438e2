//! The blacklist and the cut-offs: how long they last, and bringing them back.

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

    pub(in super::super) fn write_marker(&self, refused: u64) -> Marker {
        let (mut content, _) = self.lock();
        let marker = content.marker.get_or_insert_with(|| Marker {
            id: format!("{:016x}", rand::random::<u64>()),
            global_cut_off: refused,
        });
        marker.global_cut_off = marker.global_cut_off.max(refused);
        marker.clone()
    }

    pub(in super::super) fn blacklist_ttls(&self, keys: &[&str]) -> Vec<Option<Duration>> {
        let (content, now) = self.lock();
        let left = |key: &&str| {
            let until = content.blacklist.get(*key)?;
            let left = until.checked_sub(now / 1000).filter(|left| *left > 0)?;
            Some(Duration::from_millis(left))
        };
        keys.iter().map(left).collect()
    }

    /// What reaches further stays.
    pub(in super::super) fn restore_revocations(
        &self,
        revocations: &[(Revocation, Millis)],
        now: Millis,
    ) {
        let (mut content, _) = self.lock();
        for (revocation, until) in revocations.iter().filter(|(_, until)| now < *until) {
            match revocation {
                Revocation::Token(key) => {
                    let kept = content.blacklist.entry(key.clone()).or_default();
                    *kept = (*kept).max(*until);
                }
                Revocation::IssuedBefore(person, second) => {
                    let kept = content.cut_offs.entry(*person).or_default();
                    *kept = (*kept).max(*second);
                }
                Revocation::Session(_) => {}
            }
        }
    }
}
