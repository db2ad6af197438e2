#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use url::Url;

use super::Issuers;
use super::remote_key_set::{MAX_BODY, is_secure_url, next_fetch_delay};
use crate::auth::token::fixtures::{
    NOW, foreign_claims, private, sign, sign_text, tokens, trusted, with_member,
};
use crate::auth::token::{Algorithm, Key, KeySource, Tokens, TrustedIssuer};
use crate::issuers::verifier::{TokenRejection, Verifier};
use crate::telemetry::metrics::Metrics;

/// An issuer that publishes configurable responses and counts requests.
struct Publisher {
    address: SocketAddr,
    response: Arc<Mutex<(StatusCode, String)>>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Publisher {
    async fn start(keys: &[Key]) -> Publisher {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Publisher::serve(listener, keys)
    }

    fn serve(listener: TcpListener, keys: &[Key]) -> Publisher {
        let response = Arc::new(Mutex::new((StatusCode::OK, jwks(keys))));
        let requests = Arc::new(AtomicUsize::new(0));
        let address = listener.local_addr().unwrap();
        let app = {
            let (current_response, counter) = (response.clone(), requests.clone());
            Router::new().fallback(async move || {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                let (status, body) = current_response.lock().clone();
                (status, [("location", "/elsewhere")], body)
            })
        };
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Publisher {
            address,
            response,
            requests,
            task,
        }
    }

    fn publish(&self, keys: &[Key]) {
        *self.response.lock() = (StatusCode::OK, jwks(keys));
    }

    fn request_count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn jwks(keys: &[Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.public_jwk().unwrap()).collect();
    json!({ "keys": keys }).to_string()
}

fn tokens_trusting(address: SocketAddr) -> Tokens {
    let url = Url::parse(&format!("http://{address}/jwks")).unwrap();
    tokens(vec![trusted(KeySource::Url(url))])
}

fn metrics() -> Arc<Metrics> {
    // Fails if another test of this process has installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arc::new(Metrics::new().unwrap())
}

fn verifier(address: SocketAddr, metrics: &Arc<Metrics>) -> Verifier {
    let tokens = tokens_trusting(address);
    let issuers = Issuers::new(&tokens, metrics, None);
    Verifier::new(Arc::new(tokens), issuers, &Metrics::new().unwrap())
}

fn token(key: &Key) -> String {
    sign(key, &foreign_claims())
}

fn fetches(metrics: &Metrics, outcome: &str) -> u64 {
    metrics.jwks_fetches.with_label_values(&[outcome]).get()
}

const FORGED: TokenRejection = TokenRejection::Invalid("no key of the issuer made the signature");

#[tokio::test]
async fn rotated_key_is_fetched_and_removed_key_rejected() {
    let (old, new) = (
        private(Algorithm::EdDSA, "old"),
        private(Algorithm::ES256, "new"),
    );
    let publisher = Publisher::start(std::slice::from_ref(&old)).await;
    let metrics = metrics();
    let verifier = verifier(publisher.address, &metrics);
    // The first fetch is still running, and the token waits for it.
    assert_eq!(
        verifier.verify(&token(&old), NOW).await.unwrap().user,
        "idp:u1"
    );
    assert_eq!(publisher.request_count(), 1);
    publisher.publish(std::slice::from_ref(&new));
    assert!(verifier.verify(&token(&new), NOW).await.is_ok());
    assert_eq!(publisher.request_count(), 2);
    assert_eq!(
        (fetches(&metrics, "ok"), fetches(&metrics, "failed")),
        (2, 0)
    );
    // A cached token is rejected as well.
    assert_eq!(verifier.verify(&token(&old), NOW).await, Err(FORGED));
}

#[tokio::test]
async fn rotated_key_without_kid_is_fetched() {
    let (old, new) = (
        private(Algorithm::EdDSA, "old"),
        private(Algorithm::ES256, "new"),
    );
    let nameless = |key: &Key| {
        let mut jwk = key.public_jwk().unwrap();
        jwk.as_object_mut().unwrap().remove("kid");
        (StatusCode::OK, json!({ "keys": [jwk] }).to_string())
    };
    let token = |key: &Key| {
        let header = json!({ "alg": key.algorithm.as_str() }).to_string();
        sign_text(key, &header, &foreign_claims().to_string())
    };
    let publisher = Publisher::start(&[]).await;
    *publisher.response.lock() = nameless(&old);
    let verifier = verifier(publisher.address, &metrics());
    verifier.verify(&token(&old), NOW).await.unwrap();
    *publisher.response.lock() = nameless(&new);
    assert!(verifier.verify(&token(&new), NOW).await.is_ok());
    assert_eq!(publisher.request_count(), 2);
    // A forged token triggers a fetch only after the cool-down.
    assert_eq!(verifier.verify(&token(&old), NOW).await, Err(FORGED));
    assert_eq!(publisher.request_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_unknown_keys_cost_one_fetch() {
    let known = private(Algorithm::EdDSA, "known");
    let publisher = Publisher::start(std::slice::from_ref(&known)).await;
    let verifier = Arc::new(verifier(publisher.address, &metrics()));
    verifier.verify(&token(&known), NOW).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let verifier = verifier.clone();
        let token = token(&private(Algorithm::ES256, &format!("unknown{number}")));
        tasks.spawn(async move { verifier.verify(&token, NOW).await });
    }
    assert!(
        tasks
            .join_all()
            .await
            .into_iter()
            .all(|result| result == Err(FORGED))
    );
    assert_eq!(publisher.request_count(), 2);
    // During the cool-down, there is no further fetch and no wait.
    let late = token(&private(Algorithm::ES256, "late"));
    let rejected = verifier.verify(&late, NOW).now_or_never();
    assert_eq!(rejected, Some(Err(FORGED)));
    assert_eq!(publisher.request_count(), 2);
}

#[tokio::test]
async fn forged_token_with_known_kid_triggers_no_fetch() {
    let known = private(Algorithm::EdDSA, "known");
    let publisher = Publisher::start(std::slice::from_ref(&known)).await;
    let verifier = verifier(publisher.address, &metrics());
    verifier.verify(&token(&known), NOW).await.unwrap();
    let forged = token(&private(Algorithm::ES256, "known"));
    assert_eq!(verifier.verify(&forged, NOW).await, Err(FORGED));
    assert_eq!(publisher.request_count(), 1);
}

#[tokio::test]
async fn keys_are_unavailable_until_the_issuer_returns() {
    // A bound socket that does not listen refuses connections and keeps the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let metrics = metrics();
    let verifier = verifier(address, &metrics);
    let key = private(Algorithm::EdDSA, "k");
    let first = verifier.verify(&token(&key), NOW).await;
    assert_eq!(first, Err(TokenRejection::KeysUnavailable));
    assert!(fetches(&metrics, "failed") >= 1);
    // A token that is invalid regardless of keys is rejected for that reason.
    let other = sign(&key, &with_member(foreign_claims(), "aud", json!("other")));
    let other = verifier.verify(&other, NOW).await;
    assert_eq!(
        other,
        Err(TokenRejection::Invalid("the token is for another audience"))
    );

    let listener = socket.listen(16).unwrap();
    let _publisher = Publisher::serve(listener, std::slice::from_ref(&key));
    let start = Instant::now();
    while verifier.verify(&token(&key), NOW).await.is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the keys were not fetched again"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn keys_are_kept_when_a_fetch_fails() {
    let key = private(Algorithm::EdDSA, "k");
    let long = jwks(std::slice::from_ref(&key)) + &" ".repeat(MAX_BODY);
    let redirected = (StatusCode::FOUND, String::new());
    for bad in [
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            jwks(std::slice::from_ref(&key)),
        ),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, r#"{"keys":[]}"#.to_owned()),
        (StatusCode::OK, long),
        redirected,
    ] {
        let publisher = Publisher::start(std::slice::from_ref(&key)).await;
        let metrics = metrics();
        let verifier = verifier(publisher.address, &metrics);
        verifier.verify(&token(&key), NOW).await.unwrap();
        *publisher.response.lock() = bad;
        let unknown = token(&private(Algorithm::ES256, "unknown"));
        assert_eq!(verifier.verify(&unknown, NOW).await, Err(FORGED));
        assert_eq!(
            (fetches(&metrics, "ok"), fetches(&metrics, "failed")),
            (1, 1)
        );
        assert_eq!(publisher.request_count(), 2, "a redirect was followed");
        let again = sign(&key, &with_member(foreign_claims(), "jti", json!("again")));
        assert!(verifier.verify(&again, NOW).await.is_ok());
    }
}

#[tokio::test]
async fn unchanged_issuer_keeps_its_keys_across_reload() {
    let key = private(Algorithm::EdDSA, "k");
    let publisher = Publisher::start(std::slice::from_ref(&key)).await;
    let metrics = metrics();
    let before = verifier(publisher.address, &metrics);
    before.verify(&token(&key), NOW).await.unwrap();

    let same = tokens_trusting(publisher.address);
    let issuers = Issuers::new(&same, &metrics, Some(before.issuers()));
    assert_eq!(issuers.keys(0).len(), 1);
    let after = Verifier::new(Arc::new(same), issuers, &Metrics::new().unwrap());
    drop(before);
    assert!(after.verify(&token(&key), NOW).await.is_ok());
    assert_eq!(publisher.request_count(), 1);

    let mut other = tokens_trusting(publisher.address);
    Arc::get_mut(other.trusted.first_mut().unwrap())
        .unwrap()
        .algorithms = vec![Algorithm::ES256];
    let issuers = Issuers::new(&other, &metrics, Some(after.issuers()));
    assert!(issuers.keys(0).is_empty());
}

#[tokio::test]
async fn reordered_issuers_keep_their_own_keys() {
    let (a, b) = (
        private(Algorithm::EdDSA, "k"),
        private(Algorithm::ES256, "k"),
    );
    let publishers = [
        Publisher::start(std::slice::from_ref(&a)).await,
        Publisher::start(std::slice::from_ref(&b)).await,
    ];
    let name = |index: usize| format!("https://{index}.example");
    let trusting = |order: [usize; 2]| {
        let issuers = order.map(|index| {
            let address = publishers.get(index).unwrap().address;
            let url = Url::parse(&format!("http://{address}/jwks")).unwrap();
            TrustedIssuer {
                issuer: name(index),
                ..trusted(KeySource::Url(url))
            }
        });
        tokens(issuers.into())
    };
    let token = |key: &Key, issuer: usize| {
        sign(
            key,
            &with_member(foreign_claims(), "iss", json!(name(issuer))),
        )
    };
    let metrics = metrics();
    let mut previous = None;
    for order in [[0, 1], [1, 0]] {
        let tokens = trusting(order);
        let issuers = Issuers::new(&tokens, &metrics, previous.as_ref());
        let verifier = Verifier::new(Arc::new(tokens), issuers.clone(), &metrics);
        previous = Some(issuers);
        for (key, issuer, expected) in
            [(&a, 0, true), (&b, 1, true), (&a, 1, false), (&b, 0, false)]
        {
            let verified = verifier.verify(&token(key, issuer), NOW).await;
            assert_eq!(verified.is_ok(), expected, "{order:?} {issuer}");
        }
    }
    // The keys were kept, not fetched again at the reload.
    assert_eq!(fetches(&metrics, "ok"), 2);
}

#[tokio::test]
async fn dropped_issuer_stops_its_task() {
    let publisher = Publisher::start(&[private(Algorithm::EdDSA, "k")]).await;
    let metrics = metrics();
    let issuers = Issuers::new(&tokens_trusting(publisher.address), &metrics, None);
    let shared = issuers.key_set(0).unwrap().state.clone();
    issuers.refresh(0).await;
    drop(issuers);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(Arc::strong_count(&shared), 1, "the task is still there");
}

#[tokio::test]
async fn symmetric_keys_in_public_sets_are_ignored() {
    let secret = json!({"kty": "oct", "k": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"});
    let publisher = Publisher::start(&[]).await;
    *publisher.response.lock() = (StatusCode::OK, json!({ "keys": [secret] }).to_string());
    let mut tokens = tokens_trusting(publisher.address);
    Arc::get_mut(tokens.trusted.first_mut().unwrap())
        .unwrap()
        .algorithms = vec![Algorithm::HS256];
    let issuers = Issuers::new(&tokens, &metrics(), None);
    issuers.refresh(0).await;
    assert!(issuers.keys(0).is_empty());
}

#[test]
fn keys_are_fetched_over_secure_urls_only() {
    let check =
        |url: &str, safe: bool| assert_eq!(is_secure_url(&Url::parse(url).unwrap()), safe, "{url}");
    check("https://idp.example/jwks", true);
    check("http://127.0.0.1:8080/jwks", true);
    check("http://127.8.8.8/jwks", true);
    check("http://[::1]/jwks", true);
    check("http://localhost/jwks", true);
    check("http://idp.example/jwks", false);
    check("http://10.0.0.1/jwks", false);
    check("http://localhost.example/jwks", false);
    check("http://127.0.0.1.example/jwks", false);
    check("file:///etc/passwd", false);
}

#[test]
fn retry_delay_doubles_up_to_the_maximum() {
    let check = |failures: u32, seconds: f64| {
        let pause = next_fetch_delay(failures).as_secs_f64();
        assert!(
            (seconds * 0.89..seconds * 1.11).contains(&pause),
            "{failures}: {pause}"
        );
    };
    check(0, 600.0);
    check(1, 1.0);
    check(2, 2.0);
    check(6, 32.0);
    check(7, 60.0);
    check(u32::MAX, 60.0);
}
