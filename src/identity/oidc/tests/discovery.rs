use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::verification::publish;
use super::*;
use crate::auth::token::Algorithm;
use crate::auth::token::fixtures::private;
use crate::rejection::CallbackFault;

/// Sets the document, and starts a client that gives up soon.
fn impatient(server: &LyingServer, document: Reply) -> Gateway {
    server.reply(DOCUMENT, document);
    let mut settings = provider(&server.base());
    settings.timeout = Duration::from_millis(300);
    Gateway::with(settings)
}

async fn start(gateway: &Gateway) -> Result<url::Url, CallbackFault> {
    gateway
        .client()
        .authorization_url(&authorization_request())
        .await
}

const DOCUMENT: &str = "/.well-known/openid-configuration";
const UNAVAILABLE: CallbackFault = CallbackFault::MetadataUnavailable;

#[tokio::test]
async fn many_starts_share_one_fetch() {
    let server = LyingServer::start().await;
    let document = server.document();
    let late = Reply::Late(Duration::from_millis(100), document);
    server.reply(DOCUMENT, late);
    let gateway = Gateway::of(&server);
    let starts = (0..200).map(|_| start(&gateway));
    let started = futures_util::future::join_all(starts).await;
    assert!(started.into_iter().all(|started| started.is_ok()));
    assert_eq!(server.discoveries(), 1);
    assert_eq!(
        gateway.requests(ProviderEndpoint::Discovery, ProviderOutcome::Ok),
        1
    );
    assert_eq!(gateway.up(), 1);
}

