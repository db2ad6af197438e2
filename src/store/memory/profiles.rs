//! Cached profiles and their leases in the embedded engine.

use std::collections::HashMap;
use std::time::Duration;

use super::super::profiles::{CachedProfile, LEASE_TTL, ProfileLease};
use super::{Memory, millis};
use crate::auth::session::Millis;

/// Profiles and leases by user, each with its expiry.
#[derive(Default)]
pub(super) struct Profiles {
    entries: HashMap<String, (String, Millis)>,
    leases: HashMap<String, (ProfileLease, Millis)>,
}

impl Profiles {
    pub(super) fn clean_up(&mut self, now: Millis) {
        self.entries.retain(|_, (_, until)| now < *until);
        self.leases.retain(|_, (_, until)| now < *until);
    }

    pub(super) fn count(&self) -> u64 {
        self.entries.len() as u64
    }
}

impl Memory {
    pub(in crate::store) fn profile(&self, user: &str) -> CachedProfile {
        let (mut state, now) = self.lock();
        let (profiles, now) = (&mut state.profiles, now / 1000);
        if let Some((json, _)) = profiles.entries.get(user).filter(|(_, until)| now < *until) {
            return CachedProfile::Hit(json.clone());
        }
        let fresh = || (ProfileLease(rand::random()), now + millis(LEASE_TTL));
        let lease = profiles.leases.entry(user.to_owned());
        let lease = lease.or_insert_with(fresh);
        if now >= lease.1 {
            *lease = fresh();
        }
        CachedProfile::Miss(lease.0.clone())
    }

    pub(in crate::store) fn put_profile(
        &self,
        user: &str,
        lease: &ProfileLease,
        json: &str,
        ttl: Duration,
    ) {
        let (mut state, now) = self.lock();
        let (profiles, now) = (&mut state.profiles, now / 1000);
        let held = profiles.leases.get(user);
        if held.is_some_and(|(held, until)| held == lease && now < *until) {
            profiles.leases.remove(user);
            let until = now.saturating_add(millis(ttl));
            let entry = (json.to_owned(), until);
            profiles.entries.insert(user.to_owned(), entry);
        }
    }

    pub(in crate::store) fn invalidate_profile(&self, user: &str) {
        let (mut state, _) = self.lock();
        state.profiles.entries.remove(user);
        state.profiles.leases.remove(user);
    }
}
