//! The gateway's own endpoints and pages, which take precedence over routes: one table, from which
//! requests are dispatched and the credentials in the OpenAPI description are written.

use http::Method;

use super::Path;

/// The sign-in page.
pub const SIGN_IN_PAGE: &str = "/sign-in";
/// The sign-out page.
pub const SIGN_OUT_PAGE: &str = "/sign-out";
/// The list of providers.
pub const PROVIDERS: &str = "/auth/providers";
/// Starts a sign-in at a provider.
pub const START: &str = "/auth/start/{provider}";
/// Where a provider returns the browser.
pub const CALLBACK: &str = "/auth/callback/{provider}";
/// Where a provider requests logouts.
pub const BACKCHANNEL_LOGOUT: &str = "/auth/backchannel-logout/{provider}";

/// Where backends introspect tokens.
pub const INTROSPECT: &str = "/introspect";

/// Largest body of an endpoint, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Largest profile picture, in bytes.
pub const MAX_PICTURE: usize = 1024 * 1024;

/// Whether a method of an endpoint takes a credential. Where it does, the caller is authenticated
/// before the endpoint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialUse {
    Ignored,
    Optional,
    Required,
    /// An API key, as bearer token or as the password of Basic, and no other credential.
    ApiKey,
}

use CredentialUse::{ApiKey, Ignored, Optional, Required};

/// What kind of endpoint a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointKind {
    /// Part of every API.
    Api,
    /// Sign-in with a password.
    Passwords,
    /// Passwords that the gateway keeps.
    OwnPasswords,
    /// About the users that the gateway keeps; absent where it keeps none.
    Users,
    /// Identities at providers of the users that the gateway keeps.
    Identities,
    /// API keys that users create for themselves.
    ApiKeys,
    /// Introspection of tokens by backends, which API keys authenticate.
    Introspection,
    /// Sign-in at a provider.
    Provider,
    /// An HTML page.
    Page,
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Below `api.prefix`; a segment in braces is a parameter.
    pub path: &'static str,
    pub kind: EndpointKind,
    pub methods: &'static [(Method, CredentialUse)],
}

use EndpointKind::{
    Api, ApiKeys, Identities, Introspection, OwnPasswords, Page, Passwords, Provider, Users,
};

/// Which endpoints a configuration has beside those of every API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedEndpoints {
    /// Whether users can sign in with a password, which the gateway or a backend checks.
    pub passwords: bool,
    /// Whether users are in the gateway's database.
    pub users: bool,
    /// Whether users in the database sign in at providers.
    pub identities: bool,
    /// Whether users in the database create API keys.
    pub api_keys: bool,
    /// Whether backends introspect tokens.
    pub introspection: bool,
    /// Whether users can sign in at a provider.
    pub providers: bool,
}

impl OfferedEndpoints {
    /// Whether endpoints of this kind exist.
    pub fn includes(self, kind: EndpointKind) -> bool {
        match kind {
            Api | Page => true,
            Passwords => self.passwords,
            OwnPasswords => self.passwords && self.users,
            Identities => self.identities,
            ApiKeys => self.api_keys,
            Introspection => self.introspection,
            // A backend has profiles of its own.
            Users => self.users || self.providers && !self.passwords,
            Provider => self.providers,
        }
    }
}

