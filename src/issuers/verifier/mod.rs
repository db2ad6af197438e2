//! Bearer tokens verified, with what was verified before remembered.

use std::sync::Arc;

use prometheus::IntCounter;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::auth::session::Millis;
use crate::auth::token::{Claims, Failure, Tokens, Verified};
use crate::issuers::Issuers;
use crate::memory::{MIB, Share};
use crate::telemetry::metrics::Metrics;

/// More than half a million tokens of our own at most.
const MEMORY: Share = Share {
    part: 8,
    least: 16 * MIB,
    most: 1024 * MIB,
};
/// What room is made for at the start; the rest is taken when it is needed.
const EXPECTED: usize = 1_000;
/// Bytes that a remembered token takes beside its text; its claims are about as long as that.
const OVERHEAD: u64 = 512;

/// Verifies the tokens of one configuration. A reload that changes any token setting makes a new
/// one, so what one configuration found good is never taken for good by another.
pub struct Verifier {
    tokens: Arc<Tokens>,
    issuers: Issuers,
    /// By the whole text: only the very same token is a hit. Only good ones are here, so nobody
    /// without a key can fill it.
    hits: IntCounter,
    misses: IntCounter,
    remembered: Cache<Box<str>, Remembered, Weight>,
}

#[derive(Clone)]
struct Remembered {
    verified: Verified,
    /// That of the fetched keys before they were used.
    generation: u64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// With the reason, for the log.
    Invalid(&'static str),
    /// Genuine and good, but its time is over.
    Expired(Arc<Claims>),
    /// The keys of its issuer were never fetched, so nothing is known of it.
    KeysUnavailable,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Box<str>, Remembered> for Weight {
    fn weight(&self, token: &Box<str>, _: &Remembered) -> u64 {
        2 * token.len() as u64 + OVERHEAD
    }
}

impl Verifier {
    /// Makes a verifier that remembers nothing yet.
    pub fn new(tokens: Arc<Tokens>, issuers: Issuers, metrics: &Metrics) -> Verifier {
        Verifier::within(MEMORY.bytes(), tokens, issuers, metrics)
    }

    fn within(bytes: u64, tokens: Arc<Tokens>, issuers: Issuers, metrics: &Metrics) -> Verifier {
        Verifier {
            tokens,
            issuers,
            hits: metrics.cache.with_label_values(&["tokens", "hit"]),
            misses: metrics.cache.with_label_values(&["tokens", "miss"]),
            remembered: Cache::with_weighter(EXPECTED, bytes, Weight),
        }
    }

    /// The issuers whose keys it uses; the next configuration takes over those that it shares.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Verifies a token at `now`. When its issuer may have newer keys than are known, this waits
    /// for them, at most a second.
    pub async fn verify(&self, token: &str, now: Millis) -> Result<Arc<Claims>, Rejected> {
        if let Some(known) = self
            .remembered
            .get(token)
            .filter(|known| self.is_current(known))
        {
            self.hits.inc();
            return self.still_good(known.verified, now);
        }
        self.misses.inc();
        let mut generation = self.issuers.generation();
        let mut found = self.check(token, now);
        if let Err(Failure::UnknownKey(issuers)) = &found {
            let refreshes = issuers.iter().map(|issuer| self.issuers.refresh(*issuer));
            futures_util::future::join_all(refreshes).await;
            generation = self.issuers.generation();
            found = self.check(token, now);
        }
        match found {
            Ok(verified) => {
                let claims = verified.claims.clone();
                let remembered = Remembered {
                    verified,
                    generation,
                };
                self.remembered.insert(token.into(), remembered);
                Ok(claims)
            }
            Err(Failure::Expired(claims)) => Err(Rejected::Expired(claims)),
            Err(Failure::Invalid(reason)) => Err(Rejected::Invalid(reason)),
            Err(Failure::UnknownKey(issuers)) => {
                let lacking = issuers
                    .iter()
                    .any(|issuer| self.issuers.keys(*issuer).is_empty());
                Err(if lacking {
                    Rejected::KeysUnavailable
                } else {
                    Rejected::Invalid("no key of the issuer made the signature")
                })
            }
        }
    }

    /// An issuer may have withdrawn the key since.
    fn is_current(&self, known: &Remembered) -> bool {
        known.verified.claims.trusted.is_none() || known.generation == self.issuers.generation()
    }

    fn check(&self, token: &str, now: Millis) -> Result<Verified, Failure> {
        self.tokens
            .check(token, now, |issuer| self.issuers.keys(issuer))
    }

    /// Looks at the clock again: what is remembered was good at another time.
    fn still_good(&self, known: Verified, now: Millis) -> Result<Arc<Claims>, Rejected> {
        let leeway = self.tokens.leeway_millis();
        if known.not_before > now.saturating_add(leeway) {
            return Err(Rejected::Invalid("`nbf` or `iat` is in the future"));
        }
        if now >= known.claims.expires_at.saturating_add(leeway) {
            return Err(Rejected::Expired(known.claims));
        }
        Ok(known.claims)
    }
}

#[cfg(test)]
mod tests;
