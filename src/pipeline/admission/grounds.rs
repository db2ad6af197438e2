//! What the log says of a refused request beside its code: whose it was, and what decided.

use super::claim::Claimed;
use super::{Admission, Refused};
use crate::auth::session::Session;
use crate::refusal::Grounds;
use crate::store::Found;

impl Admission<'_> {
    /// Names the caller of a refused request, as far as the credential and the near cache tell.
    pub(super) fn name_caller(&self, claimed: &Claimed, mut refused: Refused) -> Refused {
        let grounds = refused.grounds.get_or_insert_default();
        grounds.session = grounds.session.or(claimed.session);
        if grounds.user.is_none() {
            let by_token = claimed.token.as_ref().map(|claims| claims.user.clone());
            let by_session = || Some(self.replica.session(claimed.session?)?.user.clone());
            grounds.user = by_token.or_else(by_session);
        }
        refused
    }
}

impl Refused {
    /// Names the user of a session that was looked up, whatever became of it.
    pub(super) fn of_session(mut self, found: &Found) -> Refused {
        let session: Option<&Session> = match found {
            Found::Expired(session) | Found::Revoked(session) => Some(session),
            Found::Active(session, _) => Some(session),
            Found::NotAsked | Found::Missing => None,
        };
        if let Some(session) = session {
            let grounds = self.grounds.get_or_insert_default();
            grounds.user = Some(session.user.clone());
            grounds.session = Some(session.id);
        }
        self
    }

    /// Names the limit that decided.
    pub(super) fn by_limit(mut self, limit: &str) -> Refused {
        self.grounds.get_or_insert_default().limit = Some(limit.to_owned());
        self
    }

    /// Takes what the log names; of a token that is too old or revoked its own claims tell.
    pub fn take_grounds(&mut self) -> Option<Box<Grounds>> {
        if let Some(claims) = &self.lapsed {
            let grounds = self.grounds.get_or_insert_default();
            grounds.user.get_or_insert_with(|| claims.user.clone());
            grounds.session = grounds.session.or(claims.session);
        }
        self.grounds.take()
    }
}
