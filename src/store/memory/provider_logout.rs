//! Index of sign-ins, logout marks, used logout tokens and redeemed codes in the embedded engine.

use std::collections::HashMap;
use std::time::Duration;

use super::super::provider_logout::{LogoutTokenUse, MARK_TTL, MAX_USERS};
use super::{Memory, millis};
use crate::auth::provider_logout::SignInGroup;
use crate::auth::session::Millis;

#[derive(Default)]
pub(super) struct ProviderLogouts {
    /// Users of each group, with the time until which they are kept.
    users: HashMap<SignInGroup, HashMap<String, Millis>>,
    /// Number of the latest logout.
    latest: u64,
    /// Number and time of the latest logout of each group.
    marks: HashMap<SignInGroup, (u64, Millis)>,
    /// Attempt that used each token or code, and until when that is kept.
    tokens: HashMap<[u8; 16], (u64, Millis)>,
}

impl ProviderLogouts {
    pub(super) fn clean_up(&mut self, now: Millis) {
        for users in self.users.values_mut() {
            users.retain(|_, until| now < *until);
        }
        self.users.retain(|_, users| !users.is_empty());
        self.marks
            .retain(|_, (_, at)| now < at.saturating_add(millis(MARK_TTL)));
        self.tokens.retain(|_, (_, until)| now < *until);
    }

    fn used_by(&self, token: LogoutTokenUse, now: Millis) -> Option<u64> {
        let (attempt, until) = self.tokens.get(&token.key)?;
        (now < *until).then_some(*attempt)
    }
}

impl Memory {
    pub(in crate::store) fn index_sign_in(
        &self,
        groups: &[SignInGroup],
        user: &str,
        until: Millis,
    ) {
        let (mut state, _) = self.lock();
        for group in groups {
            let users = state.provider_logouts.users.entry(*group).or_default();
            let kept = users.entry(user.to_owned()).or_default();
            *kept = until.max(*kept);
            while users.len() > MAX_USERS {
                let first = users.iter().min_by_key(|(_, until)| **until);
                let Some(first) = first.map(|(user, _)| user.clone()) else {
                    break;
                };
                users.remove(&first);
            }
        }
    }

    pub(in crate::store) fn sign_in_users(&self, groups: &[SignInGroup]) -> Vec<String> {
        let (state, _) = self.lock();
        let index = &state.provider_logouts.users;
        let users = groups.iter().filter_map(|group| index.get(group));
        let mut users: Vec<String> = users.flat_map(HashMap::keys).cloned().collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    pub(in crate::store) fn mark_logout(&self, groups: &[SignInGroup]) {
        let (mut state, now) = self.lock();
        let logouts = &mut state.provider_logouts;
        logouts.latest += 1;
        for group in groups {
            let mark = (logouts.latest, now / 1000);
            logouts.marks.insert(*group, mark);
        }
    }

    pub(in crate::store) fn latest_logout(&self) -> u64 {
        self.lock().0.provider_logouts.latest
    }

    pub(in crate::store) fn logout_marks(&self, groups: &[SignInGroup]) -> Vec<Option<u64>> {
        let (state, _) = self.lock();
        let marks = &state.provider_logouts.marks;
        let number = |group| marks.get(group).map(|(number, _)| *number);
        groups.iter().map(number).collect()
    }

    pub(in crate::store) fn is_logout_token_used(&self, token: LogoutTokenUse) -> bool {
        let (state, now) = self.lock();
        state.provider_logouts.used_by(token, now / 1000).is_some()
    }

    pub(in crate::store) fn use_logout_token(&self, token: LogoutTokenUse, ttl: Duration) -> bool {
        let (mut state, now) = self.lock();
        let (logouts, now) = (&mut state.provider_logouts, now / 1000);
        if let Some(attempt) = logouts.used_by(token, now) {
            return attempt == token.attempt;
        }
        let until = now.saturating_add(millis(ttl));
        logouts.tokens.insert(token.key, (token.attempt, until));
        true
    }

    pub(in crate::store) fn redeem_code(&self, key: [u8; 16], ttl: Duration) -> bool {
        let attempt = rand::random();
        self.use_logout_token(LogoutTokenUse { key, attempt }, ttl)
    }

    pub(in crate::store) fn release_logout_token(&self, token: LogoutTokenUse) {
        let (mut state, now) = self.lock();
        let logouts = &mut state.provider_logouts;
        if logouts.used_by(token, now / 1000) == Some(token.attempt) {
            logouts.tokens.remove(&token.key);
        }
    }
}
