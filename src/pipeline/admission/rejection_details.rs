//! What the log says of a refused request beside its code: whose it was, and what decided.

use super::claim::Claim;
use super::{Admission, Rejection};
use crate::auth::session::Session;
use crate::rejection::RejectionDetails;
use crate::store::SessionLookup;

impl Admission<'_> {
    /// Names the caller of a refused request, as far as the credential and the near cache tell.
    pub(super) fn add_caller_details(&self, claimed: &Claim, mut refused: Rejection) -> Rejection {
        let grounds = refused.details.get_or_insert_default();
        grounds.session = grounds.session.or(claimed.session);
        if grounds.user.is_none() {
            let by_token = claimed.token.as_ref().map(|claims| claims.user.clone());
            let by_session = || Some(self.near_cache.session(claimed.session?)?.user.clone());
            grounds.user = by_token.or_else(by_session);
        }
        refused
    }
}

impl Rejection {
    /// Names the user of a session that was looked up, whatever became of it.
    pub(super) fn with_session(mut self, found: &SessionLookup) -> Rejection {
        let session: Option<&Session> = match found {
            SessionLookup::Expired(session) | SessionLookup::Revoked(session) => Some(session),
            SessionLookup::Active(session, _) => Some(session),
            SessionLookup::NotQueried | SessionLookup::Missing => None,
        };
        if let Some(session) = session {
            let grounds = self.details.get_or_insert_default();
            grounds.user = Some(session.user.clone());
            grounds.session = Some(session.id);
        }
        self
    }

    /// Names the limit that decided.
    pub(super) fn with_limit(mut self, limit: &str) -> Rejection {
        self.details.get_or_insert_default().limit = Some(limit.to_owned());
        self
    }

    /// Takes what the log names; of a token that is too old or revoked its own claims tell.
    pub fn take_details(&mut self) -> Option<Box<RejectionDetails>> {
        if let Some(claims) = &self.lapsed_claims {
            let grounds = self.details.get_or_insert_default();
            grounds.user.get_or_insert_with(|| claims.user.clone());
            grounds.session = grounds.session.or(claims.session);
        }
        self.details.take()
    }
}
