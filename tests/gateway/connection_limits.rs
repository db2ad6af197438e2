//! Limits of one connection and of one address: connections, header fields, windows, streams.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, StreamOutcome, WINDOW_UPDATE, header_block,
    request,
};
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::serve_connections;
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually};

fn with_limits(upstream: &Upstream, limits: Value) -> Config {
    Config::new(upstream.address).set("/listeners/0/limits", limits)
}

/// Connects and has a request served.
fn connect_and_request(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.public);
    client.request(&Request::get("/public/a")).assert_ok();
    client
}

#[test]
fn connections_per_address_are_limited() {
    let upstream = Upstream::start();
    let limits = json!({ "connections_per_address": 2 });
    let gateway = Gateway::start(with_limits(&upstream, limits));
    let (first, mut second) = (connect_and_request(&gateway), connect_and_request(&gateway));
    let mut third = Client::connect(gateway.public);
    assert!(third.closes_within(Duration::from_secs(5)));
    let reason = "reason=\"connections_per_address\"";
    let refused = || gateway.metric("portcullis_connections_refused_total", &[reason]);
    eventually("it is counted", || (refused() == 1.0).then_some(()));
    // The others go on, and one that ends makes room.
    second.request(&Request::get("/public/a")).assert_ok();
    drop(first);
    eventually("there is room again", || {
        let again = Request::get("/public/a").try_send(gateway.public);
        again.is_ok().then_some(())
    });
}

#[test]
fn trusted_proxies_are_exempt_from_connection_limits() {
    let upstream = Upstream::start();
    let limits = json!({ "connections_per_address": 1 });
    let config =
        with_limits(&upstream, limits).set("/listeners/0/trusted_proxies", json!(["127.0.0.0/8"]));
    let gateway = Gateway::start(config);
    let _kept: Vec<Client> = (0..4).map(|_| connect_and_request(&gateway)).collect();
}

#[test]
fn proxy_protocol_address_is_counted() {
    let upstream = Upstream::start();
    let limits = json!({ "connections_per_address": 1 });
    let config = with_limits(&upstream, limits)
        .set("/listeners/0/trusted_proxies", json!(["127.0.0.0/8"]))
        .set("/listeners/0/proxy_protocol", json!(true));
    let gateway = Gateway::start(config);
    let from = |address: &str| {
        let mut client = Client::connect(gateway.public);
        client.send(format!("PROXY TCP4 {address} 127.0.0.1 5000 80\r\n"));
        let _ = client.try_send(Request::get("/public/a").to_bytes());
        let status = client
            .read_response_to("GET")
            .map_or(0, |response| response.status);
        (client, status)
    };
    let kept = [from("192.0.2.1"), from("192.0.2.2")];
    assert_eq!(kept.each_ref().map(|(_, status)| *status), [200, 200]);
    assert_eq!(from("192.0.2.1").1, 0);
}

#[test]
fn header_fields_are_limited_on_both_protocols() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(with_limits(&upstream, json!({ "fields": 20 })));
    let one = |fields: usize| {
        let mut pending = Request::get("/public/a");
        // `Host` is one, and so is what the client adds.
        let own = String::from_utf8(pending.to_bytes())
            .unwrap()
            .lines()
            .count()
            - 2;
        for n in own..fields {
            pending = pending.header(&format!("x-{n}"), "y");
        }
        gateway.request(&pending).status
    };
    let mut client = Frames::connect(gateway.public);
    let mut stream = 1;
    let mut two = |fields: usize, cookies: usize| {
        let names: Vec<String> = (0..fields).map(|n| format!("x-{n}")).collect();
        let mut all = request("GET", "/public/a", &[]);
        all.extend(names.iter().flat_map(|name| header_block(&[(name, "y")])));
        all.extend(header_block(&[("cookie", "a=b")]).repeat(cookies));
        let flags = END_HEADERS | END_STREAM;
        client.send(HEADERS, flags, stream, &all).unwrap();
        stream += 2;
        client.stream_outcome(stream - 2)
    };
    assert_eq!((one(20), one(21)), (200, 431));
    assert_eq!(two(20, 0), StreamOutcome::Status(200));
    assert_eq!(two(21, 0), StreamOutcome::Status(431));
    // A browser may send each cookie in a field of its own.
    assert_eq!(two(19, 30), StreamOutcome::Status(200));
    eventually("both are logged", || {
        let events = gateway.events();
        let refused = events
            .iter()
            .filter(|line| line["code"] == "HEADERS_TOO_LARGE");
        (refused.count() == 2).then_some(())
    });
    let counted = gateway.metric("portcullis_requests_total", &["code=\"431\""]);
    assert_eq!(counted, 2.0);
}

