//! Upstream responses whose framing is not valid by RFC 9112 never reach a client, and their
//! connection serves no other request.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::wait::eventually;

/// A gateway in front of an upstream that responds to every request with these bytes, and the
/// number of upstream connections that have ended.
fn start_responding(reply: &'static str) -> (Gateway, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&ended);
    let upstream = serve_connections(move |mut stream| {
        while read_request(&mut stream) && stream.write_all(reply.as_bytes()).is_ok() {}
        let _ = stream.read(&mut [0]);
        shared.fetch_add(1, Ordering::SeqCst);
    });
    (Gateway::start(Config::new(upstream)), ended)
}

#[track_caller]
fn assert_rejected(reply: &'static str) {
    let (gateway, ended) = start_responding(reply);
    gateway
        .get("/public/a")
        .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    eventually("the upstream connection ends", || {
        (ended.load(Ordering::SeqCst) == 1).then_some(())
    });
    let (status, body) = Http2::connect(gateway.public).request("GET", "/public/a", &[]);
    assert_eq!(status, 502, "{reply}: {body}");
    assert!(body.contains("UPSTREAM_PROTOCOL_ERROR"), "{reply}: {body}");
    eventually("the upstream connection ends", || {
        (ended.load(Ordering::SeqCst) == 2).then_some(())
    });
}

#[test]
fn unsolicited_101_opens_no_tunnel() {
    assert_rejected(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
    let (gateway, _) = start_responding(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
    );
    for upgrade in ["websocket", "h2c"] {
        let request = Request::get("/public/a")
            .header("Upgrade", upgrade)
            .header("Connection", "Upgrade");
        gateway
            .request(&request)
            .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    }
    // An early 100 is no response yet: the client still gets the 502.
    let (gateway, _) = start_responding(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    );
    gateway
        .get("/public/a")
        .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
}

#[test]
fn conflicting_content_lengths_are_rejected() {
    assert_rejected("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok");
    assert_rejected("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok");
    assert_rejected("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok");
    assert_rejected("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok");
    assert_rejected(
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
}

#[test]
fn transfer_coding_must_be_a_single_chunked() {
    assert_rejected(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    assert_rejected(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    assert_rejected(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    assert_rejected("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok");
    assert_rejected("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    assert_rejected("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
}

#[test]
fn equal_content_lengths_are_merged() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (gateway, _) = start_responding(reply);
        let response = gateway.get("/public/a");
        assert_eq!(response.all("content-length"), ["2"], "{response:?}");
        assert_eq!(response.text(), "ok");
        let two = Http2::connect(gateway.public);
        let mut response = two.open("GET", "/public/a", &[], b"").unwrap();
        let lengths: Vec<_> = response.headers.get_all("content-length").iter().collect();
        assert_eq!(lengths, ["2"]);
        assert_eq!(response.text(), "ok");
    }
}

#[test]
fn zero_content_length_without_body_is_removed() {
    let (gateway, _) = start_responding("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    let mut client = Client::connect(gateway.public);
    let response = client.request(&Request::get("/public/a"));
    assert_eq!(
        (response.status, response.header("content-length")),
        (204, None)
    );
    let two = Http2::connect(gateway.public);
    let response = two.open("GET", "/public/a", &[], b"").unwrap();
    assert_eq!(response.status, 204);
    assert!(!response.headers.contains_key("content-length"));
}

#[test]
fn repeated_http2_content_length_is_forwarded_once() {
    let upstream = crate::support::upstream::Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let two = Http2::connect(gateway.public);
    let headers = [("content-length", "5"), ("content-length", "5")];
    let mut response = two.open("POST", "/public/a", &headers, b"hello").unwrap();
    let echo: serde_json::Value = serde_json::from_str(&response.text()).unwrap();
    let seen = echo["headers"].as_array().unwrap();
    let lengths = seen.iter().filter(|field| {
        field[0]
            .as_str()
            .unwrap()
            .eq_ignore_ascii_case("content-length")
    });
    assert_eq!(lengths.count(), 1, "{echo}");
    assert_eq!(echo["body"], "hello");
}
