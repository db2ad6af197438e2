//! The ends of streams of HTTP/2 upstreams.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2_upstream::Http2Upstream;
use crate::support::wait::eventually;

/// Much less than any timeout of the gateway.
const PROMPTLY: Duration = Duration::from_secs(10);

fn start() -> (Gateway, Http2Upstream) {
    let upstream = Http2Upstream::start();
    let config = Config::new(upstream.address).set("/upstreams/echo/protocol", json!("h2"));
    (Gateway::start(config), upstream)
}

#[test]
fn stream_that_ends_after_the_response_is_not_reset() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    for (method, path, body) in [
        ("GET", "/public/late-200", "hello"),
        ("GET", "/public/trailed", "hello"),
        ("GET", "/public/late-204", ""),
        ("GET", "/public/late-304", ""),
        ("HEAD", "/public/head/late-200", ""),
    ] {
        let response = client.request(&Request::new(method, path));
        assert_eq!(response.text(), body, "{path}");
        eventually("the end of the stream", || {
            (upstream.has_ended(path) || upstream.was_reset(path)).then_some(())
        });
        assert!(!upstream.was_reset(path), "{path}");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn stream_that_does_not_end_is_reset_and_keeps_no_client_waiting() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    let start = Instant::now();
    for _ in 0..100 {
        let response = client.request(&Request::get("/public/endless"));
        assert_eq!(response.text(), "hello");
    }
    assert!(start.elapsed() < PROMPTLY, "{:?}", start.elapsed());
    eventually("the reset", || {
        upstream.was_reset("/public/endless").then_some(())
    });
    assert_eq!(client.request(&Request::get("/public/length")).status, 200);
}

#[test]
fn body_that_ends_after_an_early_success_ends_its_stream() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    client.send(
        "POST /public/eager HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    assert_eq!(client.read_response().text(), "early");
    client.send("0\r\n\r\n");
    eventually("the end of the stream", || {
        let path = "/public/eager";
        (upstream.has_ended(path) || upstream.was_reset(path)).then_some(())
    });
    assert!(!upstream.was_reset("/public/eager"));
}
