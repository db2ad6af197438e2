//! Assertions for upstreams, with those that were signed a short while ago remembered, so that
//! signing is not paid for each request.

use std::sync::Arc;

use http::HeaderValue;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::auth::session::Millis;
use crate::auth::token::{AssertionClaims, SignError, Tokens};
use crate::pipeline::admission::Identity;
use crate::telemetry::metrics::{CacheName, CacheOutcome, IntCounter, Metrics};

/// For so long an assertion is given again: it lives a minute, so one that is forwarded has half a
/// minute left at least.
const MAX_REUSE_AGE: Millis = 30_000;
/// Bytes, about.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// What room is made for at the start; the rest is taken when it is needed.
const INITIAL_CAPACITY: usize = 100;
/// Bytes that an entry takes beside its texts.
const ENTRY_OVERHEAD: u64 = 128;

/// Makes the assertions of one configuration.
pub struct Assertions {
    tokens: Arc<Tokens>,
    hits: IntCounter,
    misses: IntCounter,
    /// By everything that it says but the time: whoever's roles have changed gets another one.
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
    /// Remembers none yet.
    pub fn new(tokens: Arc<Tokens>, metrics: &Metrics) -> Assertions {
        Assertions {
            tokens,
            hits: metrics.cache_series(CacheName::Assertions, CacheOutcome::Hit),
            misses: metrics.cache_series(CacheName::Assertions, CacheOutcome::Miss),
            cache: Cache::with_weighter(INITIAL_CAPACITY, CACHE_BYTES, CachedAssertionWeight),
        }
    }

    /// Gives an upstream the gateway's word on whom a request is from, at `now`.
    ///
    /// # Errors
    /// Without a key that signs.
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
        let said = serde_json::to_string(&about).map_err(|_| SignError::Signing)?;
        let fresh = |signed: &CachedAssertion| {
            // Not one from the future either: the clock may have been set back.
            (signed.signed_at..signed.signed_at.saturating_add(MAX_REUSE_AGE)).contains(&now)
        };
        if let Some(signed) = self.cache.get(said.as_str()).filter(fresh) {
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
        self.cache.insert(said.into(), signed);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::token::{Algorithm, Claims, fixtures};
    use crate::pipeline::admission::{CredentialKind, Principal};

    fn identity(roles: &[&str]) -> Identity {
        Identity {
            principal: Principal::Token(Arc::new(Claims {
                trusted: Some(0),
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
            token: None,
            credential_kind: CredentialKind::Bearer,
            confirmed_at: 0,
        }
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
        // Even for an upstream of the name of the tokens' audience.
        let value = assertions.assertion_for(&tokens.audience, &identity(&[]), now);
        let value = value.unwrap();
        let found = tokens.verify(value.to_str().unwrap(), now, |_| Arc::default());
        let wrong = format!("{:?}", found.unwrap_err());
        assert!(wrong.contains("another type"), "{wrong}");
    }
}