/// The settings that the gateway announces, and the connection's window.
fn announced_settings(client: &mut Frames) -> (Vec<(u16, u32)>, u32) {
    let settings = client.accept_settings();
    let update = std::iter::from_fn(|| client.next()).find(|frame| frame.kind == WINDOW_UPDATE);
    (settings, 65_535 + increment(&update.unwrap().payload))
}

fn increment(payload: &[u8]) -> u32 {
    u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]])
}

#[test]
fn http2_settings_announce_windows_and_streams() {
    let upstream = Upstream::start();
    let of = |http2: Value| {
        let config = Config::new(upstream.address).set("/listeners/0/http2", http2);
        let gateway = Gateway::start(config);
        announced_settings(&mut Frames::connect(gateway.public))
    };
    let (settings, window) = of(json!({}));
    assert!(settings.contains(&(3, 100)) && settings.contains(&(4, 1 << 20)));
    assert_eq!(window, 4 << 20);
    let (settings, window) = of(json!({
        "streams": 7, "stream_window": "128KiB", "connection_window": "256KiB",
    }));
    assert!(settings.contains(&(3, 7)) && settings.contains(&(4, 128 << 10)));
    assert_eq!(window, 256 << 10);
}

/// An upstream that accepts connections and reads nothing from them until it is released.
fn start_stalled_upstream() -> (SocketAddr, Arc<Mutex<()>>) {
    let go_on = Arc::new(Mutex::new(()));
    let held = Arc::clone(&go_on);
    let address = serve_connections(move |mut stream: TcpStream| {
        drop(held.lock());
        let mut chunk = [0; 64 * 1024];
        let mut last = [0; 5];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            for byte in &chunk[..count] {
                last.rotate_left(1);
                last[4] = *byte;
            }
            if &last == b"!end!" {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    (address, go_on)
}

#[test]
fn upload_window_follows_the_upstream() {
    const LENGTH: usize = 32 << 20;
    let (address, go_on) = start_stalled_upstream();
    let held = go_on.lock();
    let config = Config::new(address).route(json!({
        "name": "uploads", "match": { "prefix": "/uploads" }, "auth": "none", "upstream": "echo",
        "max_body": "64MiB",
    }));
    let gateway = Gateway::start(config);
    let mut client = Frames::connect(gateway.public);
    let (_, mut connection) = announced_settings(&mut client);
    let length = LENGTH.to_string();
    let head = request("POST", "/uploads/a", &[("content-length", &length)]);
    client.send(HEADERS, END_HEADERS, 1, &head).unwrap();
    let (mut stream, mut sent) = (1_u32 << 20, 0);
    let mut held = Some(held);
    client.set_read_timeout(Duration::from_secs(2));
    loop {
        while connection.min(stream) >= 16_384 && sent < LENGTH {
            let mut part = vec![b'x'; 16_384];
            sent += part.len();
            if sent == LENGTH {
                part[16_384 - 5..].copy_from_slice(b"!end!");
            }
            let flags = if sent == LENGTH { END_STREAM } else { 0 };
            client.send(DATA, flags, 1, &part).unwrap();
            (connection, stream) = (connection - 16_384, stream - 16_384);
        }
        match client.next() {
            Some(frame) if frame.kind == WINDOW_UPDATE => {
                let target = if frame.stream == 0 {
                    &mut connection
                } else {
                    &mut stream
                };
                *target += increment(&frame.payload);
            }
            Some(frame) if frame.kind == HEADERS => break,
            Some(_) => {}
            // Nothing more comes: all that fits anywhere is full.
            None => {
                assert!(held.take().is_some(), "stuck after {sent}");
                client.set_read_timeout(DEADLINE);
                assert!(
                    sent < 16 << 20,
                    "{sent} bytes for an upstream that takes none"
                );
            }
        }
    }
    assert_eq!(sent, LENGTH);
    assert!(held.is_none(), "the upstream took it before it was told to");
}

#[test]
fn idle_connection_gets_keepalive_probes() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = TcpStream::connect(gateway.public).unwrap();
    client
        .write_all(&Request::get("/public/a").to_bytes())
        .unwrap();
    let port = client.local_addr().unwrap().port();
    // Of the gateway's end: `tr` is 2 while only the keep-alive timer runs.
    let theirs = format!("0100007F:{:04X} 0100007F:{port:04X}", gateway.public.port());
    eventually("the keep-alive timer runs", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&theirs))?;
        let timer = line.split_whitespace().nth(5)?;
        timer.starts_with("02:").then_some(())
    });
}
