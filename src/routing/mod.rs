//! Route selection by the HTTPRoute rules of the Kubernetes Gateway API, on an unambiguous path.

mod candidates;
pub mod cors;
pub mod endpoints;
mod host;
pub mod name_set;
mod path;
mod pattern;
mod sign_in_page;
mod sign_in_requirements;
mod table;
mod target;

use std::sync::Arc;
use std::time::Duration;

pub use host::{HostError, HostName, host_of, port_of};
use http::{HeaderName, HeaderValue, Method};
pub use name_set::NameSet;
pub use path::{Path, PathError};
pub use pattern::{PatternError, strip_prefix, stripped_part};
pub use sign_in_page::{SignInPage, SignInPageError, SignInPageForm};
pub use sign_in_requirements::{SignInRequirements, UnmetSignIn};
pub use table::{ExplainedRoute, RouteTable};
pub use target::path_length;

use crate::auth::credential::AcceptedCredentials;
use crate::limits::Limit;

/// Name and value of a header field of a request.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// One configured route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Position in [`RouteTable::routes`], which the table assigns.
    pub index: usize,
    pub name: Arc<str>,
    pub matches: Match,
    pub auth: Auth,
    pub accept: AcceptedCredentials,
    pub on_unauthenticated: OnUnauthenticated,
    pub require: Requirements,
    /// Limits that need no identity, in file order.
    pub limits_before: Vec<Arc<Limit>>,
    /// Limits that are checked after authentication, in file order.
    pub limits_after: Vec<Arc<Limit>>,
    /// Index into `Reloadable::upstreams` of the settings. `None`: the route is for front proxies only.
    pub upstream: Option<usize>,
    pub strip_prefix: bool,
    /// In bytes; `u64::MAX` if unlimited.
    pub max_body: u64,
    pub timeouts: TimeoutOverrides,
    pub forward_credentials: bool,
    /// Whether the upstream receives a signed assertion of the user's identity.
    pub assertion: bool,
    /// The field in which the upstream receives a token of the session's provider.
    pub provider_token: Option<ProviderTokenField>,
    /// Whether OAuth clients find its authorization servers by its metadata (RFC 9728).
    pub oauth_resource: bool,
    pub allow_in_path: PathAmbiguities,
    pub cors: Option<Cors>,
    pub identity_headers: Arc<IdentityHeaders>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
}

/// A field with a token of the provider at which a session signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderTokenField {
    /// In `Authorization`, the token is a bearer token; under any other name it is the whole value.
    pub header: HeaderName,
    pub token: ProviderTokenKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderTokenKind {
    Access,
    Id,
}

/// Conditions that a request must meet.
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub host: Option<HostPattern>,
    pub path: PathPattern,
    /// Any method if empty.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A host or a wildcard, in lower case, without port or trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// For `*.example.com`, this is `example.com`. Matches one or more additional labels.
    Wildcard(String),
}

/// A path or a prefix, as decoded segments of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    Exact(Vec<String>),
    Prefix(Vec<String>),
}

impl Default for PathPattern {
    fn default() -> Self {
        PathPattern::Prefix(Vec::new())
    }
}

/// The routes that are resources of OAuth clients: a resource is a host and a path, whatever the method
/// and the headers of its requests. `None`: there are none.
pub fn oauth_resources(routes: &[Route]) -> Option<RouteTable> {
    let resources = routes.iter().filter(|route| route.oauth_resource);
    let resources = resources.map(|route| Route {
        matches: Match {
            methods: Vec::new(),
            headers: Vec::new(),
            ..route.matches.clone()
        },
        ..route.clone()
    });
    let resources: Vec<Route> = resources.collect();
    (!resources.is_empty()).then(|| RouteTable::new(resources))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Required,
    Optional,
    None,
}

/// Response to a browser that is not signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OnUnauthenticated {
    /// 401.
    #[default]
    Refuse,
    /// A redirect to the gateway's sign-in page.
    Redirect,
    /// A redirect to another sign-in page.
    Page(Arc<SignInPage>),
}

/// Requirements on the user and on their sign-in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Any of these.
    pub roles: Vec<String>,
    /// All of these.
    pub scopes: Vec<String>,
    pub sign_in: Option<Box<SignInRequirements>>,
}

impl Requirements {
    /// Whether a user has the required roles and scopes.
    pub fn is_met_by(&self, roles: &[String], scopes: &[String]) -> bool {
        self.has_required_role(roles) && self.has_required_scopes(scopes)
    }

    /// Whether a user has one of the required roles, or none is required.
    pub fn has_required_role(&self, roles: &[String]) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|role| roles.contains(role))
    }

    /// Whether a user has all required scopes.
    pub fn has_required_scopes(&self, scopes: &[String]) -> bool {
        self.scopes.iter().all(|scope| scopes.contains(scope))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// `*` or `scheme://host[:port]`.
    pub origins: Vec<String>,
    pub methods: Vec<Method>,
    pub headers: Vec<HeaderName>,
    pub expose: Vec<HeaderName>,
    pub credentials: bool,
    pub max_age: Option<Duration>,
}

