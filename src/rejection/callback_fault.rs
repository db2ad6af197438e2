//! Why a sign-in at a provider, its recheck or its logout failed. Clients see the refusal; the log and
//! the events name the fault.

use super::{Reason, Refusal, Rejection};
use crate::auth::token::provider_token::ProviderTokenFault;

/// Defines [`CallbackFault`]: the faults by refusal, each with its text.
macro_rules! callback_faults {
    ($($refusal:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* })*) => {
        /// A way in which a start, callback, recheck or logout fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CallbackFault {
            $($($(#[$doc])* $name,)*)*
        }

        impl CallbackFault {
            pub const ALL: &[CallbackFault] = &[$($(CallbackFault::$name,)*)*];

            /// The refusal that a browser receives.
            pub fn refusal(self) -> Refusal {
                match self {
                    $($(CallbackFault::$name)|* => Refusal::$refusal,)*
                }
            }

            /// The text in the log.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($(CallbackFault::$name => $text,)*)*
                }
            }
        }
    };
}

callback_faults! {
    FlowInvalid {
        // What the browser brought. The provider is not queried.
        ParameterRepeated = "a parameter is given twice",
        StateMissing = "the state is missing",
        /// No flow cookie of this browser holds the state.
        StateUnknown = "no flow of this browser has this state",
        FlowAltered = "the flow cookie cannot be opened",
        FlowOfOtherProvider = "the flow began at another provider",
        FlowExpired = "the flow is over 10 minutes old",
        FlowSuperseded = "five newer flows are open in this browser",
        IssuerMissing = "iss is missing although the metadata promises it",
        IssuerMismatch = "iss is not the provider's issuer",
        WrongResponseMode = "the response has another mode than the one requested",
        /// A JARM response that fails a check. It comes through the browser, as a bare code does.
        ResponseTokenInvalid = "the response token is not valid",
        /// A code is redeemed at most once, however often the browser brings it.
        CodeRepeated = "the code was redeemed before",
        /// A flow that links an identity.
        LinkingSessionGone = "the session that started to link is not the browser's, or has ended",
        CodeMissing = "the callback has neither a code nor an error",
        /// `invalid_grant`.
        GrantRejected = "the provider rejected the code or the refresh token",
    }
    SignInRefused {
        // `error` of the callback.
        AccessDenied = "the provider reported access_denied",
        LoginRequired = "the provider reported login_required",
        InteractionRequired = "the provider reported interaction_required",
        ConsentRequired = "the provider reported consent_required",
        AccountSelectionRequired = "the provider reported account_selection_required",
        UnmetAuthenticationRequirements = "the provider reported unmet_authentication_requirements",
        // What the gateway decides.
        NotAllowed = "allow does not admit the user",
        ProviderUserDisabled = "the user of this identity is disabled",
        UnknownIdentity = "no user has this identity, and create is false",
        AcrUnmet = "acr is none of those requested",
        AuthenticationTooOld = "auth_time is older than max_age permits",
        /// A logout at the provider overtook the sign-in.
        LoggedOut = "the provider ended the sign-in by a logout",
        /// A recheck or a refresh returned the tokens of another user.
        SubjectChanged = "the provider returned another user's tokens",
    }
    ProviderUnavailable {
        TemporarilyUnavailable = "the provider reported temporarily_unavailable",
        ServerError = "the provider reported server_error",
        MetadataUnavailable = "the provider's metadata is not available",
        KeysUnavailable = "the provider's keys are not available",
        Unreachable = "the provider cannot be reached",
        /// The request was sent, and the provider may have processed it.
        ConnectionLost = "the connection to the provider was lost",
        TimedOut = "the provider did not respond within timeout",
        /// 429.
        TooManyRequests = "the provider responded with 429",
        /// 502 or 504: the provider may have processed the request.
        ProxyFailed = "a proxy of the provider responded with 502 or 504",
        /// Another 5xx.
        ServerFailed = "the provider responded with a status of 5xx",
        /// An outage that lasts longer than `tokens.on_outage`.
        SessionUnconfirmed = "the provider has not confirmed the session for longer than on_outage",
        // Provider tokens.
        RefreshPaused = "an exchange of the tokens failed a moment ago",
        RefreshInProgress = "another gateway is exchanging the tokens",
        RefreshCutOff = "the exchange of the tokens was cut off",
        RefreshTokenMissing = "the session has no refresh token",
        /// The name has passed to another issuer or client since the sign-in.
        TokensOfOtherIssuer = "the session's tokens are of another issuer or client",
        RefreshTokenLost = "an exchange that was lost may have used up the refresh token",
        TokenNotRenewed = "the provider does not renew the token",
        TokensSealed = "no key of encryption opens the tokens of the session",
        /// The bound of concurrent calls.
        TooManyCalls = "too many calls to the provider are in progress",
    }
    ProviderError {
        // A provider's response as a whole.
        /// An `error` of the callback without a row of its own, such as `invalid_scope`.
        AuthorizationRejected = "the provider rejected the authorization request",
        /// `invalid_client`.
        ClientRejected = "the provider rejected the client's authentication",
        /// Another 4xx.
        RequestRejected = "the provider rejected the request",
        UnexpectedStatus = "the provider responded with an unexpected status",
        UnexpectedContentType = "the provider's response has another content type",
        ResponseTooLarge = "the provider's response has more than 1 MiB",
        ResponseMalformed = "the provider's response is malformed",
        /// The configured provider lacks something: an address, a key.
        EndpointMissing = "the provider has no such endpoint",
        ClientAssertionFailed = "the client assertion could not be signed",

        // The token response.
        AccessTokenMissing = "the token response has no access token",
        TokenTypeUnsupported = "token_type is not Bearer",
        IdTokenMissing = "the token response has no ID token",

        // An ID, logout or response token.
        TokenMalformed = "the provider's token is malformed",
        TokenEncrypted = "the provider's token is encrypted",
        TokenAlgorithm = "the algorithm of the provider's token is not permitted",
        TokenType = "typ of the provider's token is wrong",
        TokenCritical = "the provider's token has critical header parameters",
        TokenKeyUnknown = "no key of the provider has the kid of its token",
        TokenSignature = "the signature of the provider's token is wrong",
        TokenIssuerMissing = "iss of the provider's token is missing or malformed",
        TokenIssuer = "iss of the provider's token is not the provider's issuer",
        TokenTenant = "tid of the provider's token is not the tenant of its iss",
        TokenAudienceMissing = "aud of the provider's token is missing or malformed",
        TokenAudience = "aud of the provider's token is wrong",
        TokenAuthorizedParty = "azp of the provider's token is not the client",
        TokenTimes = "a time of the provider's token is missing or malformed",
        TokenExpired = "the provider's token has expired",
        TokenFromFuture = "the provider's token is not valid yet",
        TokenSubject = "sub of the provider's token is missing or malformed",
        TokenNonce = "the nonce of the provider's token is wrong",
        AccessTokenHash = "at_hash does not match the access token",
        AuthenticationTimeMissing = "auth_time is missing although max_age was requested",

        // A logout token.
        LogoutEvent = "events of the logout token is wrong",
        LogoutWithNonce = "the logout token has a nonce",
        LogoutWithoutTarget = "the logout token has neither sub nor sid",
        LogoutTokenId = "jti of the logout token is missing or malformed",
        LogoutReplayed = "the logout token was used before",

        // Claims.
        UserinfoRejected = "the userinfo endpoint rejected the access token",
        UserinfoSigned = "the userinfo response is a JWT",
        UserinfoSubject = "sub of the userinfo response is not that of the ID token",
        ClaimReferenced = "a mapped claim is only referenced (_claim_names)",
        UserIdUnusable = "the user claim is missing or unusable",
        ClaimTooLarge = "the mapped roles or scopes have more than 20 KiB",
        ClaimMalformed = "a mapped claim has a wrong type",
    }
    StoreUnavailable {
        TokensUnavailable = "the tokens of the session cannot be read or written",
    }
    SessionRevoked {
        SessionEndedByProvider = "the session has ended, or its provider has ended it",
    }
    UserExists {
        IdentityTaken = "the identity belongs to another user",
        EmailTaken = "another user has the email",
    }
    InsufficientAuthentication {
        SignInTooOldToLink = "the session's sign-in is over 5 minutes old",
    }
}

