//! Bearer tokens verified, with what was verified before remembered.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::auth::session::Millis;
use crate::auth::token::{Claims, Tokens, VerifiedToken, VerifyError};
use crate::issuers::Issuers;
use crate::memory_budget::{MIB, MemoryBudget};
use crate::telemetry::metrics::{CacheName, CacheOutcome, IntCounter, Metrics};

/// More than half a million tokens of our own at most.
const MEMORY_BUDGET: MemoryBudget = MemoryBudget {
    divisor: 8,
    min: 16 * MIB,
    max: 1024 * MIB,
};
/// What room is made for at the start; the rest is taken when it is needed.
const INITIAL_CAPACITY: usize = 1_000;
/// Bytes that a remembered token takes beside its text; its claims are about as long as that.
const ENTRY_OVERHEAD: u64 = 512;

/// Verifies the tokens of one configuration. A reload that changes any token setting makes a new
/// one, so what one configuration found good is never taken for good by another.
pub struct Verifier {
    tokens: Arc<Tokens>,
    issuers: Issuers,
    /// By the whole text: only the very same token is a hit. Only good ones are here, so nobody
    /// without a key can fill it.
    hits: IntCounter,
    misses: IntCounter,
    cache: Cache<Box<str>, CachedToken, CachedTokenWeight>,
}

#[derive(Clone)]
struct CachedToken {
    verified: VerifiedToken,
    /// That of the fetched keys before they were used.
    generation: u64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRejection {
    /// With the reason, for the log.
    Invalid(&'static str),
    /// Genuine and good, but its time is over.
    Expired(Arc<Claims>),
    /// The keys of its issuer were never fetched, so nothing is known of it.
    KeysUnavailable,
}

#[derive(Clone)]
struct CachedTokenWeight;

impl Weighter<Box<str>, CachedToken> for CachedTokenWeight {
    fn weight(&self, token: &Box<str>, _: &CachedToken) -> u64 {
        2 * token.len() as u64 + ENTRY_OVERHEAD
    }
}

impl Verifier {
    /// Makes a verifier that remembers nothing yet.
    pub fn new(tokens: Arc<Tokens>, issuers: Issuers, metrics: &Metrics) -> Verifier {
        Verifier::with_memory(MEMORY_BUDGET.bytes(), tokens, issuers, metrics)
    }

    fn with_memory(
        bytes: u64,
        tokens: Arc<Tokens>,
        issuers: Issuers,
        metrics: &Metrics,
    ) -> Verifier {
        Verifier {
            tokens,
            issuers,
            hits: metrics.cache_series(CacheName::Tokens, CacheOutcome::Hit),
            misses: metrics.cache_series(CacheName::Tokens, CacheOutcome::Miss),
            cache: Cache::with_weighter(INITIAL_CAPACITY, bytes, CachedTokenWeight),
        }
    }

    /// The issuers whose keys it uses; the next configuration takes over those that it shares.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Verifies a token at `now`. When its issuer may have newer keys than are known, this waits
    /// for them, at most a second.
    pub async fn verify(&self, token: &str, now: Millis) -> Result<Arc<Claims>, TokenRejection> {
        if let Some(known) = self.cache.get(token).filter(|known| self.is_current(known)) {
            self.hits.inc();
            return self.check_times(known.verified, now);
        }
        self.misses.inc();
        let mut generation = self.issuers.generation();
        let mut found = self.check(token, now);
        if let Err(VerifyError::UnknownKey(issuers)) = &found {
            let refreshes = issuers.iter().map(|issuer| self.issuers.refresh(*issuer));
            futures_util::future::join_all(refreshes).await;
            generation = self.issuers.generation();
            found = self.check(token, now);
        }
        match found {
            Ok(verified) => {
                let claims = verified.claims.clone();
                let remembered = CachedToken {
                    verified,
                    generation,
                };
                self.cache.insert(token.into(), remembered);
                Ok(claims)
            }
            Err(VerifyError::Expired(claims)) => Err(TokenRejection::Expired(claims)),
            Err(VerifyError::Invalid(reason)) => Err(TokenRejection::Invalid(reason)),
            Err(VerifyError::UnknownKey(issuers)) => {
                let lacking = issuers
                    .iter()
                    .any(|issuer| self.issuers.keys(*issuer).is_empty());
                Err(if lacking {
                    TokenRejection::KeysUnavailable
                } else {
                    TokenRejection::Invalid("no key of the issuer made the signature")
                })
            }
        }
    }

    /// An issuer may have withdrawn the key since.
    fn is_current(&self, known: &CachedToken) -> bool {
        known.verified.claims.trusted.is_none() || known.generation == self.issuers.generation()
    }

    fn check(&self, token: &str, now: Millis) -> Result<VerifiedToken, VerifyError> {
        self.tokens
            .verify(token, now, |issuer| self.issuers.keys(issuer))
    }

    /// Looks at the clock again: what is remembered was good at another time.
    fn check_times(
        &self,
        known: VerifiedToken,
        now: Millis,
    ) -> Result<Arc<Claims>, TokenRejection> {
        let leeway = self.tokens.leeway_millis();
        if known.not_before > now.saturating_add(leeway) {
            return Err(TokenRejection::Invalid("`nbf` or `iat` is in the future"));
        }
        if now >= known.claims.expires_at.saturating_add(leeway) {
            return Err(TokenRejection::Expired(known.claims));
        }
        Ok(known.claims)
    }
}

#[cfg(test)]
mod tests;
