//! Whom the store's findings make of a claim.

use std::net::IpAddr;
use std::sync::Arc;

use super::claim::Claim;
use super::{Admission, AuthRequest, CredentialKind, Identity, Principal, Rejection};
use crate::auth::session::{ClientBinding, Millis, Session};
use crate::auth::token::Claims;
use crate::events::{Event, EventKind};
use crate::rejection::{Reason, Refusal};
use crate::store::{Query, QueryResult, SessionLookup};

impl Admission<'_> {
    /// Reads the store's findings as an identity.
    pub(super) fn resolve_identity(
        &self,
        claimed: &Claim,
        inquiry: &Query<'_>,
        findings: &QueryResult,
        asked: AuthRequest<'_>,
    ) -> Result<Identity, Rejection> {
        self.check_revocation(claimed, inquiry, findings)?;
        let gone = |refusal, reason| {
            Err(Rejection {
                clear_cookie: claimed.credential_kind == CredentialKind::Cookie,
                lapsed_claims: claimed.token.clone(),
                ..Rejection::new(refusal, reason)
            })
        };
        match &findings.session {
            SessionLookup::NotQueried => match &claimed.token {
                Some(claims) => Ok(identity_from_token(claims)),
                None => Err(Refusal::Internal.into()),
            },
            SessionLookup::Missing => gone(Refusal::SessionNotFound, Reason::NoSession),
            SessionLookup::Expired(_) => gone(Refusal::SessionExpired, Reason::SessionExpired),
            SessionLookup::Revoked(_) => gone(Refusal::SessionRevoked, Reason::SessionRevoked),
            SessionLookup::Active(session, _) => {
                self.identity_from_session(claimed, Arc::clone(session), asked, findings.now)
            }
        }
    }

    /// Turns a token away that is blacklisted, or cut off with all that its person had.
    pub(super) fn check_revocation(
        &self,
        claimed: &Claim,
        inquiry: &Query<'_>,
        findings: &QueryResult,
    ) -> Result<(), Rejection> {
        let reason = if findings.blacklisted {
            Reason::Blacklisted
        } else if inquiry.is_cut_off(findings.cut_off) {
            Reason::SignedOutEverywhere
        } else {
            return Ok(());
        };
        Err(Rejection {
            lapsed_claims: claimed.token.clone(),
            ..Rejection::new(Refusal::TokenRevoked, reason)
        })
    }

    /// Makes the identity of a session that is alive, if the token and the client fit it.
    pub(super) fn identity_from_session(
        &self,
        claimed: &Claim,
        session: Arc<Session>,
        asked: AuthRequest<'_>,
        seen_at: Millis,
    ) -> Result<Identity, Rejection> {
        if let Some(claims) = &claimed.token
            && claims.user != session.user
        {
            let reason = Reason::OtherUsersSession;
            return Err(Rejection::new(Refusal::TokenInvalid, reason));
        }
        self.check_binding(&session, asked)?;
        Ok(Identity {
            principal: Principal::Session(session),
            token: claimed.token.clone(),
            credential_kind: claimed.credential_kind,
            confirmed_at: seen_at,
        })
    }

    /// Compares the client with the one that signed in.
    fn check_binding(&self, session: &Session, asked: AuthRequest<'_>) -> Result<(), Rejection> {
        let agent = || {
            let value = asked.headers.get(http::header::USER_AGENT);
            let agent =
                value.map(|value| crate::auth::session::sanitize_user_agent(value.as_bytes()));
            agent.unwrap_or_default()
        };
        let rules = &self.reloadable.sessions;
        for (binding, what) in rules.binding_mismatches(session, asked.ip, agent) {
            self.record_binding_mismatch(session, asked.ip, what);
            if binding == ClientBinding::Deny {
                let reason = Reason::Binding(what);
                return Err(Rejection::new(Refusal::SessionBindingMismatch, reason));
            }
        }
        Ok(())
    }

    fn record_binding_mismatch(&self, session: &Session, ip: IpAddr, what: &'static str) {
        let event = Event::new(EventKind::BindingMismatch)
            .user(&session.user)
            .session(session.id);
        let event = event.ip(ip).detail(what);
        self.events.record(event.request(self.request_id));
    }
}

/// The identity of a token that no session stands behind.
pub(super) fn identity_from_token(claims: &Arc<Claims>) -> Identity {
    Identity {
        principal: Principal::Token(Arc::clone(claims)),
        token: Some(Arc::clone(claims)),
        credential_kind: CredentialKind::Bearer,
        confirmed_at: claims.issued_at.unwrap_or_default(),
    }
}
