//! Slow clients, slow responses, and stale connections.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

#[test]
fn stale_connection_is_replaced() {
    // It responds once per connection, announces keep-alive, and closes the connection at the
    // second request.
    let upstream = serve_connections(|mut stream| {
        if read_request(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            read_request(&mut stream);
        }
    });
    let gateway = Gateway::start(Config::new(upstream));
    for n in 0..12 {
        assert_eq!(gateway.get("/public/a").status, 200, "request {n}");
    }
}

#[test]
fn slow_client_body_is_not_an_upstream_failure() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/upstreams/echo/timeouts", json!({ "read": "200ms" }));
    let gateway = Gateway::start(config);
    for _ in 0..8 {
        let mut client = Client::connect(gateway.public);
        client.send("POST /public/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx");
        client
            .read_response()
            .assert_refused(408, "REQUEST_TIMEOUT");
    }
    gateway.get("/public/a").assert_ok();
    let shown = gateway.admin(Request::get("/admin/upstreams")).text();
    assert!(shown.contains("\"healthy\":true"), "{shown}");
}

#[test]
fn slow_response_is_forwarded_as_it_arrives() {
    let upstream = serve_connections(|mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst");
        std::thread::sleep(Duration::from_secs(5));
    });
    let gateway = Gateway::start(Config::new(upstream));
    let start = std::time::Instant::now();
    let mut client = Client::connect(gateway.public);
    client.send("GET /public/a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.read_until("first");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn http_1_0_client_gets_no_chunks() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send("GET /public/chunked HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let head = client.read_until("\r\n\r\n").to_ascii_lowercase();
    assert!(!head.contains("transfer-encoding"), "{head}");
}

#[test]
fn unsent_100_continue_body_closes_the_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send(
        "POST /private/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
         Content-Length: 5\r\n\r\n",
    );
    client
        .read_response()
        .assert_refused(401, "UNAUTHENTICATED");
    assert!(client.closes_within(Duration::from_secs(2)));
}

#[test]
fn refusal_with_stale_cookie_spends_no_limit() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .limit(
            "by-ip",
            json!({ "algorithm": "sliding_log", "limit": 5, "window": "10m", "key": "ip" }),
        )
        .limit(
            "by-user",
            json!({ "algorithm": "sliding_log", "limit": 3, "window": "10m", "key": "user" }),
        )
        .route(
            json!({ "name": "opt", "match": { "prefix": "/opt" }, "auth": "optional",
            "limits": ["by-user", "by-ip"], "upstream": "echo" }),
        )
        .route(
            json!({ "name": "ip", "match": { "prefix": "/ip" }, "auth": "none",
            "limits": ["by-ip"], "upstream": "echo" }),
        );
    let gateway = Gateway::start(config);
    let stale = format!("portcullis={}", "ab".repeat(32));
    let statuses: Vec<u16> = (0..5)
        .map(|_| {
            gateway
                .request(&Request::get("/opt/a").cookie(&stale))
                .status
        })
        .collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    // The refund follows the response.
    eventually("the last one has been given back", || {
        let counter = gateway.admin(Request::get("/admin/limits/by-ip/127.0.0.1"));
        (counter.data()["remaining"] == 2).then_some(())
    });
    let response = gateway.get("/ip/a");
    assert_eq!(
        (
            response.status,
            response.numeric_header("x-ratelimit-remaining")
        ),
        (200, 1)
    );
}
