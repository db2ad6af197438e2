//! The body of a refused request: a small one is drained and the connection is kept, a large one
//! costs the connection but never the response.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Request, connect_socket};
use crate::support::config::Config;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, StreamOutcome, request,
};
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::upstream::Upstream;

const CHUNKED: &str =
    "POST /private/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn small_refused_body_is_drained() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    // Bodies that look like requests: with a wrong offset, one of them would get a response.
    let inner = "GET /public/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let long = inner.repeat(1200);
    assert!(long.len() > 55_000 && long.len() < 64 * 1024);
    let mut client = Client::connect(gateway.public);
    for body in [inner, &long] {
        let whole = Request::post("/private/a").body(body);
        client
            .request(&whole)
            .assert_refused(401, "UNAUTHENTICATED");
        client.send(CHUNKED);
        let half = body.len() / 2;
        for part in [&body[..half], &body[half..]] {
            client.send(format!("{:x}\r\n{part}\r\n", part.len()));
        }
        client.send("0\r\nX-Trailer: yes\r\n\r\n");
        client
            .read_response()
            .assert_refused(401, "UNAUTHENTICATED");
        let after = client.request(&Request::get("/public/after"));
        assert_eq!(after.echo().target(), "/public/after");
    }
    assert!(!upstream.has_seen("smuggled"));
}

#[test]
fn late_refused_body_is_drained() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send(CHUNKED);
    client
        .read_response()
        .assert_refused(401, "UNAUTHENTICATED");
    client.send("5\r\nhello\r\n0\r\n\r\n");
    client.send("POST /private/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n");
    client
        .read_response()
        .assert_refused(401, "UNAUTHENTICATED");
    client.send("hello");
    client.request(&Request::get("/public/after")).assert_ok();
}

#[test]
fn large_refused_body_closes_after_the_response() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let part = "x".repeat(16 * 1024);
    let mut chunks = CHUNKED.to_owned();
    for _ in 0..40 {
        chunks.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
    }
    chunks.push_str("0\r\n\r\n");
    let length = Request::post("/private/a").body(part.repeat(40)).to_bytes();
    for request in [chunks.into_bytes(), length] {
        let mut client = Client::connect(gateway.public);
        let _ = client.try_send(&request);
        client
            .read_response()
            .assert_refused(401, "UNAUTHENTICATED");
        assert!(client.closes_within(Duration::from_secs(3)));
    }
}

#[test]
fn malformed_refused_body_closes_the_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send(CHUNKED);
    client.send("5\r\nhelloGET /public/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client
        .read_response()
        .assert_refused(401, "UNAUTHENTICATED");
    assert!(client.closes_within(Duration::from_secs(3)));
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn oversized_chunked_body_gets_413_without_reset() {
    let upstream = Upstream::start();
    let small = json!({ "name": "small", "match": { "prefix": "/small" }, "auth": "none",
        "upstream": "echo", "max_body": "64KiB" });
    let gateway = Gateway::start(Config::new(upstream.address).route(small));
    let mut stream = connect_socket(gateway.public).unwrap();
    let part = "x".repeat(16 * 1024);
    let chunk = format!("{:x}\r\n{part}\r\n", part.len());
    let body = format!("{}0\r\n\r\n", chunk.repeat(64));
    let request = CHUNKED.replace("/private/a", "/small/a") + &body;
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    assert!(!upstream.has_seen("small"));
}

#[test]
fn refused_expect_continue_keeps_the_connection() {
    let upstream = serve_connections(|mut stream| {
        while read_request(&mut stream) {
            let go_on = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            let heard = go_on.and_then(|()| stream.read_exact(&mut [0; 5]));
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            if heard.and_then(|()| stream.write_all(response)).is_err() {
                return;
            }
        }
    });
    let gateway = Gateway::start(Config::new(upstream));
    let mut client = Client::connect(gateway.public);
    for _ in 0..2 {
        client.send("POST /public/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n");
        client.send("Expect: 100-continue\r\n\r\n");
        assert_eq!(client.read_head().unwrap().status, 100);
        client.send("hello");
        client.read_response().assert_ok();
    }
}

#[test]
fn http2_upload_may_finish_after_refusal() {
    let upstream = Upstream::start();
    let small = json!({ "name": "small", "match": { "prefix": "/small" }, "auth": "none",
        "upstream": "echo", "max_body": "16KiB" });
    let gateway = Gateway::start(Config::new(upstream.address).route(small));
    // Refused before the body, and within it.
    for (path, status) in [("/private/a", 401), ("/small/a", 413)] {
        let mut client = Frames::connect(gateway.public);
        client.accept_settings();
        let head = request("POST", path, &[]);
        client.send(HEADERS, END_HEADERS, 1, &head).unwrap();
        for _ in 0..10 {
            client.send(DATA, 0, 1, &[b'x'; 16_000]).unwrap();
        }
        assert_eq!(client.stream_outcome(1), StreamOutcome::Status(status));
        // A reset would follow the response at once.
        client.send(PING, 0, 0, &[0; 8]).unwrap();
        loop {
            let frame = client.next().unwrap();
            assert_ne!(frame.kind, RST_STREAM);
            if frame.kind == PING {
                break;
            }
        }
        client.send(DATA, END_STREAM, 1, b"x").unwrap();
        client.send(PING, 0, 0, &[1; 8]).unwrap();
        let after = client.next().unwrap();
        assert_ne!(after.kind, RST_STREAM, "{path}");
    }
}
