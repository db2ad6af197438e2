//! Upstream responses whose framing is not valid by RFC 9112 never reach a client, and their
//! connection serves no other request.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::raw::{read_request, serving};
use crate::support::wait::eventually;

/// A gateway in front of an upstream that responds to every request with these bytes, and the
/// number of upstream connections that have ended.
fn responding(reply: &'static str) -> (Gateway, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&ended);
    let upstream = serving(move |mut stream| {
        while read_request(&mut stream) && stream.write_all(reply.as_bytes()).is_ok() {}
        let _ = stream.read(&mut [0]);
        shared.fetch_add(1, Ordering::SeqCst);
    });
    (Gateway::start(Config::new(upstream)), ended)
}

#[track_caller]
fn is_rejected(reply: &'static str) {
    let (gateway, ended) = responding(reply);
    gateway
        .get("/public/a")
        .refused(502, "UPSTREAM_PROTOCOL_ERROR");
    eventually("the upstream connection ends", || {
        (ended.load(Ordering::SeqCst) == 1).then_some(())
    });
    let (status, body) = Http2::connect(gateway.public).ask("GET", "/public/a", &[]);
    assert_eq!(status, 502, "{reply}: {body}");
    assert!(body.contains("UPSTREAM_PROTOCOL_ERROR"), "{reply}: {body}");
    eventually("the upstream connection ends", || {
        (ended.load(Ordering::SeqCst) == 2).then_some(())
    });
}

#[test]
fn a_101_that_was_not_asked_for_is_no_tunnel() {
    is_rejected(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
    let (gateway, _) = responding(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
    );
    for upgrade in ["websocket", "h2c"] {
        let request = Request::get("/public/a")
            .header("Upgrade", upgrade)
            .header("Connection", "Upgrade");
        gateway
            .ask(&request)
            .refused(502, "UPSTREAM_PROTOCOL_ERROR");
    }
    // An early 100 is no response yet: the client still gets the 502.
    let (gateway, _) = responding(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    );
    gateway
        .get("/public/a")
        .refused(502, "UPSTREAM_PROTOCOL_ERROR");
}

#[test]
fn lengths_that_differ_or_stand_where_no_body_is_are_rejected() {
    is_rejected("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok");
    is_rejected("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok");
    is_rejected("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok");
    is_rejected("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok");
    is_rejected(
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
}

#[test]
fn transfer_codings_other_than_one_chunked_are_rejected() {
    is_rejected("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    is_rejected(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    is_rejected(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    is_rejected("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok");
    is_rejected("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    is_rejected("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
}

#[test]
fn equal_lengths_become_one() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (gateway, _) = responding(reply);
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
fn a_length_of_zero_where_no_body_is_is_dropped() {
    let (gateway, _) = responding("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    let mut client = Client::connect(gateway.public);
    let response = client.ask(&Request::get("/public/a"));
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
fn a_length_that_a_client_repeats_on_http2_reaches_the_upstream_once() {
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
