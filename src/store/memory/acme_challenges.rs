//! Responses to challenges of certificate authorities in the embedded engine.

use std::collections::HashMap;

use super::{Memory, millis};
use crate::auth::session::Millis;
use crate::store::acme_challenges::RESPONSE_TTL;

/// Key authorizations with their expiry.
#[derive(Default)]
pub(super) struct AcmeChallenges(HashMap<String, (String, Millis)>);

impl AcmeChallenges {
    pub(super) fn clean_up(&mut self, now: Millis) {
        self.0.retain(|_, (_, until)| now < *until);
    }
}

impl Memory {
    pub(in crate::store) fn acme_response(&self, name: &str) -> Option<String> {
        let (state, now) = self.lock();
        let (response, until) = state.acme_challenges.0.get(name)?;
        (now / 1000 < *until).then(|| response.clone())
    }

    pub(in crate::store) fn put_acme_response(&self, name: &str, response: Option<&str>) {
        let (mut state, now) = self.lock();
        let until = (now / 1000).saturating_add(millis(RESPONSE_TTL));
        let challenges = &mut state.acme_challenges.0;
        match response {
            Some(response) => challenges.insert(name.to_owned(), (response.to_owned(), until)),
            None => challenges.remove(name),
        };
    }
}
