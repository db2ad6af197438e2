//! Verification of bearer tokens, with a cache of verified ones.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::auth::credential::{BearerForm, bearer_form};
use crate::auth::session::Millis;
use crate::auth::token::{Claims, TokenSource, Tokens, VerifiedToken, VerifyError};
use crate::issuers::Issuers;
use crate::issuers::introspection::{IntrospectedToken, IntrospectionError, Introspections};
use crate::memory_budget::{MIB, MemoryBudget};
use crate::telemetry::metrics::{CacheName, CacheOutcome, Metrics, ShardedCounter};

/// Memory budget of the cache; the maximum holds more than half a million of the gateway's tokens.
const MEMORY_BUDGET: MemoryBudget = MemoryBudget {
    divisor: 8,
    min: 16 * MIB,
    max: 1024 * MIB,
};
/// Initial capacity of the cache, which grows as needed.
const INITIAL_CAPACITY: usize = 1_000;
/// Overhead of a cached token, in bytes. Its claims are about as long as its text.
const ENTRY_OVERHEAD: u64 = 512;

/// Verifier of the tokens of one configuration.
///
/// A reload that changes any token setting creates a new one, so that tokens accepted under one
/// configuration are never accepted from the cache under another.
pub struct Verifier {
    tokens: Arc<Tokens>,
    issuers: Issuers,
    introspections: Introspections,
    hits: ShardedCounter,
    misses: ShardedCounter,
    /// Keyed by the whole text, so that only an identical token is a hit. Contains only valid
    /// tokens, so it cannot be filled without a key.
    cache: Cache<Box<str>, CachedToken, CachedTokenWeight>,
}

/// A token as the cache holds it.
#[derive(Debug, Clone)]
pub struct CachedToken {
    verified: VerifiedToken,
    /// Generation of the fetched keys before they were used.
    generation: u64,
    /// The response of its introspection endpoint, where it needs one.
    introspected: Option<IntrospectedToken>,
}

/// Reason why a token is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRejection {
    /// Invalid, with the reason for the log.
    Invalid(&'static str),
    /// Valid, but expired.
    Expired(Arc<Claims>),
    /// The keys of the issuer were never fetched, so the token cannot be verified.
    KeysUnavailable,
    /// The introspection endpoint did not say whether the token is active.
    NotIntrospected(IntrospectionError),
}

#[derive(Clone)]
struct CachedTokenWeight;

impl Weighter<Box<str>, CachedToken> for CachedTokenWeight {
    fn weight(&self, token: &Box<str>, _: &CachedToken) -> u64 {
        2 * token.len() as u64 + ENTRY_OVERHEAD
    }
}

