//! The closed set of refusals, each with its status, its stable code and its public message. A refusal
//! is an expected outcome; malfunctions of the gateway are errors.

use std::time::Duration;

use http::StatusCode;

/// A reason to decline a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    BadRequest,
    AmbiguousCredentials,
    ValidationFailed,
    FlowInvalid,
    Unauthenticated,
    TokenInvalid,
    TokenExpired,
    TokenRevoked,
    SessionNotFound,
    SessionExpired,
    SessionRevoked,
    SessionBindingMismatch,
    InvalidCredentials,
    RefreshTokenReused,
    InsufficientAuthentication,
    Forbidden,
    InsufficientScope,
    CsrfRejected,
    RegistrationClosed,
    SignInRefused,
    RouteNotFound,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    UserExists,
    LastIdentity,
    KeyLimitReached,
    BodyTooLarge,
    UnsupportedMediaType,
    RateLimited,
    SessionLimitReached,
    HeadersTooLarge,
    Internal,
    UpstreamUnreachable,
    UpstreamProtocolError,
    ProviderError,
    UpstreamUnavailable,
    StoreUnavailable,
    Overloaded,
    ProviderUnavailable,
    UpstreamTimeout,
    LoopDetected,
}

impl Refusal {
    /// Every refusal, in the order of the contract's table; metrics start from it at 0.
    pub const ALL: [Refusal; 42] = [
        Refusal::BadRequest,
        Refusal::AmbiguousCredentials,
        Refusal::ValidationFailed,
        Refusal::FlowInvalid,
        Refusal::Unauthenticated,
        Refusal::TokenInvalid,
        Refusal::TokenExpired,
        Refusal::TokenRevoked,
        Refusal::SessionNotFound,
        Refusal::SessionExpired,
        Refusal::SessionRevoked,
        Refusal::SessionBindingMismatch,
        Refusal::InvalidCredentials,
        Refusal::RefreshTokenReused,
        Refusal::InsufficientAuthentication,
        Refusal::Forbidden,
        Refusal::InsufficientScope,
        Refusal::CsrfRejected,
        Refusal::RegistrationClosed,
        Refusal::SignInRefused,
        Refusal::RouteNotFound,
        Refusal::NotFound,
        Refusal::MethodNotAllowed,
        Refusal::RequestTimeout,
        Refusal::UserExists,
        Refusal::LastIdentity,
        Refusal::KeyLimitReached,
        Refusal::BodyTooLarge,
        Refusal::UnsupportedMediaType,
        Refusal::RateLimited,
        Refusal::SessionLimitReached,
        Refusal::HeadersTooLarge,
        Refusal::Internal,
        Refusal::UpstreamUnreachable,
        Refusal::UpstreamProtocolError,
        Refusal::ProviderError,
        Refusal::UpstreamUnavailable,
        Refusal::StoreUnavailable,
        Refusal::Overloaded,
        Refusal::ProviderUnavailable,
        Refusal::UpstreamTimeout,
        Refusal::LoopDetected,
    ];

    /// The HTTP status of the response.
    pub fn status(self) -> StatusCode {
        use Refusal as R;
        match self {
            R::BadRequest | R::AmbiguousCredentials | R::ValidationFailed | R::FlowInvalid => {
                StatusCode::BAD_REQUEST
            }
            R::Unauthenticated
            | R::TokenInvalid
            | R::TokenExpired
            | R::TokenRevoked
            | R::SessionNotFound
            | R::SessionExpired
            | R::SessionRevoked
            | R::SessionBindingMismatch
            | R::InvalidCredentials
            | R::RefreshTokenReused
            | R::InsufficientAuthentication => StatusCode::UNAUTHORIZED,
            R::Forbidden
            | R::InsufficientScope
            | R::CsrfRejected
            | R::RegistrationClosed
            | R::SignInRefused => StatusCode::FORBIDDEN,
            R::RouteNotFound | R::NotFound => StatusCode::NOT_FOUND,
            R::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            R::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            R::UserExists | R::LastIdentity | R::KeyLimitReached => StatusCode::CONFLICT,
            R::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            R::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            R::RateLimited | R::SessionLimitReached => StatusCode::TOO_MANY_REQUESTS,
            R::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            R::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            R::UpstreamUnreachable | R::UpstreamProtocolError | R::ProviderError => {
                StatusCode::BAD_GATEWAY
            }
            R::UpstreamUnavailable
            | R::StoreUnavailable
            | R::Overloaded
            | R::ProviderUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            R::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            R::LoopDetected => StatusCode::LOOP_DETECTED,
        }
    }

    /// The retry delay, where no better one is known.
    pub fn default_retry_delay(self) -> Option<Duration> {
        let is_temporary = matches!(
            self,
            Refusal::StoreUnavailable
                | Refusal::Overloaded
                | Refusal::UpstreamUnavailable
                | Refusal::ProviderUnavailable
        );
        is_temporary.then_some(Duration::from_secs(1))
    }

    /// Whether it is the outcome of an authentication, or of the failure to perform one.
    pub fn is_authentication_outcome(self) -> bool {
        matches!(
            self,
            Refusal::AmbiguousCredentials | Refusal::StoreUnavailable
        ) || self.status() == StatusCode::UNAUTHORIZED
    }

