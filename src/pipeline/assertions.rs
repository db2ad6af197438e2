//! Assertions for upstreams. Recent ones are cached, so that not every request pays for a
//! signature.

use std::sync::Arc;

use http::HeaderValue;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::auth::session::Millis;
use crate::auth::token::{AssertionClaims, SignError, Tokens};
use crate::pipeline::admission::Identity;
use crate::telemetry::metrics::{CacheName, CacheOutcome, Metrics, ShardedCounter};

/// How long an assertion is reused: it is valid for a minute, so a forwarded one has at least half
/// a minute left.
const MAX_REUSE_AGE: Millis = 30_000;
/// Approximate size in bytes.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Initial capacity; the cache grows as needed.
const INITIAL_CAPACITY: usize = 100;
/// Bytes of an entry beside its texts.
const ENTRY_OVERHEAD: u64 = 128;

/// Makes the assertions of one configuration.
pub struct Assertions {
    tokens: Arc<Tokens>,
    hits: ShardedCounter,
    misses: ShardedCounter,
    /// Keyed by every claim but the time, so that a change of roles leads to a new assertion.
    cache: Cache<Box<str>, CachedAssertion, CachedAssertionWeight>,
}

#[derive(Clone)]
struct CachedAssertion {
    value: HeaderValue,
    signed_at: Millis,
}

#[derive(Clone)]
struct CachedAssertionWeight;

impl Weighter<Box<str>, CachedAssertion> for CachedAssertionWeight {
    fn weight(&self, about: &Box<str>, signed: &CachedAssertion) -> u64 {
        (about.len() + signed.value.len()) as u64 + ENTRY_OVERHEAD
    }
}

impl Assertions {
    /// Starts with an empty cache.
    pub fn new(tokens: Arc<Tokens>, metrics: &Metrics) -> Assertions {
        Assertions {
            tokens,
            hits: metrics.cache_series(CacheName::Assertions, CacheOutcome::Hit),
            misses: metrics.cache_series(CacheName::Assertions, CacheOutcome::Miss),
            cache: Cache::with_weighter(INITIAL_CAPACITY, CACHE_BYTES, CachedAssertionWeight),
        }
    }

    /// Returns a signed assertion of a caller's identity for an upstream, at `now`.
    ///
    /// # Errors
    /// There is no signing key.
    pub fn assertion_for(
        &self,
        upstream: &str,
        identity: &Identity,
        now: Millis,
    ) -> Result<HeaderValue, SignError> {
        let about = AssertionClaims {
            upstream,
            user: identity.user(),
            session: identity.session().map(|session| session.id),
            email: identity.email(),
            roles: identity.roles(),
            scopes: identity.scopes(),
        };
        let claims_json = serde_json::to_string(&about).map_err(|_| SignError::Signing)?;
        let fresh = |signed: &CachedAssertion| {
            // One from the future is not reused either: the clock may have been set back.
            (signed.signed_at..signed.signed_at.saturating_add(MAX_REUSE_AGE)).contains(&now)
        };
        if let Some(signed) = self.cache.get(claims_json.as_str()).filter(fresh) {
            self.hits.inc();
            return Ok(signed.value);
        }
        self.misses.inc();
        let text = self.tokens.sign_assertion(about, now)?;
        let value = HeaderValue::try_from(text).map_err(|_| SignError::Signing)?;
        let signed = CachedAssertion {
            value: value.clone(),
            signed_at: now,
        };
        self.cache.insert(claims_json.into(), signed);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::token::{Algorithm, Claims, TokenSource, fixtures};
    use crate::pipeline::admission::{CredentialKind, Principal};

    fn identity(roles: &[&str]) -> Identity {
        Identity::new(
            Principal::Token(Arc::new(Claims {
                source: TokenSource::Trusted(0),
                issuer: "https://idp.example".to_owned(),
                user: "ann".to_owned(),
                session: None,
                blacklist_key: "t".to_owned(),
                issued_at: None,
                expires_at: 0,
                email: Some("ann@example.com".to_owned()),
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
                scopes: Vec::new(),
                certificate: None,
            })),
            None,
            CredentialKind::Bearer,
            0,
        )
    }

    fn tokens() -> Arc<Tokens> {
        let key = fixtures::private(Algorithm::EdDSA, "k");
        Arc::new(Tokens {
            signing: Some(key.clone()),
            verifying: vec![key],
            ..fixtures::tokens(Vec::new())
        })
    }

    #[test]
    fn assertion_is_reused_for_half_its_lifetime() {
        let assertions = Assertions::new(tokens(), &Metrics::new().unwrap());
        let start = 1_700_000_000_000;
        let of = |upstream: &str, roles: &[&str], now| {
            assertions
                .assertion_for(upstream, &identity(roles), now)
                .unwrap()
        };
        let first = of("orders", &["a"], start);
        assert_eq!(of("orders", &["a"], start + 29_999), first);
        assert_ne!(of("orders", &["a"], start + 30_000), first);
        assert_ne!(of("other", &["a"], start), first);
        assert_ne!(of("orders", &["a", "b"], start), first);
        assert_ne!(of("orders", &["a"], start - 60_000), first);
    }

    #[test]
    fn assertion_is_not_an_access_token() {
        let tokens = tokens();
        let assertions = Assertions::new(Arc::clone(&tokens), &Metrics::new().unwrap());
        let now = 1_700_000_000_000;
        // Even for an upstream with the name of the tokens' audience.
        let value = assertions.assertion_for(&tokens.audience, &identity(&[]), now);
        let value = value.unwrap();
        let found = tokens.verify(value.to_str().unwrap(), now, |_| Arc::default());
        let wrong = format!("{:?}", found.unwrap_err());
        assert!(wrong.contains("not an access token"), "{wrong}");
    }
}
