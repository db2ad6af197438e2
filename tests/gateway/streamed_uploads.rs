//! Request bodies of unknown length: what an HTTP/1.1 upstream receives, to the byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::scripted_upstream::serve_connections;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The bytes of each upstream connection.
type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// An upstream that keeps what each connection carried, and responds to every chunked request that
/// has ended and to every GET.
fn start_recording() -> (SocketAddr, Received) {
    let received = Received::default();
    let shared = Arc::clone(&received);
    let address = serve_connections(move |stream| record(stream, &shared));
    (address, received)
}

fn record(mut stream: TcpStream, received: &Received) {
    let index = {
        let mut all = received.lock();
        all.push(Vec::new());
        all.len() - 1
    };
    let (mut pending, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        received.lock()[index].extend_from_slice(&chunk[..count]);
        pending.extend_from_slice(&chunk[..count]);
        let upload = pending.starts_with(b"POST") && pending.ends_with(b"\r\n0\r\n\r\n");
        let download = pending.starts_with(b"GET") && pending.ends_with(b"\r\n\r\n");
        if upload || download {
            pending.clear();
            let _ = stream.write_all(OK);
        }
    }
}

#[test]
fn streamed_http2_upload_ends_with_one_terminator() {
    let (upstream, received) = start_recording();
    let gateway = Gateway::start(Config::new(upstream));
    let client = Http2::connect(gateway.public);
    for parts in [&[&b"hello"[..]][..], &[b"hel", b"", b"lo"], &[], &[b""]] {
        let mut response = client.upload("/public/upload", &[], parts);
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        let mut next = client.open("GET", "/public/next", &[], b"").unwrap();
        assert_eq!((next.status, next.text().as_str()), (200, "ok"));
    }
    let received = received.lock();
    assert_eq!(received.len(), 1, "one connection served all of them");
    let text = String::from_utf8_lossy(&received[0]);
    let bodies: Vec<&str> = text
        .split("\r\n\r\n")
        .filter(|part| !part.starts_with("POST") && !part.starts_with("GET"))
        .collect();
    let expected = ["5\r\nhello\r\n0", "3\r\nhel\r\n2\r\nlo\r\n0", "0", "0", ""];
    assert_eq!(bodies, expected, "{text}");
}

#[test]
fn chunked_http1_upload_ends_with_one_terminator() {
    let (upstream, received) = start_recording();
    let gateway = Gateway::start(Config::new(upstream));
    let mut client = Client::connect(gateway.public);
    let head =
        "POST /public/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n"] {
        client.send(head).send(body);
        assert_eq!(client.read_response().text(), "ok");
        client.request(&Request::get("/public/next")).assert_ok();
    }
    let received = received.lock();
    let text = String::from_utf8_lossy(&received[0]);
    assert_eq!(text.matches("\r\n0\r\n\r\n").count(), 2, "{text}");
}
