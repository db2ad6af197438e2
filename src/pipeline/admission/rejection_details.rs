//! Log details of a rejected request: the caller and the grounds.

use super::claim::Claim;
use super::{Admission, Identity};
use crate::auth::session::Session;
use crate::rejection::Rejection;
use crate::sessions::SessionLookup;

impl Admission<'_> {
    /// Adds the caller of a refused request, as far as the credential and the near cache identify
    /// it.
    pub(super) fn add_caller_details(&self, claimed: &Claim, mut refused: Rejection) -> Rejection {
        let details = refused.details.get_or_insert_default();
        details.session = details.session.or(claimed.session());
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
        let session: Option<&Session> = match found {
            SessionLookup::Expired(session)
            | SessionLookup::Revoked(session)
            | SessionLookup::Active(session, _) => Some(session),
            SessionLookup::NotQueried | SessionLookup::Missing => None,
        };
        if let Some(session) = session {
            let details = self.details.get_or_insert_default();
            details.user = Some(session.user.clone());
            details.session = Some(session.id);
        }
        self
    }

    /// Adds an identified caller.
    pub(super) fn with_caller(mut self, identity: &Identity) -> Rejection {
        let details = self.details.get_or_insert_default();
        details.user = Some(identity.user().to_owned());
        details.session = identity.session().map(|session| session.id);
        self
    }

    /// Adds the limit that decided.
    pub(super) fn with_limit(mut self, limit: &str) -> Rejection {
        self.details.get_or_insert_default().limit = Some(limit.to_owned());
        self
    }
}
