//! Data that a client sends on an open stream is a use of its session: an idle timeout ends what is
//! silent, and nothing else.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::http2::Http2;
use crate::support::open::{Fleet, fleet};
use crate::support::upstream::Upstream;
use crate::support::websocket::{POLICY, Socket};

/// Long enough for a busy machine to send in time.
const IDLE: Duration = Duration::from_secs(5);
/// How long the client goes on sending: well past the idle timeout.
const IN_USE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(300);

fn scene() -> (Fleet, SignedIn) {
    let fleet = fleet(|config| config.set("/sessions/idle_timeout", json!("5s")));
    let alice = fleet.two.register("alice@example.com");
    (fleet, alice)
}

/// Sends again and again, for longer than the session may be idle.
fn goes_on(mut send: impl FnMut()) {
    let start = Instant::now();
    while start.elapsed() < IN_USE {
        send();
        std::thread::sleep(PAUSE);
    }
}

fn is_signed_in(gateway: &Gateway, who: &SignedIn) {
    gateway
        .ask(&Request::get("/private/a").cookie(&who.cookie))
        .ok();
}

fn session(who: &SignedIn) -> String {
    format!("Session {}", who.session_token)
}

#[test]
fn a_websocket_in_use_keeps_its_session_and_a_silent_one_does_not() {
    let (fleet, alice) = scene();
    let credential = ("Authorization", session(&alice));
    let headers = [(credential.0, credential.1.as_str())];
    let mut socket = Socket::open(fleet.two.public, "/private/ws", &headers)
        .ok()
        .unwrap();
    goes_on(|| assert_eq!(socket.echo("here"), "here"));
    // The other gateway reads of it in the store.
    is_signed_in(&fleet.one, &alice);
    let since = Instant::now();
    assert_eq!(socket.close_code(IDLE * 4), Some(POLICY));
    assert!(since.elapsed() > IDLE / 2, "{:?}", since.elapsed());
    let refused = fleet
        .one
        .ask(&Request::get("/private/a").cookie(&alice.cookie));
    refused.refused(401, "SESSION_EXPIRED");
}

#[test]
fn a_websocket_in_use_keeps_its_session_in_the_memory_store() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let gateway = Gateway::start(config.set("/sessions/idle_timeout", json!("5s")));
    let bob = gateway.register("bob@example.com");
    let credential = session(&bob);
    let headers = [("Authorization", credential.as_str())];
    let mut socket = Socket::open(gateway.public, "/private/ws", &headers)
        .ok()
        .unwrap();
    goes_on(|| assert_eq!(socket.echo("here"), "here"));
    is_signed_in(&gateway, &bob);
}

#[test]
fn a_long_upload_over_http1_keeps_its_session() {
    let (fleet, alice) = scene();
    let mut client = Client::connect(fleet.two.public);
    let head = "POST /private/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    client.send(format!("{head}Authorization: {}\r\n\r\n", session(&alice)));
    goes_on(|| {
        client.send("1\r\nx\r\n");
    });
    client.send("0\r\n\r\n");
    client.answer().ok();
    is_signed_in(&fleet.one, &alice);
}

#[test]
fn a_grpc_stream_in_use_keeps_its_session_and_a_silent_one_does_not() {
    let (fleet, alice) = scene();
    let connection = Http2::connect(fleet.two.public);
    let credential = session(&alice);
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", credential.as_str()),
    ];
    let (mut upload, mut call) = connection.open_both("/calls/Watch", &headers).unwrap();
    call.until("hi");
    goes_on(|| upload.send(b"\0\0\0\0\x01x").unwrap());
    is_signed_in(&fleet.one, &alice);
    let since = Instant::now();
    assert!(call.ends_within(IDLE * 4));
    assert!(since.elapsed() > IDLE / 2, "{:?}", since.elapsed());
}
