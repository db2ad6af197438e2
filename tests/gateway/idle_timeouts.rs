//! Idle timeouts of upstreams: `read` within a response, `stream_idle` within a stream. The
//! response decides which one applies, not the request.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, StreamOutcome};
use crate::support::gateway::Gateway;
use crate::support::grpc;
use crate::support::http2::Http2;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually};

const ACCEPT_EVENT_STREAM: (&str, &str) = ("Accept", "text/event-stream");

/// The idle timeout of the upstream: much longer than it takes to respond on a busy machine.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// A gateway whose upstream may be silent for [`READ`].
fn gateway(upstream: std::net::SocketAddr, stream_idle: &serde_json::Value) -> Gateway {
    let timeouts = json!({ "read": "1s", "stream_idle": stream_idle });
    Gateway::start(Config::new(upstream).set("/upstreams/echo/timeouts", timeouts))
}

#[test]
fn unrequested_event_stream_outlives_read_timeout() {
    let upstream = Upstream::start();
    let gateway = gateway(upstream.address, &json!(null));
    let mut client = Client::connect(gateway.public);
    client.send(Request::post("/public/sse").body("a question").to_bytes());
    client.read_until("data: hello\n\n");
    let two = Http2::connect(gateway.public);
    let mut stream = two
        .open("POST", "/public/sse", &[], b"a question")
        .ok()
        .unwrap();
    stream.read_until("data: hello\n\n");
    // Longer than the timeout and what it may be overrun by, on both.
    std::thread::sleep(READ_TIMEOUT * 3 / 2);
    assert_eq!(upstream.publish("later"), 2);
    client.read_until("data: later\n\n");
    stream.read_until("data: later\n\n");
}

#[test]
fn event_stream_media_type_is_case_insensitive() {
    let upstream = serve_connections(|mut stream| {
        read_request(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\n\r\ndata: hello\n\n";
        let _ = stream.write_all(head.as_bytes());
        // Longer than the timeout and what it may be overrun by.
        std::thread::sleep(READ_TIMEOUT * 3 / 2);
        let _ = stream.write_all(b"data: later\n\n");
        read_request(&mut stream);
    });
    let gateway = gateway(upstream, &json!(null));
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/a").to_bytes());
    client.read_until("data: later\n\n");
}

#[test]
fn accept_header_does_not_lift_read_timeout() {
    let upstream = Upstream::start();
    let gateway = gateway(upstream.address, &json!(null));
    let start = Instant::now();
    let stalled =
        Request::get("/public/slow?ms=10000").header(ACCEPT_EVENT_STREAM.0, ACCEPT_EVENT_STREAM.1);
    gateway
        .request(&stalled)
        .assert_refused(504, "UPSTREAM_TIMEOUT");
    let (status, body) = Http2::connect(gateway.public).request(
        "GET",
        "/public/slow?ms=10000",
        &[ACCEPT_EVENT_STREAM],
    );
    assert_eq!(status, 504, "{body}");
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "{:?}",
        start.elapsed()
    );
    gateway
        .get("/public/slow?ms=10000")
        .assert_refused(504, "UPSTREAM_TIMEOUT");
}

#[test]
fn stalled_response_is_aborted_as_incomplete() {
    for head in [
        "Content-Length: 20",
        "X-Until: the connection ends",
        "Transfer-Encoding: chunked",
    ] {
        let upstream = serve_connections(move |mut stream| {
            read_request(&mut stream);
            let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nabcde\r\n");
            let _ = stream.write_all(head.as_bytes());
            // Until the gateway has had enough.
            read_request(&mut stream);
        });
        let gateway = gateway(upstream, &json!(null));
        let mut client = Client::connect(gateway.public);
        client.send(
            Request::get("/public/a")
                .header(ACCEPT_EVENT_STREAM.0, ACCEPT_EVENT_STREAM.1)
                .to_bytes(),
        );
        let response = client.read_response_to("GET");
        assert!(response.is_err(), "{head}: {response:?}");
    }
}

#[test]
fn stream_ends_after_stream_idle() {
    let upstream = Upstream::start();
    let gateway = gateway(upstream.address, &json!("2s"));
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/sse").to_bytes());
    client.read_until("data: hello\n\n");
    let start = Instant::now();
    assert!(client.closes_within(DEADLINE));
    // The event may have waited here for a while.
    assert!(start.elapsed() > READ_TIMEOUT, "{:?}", start.elapsed());
    eventually("nothing is left", || {
        (gateway.metric("portcullis_live_connections", &[]) == 0.0).then_some(())
    });
}

