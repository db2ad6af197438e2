//! Clients that close their side of the connection after the request (RFC 9112, section 9.6).

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::client::{Client, Request, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// Sends the bytes and closes the sending side.
fn send_and_close(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> (Client, TcpStream) {
    let stream = connect_socket(gateway.public).unwrap();
    let mut client = Client::from_stream(stream.try_clone().unwrap());
    client.send(bytes);
    stream.shutdown(Shutdown::Write).unwrap();
    (client, stream)
}

#[test]
fn half_closed_client_receives_the_pending_response() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    for request in [
        Request::get("/public/slow?ms=400"),
        Request::post("/public/slow?ms=400").body("hello"),
    ] {
        let (mut client, _) = send_and_close(&gateway, request.to_bytes());
        assert_eq!(
            client.read_response().echo().target(),
            "/public/slow?ms=400"
        );
        assert!(client.closes_within(Duration::from_secs(2)));
    }
}

#[test]
fn requests_pipelined_before_half_close_get_responses() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut bytes = Request::get("/public/slow?ms=300").to_bytes();
    bytes.extend(Request::get("/public/second").to_bytes());
    let (mut client, _) = send_and_close(&gateway, bytes);
    assert_eq!(
        client.read_response().echo().target(),
        "/public/slow?ms=300"
    );
    assert_eq!(client.read_response().echo().target(), "/public/second");
    assert!(client.closes_within(Duration::from_secs(2)));
}

#[test]
fn truncated_body_is_not_forwarded_as_complete() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let head = "POST /public/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    let (mut client, _) = send_and_close(&gateway, head);
    assert!(client.closes_within(Duration::from_secs(3)));
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn stream_is_dropped_when_its_client_is_gone() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/sse").to_bytes());
    client.read_until("data: hello\n\n");
    eventually("it is counted", || {
        (gateway.metric("portcullis_live_connections", &[]) == 1.0).then_some(())
    });
    drop(client);
    eventually("it is gone", || {
        (gateway.metric("portcullis_live_connections", &[]) == 0.0).then_some(())
    });
}
