//! Why a token of a provider is rejected.

use crate::auth::token::claims::{NO_AUDIENCE, NO_ISSUER};
use crate::auth::token::jws::{UNSUPPORTED_ALGORITHM, UNSUPPORTED_EXTENSION, WRONG_TYPE};

/// The check that a token of a provider fails. The text is for the log; clients never see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderTokenFault {
    /// No key has the token's `kid`, or none matches a token without one; there may be newer keys.
    UnknownKey,
    /// What the strict parser rejects.
    Malformed(&'static str),
    TooLong,
    Encrypted,
    Algorithm,
    /// `typ` is that of another kind of token.
    Type,
    /// The header has `crit`.
    Extension,
    Signature,
    /// `iss` is missing, or not a string.
    IssuerMissing,
    Issuer,
    Tenant,
    /// `aud` is missing, or neither a string nor a list of strings.
    AudienceMissing,
    Audience,
    ExtraAudience,
    AuthorizedParty,
    ExpiryMissing,
    Expired,
    IssuedAtMissing,
    Future,
    SubjectMissing,
    Subject,
    Sid,
    Nonce,
    AccessTokenHash,
    AuthTimeMissing,
    /// The user signed in at the provider longer ago than `max_age`.
    AuthTimeTooOld,
    /// `acr` is none of those that were requested.
    Acr,
    TokenIdMissing,
    Events,
    NonceInLogoutToken,
    /// A logout token with neither `sub` nor `sid`.
    NoSubjectOrSession,
}

impl ProviderTokenFault {
    /// The text in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            ProviderTokenFault::UnknownKey => "no key of the provider matches the token",
            ProviderTokenFault::Malformed(reason) => reason,
            ProviderTokenFault::TooLong => "the token is longer than 1 MiB",
            ProviderTokenFault::Encrypted => "the token is encrypted",
            ProviderTokenFault::Algorithm => "the algorithm is not in `algorithms`",
            ProviderTokenFault::Type => WRONG_TYPE,
            ProviderTokenFault::Extension => UNSUPPORTED_EXTENSION,
            ProviderTokenFault::Signature => "no key of the provider made the signature",
            ProviderTokenFault::IssuerMissing => NO_ISSUER,
            ProviderTokenFault::Issuer => "`iss` is not the provider's issuer",
            ProviderTokenFault::Tenant => "`tid` is not the tenant of `iss`",
            ProviderTokenFault::AudienceMissing => NO_AUDIENCE,
            ProviderTokenFault::Audience => "`aud` does not have the client ID",
            ProviderTokenFault::ExtraAudience => "`aud` has a value beside the client ID",
            ProviderTokenFault::AuthorizedParty => "`azp` is not the client ID",
            ProviderTokenFault::ExpiryMissing => "`exp` is missing",
            ProviderTokenFault::Expired => "the token has expired",
            ProviderTokenFault::IssuedAtMissing => "`iat` is missing",
            ProviderTokenFault::Future => "`iat`, `nbf` or `auth_time` is in the future",
            ProviderTokenFault::SubjectMissing => "`sub` is missing",
            ProviderTokenFault::Subject => "`sub` does not have 1 to 255 ASCII characters",
            ProviderTokenFault::Sid => "`sid` does not have 1 to 1024 bytes",
            ProviderTokenFault::Nonce => "`nonce` is not that of the flow",
            ProviderTokenFault::AccessTokenHash => "`at_hash` is not that of the access token",
            ProviderTokenFault::AuthTimeMissing => "`auth_time` is missing",
            ProviderTokenFault::AuthTimeTooOld => "`auth_time` is longer ago than `max_age`",
            ProviderTokenFault::Acr => "`acr` is none of those requested",
            ProviderTokenFault::TokenIdMissing => "`jti` is missing",
            ProviderTokenFault::Events => "`events` is not that of a logout",
            ProviderTokenFault::NonceInLogoutToken => "a logout token has a `nonce`",
            ProviderTokenFault::NoSubjectOrSession => "a logout token has neither `sub` nor `sid`",
        }
    }
}

impl From<&'static str> for ProviderTokenFault {
    fn from(reason: &'static str) -> ProviderTokenFault {
        match reason {
            UNSUPPORTED_ALGORITHM => ProviderTokenFault::Algorithm,
            UNSUPPORTED_EXTENSION => ProviderTokenFault::Extension,
            WRONG_TYPE => ProviderTokenFault::Type,
            NO_ISSUER => ProviderTokenFault::IssuerMissing,
            NO_AUDIENCE => ProviderTokenFault::AudienceMissing,
            _ => ProviderTokenFault::Malformed(reason),
        }
    }
}