#[test]
fn slow_reader_does_not_trip_read_timeout() {
    let upstream = Upstream::start();
    let gateway = gateway(upstream.address, &json!(null));
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/big?bytes=30000000").to_bytes());
    std::thread::sleep(READ_TIMEOUT * 2);
    assert_eq!(client.read_response().body.len(), 30_000_000);
}

#[test]
fn ongoing_upload_does_not_trip_read_timeout() {
    let upstream = Upstream::start();
    let gateway = gateway(upstream.address, &json!(null));
    let mut client = Client::connect(gateway.public);
    client.send("POST /public/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        client.send("x");
        std::thread::sleep(READ_TIMEOUT / 5);
    }
    assert_eq!(client.read_response().echo().0["body"], "xxxxxxxxxx");
}

#[test]
fn read_timeout_applies_to_http2_upstreams() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(grpc::serve());
    let config = Config::new(server)
        .set("/upstreams/echo/protocol", json!("h2"))
        .set("/upstreams/echo/timeouts", json!({ "read": "700ms" }));
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    client.send(
        Request::post("/public/events")
            .body("a question")
            .to_bytes(),
    );
    client.read_until("data: hello\n\n");
    client.read_until("data: later\n\n");
    let stalled = Request::get("/public/Stall");
    gateway
        .request(&stalled)
        .assert_refused(504, "UPSTREAM_TIMEOUT");
    let pending = stalled.header(ACCEPT_EVENT_STREAM.0, ACCEPT_EVENT_STREAM.1);
    gateway
        .request(&pending)
        .assert_refused(504, "UPSTREAM_TIMEOUT");
    let two = Http2::connect(gateway.public);
    assert_eq!(two.request("GET", "/public/Stall", &[]).0, 504);
    assert!(
        two.open("GET", "/public/Stall", &[ACCEPT_EVENT_STREAM], b"")
            .is_err(),
        "a reset"
    );
}

/// A server of HTTP/2 in clear that gives request bodies no window, and responds to none.
async fn without_window() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = h2::server::Builder::new();
                let server = server
                    .initial_window_size(0)
                    .handshake::<_, bytes::Bytes>(stream);
                let mut connection = server.await.unwrap();
                let mut held = Vec::new();
                while let Some(Ok(call)) = connection.accept().await {
                    held.push(call);
                }
            });
        }
    });
    address
}

fn over_http2(server: std::net::SocketAddr, timeouts: &serde_json::Value) -> Gateway {
    let config = Config::new(server)
        .set("/upstreams/echo/protocol", json!("h2"))
        .set("/upstreams/echo/timeouts", timeouts.clone());
    Gateway::start(config)
}

#[test]
fn an_upload_over_http2_to_an_http2_upstream_is_no_silence() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(grpc::serve());
    let gateway = over_http2(server, &json!({ "read": "1s" }));
    for length in [None, Some(("content-length", "100000"))] {
        let mut client = Frames::connect(gateway.public);
        client.accept_settings();
        let more: Vec<_> = length.into_iter().collect();
        let head = frames::request("POST", "/public/a", &more);
        client.send(HEADERS, END_HEADERS, 1, &head).unwrap();
        for piece in 1..=10 {
            let end = if piece == 10 { END_STREAM } else { 0 };
            client.send(DATA, end, 1, &[b'x'; 10_000]).unwrap();
            std::thread::sleep(READ_TIMEOUT / 5);
        }
        assert_eq!(
            client.stream_outcome(1),
            StreamOutcome::Status(200),
            "{length:?}"
        );
    }
}

#[test]
fn an_http2_upstream_that_takes_nothing_of_an_upload_does_not_hold_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(without_window());
    let gateway = over_http2(server, &json!({ "read": "1s", "write": "1s" }));
    let body = "x".repeat(100_000);
    let mut client = Client::connect(gateway.public);
    client.send(Request::post("/public/one").body(&*body).to_bytes());
    assert!(client.closes_within(DEADLINE));
    let two = Http2::connect(gateway.public);
    let end = two.open("POST", "/public/two", &[], body.as_bytes());
    assert!(end.is_err_and(|error| error.is_reset()));
    let length = [("content-length", "9")];
    let small = two.open("POST", "/public/three", &length, b"123456789");
    assert_eq!(small.unwrap().status, 504);
    for path in ["/public/one", "/public/two"] {
        let line = eventually("the access line", || {
            let mut lines = gateway.events().into_iter();
            lines.find(|line| line["kind"] == "access" && line["path"] == path)
        });
        assert_eq!(line["status"], 504, "{line}");
        assert_eq!(line["code"], "UPSTREAM_TIMEOUT", "{line}");
    }
}
