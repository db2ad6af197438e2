//! Long responses: event streams, WebSockets, large and chunked bodies, and their end.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

#[test]
fn large_and_chunked_bodies_are_forwarded_whole() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    assert_eq!(gateway.get("/public/chunked").text(), "one two three");
    assert_eq!(
        gateway.get("/public/big?bytes=5000000").body.len(),
        5_000_000
    );
    let mut client = Client::connect(gateway.public);
    client.send("POST /public/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client
        .send("5\r\nhello\r\n")
        .send("6\r\n world\r\n0\r\n\r\n");
    assert_eq!(client.read_response().echo().0["body"], "hello world");
    let head = client.request(&Request::new("HEAD", "/public/a"));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        client
            .request(&Request::get("/public/after"))
            .echo()
            .target(),
        "/public/after"
    );
}

#[test]
fn event_stream_is_unbuffered_and_outlives_read_timeout() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/upstreams/echo/timeouts", json!({ "read": "1s" }));
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    client.send(
        Request::get("/public/sse")
            .header("Accept", "text/event-stream")
            .to_bytes(),
    );
    // The upstream sends no more until it is released: the event is not delayed for later data.
    client.read_until("data: hello\n\n");
    eventually("the stream is counted", || {
        (gateway.metric("portcullis_live_connections", &[]) == 1.0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(upstream.publish("later"), 1);
    client.read_until("data: later\n\n");
}

#[test]
fn websocket_closes_within_a_second_of_revocation() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let other = gateway.login("alice@example.com");
    assert_eq!(
        WebSocketClient::open(gateway.public, "/private/ws", &[]).err(),
        Some(401)
    );
    assert_eq!(
        upstream.requests(),
        0,
        "no upstream contact before the credential"
    );
    let bearer = format!("Bearer {}", alice.access_token);
    let authorization = [("Authorization", bearer.as_str())];
    let mut idle = WebSocketClient::open(gateway.public, "/private/ws", &authorization)
        .ok()
        .unwrap();
    assert_eq!(idle.echo("hello"), "hello");
    let second = format!("Bearer {}", other.access_token);
    let mut kept =
        WebSocketClient::open(gateway.public, "/private/ws", &[("Authorization", &second)])
            .ok()
            .unwrap();
    let end = Request::delete(&format!("/api/v1/sessions/{}", alice.session));
    assert_eq!(
        gateway.request(&end.bearer(&other.access_token)).status,
        204
    );
    assert_eq!(
        idle.close_code(PROPAGATION_DEADLINE),
        Some(POLICY_VIOLATION)
    );
    assert_eq!(kept.echo("still here"), "still here");
}

#[test]
fn event_stream_ends_with_its_session() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let mut client = Client::connect(gateway.public);
    client.send(
        Request::get("/private/sse")
            .cookie(&alice.cookie)
            .to_bytes(),
    );
    client.read_until("data: hello\n\n");
    let logout = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    assert_eq!(gateway.request(&logout).status, 204);
    assert!(client.closes_within(PROPAGATION_DEADLINE));
}

#[test]
fn cross_origin_upgrade_with_cookie_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let open = |origin: &str| {
        let headers = [("Cookie", alice.cookie.as_str()), ("Origin", origin)];
        WebSocketClient::open(gateway.public, "/private/ws", &headers).err()
    };
    assert_eq!(open("https://evil.example"), Some(403));
    assert_eq!(upstream.requests(), 0);
    assert_eq!(open(&format!("http://{}", gateway.public)), None);
}
