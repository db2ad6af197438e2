//! Cached profiles, and the leases to put them.

use std::collections::HashMap;
use std::time::Duration;

use super::super::profiles::{Cached, LEASE, Lease};
use super::{Memory, millis};
use crate::auth::session::Millis;

/// By user.
#[derive(Default)]
pub(super) struct Profiles {
    kept: HashMap<String, (String, Millis)>,
    leases: HashMap<String, (Lease, Millis)>,
}

impl Profiles {
    pub(super) fn clean_up(&mut self, now: Millis) {
        self.kept.retain(|_, (_, until)| now < *until);
        self.leases.retain(|_, (_, until)| now < *until);
    }

    pub(super) fn count(&self) -> u64 {
        self.kept.len() as u64
    }
}

impl Memory {
    pub(in crate::store) fn profile(&self, user: &str) -> Cached {
        let (mut content, now) = self.enter();
        let (profiles, now) = (&mut content.profiles, now / 1000);
        if let Some((json, _)) = profiles.kept.get(user).filter(|(_, until)| now < *until) {
            return Cached::Hit(json.clone());
        }
        let fresh = || (Lease(rand::random()), now + millis(LEASE));
        let lease = profiles.leases.entry(user.to_owned());
        let lease = lease.or_insert_with(fresh);
        if now >= lease.1 {
            *lease = fresh();
        }
        Cached::Miss(lease.0.clone())
    }

    pub(in crate::store) fn put_profile(
        &self,
        user: &str,
        lease: &Lease,
        json: &str,
        ttl: Duration,
    ) {
        let (mut content, now) = self.enter();
        let (profiles, now) = (&mut content.profiles, now / 1000);
        let held = profiles.leases.get(user);
        if held.is_some_and(|(held, until)| held == lease && now < *until) {
            profiles.leases.remove(user);
            let until = now.saturating_add(millis(ttl));
            let kept = (json.to_owned(), until);
            profiles.kept.insert(user.to_owned(), kept);
        }
    }

    pub(in crate::store) fn forget_profile(&self, user: &str) {
        let (mut content, _) = self.enter();
        content.profiles.kept.remove(user);
        content.profiles.leases.remove(user);
    }
}
