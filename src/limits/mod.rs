//! Rate limits: configured limits, counter names, algorithms as pure arithmetic, and decisions.

mod counter;
mod headers;
mod lease;
mod share;
mod sliding_log;
mod sliding_window;
mod state;
mod subscriber;
mod token_bucket;

use std::cmp::Reverse;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use counter::{Counter, CounterHasher};
use headers::HeaderTexts;
pub use headers::LimitHeaders;
use http::HeaderName;
pub use lease::{
    Lease, LeaseReply, LeaseRequest, LeaseTerms, LeasedUnit, TakeOutcome, UnusedUnits,
    share_divisor,
};
pub use share::CounterSnapshot;
pub use state::{CounterState, Micros, Rule};
pub use subscriber::subscriber_network;

/// The largest product of requests and milliseconds that is counted exactly: numbers in the
/// store's scripts are 64-bit floats. No comparison there needs a larger value.
const MAX_EXACT_PRODUCT: u128 = 1 << 53;

/// Whether this many requests (a limit or a burst) in this window are counted exactly. The
/// configuration rejects a limit that is not.
pub fn is_exact(requests: u64, window: Duration) -> bool {
    u128::from(requests).saturating_mul(window.as_millis()) <= MAX_EXACT_PRODUCT
}

/// A limit as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitDefinition {
    pub name: Arc<str>,
    pub algorithm: Algorithm,
    /// Requests admitted per window (for a token bucket: refilled per window).
    pub limit: u64,
    pub window: Duration,
    pub key: Vec<KeyPart>,
    /// Applies only to principals with one of these roles; empty: to all.
    pub roles: Vec<String>,
    /// Does not apply to principals with one of these roles.
    pub except_roles: Vec<String>,
    /// Behavior while the store is unavailable.
    pub on_outage: OnOutage,
    /// Counts and reports, but never refuses.
    pub shadow: bool,
    /// Gateways obtain units from the store in batches and decide locally.
    pub leased: bool,
}

/// A limit, with what follows from its definition alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    definition: LimitDefinition,
    header_texts: HeaderTexts,
}

impl Deref for Limit {
    type Target = LimitDefinition;

    fn deref(&self) -> &LimitDefinition {
        &self.definition
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Two counters; the previous window is weighted by the share of it that still counts.
    SlidingWindow,
    /// The times of all admissions; exact.
    SlidingLog,
    /// A bucket of `burst` tokens, refilled evenly at `limit` per window.
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
    /// Whether the part is available only once the request is authenticated.
    pub fn needs_identity(&self) -> bool {
        matches!(self, KeyPart::User | KeyPart::Session | KeyPart::Token)
    }
}

impl Algorithm {
    /// The algorithm's name in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::SlidingWindow => "sliding_window",
            Algorithm::SlidingLog => "sliding_log",
            Algorithm::TokenBucket { .. } => "token_bucket",
        }
    }
}

/// Behavior of a limit while the store does not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnOutage {
    /// The limit is enforced from this process's memory.
    Local,
    Allow,
    Deny,
}

impl Limit {
    pub fn new(definition: LimitDefinition) -> Limit {
        Limit {
            header_texts: HeaderTexts::new(&definition),
            definition,
        }
    }
}

impl LimitDefinition {
    /// Whether the limit's key or roles need an authenticated identity.
    pub fn needs_identity(&self) -> bool {
        self.key.iter().any(KeyPart::needs_identity)
            || !self.roles.is_empty()
            || !self.except_roles.is_empty()
    }

    /// Largest number of requests admitted at once: a bucket's burst, else the limit.
    pub fn quota(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            Algorithm::SlidingWindow | Algorithm::SlidingLog => self.limit,
        }
    }

    /// Whether the limit applies to a principal with these roles.
    pub fn applies_to(&self, roles: &[String]) -> bool {
        let has_any = |listed: &[String]| listed.iter().any(|role| roles.contains(role));
        (self.roles.is_empty() || has_any(&self.roles)) && !has_any(&self.except_roles)
    }
}

/// A limit and the counter that a request is charged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub limit: Arc<Limit>,
    pub counter: Counter,
}

/// The decision of one limit about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub limit: Arc<Limit>,
    pub allowed: bool,
    /// Requests left after this one.
    pub remaining: u64,
    /// Time until no past request counts any more.
    pub reset_after: Duration,
    /// Time until a retry is admitted if nothing else is sent; zero when allowed.
    pub retry_after: Duration,
    /// Whether the decision was made without the store.
    pub degraded: bool,
}

impl Decision {
    /// Whether this decision rejects the request; a shadow limit never does.
    pub fn refuses(&self) -> bool {
        !self.allowed && !self.limit.shadow
    }
}

/// Selects the decision that constrains the client most.
///
/// A refusal comes first (the one with the longest wait), then the least remaining. Shadow limits are
/// ignored.
pub fn strictest(decisions: &[Decision]) -> Option<&Decision> {
    decisions
        .iter()
        .filter(|decision| !decision.limit.shadow)
        .min_by_key(|d| (d.allowed, Reverse(d.retry_after), d.remaining))
}

#[cfg(test)]
pub(crate) mod tests;