    /// The stable code that clients branch on.
    pub fn code(self) -> &'static str {
        use Refusal as R;
        match self {
            R::BadRequest => "BAD_REQUEST",
            R::AmbiguousCredentials => "AMBIGUOUS_CREDENTIALS",
            R::ValidationFailed => "VALIDATION_FAILED",
            R::FlowInvalid => "FLOW_INVALID",
            R::Unauthenticated => "UNAUTHENTICATED",
            R::TokenInvalid => "TOKEN_INVALID",
            R::TokenExpired => "TOKEN_EXPIRED",
            R::TokenRevoked => "TOKEN_REVOKED",
            R::SessionNotFound => "SESSION_NOT_FOUND",
            R::SessionExpired => "SESSION_EXPIRED",
            R::SessionRevoked => "SESSION_REVOKED",
            R::SessionBindingMismatch => "SESSION_BINDING_MISMATCH",
            R::InvalidCredentials => "INVALID_CREDENTIALS",
            R::RefreshTokenReused => "REFRESH_TOKEN_REUSED",
            R::InsufficientAuthentication => "INSUFFICIENT_AUTHENTICATION",
            // One code for both; they differ in the challenge (RFC 6750, section 3.1).
            R::Forbidden | R::InsufficientScope => "FORBIDDEN",
            R::CsrfRejected => "CSRF_REJECTED",
            R::RegistrationClosed => "REGISTRATION_CLOSED",
            R::SignInRefused => "SIGN_IN_REFUSED",
            R::RouteNotFound => "ROUTE_NOT_FOUND",
            R::NotFound => "NOT_FOUND",
            R::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            R::RequestTimeout => "REQUEST_TIMEOUT",
            R::UserExists => "USER_EXISTS",
            R::LastIdentity => "LAST_IDENTITY",
            R::KeyLimitReached => "KEY_LIMIT_REACHED",
            R::BodyTooLarge => "BODY_TOO_LARGE",
            R::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            R::RateLimited => "RATE_LIMITED",
            R::SessionLimitReached => "SESSION_LIMIT_REACHED",
            R::HeadersTooLarge => "HEADERS_TOO_LARGE",
            R::Internal => "INTERNAL",
            R::UpstreamUnreachable => "UPSTREAM_UNREACHABLE",
            R::UpstreamProtocolError => "UPSTREAM_PROTOCOL_ERROR",
            R::ProviderError => "PROVIDER_ERROR",
            R::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            R::StoreUnavailable => "STORE_UNAVAILABLE",
            R::Overloaded => "OVERLOADED",
            R::ProviderUnavailable => "PROVIDER_UNAVAILABLE",
            R::UpstreamTimeout => "UPSTREAM_TIMEOUT",
            R::LoopDetected => "LOOP_DETECTED",
        }
    }

    /// The public message. It reveals no more than the code.
    pub fn message(self) -> &'static str {
        use Refusal as R;
        match self {
            R::BadRequest => "The request is malformed.",
            R::AmbiguousCredentials => "More than one credential of the same kind was sent.",
            R::ValidationFailed => "Some fields are missing or wrong.",
            R::FlowInvalid => "This sign-in is no longer valid. Please start again.",
            R::Unauthenticated => "Authentication is required.",
            R::TokenInvalid => "The token is not valid.",
            R::TokenExpired => "The token has expired.",
            R::TokenRevoked => "The token has been revoked.",
            R::SessionNotFound => "There is no such session.",
            R::SessionExpired => "The session has expired.",
            R::SessionRevoked => "The session has been revoked.",
            R::SessionBindingMismatch => "The session belongs to another client.",
            R::InvalidCredentials => "The name or the password is wrong.",
            R::RefreshTokenReused => "The refresh token was used before; the session has ended.",
            R::InsufficientAuthentication => {
                "Please sign in again: this needs a more recent or stronger sign-in."
            }
            R::Forbidden => "This is not allowed.",
            R::InsufficientScope => "The user or the token lacks a required scope.",
            R::CsrfRejected => "The call did not come from an allowed origin.",
            R::RegistrationClosed => "Registration is closed.",
            R::SignInRefused => {
                "The sign-in was canceled, or this account cannot sign in here. Try another account, or ask your administrator."
            }
            R::RouteNotFound => "No route matches this request.",
            R::NotFound => "There is no such resource.",
            R::MethodNotAllowed => "The method is not allowed here.",
            R::RequestTimeout => "The request did not arrive in time.",
            R::UserExists => "Another user has this name, email or identity.",
            R::LastIdentity => "This is the only way to sign in. Add another one first.",
            R::KeyLimitReached => "There are as many active API keys as allowed. Revoke one first.",
            R::BodyTooLarge => "The request body is too large.",
            R::UnsupportedMediaType => "The request body has a type that is not taken here.",
            R::RateLimited => "Too many requests.",
            R::SessionLimitReached => "The user has as many sessions as are allowed.",
            R::HeadersTooLarge => "The request head is too large.",
            R::Internal => "Something went wrong in the gateway.",
            R::UpstreamUnreachable => "The upstream could not be reached.",
            R::UpstreamProtocolError => "The upstream's response was not understood.",
            R::ProviderError => {
                "The sign-in provider responded with an error. Please start again; if it persists, ask your administrator."
            }
            R::UpstreamUnavailable => "No upstream server is available.",
            R::StoreUnavailable => "Sessions cannot be checked at the moment.",
            R::Overloaded => "The gateway is overloaded.",
            R::ProviderUnavailable => "The sign-in provider is not available at the moment.",
            R::UpstreamTimeout => "The upstream did not respond in time.",
            R::LoopDetected => "The request has passed this gateway before.",
        }
    }
}