impl From<ProviderTokenFault> for CallbackFault {
    fn from(fault: ProviderTokenFault) -> CallbackFault {
        use ProviderTokenFault as Token;
        match fault {
            Token::UnknownKey => CallbackFault::TokenKeyUnknown,
            Token::Malformed(_) | Token::TooLong | Token::Sid => CallbackFault::TokenMalformed,
            Token::Encrypted => CallbackFault::TokenEncrypted,
            Token::Algorithm => CallbackFault::TokenAlgorithm,
            Token::Type => CallbackFault::TokenType,
            Token::Extension => CallbackFault::TokenCritical,
            Token::Signature => CallbackFault::TokenSignature,
            Token::IssuerMissing => CallbackFault::TokenIssuerMissing,
            Token::Issuer => CallbackFault::TokenIssuer,
            Token::Tenant => CallbackFault::TokenTenant,
            Token::AudienceMissing => CallbackFault::TokenAudienceMissing,
            Token::Audience | Token::ExtraAudience => CallbackFault::TokenAudience,
            Token::AuthorizedParty => CallbackFault::TokenAuthorizedParty,
            Token::ExpiryMissing | Token::IssuedAtMissing => CallbackFault::TokenTimes,
            Token::Expired => CallbackFault::TokenExpired,
            Token::Future => CallbackFault::TokenFromFuture,
            Token::SubjectMissing | Token::Subject => CallbackFault::TokenSubject,
            Token::Nonce => CallbackFault::TokenNonce,
            Token::AccessTokenHash => CallbackFault::AccessTokenHash,
            Token::AuthTimeMissing => CallbackFault::AuthenticationTimeMissing,
            Token::AuthTimeTooOld => CallbackFault::AuthenticationTooOld,
            Token::Acr => CallbackFault::AcrUnmet,
            Token::TokenIdMissing => CallbackFault::LogoutTokenId,
            Token::Events => CallbackFault::LogoutEvent,
            Token::NonceInLogoutToken => CallbackFault::LogoutWithNonce,
            Token::NoSubjectOrSession => CallbackFault::LogoutWithoutTarget,
        }
    }
}

