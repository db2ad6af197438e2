//! Responses that precede the end of the request body, and upstreams that read none of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request, Response, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::scripted_upstream::{read_request, serve_connections};

/// More than the sockets and the gateway hold.
const LARGE: usize = 24 * 1024 * 1024;
/// Much less than `timeouts.write` and `timeouts.read`.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(12);

/// A gateway whose upstream writes these pieces, 200 ms apart, and reads no body.
fn start_responding(pieces: Vec<&'static str>) -> Gateway {
    let upstream = serve_connections(move |mut stream| {
        read_request(&mut stream);
        for piece in &pieces {
            let _ = stream.write_all(piece.as_bytes());
            std::thread::sleep(Duration::from_millis(200));
        }
        wait_for_end(&stream);
    });
    Gateway::start(Config::new(upstream).set("/routes/2/max_body", json!("100MiB")))
}

/// Waits until the gateway ends the connection, and takes nothing of what it sends.
fn wait_for_end(stream: &TcpStream) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if stream.take_error().is_ok_and(|error| error.is_some()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a large body and reads the response meanwhile; also how long that took.
fn upload(to: SocketAddr) -> (Response, Duration) {
    let start = Instant::now();
    let stream = connect_socket(to).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let head = format!(
            "POST /public/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE}\r\n\r\n"
        );
        let _ = sender.write_all(head.as_bytes());
        // The gateway may read no more of it once it has responded.
        let _ = sender.write_all(&vec![b'x'; LARGE]);
    });
    let mut client = Client::from_stream(stream.try_clone().unwrap());
    let response = client.read_response();
    let took = start.elapsed();
    if response.status >= 300 {
        assert!(
            client.closes_within(RESPONSE_DEADLINE),
            "the upload is over"
        );
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    sending.join().unwrap();
    (response, took)
}

#[track_caller]
fn assert_arrives_early(pieces: Vec<&'static str>, status: u16, body: &str) {
    let gateway = start_responding(pieces);
    let (response, took) = upload(gateway.public);
    assert_eq!((response.status, response.text().as_str()), (status, body));
    assert!(took < RESPONSE_DEADLINE, "HTTP/1.1: {took:?}");
    let start = Instant::now();
    let two = Http2::connect(gateway.public);
    let large = vec![b'x'; LARGE];
    let mut response = two.upload("/public/a", &[], &[&large]);
    assert_eq!((response.status, response.text().as_str()), (status, body));
    assert!(
        start.elapsed() < RESPONSE_DEADLINE,
        "HTTP/2: {:?}",
        start.elapsed()
    );
}

#[test]
fn early_rejection_reaches_the_client_immediately() {
    let whole = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    assert_arrives_early(vec![whole], 413, "big");
    let head = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\n";
    assert_arrives_early(vec![head, "big"], 413, "big");
}

#[test]
fn early_success_reaches_the_client_promptly() {
    assert_arrives_early(
        vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
        200,
        "ok",
    );
}

#[test]
fn stalled_upstream_times_out() {
    let upstream = serve_connections(|mut stream| {
        read_request(&mut stream);
        wait_for_end(&stream);
    });
    let config = Config::new(upstream)
        .set("/routes/2/max_body", json!("100MiB"))
        .set("/upstreams/echo/timeouts", json!({ "read": "1s" }));
    let gateway = Gateway::start(config);
    upload(gateway.public)
        .0
        .assert_refused(504, "UPSTREAM_TIMEOUT");
    let two = Http2::connect(gateway.public);
    let large = vec![b'x'; LARGE];
    assert_eq!(two.upload("/public/a", &[], &[&large]).status, 504);
}

#[test]
fn missing_100_continue_counts_as_upstream_failure() {
    let upstream = serve_connections(|mut stream| {
        read_request(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let config = Config::new(upstream).set("/upstreams/echo/timeouts", json!({ "read": "200ms" }));
    let gateway = Gateway::start(config);
    for _ in 0..5 {
        let mut client = Client::connect(gateway.public);
        client.send(
            "POST /public/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
             Content-Length: 5\r\n\r\n",
        );
        client
            .read_response()
            .assert_refused(504, "UPSTREAM_TIMEOUT");
    }
    let shown = gateway.admin(Request::get("/admin/upstreams")).text();
    assert!(!shown.contains("\"ejected_until\":null"), "{shown}");
}
