//! The credential that a request presents, as far as it can be verified without the store.

use std::sync::Arc;

use super::{Admission, CredentialKind, Identity, reject_over_limit};
use crate::auth::api_key::PresentedApiKey;
use crate::auth::credential::{self, CredentialType, PresentedCredential};
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::issuers::introspection::IntrospectionError;
use crate::issuers::verifier::TokenRejection;
use crate::limits::Charge;
use crate::pipeline::facts::RequestFacts;
use crate::pipeline::fields::FieldKind;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::routing::Route;
use crate::sessions::Credential;

/// A credential of valid form.
#[derive(Debug, Clone, Copy)]
pub(super) enum Presented<'a> {
    Token(&'a str),
    Session(SessionId, CredentialKind),
    ApiKey(PresentedApiKey),
}

/// Why a request has no credential that can be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialFault {
    Absent,
    /// The route does not accept its type.
    NotAccepted,
    MalformedBearer,
    MalformedSession,
    MalformedCookie,
    MalformedApiKey,
    Ambiguous {
        cookies: bool,
    },
}

impl Presented<'_> {
    pub(super) fn credential_type(self) -> CredentialType {
        match self {
            Presented::Session(..) => CredentialType::Session,
            Presented::Token(_) => CredentialType::Token,
            Presented::ApiKey(_) => CredentialType::ApiKey,
        }
    }
}

impl CredentialFault {
    /// Whether the request is anonymous.
    pub(super) fn is_anonymous(self) -> bool {
        matches!(self, CredentialFault::Absent | CredentialFault::NotAccepted)
    }

    /// `None`: there is none, or more than one.
    fn credential_type(self) -> Option<CredentialType> {
        match self {
            CredentialFault::MalformedBearer => Some(CredentialType::Token),
            CredentialFault::MalformedApiKey => Some(CredentialType::ApiKey),
            CredentialFault::MalformedSession | CredentialFault::MalformedCookie => {
                Some(CredentialType::Session)
            }
            CredentialFault::Absent
            | CredentialFault::NotAccepted
            | CredentialFault::Ambiguous { .. } => None,
        }
    }
}

impl From<CredentialFault> for Rejection {
    fn from(fault: CredentialFault) -> Rejection {
        use CredentialFault as Fault;
        let (refusal, reason) = match fault {
            Fault::Absent => (Refusal::Unauthenticated, Reason::NoCredential),
            Fault::NotAccepted => (Refusal::Unauthenticated, Reason::CredentialNotAccepted),
            Fault::MalformedBearer => (Refusal::TokenInvalid, Reason::NotAToken),
            Fault::MalformedApiKey => (Refusal::TokenInvalid, Reason::NotAnApiKey),
            Fault::MalformedSession | Fault::MalformedCookie => {
                (Refusal::SessionNotFound, Reason::NotASessionToken)
            }
            Fault::Ambiguous { .. } => (Refusal::AmbiguousCredentials, Reason::TwoCredentials),
        };
        Rejection {
            clear_cookie: matches!(
                fault,
                Fault::MalformedCookie | Fault::Ambiguous { cookies: true }
            ),
            credential: fault.credential_type(),
            ..Rejection::new(refusal, reason)
        }
    }
}

/// The credential that decides on a route. One of a type that the route does not accept is treated as
/// absent.
pub(super) fn accepted_on<'p>(
    route: &Route,
    presented: Result<Presented<'p>, CredentialFault>,
) -> Result<Presented<'p>, CredentialFault> {
    let credential_type = match presented {
        Ok(presented) => Some(presented.credential_type()),
        Err(fault) => fault.credential_type(),
    };
    match credential_type {
        Some(it) if !route.accept.includes(it) => Err(CredentialFault::NotAccepted),
        _ => presented,
    }
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
            _ if let Some(presented) = identity.principal.api_key() => {
                Credential::ApiKey(*presented)
            }
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
    /// Reads the credential of a request.
    pub(super) fn read_credential<'f>(
        &self,
        facts: &RequestFacts<'f>,
    ) -> Result<Presented<'f>, CredentialFault> {
        let fields = facts.head.fields;
        let cookie_name = &self.snapshot.settings.sessions.cookie.name;
        let authorizations = fields.all(FieldKind::Authorization);
        let cookies = fields.all(FieldKind::Cookie);
        let joined = match facts.is_query() {
            true => credential::find_joined(authorizations.clone(), cookies.clone(), cookie_name),
            false => None,
        };
        let presented = joined.unwrap_or_else(|| {
            let api_keys = self.api_key_fields(facts);
            credential::extract(authorizations, api_keys, cookies, cookie_name)
        });
        match presented {
            PresentedCredential::Absent => Err(CredentialFault::Absent),
            PresentedCredential::Ambiguous { cookies } => {
                Err(CredentialFault::Ambiguous { cookies })
            }
            PresentedCredential::MalformedBearer => Err(CredentialFault::MalformedBearer),
            PresentedCredential::MalformedSession => Err(CredentialFault::MalformedSession),
            PresentedCredential::MalformedCookie => Err(CredentialFault::MalformedCookie),
            PresentedCredential::Session(token) => Ok(Presented::Session(
                token.id(),
                CredentialKind::SessionHeader,
            )),
            PresentedCredential::Cookie(token) => {
                Ok(Presented::Session(token.id(), CredentialKind::Cookie))
            }
            PresentedCredential::Bearer(token) => self.read_bearer(token),
            PresentedCredential::ApiKey(key) => self.read_api_key(key),
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
            Presented::ApiKey(presented) => Ok(Claim {
                credential_kind: CredentialKind::ApiKey,
                credential: Credential::ApiKey(presented),
            }),
            Presented::Token(token) => {
                let verified = self.verify_token(token, facts).await;
                verified.map_err(|refused| Rejection {
                    credential: Some(CredentialType::Token),
                    ..refused
                })
            }
        }
    }

    /// Rejects a request that is over a limit without identity before its token is sent to an introspection
    /// endpoint: a flood of invented tokens would keep the endpoint busy for others.
    pub(super) fn spare_call_over_limit(
        &self,
        presented: Presented<'_>,
        facts: &RequestFacts<'_>,
        before: &[Charge],
    ) -> Result<(), Rejection> {
        let Presented::Token(token) = presented else {
            return Ok(());
        };
        if !self.snapshot.verifier.needs_call(token, facts.now) {
            return Ok(());
        }
        let Some(decisions) = self.store.known_refusal(before) else {
            return Ok(());
        };
        self.count_decisions(&decisions);
        reject_over_limit(decisions)
            .map(drop)
            .map_err(|refused| Rejection {
                credential: Some(CredentialType::Token),
                ..refused
            })
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
            Err(TokenRejection::NotIntrospected(error)) => Err(match error {
                IntrospectionError::Unavailable => {
                    Rejection::new(Refusal::ProviderUnavailable, Reason::NotIntrospected)
                }
                IntrospectionError::TooManyCalls => {
                    Rejection::new(Refusal::Overloaded, Reason::TooManyIntrospections)
                }
            }),
        }
    }
}
