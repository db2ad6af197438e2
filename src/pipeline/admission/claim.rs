//! What a request claims to be, as far as it can be judged without the store.

use std::sync::Arc;

use super::{Admission, Asked, PresentedBy, Refused};
use crate::auth::credential;
use crate::auth::credential::Presented;
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::issuers::verifier::Rejected;
use crate::refusal::Refusal;
use crate::store::{PersonHash, person_hash};

/// A credential that holds as far as it can be judged without the store.
pub(super) struct Claimed {
    pub(super) by: PresentedBy,
    pub(super) session: Option<SessionId>,
    pub(super) token: Option<Arc<Claims>>,
    /// Of a token without session: whose cut-off it is under.
    pub(super) person: Option<PersonHash>,
}

impl Admission<'_> {
    /// Reads the credential and judges what can be judged without the store.
    pub(super) async fn claim(&self, asked: Asked<'_>) -> Result<Option<Claimed>, Refused> {
        let gone = |reason| Refused {
            clear_cookie: true,
            ..Refused::because(Refusal::SessionNotFound, reason)
        };
        match credential::extract(asked.headers, &self.live.sessions.cookie.name) {
            Presented::Absent => Ok(None),
            Presented::Ambiguous { cookies } => Err(Refused {
                clear_cookie: cookies,
                ..Refused::because(Refusal::AmbiguousCredentials, "two credentials")
            }),
            Presented::MalformedBearer => {
                Err(Refused::because(Refusal::TokenInvalid, "not a token"))
            }
            Presented::MalformedSession => Err(Refused::because(
                Refusal::SessionNotFound,
                "not a session token",
            )),
            Presented::MalformedCookie => Err(gone("not a session token")),
            Presented::Session(token) => Ok(Some(Claimed {
                by: PresentedBy::SessionHeader,
                session: Some(token.id()),
                token: None,
                person: None,
            })),
            Presented::Cookie(token) => Ok(Some(Claimed {
                by: PresentedBy::Cookie,
                session: Some(token.id()),
                token: None,
                person: None,
            })),
            Presented::Bearer(token) => self.verify(token, asked).await.map(Some),
        }
    }

    async fn verify(&self, token: &str, asked: Asked<'_>) -> Result<Claimed, Refused> {
        let verified = self.verifier.verify(token, asked.now).await;
        // Of every connection anew: the verifier caches tokens, not who presents them.
        if let Ok(claims) | Err(Rejected::Expired(claims)) = &verified
            && !claims.may_come_with(asked.certificate)
        {
            return Err(Refused::because(
                Refusal::TokenInvalid,
                "it is bound to another client certificate",
            ));
        }
        match verified {
            Ok(claims) => Ok(Claimed {
                by: PresentedBy::Bearer,
                session: claims.session,
                // With a session, it is the session that ends.
                person: claims
                    .session
                    .is_none()
                    .then(|| person_hash(&claims.person())),
                token: Some(claims),
            }),
            Err(Rejected::Invalid(reason)) => Err(Refused::because(Refusal::TokenInvalid, reason)),
            Err(Rejected::Expired(claims)) => Err(Refused {
                lapsed: Some(claims),
                ..Refused::because(Refusal::TokenExpired, "expired")
            }),
            Err(Rejected::KeysUnavailable) => Err(Refused::because(
                Refusal::StoreUnavailable,
                "the issuer's keys are not known yet",
            )),
        }
    }
}
