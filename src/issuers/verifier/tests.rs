#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::json;

use super::{MIB, TokenRejection, Verifier};
use crate::auth::session::Millis;
use crate::auth::token::Tokens;
use crate::auth::token::fixtures::{NOW, our_claims, secret, sign, tokens, with_member};
use crate::issuers::Issuers;
use crate::telemetry::metrics::Metrics;

fn verifier(tokens: Tokens) -> Verifier {
    let metrics = Arc::new(Metrics::new().unwrap());
    let issuers = Issuers::new(&tokens, &metrics, None);
    Verifier::new(Arc::new(tokens), issuers, &Metrics::new().unwrap())
}

#[tokio::test]
async fn cached_token_is_checked_against_the_clock() {
    let verifier = verifier(tokens(vec![]));
    let token = sign(
        &secret(1),
        &with_member(our_claims(), "nbf", json!(NOW / 1000 - 10)),
    );
    let first = verifier.verify(&token, NOW).await.unwrap();
    let second = verifier.verify(&token, NOW).await.unwrap();
    assert!(
        Arc::ptr_eq(&first, &second),
        "the first result was not cached"
    );
    let at = |now: Millis| verifier.verify(&token, now);
    assert!(at(NOW + 64_999).await.is_ok());
    assert_eq!(
        at(NOW + 65_000).await,
        Err(TokenRejection::Expired(first.clone()))
    );
    assert!(at(NOW - 5_000).await.is_ok());
    let future = Err(TokenRejection::Invalid("`nbf` or `iat` is in the future"));
    assert_eq!(at(NOW - 5_001).await, future);
    assert!(at(NOW).await.is_ok());
}

#[tokio::test]
async fn only_the_exact_valid_token_is_cached() {
    let verifier = verifier(tokens(vec![]));
    let good = sign(&secret(1), &our_claims());
    let forged = sign(&secret(9), &our_claims());
    assert!(verifier.verify(&good, NOW).await.is_ok());
    for bad in [format!("{good}="), format!("{good} "), forged] {
        assert!(verifier.verify(&bad, NOW).await.is_err(), "{bad}");
        assert!(verifier.verify(&bad, NOW).await.is_err(), "{bad}");
    }
    assert_eq!(verifier.cache.len(), 1);
}

#[tokio::test]
async fn cache_memory_is_bounded() {
    const BYTES: u64 = 16 * MIB;
    let (tokens, metrics) = (tokens(vec![]), Arc::new(Metrics::new().unwrap()));
    let issuers = Issuers::new(&tokens, &metrics, None);
    let verifier = Verifier::with_memory(BYTES, Arc::new(tokens), issuers, &metrics);
    for number in 0..3000 {
        let claims = with_member(our_claims(), "jti", json!(number.to_string()));
        let token = sign(
            &secret(1),
            &with_member(claims, "padding", json!("x".repeat(5500))),
        );
        verifier.verify(&token, NOW).await.unwrap();
    }
    assert!(verifier.cache.weight() <= BYTES);
    assert!(verifier.cache.len() > 500, "{}", verifier.cache.len());
}

#[tokio::test]
async fn configurations_do_not_share_the_cache() {
    let token = sign(&secret(2), &our_claims());
    assert!(verifier(tokens(vec![])).verify(&token, NOW).await.is_ok());
    let mut rotated = tokens(vec![]);
    rotated.verifying.truncate(1);
    assert!(verifier(rotated).verify(&token, NOW).await.is_err());
}

proptest::proptest! {
    #[test]
    fn verify_never_panics(token in "\\PC*", claims in "\\PC*") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let verifier = verifier(tokens(vec![]));
            let _ = verifier.verify(&token, NOW).await;
            let signed = crate::auth::token::fixtures::sign_text(&secret(1), r#"{"alg":"HS256"}"#, &claims);
            let _ = verifier.verify(&signed, NOW).await;
        });
    }
}
