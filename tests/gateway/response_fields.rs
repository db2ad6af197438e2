//! Response fields and interim responses about one connection end at the gateway.

use std::io::Write;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::grpc;
use crate::support::http2::Http2;
use crate::support::scripted_upstream::{read_request, serve_connections};

#[test]
fn response_hop_by_hop_fields_are_removed() {
    let upstream = serve_connections(|mut stream| {
        while read_request(&mut stream) {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop, \"odd\"\r\nX-Hop: 1\r\n\
                  Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
                  Trailer: X-Sum\r\nUpgrade: h2c\r\nX-Kept: yes\r\nContent-Length: 2\r\n\r\nok",
            );
        }
    });
    let gateway = Gateway::start(Config::new(upstream));
    let removed = [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    ];
    let response = gateway.get("/public/a");
    assert_eq!(response.header("x-kept"), Some("yes"));
    for name in removed {
        assert_eq!(response.header(name), None, "{name}: {response:?}");
    }
    let two = Http2::connect(gateway.public);
    let response = two.open("GET", "/public/a", &[], b"").unwrap();
    assert_eq!(response.headers.get("x-kept").unwrap(), "yes");
    for name in removed {
        assert!(!response.headers.contains_key(name), "{name}");
    }
}

#[test]
fn http_1_0_client_gets_no_interim_responses() {
    let upstream = serve_connections(|mut stream| {
        while read_request(&mut stream) {
            let _ = stream.write_all(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            );
        }
    });
    let gateway = Gateway::start(Config::new(upstream));
    let mut client = Client::connect(gateway.public);
    client.send("GET /public/a HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_head().unwrap().status, 200);
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/a").to_bytes());
    assert_eq!(client.read_head().unwrap().status, 100);
    assert_eq!(client.read_head().unwrap().status, 103);
    assert_eq!(client.read_response().text(), "ok");
}

#[test]
fn status_line_without_reason_is_completed() {
    let upstream = serve_connections(|mut stream| {
        while read_request(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = Gateway::start(Config::new(upstream));
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/a").to_bytes());
    // The space is required even without a reason (RFC 9112, section 4).
    assert_eq!(client.read_until("\r\n"), "HTTP/1.1 200 \r\n");
}

#[test]
fn http_1_0_client_gets_no_chunks_from_http2() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(grpc::serve());
    let config = Config::new(server).set("/upstreams/echo/protocol", json!("h2"));
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    client.send(
        "POST /public/a HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\n\
         Connection: keep-alive\r\n\r\nhello",
    );
    let response = client.read_response();
    assert_eq!(response.header("transfer-encoding"), None, "{response:?}");
    assert_eq!(response.header("connection"), Some("close"), "{response:?}");
    assert_eq!(response.text(), "hello");
}