impl Verifier {
    /// Creates a verifier with an empty cache.
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
            introspections: Introspections::default(),
            hits: metrics.cache_series(CacheName::Tokens, CacheOutcome::Hit),
            misses: metrics.cache_series(CacheName::Tokens, CacheOutcome::Miss),
            cache: Cache::with_weighter(INITIAL_CAPACITY, bytes, CachedTokenWeight),
        }
    }

    /// Adds the introspection endpoints of the configuration.
    #[must_use]
    pub fn with_introspections(self, introspections: Introspections) -> Verifier {
        Verifier {
            introspections,
            ..self
        }
    }

    /// The introspection endpoints; the next configuration keeps the unchanged ones.
    pub fn introspections(&self) -> &Introspections {
        &self.introspections
    }

    /// The issuers whose keys it uses; the next configuration keeps the unchanged ones.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Returns a token that was verified before.
    pub fn cached(&self, token: &str, now: Millis) -> Option<CachedToken> {
        let leeway = self.tokens.leeway_millis();
        let Some(signed) = self.cache.get(token) else {
            let client = self.introspections.of_token(token)?;
            let introspected = client.cached(token, leeway, now)?;
            return Some(CachedToken {
                verified: introspected.token.clone(),
                generation: 0,
                introspected: Some(introspected),
            });
        };
        let introspected = match self.required_introspection(&signed.verified.claims) {
            None => None,
            Some(index) => {
                let client = self.introspections.get(index)?;
                Some(client.cached(token, leeway, now)?)
            }
        };
        Some(CachedToken {
            introspected,
            ..signed
        })
    }

    /// Whether a token that the cache holds is accepted at `now`.
    pub fn accepts(&self, cached: &CachedToken, now: Millis) -> bool {
        let is_accepted = self.is_current(cached)
            && self.time_rejection(&cached.verified, now).is_none()
            && self.is_introspection_current(cached, now);
        if is_accepted {
            self.hits.inc();
        }
        is_accepted
    }

    /// Verifies a token at `now`: by its signature, by introspection, or by both.
    pub async fn verify(&self, token: &str, now: Millis) -> Result<Arc<Claims>, TokenRejection> {
        let leeway = self.tokens.leeway_millis();
        let no_entry = TokenRejection::Invalid("no entry introspects the token");
        if !self.introspections.is_empty()
            && self.cache.get(token).is_none()
            && bearer_form(token, None) == BearerForm::Opaque
        {
            let client = self.introspections.of_token(token).ok_or(no_entry)?;
            // Boxed, here and below: few tokens are introspected.
            let introspected = Box::pin(client.verify(token, leeway, now)).await?;
            return Ok(introspected.token.claims);
        }
        let claims = self.verify_signature(token, now).await?;
        let Some(index) = self.required_introspection(&claims) else {
            return Ok(claims);
        };
        let client = self.introspections.get(index).ok_or(no_entry)?;
        let introspected = Box::pin(client.verify(token, leeway, now)).await?;
        if introspected.token.claims.certificate != claims.certificate {
            let reason = "the endpoint knows another client certificate than the token";
            return Err(TokenRejection::Invalid(reason));
        }
        Ok(claims)
    }

    /// Whether verifying a token calls an introspection endpoint, whatever the token is.
    pub fn needs_call(&self, token: &str, now: Millis) -> bool {
        !self.introspections.is_empty()
            && bearer_form(token, None) == BearerForm::Opaque
            && self.cached(token, now).is_none()
    }

    /// Index of the entry whose yes a signed token needs as well.
    fn required_introspection(&self, claims: &Claims) -> Option<usize> {
        let TokenSource::Trusted(index) = claims.source else {
            return None;
        };
        self.tokens.trusted.get(index)?.introspection
    }

    fn is_introspection_current(&self, cached: &CachedToken, now: Millis) -> bool {
        let Some(introspected) = &cached.introspected else {
            return true;
        };
        let is_current = introspected.is_current(now);
        if is_current {
            introspected.count_use();
        }
        is_current
    }

    /// Verifies a token by its signature. If its issuer may have newer keys, waits for them, at most a
    /// second.
    async fn verify_signature(
        &self,
        token: &str,
        now: Millis,
    ) -> Result<Arc<Claims>, TokenRejection> {
        if let Some(cached) = self
            .cache
            .get(token)
            .filter(|cached| self.is_current(cached))
        {
            self.hits.inc();
            return match self.time_rejection(&cached.verified, now) {
                None => Ok(cached.verified.claims),
                Some(rejection) => Err(rejection),
            };
        }
        self.misses.inc();
        let mut generation = self.issuers.generation();
        let mut result = self.check(token, now);
        if let Err(VerifyError::UnknownKey(issuers)) = &result {
            let refreshes = issuers.iter().map(|issuer| self.issuers.refresh(*issuer));
            futures_util::future::join_all(refreshes).await;
            generation = self.issuers.generation();
            result = self.check(token, now);
        }
        match result {
            Ok(verified) => {
                let claims = verified.claims.clone();
                let entry = CachedToken {
                    verified,
                    generation,
                    introspected: None,
                };
                self.cache.insert(token.into(), entry);
                Ok(claims)
            }
            Err(VerifyError::Expired(claims)) => Err(TokenRejection::Expired(claims)),
            Err(VerifyError::Invalid(reason)) => Err(TokenRejection::Invalid(reason)),
            Err(VerifyError::UnknownKey(issuers)) => {
                let keys_missing = issuers
                    .iter()
                    .any(|issuer| self.issuers.keys(*issuer).is_empty());
                Err(if keys_missing {
                    TokenRejection::KeysUnavailable
                } else {
                    TokenRejection::Invalid("no key of the issuer made the signature")
                })
            }
        }
    }

    /// Whether a cached token is still current: its issuer may have removed the key since.
    fn is_current(&self, cached: &CachedToken) -> bool {
        match cached.verified.claims.source {
            TokenSource::Own | TokenSource::Introspected(_) => true,
            TokenSource::Trusted(_) => cached.generation == self.issuers.generation(),
        }
    }

    fn check(&self, token: &str, now: Millis) -> Result<VerifiedToken, VerifyError> {
        self.tokens
            .verify(token, now, |issuer| self.issuers.keys(issuer))
    }

    /// Why a cached token is not valid at `now`.
    fn time_rejection(&self, cached: &VerifiedToken, now: Millis) -> Option<TokenRejection> {
        cached.time_rejection(self.tokens.leeway_millis(), now)
    }
}

impl VerifiedToken {
    /// Why a token, which was verified at another time, is not valid at `now`.
    pub(super) fn time_rejection(&self, leeway: Millis, now: Millis) -> Option<TokenRejection> {
        if self.not_before > now.saturating_add(leeway) {
            return Some(TokenRejection::Invalid("`nbf` or `iat` is in the future"));
        }
        let is_expired = now >= self.claims.expires_at.saturating_add(leeway);
        is_expired.then(|| TokenRejection::Expired(Arc::clone(&self.claims)))
    }
}

impl CachedToken {
    pub fn claims(&self) -> &Arc<Claims> {
        &self.verified.claims
    }
}

#[cfg(test)]
mod tests;
