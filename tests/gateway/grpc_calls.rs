//! gRPC calls: how an error is reported, the limits of a message, and how long a stream may be
//! quiet.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::grpc::{self, Call, Reply, message};
use crate::support::http2::Http2;
use crate::support::upstream::Upstream;

/// How long a client waits for anything.
const DEADLINE: Duration = Duration::from_secs(10);

/// A gateway before the gRPC server, and a user.
async fn start(change: impl FnOnce(Config) -> Config + Send + 'static) -> (Gateway, SignedIn) {
    let server = grpc::serve().await;
    let config = Config::new(server).set("/upstreams/echo/protocol", json!("h2"));
    let starting = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(change(config));
        let alice = gateway.register("alice@example.com");
        (gateway, alice)
    });
    starting.await.unwrap()
}

async fn with_deadline<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.unwrap_or_else(|_| panic!("{what} took too long"))
}

/// Calls with one message and reads the whole response.
async fn call(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut call = Call::open(gateway.public, path, headers).await;
    call.write(&message(2), true);
    with_deadline(path, call.reply()).await
}

/// Checks an error that is a head alone.
#[track_caller]
fn assert_refused(reply: &Reply, status: &str, code: &str) {
    assert_eq!(reply.status, 200);
    assert!(reply.body.is_empty() && reply.trailers.is_empty());
    assert_eq!(reply.headers["content-type"], "application/grpc");
    assert_eq!(reply.headers["grpc-status"], status, "{:?}", reply.headers);
    assert_eq!(reply.headers["x-portcullis-code"], code);
    assert!(!reply.headers["grpc-message"].is_empty());
    assert!(reply.headers.contains_key("x-request-id"));
}

