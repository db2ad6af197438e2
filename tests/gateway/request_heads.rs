//! Unusual but valid request heads: absolute targets, empty lines before them, `OPTIONS *`, and
//! `Upgrade` to protocols other than WebSocket.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, StreamOutcome, request};
use crate::support::gateway::Gateway;
use crate::support::grpc;
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::eventually;

#[test]
fn absolute_target_is_forwarded_in_origin_form() {
    let recorder = Recorder::responding("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(recorder.address));
    let mut client = Client::connect(gateway.public);
    for (target, host, origin) in [
        ("http://a.test/public/1?b=c", "a.test", "/public/1?b=c"),
        ("HTTP://A.TEST/public/2", "a.test", "/public/2"),
        ("http://a.test:80/public/3", "a.test", "/public/3"),
        ("http://a.test/public/4", "A.test:80", "/public/4"),
        ("https://a.test:443/public/5", "a.test", "/public/5"),
        ("http://a.test:8080/public/6", "a.test:8080", "/public/6"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response().status, 200, "{target}");
        let seen = recorder.bytes();
        let line = format!("GET {origin} HTTP/1.1\r\n");
        assert!(seen.contains(&line), "{target}: {seen}");
        let host = format!("host: {host}\r\n");
        assert!(seen.to_lowercase().contains(&host.to_lowercase()), "{seen}");
    }
    assert!(!recorder.bytes().contains("://"), "{}", recorder.bytes());
}

#[test]
fn empty_line_before_a_request_is_ignored() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set(
        "/listeners/0/limits",
        json!({ "head_timeout": "1s", "keepalive": "30s" }),
    );
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    client.send("\r\nGET /public/first HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().echo().target(), "/public/first");
    for framing in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        client.send(format!(
            "POST /public/body HTTP/1.1\r\nHost: a\r\n{framing}\r\n"
        ));
        assert_eq!(client.read_response().echo().0["body"], "hello");
    }
    // An empty line alone begins no head, so the deadline of heads does not run.
    assert!(!client.closes_within(Duration::from_millis(1500)));
    client.send("GET /public/last HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().echo().target(), "/public/last");
    let many = "\r\n".repeat(8);
    let head = format!("{many}GET /public/a HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut client = Client::connect(gateway.public);
    client.send(head);
    client.read_response().assert_refused(400, "BAD_REQUEST");
}

#[test]
fn white_space_around_chunk_extensions_is_parsed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send(
        "POST /public/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5 ; a = b\r\nhello\r\n6;c =\"d\" ; e\r\n world\r\n0 ;f\r\n\r\n",
    );
    assert_eq!(client.read_response().echo().0["body"], "hello world");
}

#[test]
fn options_asterisk_is_handled_by_the_gateway() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    for target in ["*", "http://localhost"] {
        let response = client.request(&Request::new("OPTIONS", target));
        assert_eq!((response.status, response.body.len()), (200, 0), "{target}");
        let allow = response.header("allow").unwrap();
        assert!(
            allow.contains("OPTIONS") && allow.contains("PATCH"),
            "{allow}"
        );
        assert!(response.header("x-request-id").is_some());
    }
    let mut client = Frames::connect(gateway.public);
    let block = request("OPTIONS", "*", &[]);
    client
        .send(HEADERS, END_HEADERS | END_STREAM, 1, &block)
        .unwrap();
    assert_eq!(client.stream_outcome(1), StreamOutcome::Status(200));
    assert_eq!(upstream.requests(), 0);
    eventually("the access line", || {
        let mut events = gateway.events().into_iter();
        events.find(|event| event["method"] == "OPTIONS" && event["path"] == "*")
    });
}

/// Requests whose `Upgrade` is not served: each is an ordinary request.
const NOT_UPGRADES: [&str; 5] = [
    // Java's default client.
    "GET /private/a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
     HTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    "GET /private/a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
    "GET /private/a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    "POST /private/a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n",
    "GET /private/a HTTP/1.0\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n",
];

#[test]
fn non_websocket_upgrade_is_an_ordinary_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    for head in NOT_UPGRADES {
        let mut client = Client::connect(gateway.public);
        let body = if head.starts_with("POST") {
            "hello"
        } else {
            ""
        };
        let more = format!("Host: localhost\r\nCookie: {}\r\n", alice.cookie);
        client.send(format!("{head}{more}\r\n{body}"));
        let echo = client.read_response().echo();
        for name in ["upgrade", "http2-settings"] {
            assert_eq!(echo.header(name), None, "{head}");
        }
        let connection = echo.header("connection").unwrap_or_default();
        assert!(!connection.to_lowercase().contains("upgrade"), "{head}");
        assert_eq!(echo.0["body"], body, "{head}");
        if head.contains("HTTP/1.1") {
            let next = client.request(&Request::get("/public/next"));
            assert_eq!(next.echo().target(), "/public/next", "{head}");
        }
    }
}

#[test]
fn bytes_after_an_ignored_upgrade_are_the_next_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send(
        "GET /public/one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\
         GET /private/two HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.read_response().echo().target(), "/public/one");
    client
        .read_response()
        .assert_refused(401, "UNAUTHENTICATED");
    assert!(!upstream.has_seen("/private/two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_upgrade_reaches_an_http2_upstream() {
    let server = grpc::serve().await;
    let config = Config::new(server).set("/upstreams/echo/protocol", json!("h2"));
    let responses = tokio::task::spawn_blocking(move || {
        let gateway = Gateway::start(config);
        let heads = NOT_UPGRADES.iter().filter(|head| head.contains("HTTP/1.1"));
        let request = |head: &&str| {
            let head = head.replace("/private/", "/public/");
            let body = if head.starts_with("POST") {
                "hello"
            } else {
                ""
            };
            let mut client = Client::connect(gateway.public);
            client.send(format!("{head}Host: localhost\r\n\r\n{body}"));
            client.read_response_to("GET").unwrap()
        };
        heads.map(request).collect::<Vec<_>>()
    });
    for response in responses.await.unwrap() {
        assert_eq!(response.status, 200, "{response:?}");
    }
}
