//! Malformed, ambiguous, oversized and slow requests: refused with the right code, and never
//! forwarded.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::eventually;

/// Sends bytes; returns the status of the response, or none when the connection was closed instead.
fn status_of(gateway: &Gateway, bytes: &[u8]) -> Option<u16> {
    let mut client = Client::connect(gateway.public);
    client.try_send(bytes).ok()?;
    client
        .read_response_to("HEAD")
        .ok()
        .map(|response| response.status)
}

const MALFORMED: [&[u8]; 35] = [
    b"GET /public/a HTTP/1.1\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a, b\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: u@a\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a/b\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET http://private.example/ HTTP/1.1\r\nHost: public.example\r\n\r\n",
    b"POST /public/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /public/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"POST /public/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST /public/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /public/a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /public/a HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"POST /public/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"GET /public/a HTTP/1.1\nHost: a\n\n",
    b"GET /public/a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    b"GET /public/a HTTP/1.1\r\nHost: a\r\nX: a\x07b\r\n\r\n",
    b"GET /public/a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public/\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public/a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public/a<b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public/a>b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public/a`b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public/a?q=\"b\" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /public/a?q=<b> HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET ftp://a/public/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET file:///public/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://u@a/public/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a:81/public/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
];

#[test]
fn malformed_head_is_400_and_closes_the_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    for head in MALFORMED {
        let shown = String::from_utf8_lossy(head);
        let mut client = Client::connect(gateway.public);
        client.send(head);
        let response = client
            .read_response_to("GET")
            .unwrap_or_else(|e| panic!("{e}: {shown}"));
        assert_eq!(
            (response.status, response.code().as_str()),
            (400, "BAD_REQUEST"),
            "{shown}"
        );
        let id = response.json()["error"]["request_id"].clone();
        assert_eq!(response.header("x-request-id"), id.as_str(), "{shown}");
        assert_ne!(response.header("server"), Some("Pingora"), "{shown}");
        assert!(response.header("date").is_some(), "{shown}");
        assert!(client.closes_within(Duration::from_secs(2)), "{shown}");
        eventually("the access line", || {
            let mut events = gateway.events().into_iter();
            events.find(|event| event["request_id"] == id && event["code"] == "BAD_REQUEST")
        });
    }
    assert_eq!(upstream.requests(), 0);
    let counted = gateway.metric("portcullis_requests_total", &["code=\"400\""]);
    assert_eq!(counted, MALFORMED.len() as f64);
    gateway.get("/public/a").assert_ok();
}

#[test]
fn overlong_target_is_431() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/listeners/0/limits", json!({ "head": "256KiB" }));
    let gateway = Gateway::start(config);
    let target = format!("/public/{}", "a".repeat(66_000));
    gateway
        .get(&target)
        .assert_refused(431, "HEADERS_TOO_LARGE");
    let name = "a".repeat(66_000);
    let request = Request::get("/public/a").header(&name, "b");
    gateway
        .request(&request)
        .assert_refused(431, "HEADERS_TOO_LARGE");
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn forbidden_methods_are_405() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    for head in [
        "TRACE /public/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    ] {
        assert_eq!(status_of(&gateway, head.as_bytes()), Some(405), "{head}");
    }
    assert_eq!(upstream.requests(), 0);
    let tunnelled = Request::post("/private/a")
        .header("X-HTTP-Method-Override", "OPTIONS")
        .body("");
    gateway
        .request(&tunnelled)
        .assert_refused(401, "UNAUTHENTICATED");
}

/// Each is something else to some server behind.
const AMBIGUOUS: &[&str] = &[
    "/public/../private/a",
    "/public/%2e%2e/private",
    "/public/%2E./private",
    "/public/..;/private",
    "/public/..;x=1/private",
    "/public/..%2fprivate",
    "/public/..%5cprivate",
    "//private/a",
    "/./private/a",
    "/public//a",
    "/public/a%00",
    "/public/a%23b",
    "/public/a%3fb",
    "/public/a%3Bb",
    "/public/a%25b",
    "/public/%252e%252e/private",
    "/public/a%2fb",
    "/public/a%5Cb",
    "/public/a\\b",
    "/public/a%0d%0ab",
    "/public/a%7f",
    "/public/a%",
    "/public/a%2",
    "/public/a%zz",
    "/public/.",
    "/public/..",
    "/public/%2e",
    "/public/a/..",
    "/public#/private",
];

#[test]
fn ambiguous_path_is_400() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    for target in AMBIGUOUS {
        let response = gateway.get(target);
        assert_eq!(
            (response.status, response.code().as_str()),
            (400, "BAD_REQUEST"),
            "{target}"
        );
    }
    assert_eq!(upstream.requests(), 0);
    let guarded = [
        "/private",
        "/private/",
        "/%70rivate/a",
        "/private;x/a",
        "/private/a%20",
    ];
    for target in guarded {
        gateway.get(target).assert_refused(401, "UNAUTHENTICATED");
    }
    for target in [
        "/public/..a",
        "/public/a..",
        "/public/.well-known/x",
        "/public/a.b",
    ] {
        assert_eq!(gateway.get(target).echo().target(), target);
    }
    assert_eq!(
        gateway.get("/PRIVATE/a").status,
        404,
        "paths compare with case"
    );
}

