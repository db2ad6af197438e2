//! Log details of a rejected request: the caller and the grounds.

use std::sync::Arc;

use super::claim::Claim;
use super::{Admission, Identity, Principal};
use crate::rejection::{Refusal, Rejection};
use crate::sessions::SessionLookup;

impl Admission<'_> {
    /// Adds the caller of a refused request, as far as the credential and the near cache identify
    /// it.
    pub(super) fn add_caller_details(&self, claimed: &Claim, mut refused: Rejection) -> Rejection {
        refused.credential = Some(claimed.credential_kind.credential_type());
        if refused.caller.is_some() {
            return refused;
        }
        let details = refused.details.get_or_insert_default();
        details.session = details.session.or(claimed.session());
        details.api_key = claimed.credential.api_key().map(|presented| presented.id);
        // A client that presents another secret is not the owner.
        if refused.refusal == Refusal::TokenInvalid && details.api_key.is_some() {
            return refused;
        }
        if details.user.is_none() {
            let by_token = claimed.token().map(|claims| claims.user.clone());
            let by_session = || {
                let last_seen = self.sessions.last_seen(&claimed.credential);
                Some(last_seen.session?.user.clone())
            };
            details.user = by_token.or_else(by_session);
        }
        refused
    }
}

impl Rejection {
    /// Adds the user of a session that was looked up, whatever its status.
    pub(super) fn with_session(mut self, found: &SessionLookup) -> Rejection {
        match found {
            // Who presents an API key is known by its secret alone.
            SessionLookup::Active(record, _)
            | SessionLookup::Expired(record)
            | SessionLookup::Revoked(record)
                if record.api_key.is_some() => {}
            SessionLookup::Active(session, _) => {
                self.caller = Some(Principal::Session(Arc::clone(session)));
            }
            SessionLookup::Expired(session) | SessionLookup::Revoked(session) => {
                let details = self.details.get_or_insert_default();
                details.user = Some(session.user.clone());
                details.session = Some(session.id);
            }
            SessionLookup::NotQueried | SessionLookup::Missing => {}
        }
        self
    }

    /// Adds an identified caller.
    pub(in crate::pipeline) fn with_caller(mut self, identity: &Identity) -> Rejection {
        self.caller = Some(identity.principal.clone());
        self.credential = Some(identity.credential_kind.credential_type());
        self
    }

    /// Adds the limit that could not be checked.
    pub(super) fn with_limit(mut self, limit: &Arc<str>) -> Rejection {
        self.details.get_or_insert_default().limit = Some(Arc::clone(limit));
        self
    }
}