#[tokio::test]
async fn starts_fail_fast_while_the_provider_is_down_and_succeed_once_it_is_up() {
    // A bound socket that does not listen refuses connections and keeps the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let gateway = Gateway::with(provider(&format!("http://{address}")));
    assert_eq!(start(&gateway).await.err(), Some(UNAVAILABLE));
    assert_eq!(gateway.client().status(), ProviderStatus::Down);
    assert_eq!(
        gateway.client().take_status_change(),
        Some(ProviderStatus::Down)
    );
    assert_eq!(gateway.client().take_status_change(), None);
    // Within the second, no start waits, and none causes a fetch.
    for _ in 0..500 {
        assert_eq!(start(&gateway).now_or_never(), Some(Err(UNAVAILABLE)));
    }
    assert_eq!(
        gateway.requests(ProviderEndpoint::Discovery, ProviderOutcome::Error),
        1
    );

    let server = LyingServer::serve(socket.listen(16).unwrap());
    // Without keys, the provider would be down again at once.
    publish(&server, &[&private(Algorithm::ES256, "key")]);
    let before = Instant::now();
    while start(&gateway).await.is_err() {
        assert!(
            before.elapsed() < Duration::from_secs(3),
            "not fetched again"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.discoveries(), 1);
    assert_eq!(
        gateway.client().take_status_change(),
        Some(ProviderStatus::Up)
    );
}

/// Replies that make metadata unusable.
#[rustfmt::skip]
fn lies(server: &LyingServer, elsewhere: &LyingServer) -> Vec<(&'static str, Reply)> {
    let with = |name: &str, value: serde_json::Value| {
        let mut document = server.document();
        document.as_object_mut().unwrap().insert(name.to_owned(), value);
        Reply::json(200, &document)
    };
    let document = server.document().to_string();
    let nested = format!("{}1", "{\"a\":".repeat(100_000));
    let long = format!("{}{document}", " ".repeat(2 << 20));
    vec![
        ("another issuer", with("issuer", json!("https://id.example"))),
        ("a slash at the end", with("issuer", json!(format!("{}/", server.base())))),
        ("plain HTTP elsewhere", with("token_endpoint", json!("http://10.0.0.1/token"))),
        ("metadata service", with("jwks_uri", json!("http://169.254.169.254/latest"))),
        ("a file", with("jwks_uri", json!("file:///etc/passwd"))),
        ("a redirect", Reply::Redirect(format!("{}{DOCUMENT}", elsewhere.base()))),
        ("a redirect to itself", Reply::Redirect(DOCUMENT.to_owned())),
        ("404", Reply::text(404, &document)),
        ("201", Reply::text(201, &document)),
        ("429", Reply::text(429, &document)),
        ("500", Reply::text(500, &document)),
        ("HTML", Reply::Content(200, "text/html", b"<html>".to_vec())),
        ("a duplicate", Reply::text(200, &document.replacen('{', "{\"issuer\":1,", 1))),
        ("huge nesting", Reply::text(200, &nested)),
        ("2 MiB", Reply::text(200, &long)),
        ("endless", Reply::Endless),
        ("a slow drip", Reply::Drip),
        ("silence", Reply::Silence),
        ("a reset", Reply::Reset),
        ("not HTTP", Reply::Garbage),
        ("nothing", Reply::text(200, "")),
    ]
}

#[tokio::test]
async fn lying_documents_are_unusable() {
    let server = LyingServer::start().await;
    let elsewhere = LyingServer::start().await;
    for (name, reply) in lies(&server, &elsewhere) {
        let before = Instant::now();
        let gateway = impatient(&server, reply);
        assert_eq!(start(&gateway).await.err(), Some(UNAVAILABLE), "{name}");
        assert!(before.elapsed() < Duration::from_secs(2), "{name}");
        // A start may give up just before the fetch does.
        while gateway.client().status() == ProviderStatus::Unknown {
            assert!(before.elapsed() < Duration::from_secs(2), "{name}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(gateway.client().status(), ProviderStatus::Down, "{name}");
        assert_eq!(gateway.up(), 0, "{name}");
    }
    assert_eq!(elsewhere.discoveries(), 0, "a redirect was followed");
}

#[tokio::test]
async fn failed_refresh_keeps_the_metadata() {
    let server = LyingServer::start().await;
    let gateway = Gateway::of(&server);
    start(&gateway).await.unwrap();
    server.reply(DOCUMENT, Reply::text(500, ""));
    gateway.client().refresh_metadata().await;
    assert_eq!(server.discoveries(), 2);
    assert_eq!(gateway.client().status(), ProviderStatus::Down);
    assert!(start(&gateway).await.is_ok());
    assert_eq!(server.discoveries(), 2);
}

#[tokio::test]
async fn refresh_replaces_the_metadata() {
    let server = LyingServer::start().await;
    let gateway = Gateway::of(&server);
    assert_eq!(start(&gateway).await.unwrap().path(), "/authorize");
    let mut document = server.document();
    let moved = format!("{}/moved", server.base());
    document
        .as_object_mut()
        .unwrap()
        .insert("authorization_endpoint".to_owned(), json!(moved));
    server.reply(DOCUMENT, Reply::json(200, &document));
    gateway.client().refresh_metadata().await;
    assert_eq!(start(&gateway).await.unwrap().path(), "/moved");
}

#[tokio::test]
async fn reload_keeps_the_client_of_unchanged_settings() {
    let server = LyingServer::start().await;
    let gateway = Gateway::of(&server);
    start(&gateway).await.unwrap();
    let same = Arc::new(provider(&server.base()));
    let kept = Providers::start(&[same], Some(&gateway.providers), &gateway.metrics);
    assert!(Arc::ptr_eq(kept.get("corp").unwrap(), gateway.client()));
    assert_eq!(server.discoveries(), 1);

    let mut other = provider(&server.base());
    other.client_id = "another".to_owned();
    let changed = Providers::start(&[Arc::new(other)], Some(&kept), &gateway.metrics);
    let client = changed.get("corp").unwrap();
    assert!(!Arc::ptr_eq(client, gateway.client()));
    let url = client
        .authorization_url(&authorization_request())
        .await
        .unwrap();
    assert!(url.query().unwrap().contains("client_id=another"), "{url}");
}

#[tokio::test]
async fn reload_while_the_provider_is_down_keeps_the_metadata() {
    let server = LyingServer::start().await;
    let gateway = Gateway::of(&server);
    start(&gateway).await.unwrap();
    server.reply(DOCUMENT, Reply::text(500, ""));
    let mut other = provider(&server.base());
    other.title = "Another title".to_owned();
    let changed = Providers::start(
        &[Arc::new(other)],
        Some(&gateway.providers),
        &gateway.metrics,
    );
    let client = changed.get("corp").unwrap();
    assert!(!Arc::ptr_eq(client, gateway.client()));
    let url = client
        .authorization_url(&authorization_request())
        .await
        .unwrap();
    assert_eq!(url.path(), "/authorize");
    // The document of another issuer, or with other addresses, is another one.
    let mut moved = provider(&server.base());
    moved.endpoints.token = url::Url::parse("https://id.example/token").ok();
    moved.timeout = Duration::from_millis(300);
    let moved = Providers::start(&[Arc::new(moved)], Some(&changed), &gateway.metrics);
    let result = moved
        .get("corp")
        .unwrap()
        .authorization_url(&authorization_request())
        .await;
    assert_eq!(result.err(), Some(UNAVAILABLE));
}
