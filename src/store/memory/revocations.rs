//! The blacklist and the cut-offs: how long they last, and bringing them back.

use std::time::Duration;

use super::super::Revocation;
use super::super::marker::{Marked, Marker};
use super::Memory;
use crate::auth::session::Millis;

impl Memory {
    pub(in super::super) fn marked(&self) -> Marked {
        match &self.enter().0.marker {
            Some(marker) => Marked::Whole(marker.clone()),
            None => Marked::Nowhere,
        }
    }

    pub(in super::super) fn mark(&self, refused: u64) -> Marker {
        let (mut content, _) = self.enter();
        let marker = content.marker.get_or_insert_with(|| Marker {
            id: format!("{:016x}", rand::random::<u64>()),
            refused,
        });
        marker.refused = marker.refused.max(refused);
        marker.clone()
    }

    pub(in super::super) fn blacklisted_for(&self, keys: &[&str]) -> Vec<Option<Duration>> {
        let (content, now) = self.enter();
        let left = |key: &&str| {
            let until = content.blacklist.get(*key)?;
            let left = until.checked_sub(now / 1000).filter(|left| *left > 0)?;
            Some(Duration::from_millis(left))
        };
        keys.iter().map(left).collect()
    }

    /// What reaches further stays.
    pub(in super::super) fn restore(&self, revocations: &[(Revocation, Millis)], now: Millis) {
        let (mut content, _) = self.enter();
        for (revocation, until) in revocations.iter().filter(|(_, until)| now < *until) {
            match revocation {
                Revocation::Token(key) => {
                    let kept = content.blacklist.entry(key.clone()).or_default();
                    *kept = (*kept).max(*until);
                }
                Revocation::Person(person, second) => {
                    let kept = content.cut_offs.entry(*person).or_default();
                    *kept = (*kept).max(*second);
                }
                Revocation::Session(_) => {}
            }
        }
    }
}
