//! Why a request was rejected or a response was cut off, for the log. Clients never see it.

use std::fmt;

use super::CallbackFault;

/// Defines [`Reason`]: reasons with a constant text, beside those that carry one.
macro_rules! reasons {
    ($($name:ident = $text:literal,)*) => {
        /// Why a request did not succeed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            /// What is wrong with the head of an HTTP/1.1 request.
            Head(&'static str),
            /// What is wrong with the call of a front proxy.
            Call(&'static str),
            /// What is wrong with a token.
            Token(&'static str),
            /// Which property of the client differs from the one that signed in.
            Binding(&'static str),
            /// What is wrong with the framing of a response.
            Framing(&'static str),
            /// Why a sign-in at a provider failed.
            Callback(CallbackFault),
            $($name,)*
        }

        impl Reason {
            /// The text in the log.
            pub fn as_str(self) -> &'static str {
                match self {
                    Reason::Head(text) | Reason::Call(text) | Reason::Token(text) => text,
                    Reason::Binding(text) | Reason::Framing(text) => text,
                    Reason::Callback(fault) => fault.as_str(),
                    $(Reason::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    // The request itself.
    TooManyFields = "too many header fields",
    ForeignScheme = "the scheme of the target is neither http nor https",
    AmbiguousPath = "the path could be read in more than one way",
    ForbiddenPath = "the path has something that the route does not allow",
    Loop = "the request has passed this gateway before",
    ForeignUpgrade = "the upgrade comes from another origin",
    UntrustedProxy = "the peer is not in forward_auth.trusted_proxies",
    UnknownCall = "front proxies query by other paths",
    BodyTooSlow = "the body came more slowly than body_rate",
    BodyStalled = "the client sent nothing of its body for timeouts.read",
    MalformedChunks = "the chunks of the body are malformed",

    // The credential.
    NoCredential = "no credential",
    CredentialNotAccepted = "the route does not accept this kind of credential",
    TwoCredentials = "two credentials",
    NotAToken = "not a token",
    NotASessionToken = "not a session token",
    NotAnApiKey = "not an API key",
    UnknownApiKey = "no API key has this ID",
    WrongApiKey = "the secret is not that of the API key",
    ApiKeyRevoked = "the API key was revoked",
    ApiKeyReplaced = "the API key was rotated, and the grace period of this secret is over",
    ApiKeyOwnerGone = "the owner of the API key is disabled or deleted",
    ApiKeyExpired = "the API key has expired",
    ApiKeyAddress = "the API key may not be used from this address",
    NoApiKey = "no API key as bearer token or as the password of Basic",
    ApiKeyChange = "an API key may not change sessions, profile or keys",
    TokenExpired = "expired",
    WrongCertificate = "it is bound to another client certificate",
    IssuerKeysUnknown = "the issuer's keys are not known yet",
    NotIntrospected = "the introspection endpoint did not say whether the token is active",
    TooManyIntrospections = "as many introspections as are allowed are in progress",
    Blacklisted = "blacklisted",
    SignedOutEverywhere = "its person was signed out everywhere",
    CachedBlacklisted = "known to be blacklisted",
    CachedSignedOutEverywhere = "its person is known to be signed out everywhere",

    // The session. Records are kept until a session would have expired: a credential without one is
    // forged, older than that, or from another store.
    NoSession = "no session has this credential's ID",
    SessionExpired = "the session has expired",
    SessionRevoked = "the session was revoked",
    NoSessionRow = "no session has this credential's ID (database)",
    SessionRowExpired = "the session has expired (database)",
    SessionRowRevoked = "the session was revoked (database)",
    CachedSessionEnd = "known to have ended",
    OtherUsersSession = "the session is another user's",

    // Requirements and limits.
    AnonymousNotAllowed = "the route requires a role or a scope",
    UserLacksScope = "the user lacks a scope: `portcullis users set-roles --scope` grants it",
    TokenLacksScope = "the token lacks a scope",
    ApiKeyLacksScope = "the API key, or its owner, lacks a scope",
    ApiKeyLacksRole = "the API key, or its owner, has none of the roles",
    UserLacksRole = "the user has none of the roles",
    OtherProvider = "the user did not sign in at a required provider",
    AcrNotMet = "the sign-in has none of the required acr values",
    SignInTooOld = "the user signed in longer ago than max_auth_age",
    OverLimit = "over a limit",
    LimitUnchecked = "a limit cannot be checked and denies without",

    // API keys.
    SessionRequired = "a session is required, and the credential has none",
    UserNotInDatabase = "only users in the database have API keys",
    MoreThanOwn = "roles or scopes were requested that the user does not have",

    // Signing in.
    UnknownUser = "no user has this name",
    WrongPassword = "the password is wrong",
    UserDisabled = "the user is disabled",
    ReservedUserId = "the user's ID begins with the prefix of another source",
    BackendRejected = "the backend rejected the credentials",
    TooManyFailures = "too many failures to sign in to this account",

    // The store.
    StoreTimeout = "the store did not respond in time",
    StoreUnreachable = "the store cannot be reached",
    StoreBreakerOpen = "the store is too slow and is not used for now",
    StoreRefused = "the store refused",
    StoreReadOnly = "the store takes no writes",
    StoreMalformed = "the store's reply is malformed",
    StoreUnreplicated = "replicas did not confirm",

    // The upstream.
    NoServer = "no server of the upstream is in rotation",
    ConnectRefused = "the server refused the connection",
    ConnectTimeout = "no connection to the server within timeouts.connect",
    NoRouteToServer = "there is no route to the server",
    ConnectFailed = "the connection could not be made",
    TlsTimeout = "no TLS handshake with the server within timeouts.connect",
    InvalidCertificate = "the server's certificate is not valid",
    TlsFailed = "the TLS handshake failed",
    ReadTimeout = "the upstream sent nothing for timeouts.read",
    WriteTimeout = "the upstream accepted none of the request for timeouts.write",
    ConnectionEnded = "the upstream connection ended before the response did",
    InvalidResponse = "the upstream's response is not valid",

    // The end of a response.
    StreamIdle = "no data passed for timeouts.stream_idle",
    CredentialEnded = "the session or the token has ended",
    ShuttingDown = "the gateway is shutting down",
    ClientStalled = "the client took nothing of the response for write_timeout",
}

impl Reason {
    /// Whether an API key is not valid, or may not be used from its address.
    pub fn concerns_api_key(self) -> bool {
        matches!(
            self,
            Reason::NotAnApiKey
                | Reason::UnknownApiKey
                | Reason::WrongApiKey
                | Reason::ApiKeyRevoked
                | Reason::ApiKeyReplaced
                | Reason::ApiKeyOwnerGone
                | Reason::ApiKeyExpired
                | Reason::ApiKeyAddress
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