/// All endpoints. A literal segment stands before a parameter, so that the first match wins.
#[rustfmt::skip]
pub static ENDPOINTS: &[Endpoint] = &[
    endpoint("/auth/register", OwnPasswords, &[(Method::POST, Ignored)]),
    endpoint("/auth/signup", OwnPasswords, &[(Method::POST, Ignored)]),
    endpoint("/auth/login", Passwords, &[(Method::POST, Ignored)]),
    endpoint("/auth/signin", Passwords, &[(Method::POST, Ignored)]),
    endpoint("/auth/refresh", Api, &[(Method::POST, Ignored)]),
    endpoint("/auth/logout", Api, &[(Method::POST, Optional)]),
    endpoint("/auth/signout", Api, &[(Method::POST, Optional)]),
    endpoint("/auth/logout-all", Api, &[(Method::POST, Required)]),
    endpoint(PROVIDERS, Provider, &[(Method::GET, Ignored)]),
    endpoint(START, Provider, &[(Method::GET, Ignored)]),
    endpoint("/auth/jwks/{provider}", Provider, &[(Method::GET, Ignored)]),
    endpoint(CALLBACK, Provider, &[(Method::GET, Optional), (Method::POST, Optional)]),
    endpoint("/auth/link/{provider}", Identities, &[(Method::POST, Required)]),
    endpoint(BACKCHANNEL_LOGOUT, Provider, &[(Method::POST, Ignored)]),
    endpoint("/sessions", Api, &[(Method::GET, Required), (Method::DELETE, Required)]),
    endpoint("/sessions/current", Api, &[
        (Method::GET, Required), (Method::PATCH, Required), (Method::DELETE, Required),
    ]),
    endpoint("/sessions/current/extend", Api, &[(Method::POST, Required)]),
    endpoint("/sessions/{id}", Api, &[(Method::GET, Required), (Method::DELETE, Required)]),
    endpoint("/profile", Users, &[(Method::GET, Required), (Method::PUT, Required)]),
    endpoint("/profile/password", Users, &[(Method::PUT, Required)]),
    endpoint("/profile/avatar", Users, &[
        (Method::GET, Required), (Method::PUT, Required), (Method::POST, Required),
        (Method::DELETE, Required),
    ]),
    endpoint("/profile/identities", Identities, &[(Method::GET, Required)]),
    endpoint("/profile/identities/{id}", Identities, &[(Method::DELETE, Required)]),
    endpoint("/api-keys", ApiKeys, &[(Method::GET, Required), (Method::POST, Required)]),
    endpoint("/api-keys/{id}", ApiKeys, &[
        (Method::GET, Required), (Method::PATCH, Required), (Method::DELETE, Required),
    ]),
    endpoint("/api-keys/{id}/rotate", ApiKeys, &[(Method::POST, Required)]),
    endpoint(INTROSPECT, Introspection, &[(Method::POST, ApiKey)]),
    endpoint("/health", Api, &[(Method::GET, Ignored)]),
    endpoint("/openapi.json", Api, &[(Method::GET, Ignored)]),
    endpoint("/jwks.json", Api, &[(Method::GET, Ignored)]),
    endpoint(SIGN_IN_PAGE, Page, &[(Method::GET, Optional), (Method::POST, Ignored)]),
    endpoint(SIGN_OUT_PAGE, Page, &[(Method::GET, Optional), (Method::POST, Optional)]),
];

const fn endpoint(
    path: &'static str,
    kind: EndpointKind,
    methods: &'static [(Method, CredentialUse)],
) -> Endpoint {
    Endpoint {
        path,
        kind,
        methods,
    }
}

/// The endpoint of a path below the prefix; every other path is routed.
pub fn find(path: &str) -> Option<&'static Endpoint> {
    ENDPOINTS.iter().find(|endpoint| endpoint.matches(path))
}

/// The path below the prefix, if it names an endpoint that exists.
pub fn find_below(path: &Path<'_>, prefix: &str, offered: OfferedEndpoints) -> Option<String> {
    if !path.may_begin_with(prefix) {
        return None;
    }
    let mut segments = path.segments();
    for expected in prefix.as_bytes().split(|byte| *byte == b'/').skip(1) {
        if segments.next()? != expected {
            return None;
        }
    }
    let mut below = String::new();
    for segment in segments {
        below.push('/');
        below.push_str(std::str::from_utf8(segment).ok()?);
    }
    let endpoint = find(&below)?;
    offered.includes(endpoint.kind).then_some(below)
}

/// How the endpoint that is called uses credentials.
pub fn credential_use(method: &Method, path: &str) -> CredentialUse {
    let method = match *method {
        Method::HEAD => &Method::GET,
        _ => method,
    };
    find(path)
        .and_then(|endpoint| endpoint.credential_use(method))
        .unwrap_or(Ignored)
}

/// Largest body that an endpoint accepts, in bytes.
pub fn max_body_bytes(path: &str) -> usize {
    match path {
        "/profile/avatar" => MAX_PICTURE,
        _ => MAX_BODY,
    }
}

