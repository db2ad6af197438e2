//! Authentication of connections (NTLM, Negotiate): an upstream connection that has seen it serves
//! one client connection, and ends with it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::scripted_upstream::serve_connections;
use crate::support::wait::eventually;

/// Clients that try to get another client's connection: enough for each worker.
const STRANGERS: usize = 12;

/// An upstream that names its connection in `X-Connection`, and challenges requests for `/challenge`.
struct NumberingUpstream {
    gateway: Gateway,
    /// Whether each connection is open.
    open: Arc<Mutex<HashMap<String, bool>>>,
}

fn start_numbering_upstream() -> NumberingUpstream {
    let open = Arc::new(Mutex::new(HashMap::new()));
    let shared = Arc::clone(&open);
    let upstream = serve_connections(move |stream| number_connection(stream, &shared));
    let gateway = Gateway::start(Config::new(upstream));
    NumberingUpstream { gateway, open }
}

fn number_connection(mut stream: TcpStream, open: &Mutex<HashMap<String, bool>>) {
    let name = {
        let mut open = open.lock();
        let name = open.len().to_string();
        open.insert(name.clone(), true);
        name
    };
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..count]);
        if !seen.ends_with(b"\r\n\r\n") {
            continue;
        }
        let challenged = String::from_utf8_lossy(&seen).contains("/challenge");
        let status = if challenged {
            "401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM"
        } else {
            "200 OK"
        };
        seen.clear();
        let head =
            format!("HTTP/1.1 {status}\r\nX-Connection: {name}\r\nContent-Length: 2\r\n\r\nok");
        let _ = stream.write_all(head.as_bytes());
    }
    open.lock().insert(name, false);
}

impl NumberingUpstream {
    /// No other client gets this upstream connection, on either protocol.
    fn assert_not_shared(&self, name: &str) {
        for _ in 0..STRANGERS {
            let response = self.gateway.get("/public/stranger");
            assert_ne!(response.header("x-connection"), Some(name));
            let two = Http2::connect(self.gateway.public);
            let response = two.open("GET", "/public/stranger", &[], b"").unwrap();
            assert_ne!(response.headers.get("x-connection").unwrap(), name);
        }
    }

    fn await_end(&self, name: &str) {
        eventually("the upstream connection ends", || {
            (!self.open.lock()[name]).then_some(())
        });
    }
}

#[test]
fn authenticated_upstream_connection_is_not_shared() {
    let upstream = start_numbering_upstream();
    for scheme in ["NTLM TlRMTVNTUAAB", "negotiate YII="] {
        let mut client = Client::connect(upstream.gateway.public);
        let request = Request::get("/public/a").header("Authorization", scheme);
        let first = client.request(&request);
        let name = first.header("x-connection").unwrap().to_owned();
        upstream.assert_not_shared(&name);
        // What follows on the client's connection needs the authenticated one.
        let next = client.request(&Request::get("/public/next"));
        assert_eq!(next.header("x-connection"), Some(name.as_str()));
        upstream.assert_not_shared(&name);
        assert!(upstream.open.lock()[&name], "it stays open for its client");
        drop(client);
        upstream.await_end(&name);
    }
}

#[test]
fn authenticated_connection_is_not_shared_over_http2() {
    let upstream = start_numbering_upstream();
    for credentials in ["NTLM TlRMTVNTUAAB", "negotiate YII="] {
        let two = Http2::connect(upstream.gateway.public);
        let headers = [("authorization", credentials)];
        let mut first = two.open("GET", "/public/a", &headers, b"").unwrap();
        let name = first.headers["x-connection"].to_str().unwrap().to_owned();
        assert_eq!(first.text(), "ok");
        upstream.assert_not_shared(&name);
        let next = two.open("GET", "/public/next", &[], b"").unwrap();
        assert_eq!(next.headers["x-connection"], *name);
        drop((two, first, next));
        upstream.await_end(&name);
    }
}

#[test]
fn credentials_in_a_second_field_are_recognized() {
    let upstream = start_numbering_upstream();
    let mut client = Client::connect(upstream.gateway.public);
    let request = Request::get("/public/a")
        .header("Authorization", "Basic YTpi")
        .header("Authorization", "NTLM TlRMTVNTUAAB");
    let first = client.request(&request);
    upstream.assert_not_shared(first.header("x-connection").unwrap());
}

#[test]
fn challenged_upstream_connection_is_not_shared() {
    let upstream = start_numbering_upstream();
    let mut client = Client::connect(upstream.gateway.public);
    let challenged = client.request(&Request::get("/public/challenge"));
    assert_eq!(challenged.status, 401);
    let name = challenged.header("x-connection").unwrap().to_owned();
    upstream.assert_not_shared(&name);
    let own = client.request(&Request::get("/public/own"));
    let own = own.header("x-connection").unwrap().to_owned();
    upstream.assert_not_shared(&own);
    drop(client);
    upstream.await_end(&name);
    upstream.await_end(&own);
}