impl From<CallbackFault> for Rejection {
    fn from(fault: CallbackFault) -> Rejection {
        Rejection::new(fault.refusal(), Reason::Callback(fault))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_are_distinct_and_fit_one_line() {
        let mut texts = HashSet::new();
        for fault in CallbackFault::ALL {
            assert!(texts.insert(fault.as_str()), "{fault:?}");
            assert!(fault.as_str().len() <= 80, "{fault:?}");
        }
    }

    #[test]
    fn faults_of_the_callback_have_their_refusals() {
        for (fault, refusal) in [
            (CallbackFault::StateUnknown, Refusal::FlowInvalid),
            (CallbackFault::GrantRejected, Refusal::FlowInvalid),
            (CallbackFault::AccessDenied, Refusal::SignInRefused),
            (CallbackFault::NotAllowed, Refusal::SignInRefused),
            (CallbackFault::AcrUnmet, Refusal::SignInRefused),
            (CallbackFault::ServerError, Refusal::ProviderUnavailable),
            (CallbackFault::TimedOut, Refusal::ProviderUnavailable),
            (CallbackFault::TooManyRequests, Refusal::ProviderUnavailable),
            (CallbackFault::KeysUnavailable, Refusal::ProviderUnavailable),
            (CallbackFault::Unreachable, Refusal::ProviderUnavailable),
            (CallbackFault::TooManyCalls, Refusal::ProviderUnavailable),
            (CallbackFault::EndpointMissing, Refusal::ProviderError),
            (CallbackFault::UserinfoRejected, Refusal::ProviderError),
            (CallbackFault::UserinfoSigned, Refusal::ProviderError),
            (CallbackFault::UserIdUnusable, Refusal::ProviderError),
            (CallbackFault::ClaimMalformed, Refusal::ProviderError),
            (CallbackFault::ClientRejected, Refusal::ProviderError),
            (CallbackFault::TokenNonce, Refusal::ProviderError),
            (CallbackFault::UserinfoSubject, Refusal::ProviderError),
            (CallbackFault::ClaimReferenced, Refusal::ProviderError),
            (CallbackFault::EmailTaken, Refusal::UserExists),
            (ProviderTokenFault::Nonce.into(), Refusal::ProviderError),
            (
                ProviderTokenFault::UnknownKey.into(),
                Refusal::ProviderError,
            ),
            (
                ProviderTokenFault::AuthTimeMissing.into(),
                Refusal::ProviderError,
            ),
            (
                ProviderTokenFault::AuthTimeTooOld.into(),
                Refusal::SignInRefused,
            ),
            (ProviderTokenFault::Acr.into(), Refusal::SignInRefused),
        ] {
            let rejection = Rejection::from(fault);
            assert_eq!(rejection.refusal, refusal, "{fault:?}");
            assert_eq!(rejection.reason, Some(Reason::Callback(fault)));
        }
    }
}
