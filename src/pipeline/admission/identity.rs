//! Whom the store's findings make of a claim.

use std::net::IpAddr;
use std::sync::Arc;

use super::claim::Claimed;
use super::{Admission, Asked, Identity, PresentedBy, Refused, Whom};
use crate::auth::session::{Binding, Millis, Session};
use crate::auth::token::Claims;
use crate::events::{Event, Kind};
use crate::refusal::Refusal;
use crate::store::{Findings, Found, Inquiry};

/// Records are kept until a session would have expired: a credential without one is forged, older than
/// that, or of another store.
const NO_SESSION: &str = "no session has this credential's ID";

impl Admission<'_> {
    /// Reads the store's findings as an identity.
    pub(super) fn identity(
        &self,
        claimed: &Claimed,
        inquiry: &Inquiry<'_>,
        findings: &Findings,
        asked: Asked<'_>,
    ) -> Result<Identity, Refused> {
        self.refuse_revoked(claimed, inquiry, findings)?;
        let gone = |refusal, reason| {
            Err(Refused {
                clear_cookie: claimed.by == PresentedBy::Cookie,
                lapsed: claimed.token.clone(),
                ..Refused::because(refusal, reason)
            })
        };
        match &findings.session {
            Found::NotAsked => match &claimed.token {
                Some(claims) => Ok(foreign(claims)),
                None => Err(Refusal::Internal.into()),
            },
            Found::Missing => gone(Refusal::SessionNotFound, NO_SESSION),
            Found::Expired(_) => gone(Refusal::SessionExpired, "the session has expired"),
            Found::Revoked(_) => gone(Refusal::SessionRevoked, "the session was revoked"),
            Found::Active(session, _) => {
                self.identity_of(claimed, Arc::clone(session), asked, findings.now)
            }
        }
    }

    /// Turns a token away that is blacklisted, or cut off with all that its person had.
    pub(super) fn refuse_revoked(
        &self,
        claimed: &Claimed,
        inquiry: &Inquiry<'_>,
        findings: &Findings,
    ) -> Result<(), Refused> {
        let reason = if findings.blacklisted {
            "blacklisted"
        } else if inquiry.is_cut_off(findings.cut_off) {
            "its person was signed out everywhere"
        } else {
            return Ok(());
        };
        Err(Refused {
            lapsed: claimed.token.clone(),
            ..Refused::because(Refusal::TokenRevoked, reason)
        })
    }

    /// Makes the identity of a session that is alive, if the token and the client fit it.
    pub(super) fn identity_of(
        &self,
        claimed: &Claimed,
        session: Arc<Session>,
        asked: Asked<'_>,
        seen_at: Millis,
    ) -> Result<Identity, Refused> {
        if let Some(claims) = &claimed.token
            && claims.user != session.user
        {
            return Err(Refused::because(
                Refusal::TokenInvalid,
                "the session is another user's",
            ));
        }
        self.check_binding(&session, asked)?;
        Ok(Identity {
            whom: Whom::Session(session),
            token: claimed.token.clone(),
            presented: claimed.by,
            seen_at,
        })
    }

    /// Compares the client with the one that signed in.
    fn check_binding(&self, session: &Session, asked: Asked<'_>) -> Result<(), Refused> {
        let agent = || {
            let value = asked.headers.get(http::header::USER_AGENT);
            let agent = value.map(|value| crate::auth::session::user_agent(value.as_bytes()));
            agent.unwrap_or_default()
        };
        let rules = &self.live.sessions;
        for (binding, what) in rules.mismatches(session, asked.ip, agent) {
            self.binding_mismatch(session, asked.ip, what);
            if binding == Binding::Deny {
                return Err(Refused::because(Refusal::SessionBindingMismatch, what));
            }
        }
        Ok(())
    }

    fn binding_mismatch(&self, session: &Session, ip: IpAddr, what: &'static str) {
        let event = Event::new(Kind::BindingMismatch)
            .user(&session.user)
            .session(session.id);
        let event = event.ip(ip).detail(what);
        self.events.record(event.request(self.request_id));
    }
}

/// The identity of a token that no session stands behind.
pub(super) fn foreign(claims: &Arc<Claims>) -> Identity {
    Identity {
        whom: Whom::Token(Arc::clone(claims)),
        token: Some(Arc::clone(claims)),
        presented: PresentedBy::Bearer,
        seen_at: claims.issued_at.unwrap_or_default(),
    }
}
