//! The credential that a request presents, as far as it can be verified without the store.

use std::sync::Arc;

use super::{Admission, CredentialKind, Identity};
use crate::auth::credential::{self, PresentedCredential};
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::issuers::verifier::TokenRejection;
use crate::pipeline::facts::RequestFacts;
use crate::pipeline::fields::FieldKind;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::sessions::Credential;

/// A credential of valid form.
#[derive(Debug, Clone, Copy)]
pub(super) enum Presented<'a> {
    Token(&'a str),
    Session(SessionId, CredentialKind),
}

/// A credential that is valid as far as that can be verified without the store.
pub(super) struct Claim {
    pub(super) credential_kind: CredentialKind,
    pub(super) credential: Credential,
}

impl Claim {
    pub(super) fn session(&self) -> Option<SessionId> {
        self.credential.session()
    }

    pub(super) fn token(&self) -> Option<&Arc<Claims>> {
        self.credential.token()
    }

    /// The claim by which an identity was established; `None`: it has neither session nor token.
    pub(super) fn of(identity: &Identity) -> Option<Claim> {
        let credential = match (&identity.token, identity.session()) {
            (Some(claims), _) => Credential::from_claims(Arc::clone(claims)),
            (None, session) => Credential::Session(session?.id),
        };
        Some(Claim {
            credential_kind: identity.credential_kind,
            credential,
        })
    }
}

impl Admission<'_> {
    /// Reads the credential of a request; `None`: it has none.
    pub(super) fn read_credential<'f>(
        &self,
        facts: &RequestFacts<'f>,
    ) -> Result<Option<Presented<'f>>, Rejection> {
        let fields = facts.head.fields;
        let presented = credential::extract(
            fields.all(FieldKind::Authorization),
            fields.all(FieldKind::Cookie),
            &self.snapshot.settings.sessions.cookie.name,
        );
        match presented {
            PresentedCredential::Absent => Ok(None),
            PresentedCredential::Ambiguous { cookies } => Err(Rejection {
                clear_cookie: cookies,
                ..Rejection::new(Refusal::AmbiguousCredentials, Reason::TwoCredentials)
            }),
            PresentedCredential::MalformedBearer => {
                Err(Rejection::new(Refusal::TokenInvalid, Reason::NotAToken))
            }
            PresentedCredential::MalformedSession => Err(Rejection::new(
                Refusal::SessionNotFound,
                Reason::NotASessionToken,
            )),
            PresentedCredential::MalformedCookie => Err(Rejection {
                clear_cookie: true,
                ..Rejection::new(Refusal::SessionNotFound, Reason::NotASessionToken)
            }),
            PresentedCredential::Session(token) => Ok(Some(Presented::Session(
                token.id(),
                CredentialKind::SessionHeader,
            ))),
            PresentedCredential::Cookie(token) => {
                Ok(Some(Presented::Session(token.id(), CredentialKind::Cookie)))
            }
            PresentedCredential::Bearer(token) => Ok(Some(Presented::Token(token))),
        }
    }

    /// Verifies what needs no store.
    pub(super) async fn verify(
        &self,
        presented: Presented<'_>,
        facts: &RequestFacts<'_>,
    ) -> Result<Claim, Rejection> {
        match presented {
            Presented::Session(id, credential_kind) => Ok(Claim {
                credential_kind,
                credential: Credential::Session(id),
            }),
            Presented::Token(token) => self.verify_token(token, facts).await,
        }
    }

    async fn verify_token(
        &self,
        token: &str,
        facts: &RequestFacts<'_>,
    ) -> Result<Claim, Rejection> {
        let verified = self.snapshot.verifier.verify(token, facts.now).await;
        // Checked for each request: the verifier caches tokens, not the connections that present
        // them.
        if let Ok(claims) | Err(TokenRejection::Expired(claims)) = &verified
            && !claims.allows_certificate(facts.certificate)
        {
            return Err(Rejection::new(
                Refusal::TokenInvalid,
                Reason::WrongCertificate,
            ));
        }
        match verified {
            Ok(claims) => Ok(Claim {
                credential_kind: CredentialKind::Bearer,
                credential: Credential::from_claims(claims),
            }),
            Err(TokenRejection::Invalid(reason)) => {
                Err(Rejection::new(Refusal::TokenInvalid, Reason::Token(reason)))
            }
            Err(TokenRejection::Expired(claims)) => Err(Rejection {
                lapsed_claims: Some(claims),
                ..Rejection::new(Refusal::TokenExpired, Reason::TokenExpired)
            }),
            Err(TokenRejection::KeysUnavailable) => Err(Rejection::new(
                Refusal::StoreUnavailable,
                Reason::IssuerKeysUnknown,
            )),
        }
    }
}
