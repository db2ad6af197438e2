//! The identity that a verified credential stands for.

use std::net::IpAddr;
use std::sync::Arc;

use super::claim::Claim;
use super::{Admission, CredentialKind, Identity, Principal, Rejection};
use crate::auth::session::{ClientBinding, Millis, Session, sanitize_user_agent};
use crate::events::{Event, EventKind};
use crate::pipeline::facts::RequestFacts;
use crate::pipeline::fields::FieldKind;
use crate::rejection::{Reason, Refusal};
use crate::sessions::Verdict;

impl Admission<'_> {
    /// Turns the verdict on a credential into an identity.
    pub(super) fn identity_of(
        &self,
        claimed: &Claim,
        verdict: Verdict,
        facts: &RequestFacts<'_>,
        confirmed_at: Millis,
    ) -> Result<Identity, Rejection> {
        match verdict {
            Verdict::Valid(Principal::Session(session)) => {
                self.identity_from_session(claimed, session, facts, confirmed_at)
            }
            Verdict::Valid(Principal::Token(claims)) => Ok(Identity::from_token(&claims)),
            Verdict::Valid(Principal::ApiKey(used)) => Ok(Identity::new(
                Principal::ApiKey(used),
                None,
                claimed.credential_kind,
                confirmed_at,
            )),
            Verdict::Gone(gone) => Err(Rejection {
                clear_cookie: gone.is_session_over
                    && claimed.credential_kind == CredentialKind::Cookie,
                lapsed_claims: claimed.token().cloned(),
                ..Rejection::new(gone.refusal, gone.reason)
            }),
            Verdict::Unknown(error) | Verdict::Unconfirmed(error) => Err(error.into()),
            Verdict::OverLimit => Err(Refusal::RateLimited.into()),
        }
    }

    /// Builds the identity of a live session, if the token and the client match it.
    fn identity_from_session(
        &self,
        claimed: &Claim,
        session: Arc<Session>,
        facts: &RequestFacts<'_>,
        confirmed_at: Millis,
    ) -> Result<Identity, Rejection> {
        if let Some(claims) = claimed.token()
            && claims.user != session.user
        {
            let reason = Reason::OtherUsersSession;
            return Err(Rejection::new(Refusal::TokenInvalid, reason));
        }
        self.check_binding(&session, facts)?;
        Ok(Identity::new(
            Principal::Session(session),
            claimed.token().cloned(),
            claimed.credential_kind,
            confirmed_at,
        ))
    }

    /// Compares the client with the one that signed in.
    fn check_binding(&self, session: &Session, facts: &RequestFacts<'_>) -> Result<(), Rejection> {
        for (binding, what) in self.binding_mismatches(session, facts) {
            self.record_binding_mismatch(session, facts.client.ip, what);
            if binding == ClientBinding::Deny {
                let reason = Reason::Binding(what);
                return Err(Rejection::new(Refusal::SessionBindingMismatch, reason));
            }
        }
        Ok(())
    }

    /// How the client differs from the one that signed in.
    pub(super) fn binding_mismatches(
        &self,
        session: &Session,
        facts: &RequestFacts<'_>,
    ) -> Vec<(ClientBinding, &'static str)> {
        let agent = || {
            let sent = facts.head.fields.first(FieldKind::UserAgent);
            sent.map(sanitize_user_agent).unwrap_or_default()
        };
        let rules = &self.snapshot.settings.sessions;
        rules.binding_mismatches(session, facts.client.ip, agent)
    }

    fn record_binding_mismatch(&self, session: &Session, ip: IpAddr, what: &'static str) {
        let Some(events) = self.events else { return };
        let event = Event::new(EventKind::BindingMismatch)
            .user(&session.user)
            .session(session.id);
        let event = event.ip(ip).detail(what);
        events.record(event.request(self.request_id));
    }
}