#[test]
fn route_may_allow_encodings_but_no_dot_segments() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "files", "match": { "prefix": "/files" }, "auth": "none", "upstream": "echo",
        "allow_in_path": ["double_slash", "encoded_slash", "encoded_percent"],
    }));
    let gateway = Gateway::start(config);
    for target in ["/files/a%2fb", "/files/a//b", "/files/100%25"] {
        assert_eq!(gateway.get(target).echo().target(), target);
    }
    for target in [
        "/files/..%2fa",
        "/files/%2e%2e/a",
        "/files/a%2f..%2fb",
        "/files/a%5cb",
        "/public/a%2fb",
    ] {
        gateway.get(target).assert_refused(400, "BAD_REQUEST");
    }
}

#[test]
fn oversized_head_is_431() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/listeners/0/limits", json!({ "head": "8KiB" }));
    let gateway = Gateway::start(config);
    gateway
        .request(&Request::get("/public/a").header("X-Fits", &"x".repeat(6000)))
        .assert_ok();
    let many: String = (0..900).map(|n| format!("X-{n}: y\r\n")).collect();
    let heads = [
        format!(
            "GET /public/a HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n",
            "x".repeat(9000)
        ),
        format!(
            "GET /public/{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "x".repeat(9000)
        ),
        format!("GET /public/a HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        format!(
            "GET /public/a HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n",
            "a=b; ".repeat(2000)
        ),
    ];
    for head in heads {
        let status = status_of(&gateway, head.as_bytes());
        assert_eq!(status, Some(431), "{}", &head[..60]);
    }
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn slow_head_is_408() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/listeners/0/limits", json!({ "head_timeout": "2s" }));
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    let start = Instant::now();
    // A byte every 100 ms for three quarters of the time: no single read is slow, the whole is.
    for byte in b"GET /public/a H" {
        client.send([*byte]);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(
        client.read_response_to("GET").map(|a| a.status).ok(),
        Some(408)
    );
    let took = start.elapsed();
    assert!(
        took < Duration::from_millis(3200),
        "from the first byte, not the last: {took:?}"
    );
    assert!(client.closes_within(Duration::from_secs(1)));
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn idle_connection_is_closed_after_keepalive_timeout() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/listeners/0/limits", json!({ "keepalive": "500ms" }));
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    client
        .request(&Request::get("/public/a").header("Keep-Alive", "timeout=600"))
        .assert_ok();
    assert!(client.closes_within(Duration::from_secs(3)));
}

#[test]
fn excess_connections_wait_or_close() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/listeners/0/limits", json!({ "connections": 4 }));
    let gateway = Gateway::start(config);
    let mut held: Vec<_> = (0..4).map(|_| Client::connect(gateway.public)).collect();
    for client in &mut held {
        client.request(&Request::get("/public/a")).assert_ok();
    }
    let fifth = Client::connect(gateway.public).try_send(Request::get("/public/over").to_bytes());
    drop(fifth);
    held.clear();
    eventually("there is room again", || {
        let response = Request::get("/public/a").try_send(gateway.public).ok()?;
        (response.status == 200).then_some(())
    });
}

#[test]
fn bytes_after_upgrade_request_wait_for_the_101() {
    let recorder = Recorder::responding("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(recorder.address));
    let mut client = Client::connect(gateway.public);
    client.send(
        "GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
         GET /private/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let first = client.read_response_to("GET");
    assert!(first.is_ok_and(|response| response.status != 101));
    // The second request is authenticated by itself, or the connection ends.
    if let Ok(second) = client.read_response_to("GET") {
        assert!([400, 401].contains(&second.status), "{second:?}");
    }
    assert!(
        !recorder.bytes().contains("smuggled"),
        "{}",
        recorder.bytes()
    );
}

#[test]
fn pipelined_requests_are_decided_independently() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send(
        "GET /public/one HTTP/1.1\r\nHost: a\r\n\r\nGET /private/two HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.read_response().echo().target(), "/public/one");
    if let Ok(second) = client.read_response_to("GET") {
        assert_eq!(second.status, 401);
    }
    assert!(!upstream.has_seen("/private/two"));
}

#[test]
fn refused_body_is_not_parsed_as_a_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let inner = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for target in ["/private/a", "/nowhere", "/api/v1/auth/login"] {
        let mut client = Client::connect(gateway.public);
        let refused = client.request(&Request::post(target).body(inner));
        assert!(
            (400..500).contains(&refused.status),
            "{target}: {}",
            refused.status
        );
        if client
            .try_send(Request::get("/public/after").to_bytes())
            .is_ok()
            && let Ok(response) = client.read_response_to("GET")
        {
            assert_eq!(response.echo().target(), "/public/after", "{target}");
        }
    }
    assert!(!upstream.has_seen("smuggled"));
}

#[test]
fn connection_failures_before_a_request_are_counted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    assert_eq!(
        status_of(&gateway, b"\x16\x03\x01 nonsense\r\n\r\n"),
        Some(400)
    );
    eventually("it is counted", || {
        let requests = gateway.metric("portcullis_requests_total", &["code=\"400\""]);
        let refused = gateway.metric("portcullis_connections_refused_total", &[]);
        (requests + refused > 0.0).then_some(())
    });
    gateway.get("/public/a").assert_ok();
}
