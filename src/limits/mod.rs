//! Rate limits: what the operator configured, whom a request is counted under, the algorithms as
//! arithmetic, and the decision that headers, metrics and log all read.

mod headers;
mod lease;
mod share;
mod sliding_log;
mod sliding_window;
mod state;
mod token_bucket;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

pub use headers::render_headers;
use http::HeaderName;
pub use lease::{
    Lease, LeaseReply, LeaseRequest, LeaseTerms, LeasedUnit, TakeOutcome, UnusedUnits,
    share_divisor,
};
use sha2::{Digest, Sha256};
pub use share::CounterSnapshot;
pub use state::{CounterState, Micros, Rule};

/// The largest product of a limit and its window in milliseconds (for a token bucket, of its burst
/// and its window) that all arithmetic stays exact for: 2^50, so that sums of a few of them fit
/// the 53 bits of a Lua number.
pub const MAX_EXACT_PRODUCT: u64 = 1 << 50;

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
    /// Gateways take small batches from the store, and decide from them without asking it.
    pub leased: bool,
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

impl Algorithm {
    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::SlidingWindow => "sliding_window",
            Algorithm::SlidingLog => "sliding_log",
            Algorithm::TokenBucket { .. } => "token_bucket",
        }
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

    /// Whether the arithmetic of this limit is exact: at least 1 request, a window of at least a
    /// millisecond, and no product beyond [`EXACT`]. A limit that is not must be refused at load.
    pub fn is_exact(&self) -> bool {
        let rule = Rule::of(self);
        let most = rule.limit.max(rule.burst);
        self.limit > 0
            && self.window >= Duration::from_millis(1)
            && self.algorithm != (Algorithm::TokenBucket { burst: 0 })
            && most
                .checked_mul(rule.width)
                .is_some_and(|units| units <= MAX_EXACT_PRODUCT)
    }

    /// The greatest number of requests that may come at once: a bucket's burst, else the limit.
    pub fn quota(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            Algorithm::SlidingWindow | Algorithm::SlidingLog => self.limit,
        }
    }

    /// Whether the limit binds somebody who holds these roles.
    pub fn applies_to(&self, roles: &[String]) -> bool {
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

impl Counter {
    /// Names the counter of a limit for these key parts, each with a tag that tells its kind.
    pub fn of<'a>(limit: &str, parts: impl IntoIterator<Item = (u8, &'a [u8])>) -> Counter {
        let mut naming = CounterHasher::of(limit);
        for (tag, bytes) in parts {
            naming.add(tag, bytes);
        }
        naming.finish()
    }

    /// Reads the 32 hex characters that [`Counter`] is displayed as.
    pub fn parse(text: &str) -> Option<Counter> {
        let mut name = [0; 16];
        hex::decode_to_slice(text, &mut name).ok()?;
        Some(Counter(name))
    }

    /// Writes the 32 hex characters into a buffer of the caller's.
    pub fn hex<'b>(&self, buffer: &'b mut [u8; 32]) -> &'b str {
        // The length fits and hex is ASCII; neither can fail.
        let _ = hex::encode_to_slice(self.0, buffer);
        std::str::from_utf8(buffer).unwrap_or_default()
    }
}

impl std::fmt::Display for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.hex(&mut [0; 32]))
    }
}

/// A [`Counter`]'s name in the making: part by part, so that none of them has to be kept.
pub struct CounterHasher(Sha256);

impl CounterHasher {
    pub fn of(limit: &str) -> CounterHasher {
        let mut naming = CounterHasher(Sha256::new());
        naming.update(limit.as_bytes());
        naming
    }

    pub fn add(&mut self, tag: u8, bytes: &[u8]) {
        self.update(&[tag]);
        self.update(bytes);
    }

    pub fn finish(self) -> Counter {
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(self.0.finalize()) {
            *to = from;
        }
        Counter(name)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

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

impl Decision {
    /// Whether this decision turns the request away: a shadow limit never does.
    pub fn refuses(&self) -> bool {
        !self.allowed && !self.limit.shadow
    }
}

/// Picks the decision that a client has to mind: a refusing one first (the one that lasts longest),
/// else the one with the least remaining. Shadow limits do not take part.
pub fn strictest(decisions: &[Decision]) -> Option<&Decision> {
    decisions
        .iter()
        .filter(|decision| !decision.limit.shadow)
        .min_by_key(|d| (d.allowed, Reverse(d.retry_after), d.remaining))
}

#[cfg(test)]
mod tests;
