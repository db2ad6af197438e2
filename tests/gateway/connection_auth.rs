//! Authentication of connections (NTLM, Negotiate): an upstream connection that has seen it serves one
//! client connection, and ends with it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::raw::serving;
use crate::support::wait::eventually;

/// Clients that look for somebody else's connection: enough for each worker.
const STRANGERS: usize = 12;

/// An upstream that names its connection in `X-Connection`, and challenges requests for `/challenge`.
struct Numbering {
    gateway: Gateway,
    /// Whether each connection is open.
    open: Arc<Mutex<HashMap<String, bool>>>,
}

fn numbering() -> Numbering {
    let open = Arc::new(Mutex::new(HashMap::new()));
    let shared = Arc::clone(&open);
    let upstream = serving(move |stream| number(stream, &shared));
    let gateway = Gateway::start(Config::new(upstream));
    Numbering { gateway, open }
}

fn number(mut stream: TcpStream, open: &Mutex<HashMap<String, bool>>) {
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

impl Numbering {
    /// No other client gets this upstream connection, on either protocol.
    fn is_not_shared(&self, name: &str) {
        for _ in 0..STRANGERS {
            let response = self.gateway.get("/public/stranger");
            assert_ne!(response.header("x-connection"), Some(name));
            let two = Http2::connect(self.gateway.public);
            let response = two.open("GET", "/public/stranger", &[], b"").unwrap();
            assert_ne!(response.headers.get("x-connection").unwrap(), name);
        }
    }

    fn ends(&self, name: &str) {
        eventually("the upstream connection ends", || {
            (!self.open.lock()[name]).then_some(())
        });
    }
}

#[test]
fn a_connection_that_carried_credentials_of_its_own_belongs_to_its_client() {
    let upstream = numbering();
    for scheme in ["NTLM TlRMTVNTUAAB", "negotiate YII="] {
        let mut client = Client::connect(upstream.gateway.public);
        let request = Request::get("/public/a").header("Authorization", scheme);
        let first = client.ask(&request);
        let name = first.header("x-connection").unwrap().to_owned();
        upstream.is_not_shared(&name);
        // What follows on the client's connection needs the authenticated one.
        let next = client.ask(&Request::get("/public/next"));
        assert_eq!(next.header("x-connection"), Some(name.as_str()));
        upstream.is_not_shared(&name);
        assert!(upstream.open.lock()[&name], "it stays open for its client");
        drop(client);
        upstream.ends(&name);
    }
}

#[test]
fn an_http2_client_has_upstream_connections_of_its_own_too() {
    let upstream = numbering();
    let two = Http2::connect(upstream.gateway.public);
    let headers = [("authorization", "NTLM TlRMTVNTUAAB")];
    let mut first = two.open("GET", "/public/a", &headers, b"").unwrap();
    let name = first.headers["x-connection"].to_str().unwrap().to_owned();
    assert_eq!(first.text(), "ok");
    upstream.is_not_shared(&name);
    let next = two.open("GET", "/public/next", &[], b"").unwrap();
    assert_eq!(next.headers["x-connection"], *name);
    drop((two, first, next));
    upstream.ends(&name);
}

#[test]
fn credentials_in_a_second_field_count_too() {
    let upstream = numbering();
    let mut client = Client::connect(upstream.gateway.public);
    let request = Request::get("/public/a")
        .header("Authorization", "Basic YTpi")
        .header("Authorization", "NTLM TlRMTVNTUAAB");
    let first = client.ask(&request);
    upstream.is_not_shared(first.header("x-connection").unwrap());
}

#[test]
fn a_challenge_alone_keeps_the_connection_from_others() {
    let upstream = numbering();
    let mut client = Client::connect(upstream.gateway.public);
    let challenged = client.ask(&Request::get("/public/challenge"));
    assert_eq!(challenged.status, 401);
    let name = challenged.header("x-connection").unwrap().to_owned();
    upstream.is_not_shared(&name);
    let own = client.ask(&Request::get("/public/own"));
    let own = own.header("x-connection").unwrap().to_owned();
    upstream.is_not_shared(&own);
    drop(client);
    upstream.ends(&name);
    upstream.ends(&own);
}
