//! Rate limits: what the operator configured, whom a request is counted under, the algorithms as
//! arithmetic, and the decision that headers, metrics and log all read.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

/// One configured limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub name: Arc<str>,
    pub algorithm: Algorithm,
    /// Requests admitted in a window (for a token bucket: refilled in a window).
    pub limit: u64,
    pub window: Duration,
    pub key: Vec<KeyPart>,
    /// Binds only those who hold one of these; empty: everyone.
    pub roles: Vec<String>,
    /// Does not bind those who hold one of these.
    pub except_roles: Vec<String>,
    /// What holds while the store is gone.
    pub on_outage: OnOutage,
    /// Counts and reports, and never refuses.
    pub shadow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Two weighted counters: the previous window counts by the share of it that is still inside.
    SlidingWindow,
    /// The times of all admissions: exact.
    SlidingLog,
    /// A bucket of `burst` that refills evenly at `limit` a window.
    TokenBucket { burst: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPart {
    Ip,
    User,
    Session,
    Token,
    Route,
    Header(HeaderName),
}

impl KeyPart {
    /// Whether the part is known only once the request is authenticated.
    pub fn needs_identity(&self) -> bool {
        matches!(self, KeyPart::User | KeyPart::Session | KeyPart::Token)
    }
}

/// What becomes of a limit while the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnOutage {
    /// The same limit, kept in this process.
    Local,
    Allow,
    Deny,
}

impl Limit {
    /// Whether the limit waits for authentication: its key or its roles need an identity.
    pub fn needs_identity(&self) -> bool {
        self.key.iter().any(KeyPart::needs_identity)
            || !self.roles.is_empty()
            || !self.except_roles.is_empty()
    }

    /// Whether the limit binds somebody who holds these roles.
    pub fn binds(&self, roles: &[String]) -> bool {
        let holds = |wanted: &[String]| wanted.iter().any(|role| roles.contains(role));
        (self.roles.is_empty() || holds(&self.roles)) && !holds(&self.except_roles)
    }
}

/// One limit and the counter that a request would spend from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub limit: Arc<Limit>,
    pub counter: Counter,
}

/// Names one counter of one limit without revealing whose it is: the hash of the length-prefixed
/// key parts, so that no two combinations can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Counter(pub [u8; 16]);

/// What one limit said about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub limit: Arc<Limit>,
    pub allowed: bool,
    /// What is left after this request.
    pub remaining: u64,
    /// Until the limit is whole again.
    pub reset_after: Duration,
    /// Until a retry would be admitted, if nothing else is sent; zero when allowed.
    pub retry_after: Duration,
    /// Decided without the store.
    pub degraded: bool,
}
