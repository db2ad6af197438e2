//! Which route a request takes: the Kubernetes Gateway API's HTTPRoute rules over a path that has
//! exactly one reading.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::limits::Limit;
use crate::settings::TimeoutOverrides;

/// One configured route.
#[derive(Debug, Clone)]
pub struct Route {
    pub name: Arc<str>,
    pub matches: Match,
    pub auth: Auth,
    pub require: Require,
    /// Limits that need no identity, in the file's order.
    pub limits_before: Vec<Arc<Limit>>,
    /// Limits that wait for authentication, in the file's order.
    pub limits_after: Vec<Arc<Limit>>,
    /// Index into `Live::upstreams`.
    pub upstream: usize,
    pub strip_prefix: bool,
    /// Bytes.
    pub max_body: u64,
    pub timeouts: TimeoutOverrides,
    pub forward_credentials: bool,
    pub allow_in_path: Oddities,
    pub cors: Option<Cors>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
}

/// What a request must look like.
#[derive(Debug, Clone, Default)]
pub struct Match {
    pub host: Option<HostPattern>,
    pub path: PathPattern,
    /// Empty: any.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Lower case, without port or trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.com` holds `example.com`: it matches one or more further labels.
    Wildcard(String),
}

/// Decoded segments, as [`Path`] reads them.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Required,
    Optional,
    None,
}

/// Whom a route lets pass: any of the roles, all of the scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Require {
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
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

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// Things in a path that two readers could read differently. A route may allow some of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Oddities(pub u8);

impl Oddities {
    pub const NONE: Oddities = Oddities(0);
    pub const DOUBLE_SLASH: Oddities = Oddities(1);
    pub const ENCODED_SLASH: Oddities = Oddities(1 << 1);
    pub const ENCODED_BACKSLASH: Oddities = Oddities(1 << 2);
    pub const ENCODED_SEMICOLON: Oddities = Oddities(1 << 3);
    pub const ENCODED_PERCENT: Oddities = Oddities(1 << 4);
    pub const ENCODED_QUESTION_MARK: Oddities = Oddities(1 << 5);
    pub const ENCODED_HASH: Oddities = Oddities(1 << 6);

    /// The set that holds both.
    #[must_use]
    pub fn with(self, other: Oddities) -> Oddities {
        Oddities(self.0 | other.0)
    }

    /// Whether everything in `found` is allowed by this set.
    pub fn allows(self, found: Oddities) -> bool {
        found.0 & !self.0 == 0
    }
}

/// All routes of a configuration, arranged so that finding one does not depend on how many there are.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Arc<Route>>,
}

impl Table {
    /// In the file's order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}