impl Endpoint {
    /// Whether a method takes a credential. `None`: the endpoint does not have the method.
    pub fn credential_use(&self, method: &Method) -> Option<CredentialUse> {
        let mut methods = self.methods.iter();
        let (_, credential) = methods.find(|(known, _)| known == method)?;
        Some(*credential)
    }

    fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        self.path.split('/').all(|segment| {
            parts.next().is_some_and(|part| match segment {
                parameter if parameter.starts_with('{') => !part.is_empty(),
                literal => part == literal,
            })
        }) && parts.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_endpoints_shadow_routes() {
        for path in [
            "/auth/login",
            "/auth/signout",
            "/sessions",
            "/sessions/current",
            "/sessions/abc",
            "/health",
            "/jwks.json",
            "/openapi.json",
            "/profile",
            "/profile/password",
            "/auth/signup",
            "/auth/start/corp",
            "/auth/callback/corp",
            "/sign-in",
        ] {
            assert!(find(path).is_some(), "{path}");
        }
        for path in [
            "",
            "/",
            "/auth",
            "/auth/",
            "/auth/login/",
            "/auth/loginx",
            "/auth/start",
            "/auth/start/",
            "/auth/callback/corp/x",
            "/Auth/login",
            "/sessions/",
            "/sessions/current/other",
            "/profile/",
            "/profiles",
            "/orders",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn missing_endpoints_are_routed() {
        let exists = |path: &str, [passwords, users, providers]: [bool; 3]| {
            let path = format!("/api/v1{path}");
            let path = Path::read(path.as_bytes()).unwrap();
            let offered = OfferedEndpoints {
                passwords,
                users,
                identities: users && providers,
                api_keys: false,
                introspection: passwords && users,
                providers,
            };
            find_below(&path, "/api/v1", offered).is_some()
        };
        let builtin = [true, true, false];
        let backend = [true, false, false];
        let builtin_and_providers = [true, true, true];
        let backend_and_providers = [true, false, true];
        let providers = [false, false, true];
        for (path, expected) in [
            ("/auth/register", [true, false, true, false, false]),
            ("/auth/login", [true, true, true, true, false]),
            ("/auth/refresh", [true, true, true, true, true]),
            ("/auth/start/corp", [false, false, true, true, true]),
            ("/profile", [true, false, true, false, true]),
            ("/profile/password", [true, false, true, false, true]),
            ("/profile/identities", [false, false, true, false, false]),
            ("/introspect", [true, false, true, false, false]),
            ("/sign-in", [true, true, true, true, true]),
        ] {
            let found = [
                builtin,
                backend,
                builtin_and_providers,
                backend_and_providers,
                providers,
            ];
            assert_eq!(
                found.map(|offered| exists(path, offered)),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn literal_segments_precede_parameters() {
        let found = |path| find(path).map(|endpoint| endpoint.path);
        assert_eq!(found("/sessions/current"), Some("/sessions/current"));
        assert_eq!(found("/sessions/x"), Some("/sessions/{id}"));
    }

    #[test]
    fn endpoints_use_credentials() {
        for (method, path, expected) in [
            (Method::POST, "/auth/logout", Optional),
            (Method::POST, "/auth/login", Ignored),
            (Method::POST, "/auth/refresh", Ignored),
            (Method::GET, "/sessions", Required),
            (Method::HEAD, "/sessions/x", Required),
            (Method::DELETE, "/sessions/x", Required),
            (Method::POST, "/auth/logout-all", Required),
            (Method::GET, "/sessions/current", Required),
            (Method::OPTIONS, "/sessions", Ignored),
            (Method::PUT, "/profile", Required),
            (Method::PUT, "/profile/password", Required),
            (Method::POST, "/introspect", ApiKey),
            (Method::GET, "/introspect", Ignored),
            (Method::GET, "/openapi.json", Ignored),
            (Method::GET, "/health", Ignored),
            (Method::GET, "/jwks.json", Ignored),
            (Method::HEAD, "/sign-in", Optional),
            (Method::POST, "/sign-in", Ignored),
            (Method::POST, "/sign-out", Optional),
        ] {
            assert_eq!(credential_use(&method, path), expected, "{method} {path}");
        }
    }
}
