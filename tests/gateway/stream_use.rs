//! Data that a client sends on an open stream is a use of its session: an idle timeout ends idle
//! streams only.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::http2::Http2;
use crate::support::open_streams::{Fleet, start_fleet};
use crate::support::upstream::Upstream;
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

/// Long enough for a busy machine to send in time.
const IDLE: Duration = Duration::from_secs(5);
/// How long the client goes on sending: well past the idle timeout.
const USE_DURATION: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(300);

fn fixture() -> (Fleet, SignedIn) {
    let fleet = start_fleet(|config| config.set("/sessions/idle_timeout", json!("5s")));
    let alice = fleet.two.register("alice@example.com");
    (fleet, alice)
}

/// Sends again and again, for longer than the session may be idle.
fn send_for_use_duration(mut send: impl FnMut()) {
    let start = Instant::now();
    while start.elapsed() < USE_DURATION {
        send();
        std::thread::sleep(PAUSE);
    }
}

fn assert_signed_in(gateway: &Gateway, user: &SignedIn) {
    gateway
        .request(&Request::get("/private/a").cookie(&user.cookie))
        .assert_ok();
}

fn session(user: &SignedIn) -> String {
    format!("Session {}", user.session_token)
}

#[test]
fn active_websocket_extends_its_session() {
    let (fleet, alice) = fixture();
    let credential = ("Authorization", session(&alice));
    let headers = [(credential.0, credential.1.as_str())];
    let mut socket = WebSocketClient::open(fleet.two.public, "/private/ws", &headers)
        .ok()
        .unwrap();
    send_for_use_duration(|| assert_eq!(socket.echo("here"), "here"));
    // The other gateway reads of it in the store.
    assert_signed_in(&fleet.one, &alice);
    let since = Instant::now();
    assert_eq!(socket.close_code(IDLE * 4), Some(POLICY_VIOLATION));
    assert!(since.elapsed() > IDLE / 2, "{:?}", since.elapsed());
    let refused = fleet
        .one
        .request(&Request::get("/private/a").cookie(&alice.cookie));
    refused.assert_refused(401, "SESSION_EXPIRED");
}

#[test]
fn active_websocket_extends_its_session_in_memory() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let gateway = Gateway::start(config.set("/sessions/idle_timeout", json!("5s")));
    let bob = gateway.register("bob@example.com");
    let credential = session(&bob);
    let headers = [("Authorization", credential.as_str())];
    let mut socket = WebSocketClient::open(gateway.public, "/private/ws", &headers)
        .ok()
        .unwrap();
    send_for_use_duration(|| assert_eq!(socket.echo("here"), "here"));
    assert_signed_in(&gateway, &bob);
}

#[test]
fn long_http1_upload_extends_its_session() {
    let (fleet, alice) = fixture();
    let mut client = Client::connect(fleet.two.public);
    let head = "POST /private/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    client.send(format!("{head}Authorization: {}\r\n\r\n", session(&alice)));
    send_for_use_duration(|| {
        client.send("1\r\nx\r\n");
    });
    client.send("0\r\n\r\n");
    client.read_response().assert_ok();
    assert_signed_in(&fleet.one, &alice);
}

#[test]
fn active_grpc_stream_extends_its_session() {
    let (fleet, alice) = fixture();
    let connection = Http2::connect(fleet.two.public);
    let credential = session(&alice);
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", credential.as_str()),
    ];
    let (mut upload, mut call) = connection
        .open_with_upload("/calls/Watch", &headers)
        .unwrap();
    call.read_until("hi");
    send_for_use_duration(|| upload.send(b"\0\0\0\0\x01x").unwrap());
    assert_signed_in(&fleet.one, &alice);
    let since = Instant::now();
    assert!(call.ends_within(IDLE * 4));
    assert!(since.elapsed() > IDLE / 2, "{:?}", since.elapsed());
}