/// Routes that refuse: by role, by limit, and for want of an upstream.
fn with_refusals(config: Config) -> Config {
    let roles = json!({
        "name": "admins", "match": { "prefix": "/admins" }, "auth": "required",
        "upstream": "echo", "require": { "roles": ["admin"] },
    });
    let strong = json!({
        "name": "strong", "match": { "prefix": "/strong" }, "auth": "required",
        "upstream": "echo", "require": { "acr": ["mfa"] },
    });
    let dead = json!({
        "name": "dead", "match": { "prefix": "/dead" }, "auth": "none", "upstream": "dead",
    });
    let limited = json!({
        "name": "limited", "match": { "prefix": "/limited" }, "auth": "none",
        "upstream": "echo", "limits": ["few"],
    });
    let limit = json!({ "limit": 1, "window": "1m", "key": "ip" });
    let nothing = json!({ "servers": ["http://127.0.0.1:1"], "protocol": "h2" });
    config
        .route(roles)
        .route(strong)
        .route(dead)
        .route(limited)
        .set("/limits/few", limit)
        .set("/upstreams/dead", nothing)
        .set("/upstreams/echo/timeouts", json!({ "read": "500ms" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_reported_as_grpc_status() {
    let (gateway, alice) = start(with_refusals).await;
    let cookie = [("cookie", alice.cookie.as_str())];
    assert_refused(
        &call(&gateway, "/private/Echo", &[]).await,
        "16",
        "UNAUTHENTICATED",
    );
    assert_refused(
        &call(&gateway, "/nowhere/Echo", &[]).await,
        "5",
        "ROUTE_NOT_FOUND",
    );
    assert_refused(
        &call(&gateway, "/admins/Echo", &cookie).await,
        "7",
        "FORBIDDEN",
    );
    let stronger = call(&gateway, "/strong/Echo", &cookie).await;
    assert_refused(&stronger, "16", "INSUFFICIENT_AUTHENTICATION");
    let challenge = stronger.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("acr_values=\"mfa\""), "{challenge}");
    assert_refused(
        &call(&gateway, "/public/%2e%2e/Echo", &[]).await,
        "3",
        "BAD_REQUEST",
    );
    assert_refused(
        &call(&gateway, "/dead/Echo", &[]).await,
        "14",
        "UPSTREAM_UNREACHABLE",
    );
    assert_refused(
        &call(&gateway, "/public/Stall", &[]).await,
        "4",
        "UPSTREAM_TIMEOUT",
    );
    assert_eq!(
        call(&gateway, "/limited/Echo", &[])
            .await
            .outcome_field("grpc-status"),
        Some("0")
    );
    let limited = call(&gateway, "/limited/Echo", &[]).await;
    assert_refused(&limited, "8", "RATE_LIMITED");
    let wait: u64 = limited
        .outcome_field("grpc-retry-pushback-ms")
        .unwrap()
        .parse()
        .unwrap();
    let seconds: u64 = limited
        .outcome_field("retry-after")
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        wait > 0 && wait.div_ceil(1000) == seconds,
        "{wait} ms, {seconds} s"
    );
    assert!(limited.headers.contains_key("x-ratelimit-limit"));
}

#[test]
fn errors_over_http1_carry_status_in_the_head() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let request = Request::post("/private/Echo")
        .header("Content-Type", "application/grpc+proto")
        .body(message(2));
    let response = gateway.request(&request);
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert_eq!(response.header("grpc-status"), Some("16"));
    assert_eq!(
        response.header("x-portcullis-code"),
        Some("UNAUTHENTICATED")
    );
    let web = request.header("Accept", "*/*");
    let other = Request::post("/private/Echo").header("Content-Type", "application/grpc-web");
    gateway
        .request(&other)
        .assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(gateway.request(&web).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn message_size_is_bounded_not_stream_size() {
    let (gateway, _) = start(|config| {
        let small = json!({
            "name": "small", "match": { "prefix": "/small" }, "auth": "none", "upstream": "echo",
            "max_body": "1KiB",
        });
        config.route(small)
    })
    .await;
    let mut long = Call::open(gateway.public, "/small/Echo", &[]).await;
    for n in 0..8 {
        long.write(&message(1024), n == 7);
    }
    let reply = with_deadline("the stream", long.reply()).await;
    assert_eq!(reply.outcome_field("grpc-status"), Some("0"));
    assert_eq!(reply.body.len(), 8 * 1029);
    let mut large = Call::open(gateway.public, "/small/Echo", &[]).await;
    large
        .write(&message(10), false)
        .write(&message(1025), false);
    let reply = with_deadline("the refusal", large.reply()).await;
    assert_refused(&reply, "8", "BODY_TOO_LARGE");
}

#[test]
fn grpc_media_type_alone_lifts_no_limit() {
    // It speaks HTTP/1.1: nothing of this is a gRPC call to it.
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/routes/2/max_body", json!("1KiB"));
    let gateway = Gateway::start(config);
    let body = message(0).repeat(1000);
    let declared = Request::post("/public/a")
        .header("Content-Type", "application/grpc")
        .body(body.clone());
    let response = gateway.request(&declared);
    assert_eq!(
        response.header("x-portcullis-code"),
        Some("BODY_TOO_LARGE"),
        "{response:?}"
    );
    let mut client = Client::connect(gateway.public);
    client.send("POST /public/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc\r\n");
    client.send("Transfer-Encoding: chunked\r\n\r\n");
    client.send(
        [
            format!("{:x}\r\n", body.len()).as_bytes(),
            &body,
            b"\r\n0\r\n\r\n",
        ]
        .concat(),
    );
    let response = client.read_response();
    assert_eq!(
        response.header("x-portcullis-code"),
        Some("BODY_TOO_LARGE"),
        "{response:?}"
    );
    let two = Http2::connect(gateway.public);
    let headers = [("content-type", "application/grpc")];
    let response = two.upload("/public/a", &headers, &[&body]);
    assert_eq!(response.headers["x-portcullis-code"], "BODY_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_stream_outlives_read_timeout_until_revoked() {
    let (gateway, alice) =
        start(|config| config.set("/upstreams/echo/timeouts", json!({ "read": "300ms" }))).await;
    let cookie = [("cookie", alice.cookie.as_str())];
    let mut watch = Call::open(gateway.public, "/private/Watch", &cookie).await;
    watch.write(&message(2), true);
    let first = with_deadline("the first message", watch.next()).await;
    assert_eq!(first.unwrap().unwrap().len(), 7);
    // The client streams and is quiet.
    let mut echo = Call::open(gateway.public, "/public/Echo", &[]).await;
    echo.write(&message(2), false);
    let quiet = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    assert!(quiet.is_err(), "the stream is open: {quiet:?}");
    echo.write(&message(2), true);
    let reply = with_deadline("the echo", echo.reply()).await;
    assert_eq!(reply.outcome_field("grpc-status"), Some("0"));
    let gateway = tokio::task::spawn_blocking(move || {
        let revoked = gateway.admin(Request::delete(&format!(
            "/admin/sessions/{}",
            alice.session
        )));
        revoked.assert_ok();
        gateway
    });
    let _gateway = gateway.await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(1), watch.reply()).await;
    let reply = end.expect("a revoked stream ends within a second");
    assert_eq!(reply.trailers["grpc-status"], "16");
    assert!(!reply.trailers["grpc-message"].is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_end_is_reported_in_trailers() {
    let idle: Value = json!({ "read": "10s", "stream_idle": "300ms" });
    let (gateway, _) = start(|config| config.set("/upstreams/echo/timeouts", idle)).await;
    let reply = call(&gateway, "/public/Watch", &[]).await;
    assert_eq!(reply.body.len(), 7);
    assert_eq!(reply.trailers["grpc-status"], "4", "{:?}", reply.trailers);
    let mut broken = Call::open(gateway.public, "/public/Break", &[]).await;
    broken.write(&message(2), false);
    let first = with_deadline("the first message", broken.next()).await;
    assert_eq!(first.unwrap().unwrap().len(), 7);
    broken.write(b"", true);
    let reply = with_deadline("the end", broken.reply()).await;
    assert_eq!(reply.trailers["grpc-status"], "14", "{:?}", reply.trailers);
    assert_eq!(
        reply.trailers["x-portcullis-code"],
        "UPSTREAM_PROTOCOL_ERROR"
    );
}