/// Overrides of the upstream's timeouts by a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeoutOverrides {
    pub connect: Option<Duration>,
    pub read: Option<Duration>,
    pub write: Option<Duration>,
    pub idle: Option<Duration>,
    pub stream_idle: Option<Duration>,
}

/// Headers that identify the user to a route's upstream. An empty list sends no header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    pub user: Vec<HeaderName>,
    pub email: Vec<HeaderName>,
    pub username: Vec<HeaderName>,
    pub name: Vec<HeaderName>,
    pub roles: Vec<HeaderName>,
    pub scopes: Vec<HeaderName>,
    pub session: Vec<HeaderName>,
}

impl IdentityHeaders {
    /// Iterates over all names.
    pub fn all(&self) -> impl Iterator<Item = &HeaderName> {
        [
            &self.user,
            &self.email,
            &self.username,
            &self.name,
            &self.roles,
            &self.scopes,
            &self.session,
        ]
        .into_iter()
        .flatten()
    }
}

/// Edits of a route to the fields of its requests or responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// The lines of `set` in an HTTP/1.1 head.
    pub lines: Box<[u8]>,
    /// The names that are set or removed: no received field passes under them.
    pub names: NameSet,
}

impl HeaderEdits {
    /// Of several values for one name, the last is set.
    pub fn new(set: Vec<(HeaderName, HeaderValue)>, remove: Vec<HeaderName>) -> HeaderEdits {
        let mut distinct: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(set.len());
        for (name, value) in set {
            distinct.retain(|(other, _)| *other != name);
            distinct.push((name, value));
        }
        let names = distinct.iter().map(|(name, _)| name.clone()).chain(remove);
        let mut lines = Vec::new();
        for (name, value) in &distinct {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        HeaderEdits {
            names: names.collect(),
            lines: lines.into(),
            set: distinct,
        }
    }
}

/// Path syntax that two programs could interpret differently. A route can allow some of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathAmbiguities(pub u8);

impl PathAmbiguities {
    pub const NONE: PathAmbiguities = PathAmbiguities(0);
    pub const DOUBLE_SLASH: PathAmbiguities = PathAmbiguities(1);
    pub const ENCODED_SLASH: PathAmbiguities = PathAmbiguities(1 << 1);
    pub const ENCODED_BACKSLASH: PathAmbiguities = PathAmbiguities(1 << 2);
    pub const ENCODED_SEMICOLON: PathAmbiguities = PathAmbiguities(1 << 3);
    pub const ENCODED_PERCENT: PathAmbiguities = PathAmbiguities(1 << 4);
    pub const ENCODED_QUESTION_MARK: PathAmbiguities = PathAmbiguities(1 << 5);
    pub const ENCODED_HASH: PathAmbiguities = PathAmbiguities(1 << 6);

    /// Returns the union of two sets.
    #[must_use]
    pub fn with(self, other: PathAmbiguities) -> PathAmbiguities {
        PathAmbiguities(self.0 | other.0)
    }

    /// Whether this set contains all of `other`.
    pub fn allows(self, other: PathAmbiguities) -> bool {
        other.0 & !self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_value_of_a_name_is_set() {
        let [a, b] = ["x-a", "x-b"].map(HeaderName::from_static);
        let [one, two] = ["1", "2"].map(HeaderValue::from_static);
        let set = vec![(a.clone(), one.clone()), (b.clone(), one.clone())];
        let set = [set, vec![(a.clone(), two.clone())]].concat();
        let edits = HeaderEdits::new(set, vec![HeaderName::from_static("x-c")]);
        assert_eq!(edits.set, [(b, one), (a, two)]);
        assert!(
            ["x-a", "x-b", "x-c"]
                .map(str::as_bytes)
                .iter()
                .all(|it| edits.names.contains(it))
        );
    }

    #[test]
    fn any_role_and_all_scopes_are_required() {
        let list = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (roles, scopes, held_roles, held_scopes, expected) in [
            ("", "", "", "", true),
            ("admin ops", "", "ops", "", true),
            ("admin ops", "", "user", "", false),
            ("", "read write", "", "write read more", true),
            ("", "read write", "admin", "read", false),
            ("admin", "read", "admin", "", false),
            ("admin", "read", "", "read", false),
        ] {
            let require = Requirements {
                roles: list(roles),
                scopes: list(scopes),
                sign_in: None,
            };
            let is_met = require.is_met_by(&list(held_roles), &list(held_scopes));
            assert_eq!(
                is_met, expected,
                "{roles}/{scopes} {held_roles}/{held_scopes}"
            );
        }
    }
}
