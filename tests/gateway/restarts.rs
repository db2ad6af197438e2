//! Restarts lose no request: not on kept-alive connections, not in the backlog of a socket, not with a
//! successor on the same addresses.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, SetOnDrop, eventually, within};

/// A client that pauses for longer may find its connection closed. No client here does so on purpose;
/// a busy machine may make it.
const PAUSE: Duration = Duration::from_secs(1);

#[test]
fn keep_alive_clients_lose_no_request() {
    for delay in ["0s", "1s"] {
        let upstream = Upstream::start();
        let config = Config::new(upstream.address).set("/shutdown", json!({ "delay": delay }));
        let mut gateway = Gateway::start(config);
        let public = gateway.public;
        let counts = Counts::default();
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| post_until_gone(public, &counts));
            }
            eventually("all clients are at work", || {
                (counts.served.load(Ordering::Relaxed) > 200).then_some(())
            });
            gateway.sigterm();
            assert_eq!(gateway.wait_exit().code(), Some(0));
        });
        assert_eq!(counts.lost.load(Ordering::Relaxed), 0, "delay {delay}");
    }
}

#[derive(Default)]
struct Counts {
    served: AtomicUsize,
    lost: AtomicUsize,
}

/// Sends one POST after another, and connects again only after a response that closes.
fn post_until_gone(address: SocketAddr, counts: &Counts) {
    let post = Request::post("/public/a").body("hello");
    while let Ok(stream) = connect_socket(address) {
        let mut client = Client::from_stream(stream);
        let mut idle_since = Instant::now();
        loop {
            let pause = idle_since.elapsed();
            let sent = client.try_send(post.to_bytes());
            let Ok(response) = sent.and_then(|()| client.read_response_to("POST")) else {
                counts
                    .lost
                    .fetch_add(usize::from(pause < PAUSE), Ordering::Relaxed);
                break;
            };
            idle_since = Instant::now();
            assert_eq!(response.status, 200);
            counts.served.fetch_add(1, Ordering::Relaxed);
            if response.header("connection") == Some("close") {
                break;
            }
        }
    }
}

#[test]
fn draining_gateway_closes_after_each_response() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/shutdown", json!({ "delay": "60s" }));
    let gateway = Gateway::start(config);
    // Forwarded, refused, made by the gateway, and forwarded since before the signal.
    let mut kept: Vec<Client> = (0..3).map(|_| Client::connect(gateway.public)).collect();
    for client in &mut kept {
        let before = client.request(&Request::get("/public/a"));
        assert_eq!(before.header("connection"), Some("keep-alive"));
    }
    let mut in_flight = Client::connect(gateway.public);
    in_flight.send(Request::get("/public/slow?ms=1000").to_bytes());
    eventually("it arrived", || upstream.has_seen("slow").then_some(()));
    gateway.sigterm();
    eventually("it drains", || {
        let ready = Request::get("/ready").send(gateway.admin);
        (ready.status == 503).then(|| assert_eq!(ready.header("connection"), Some("close")))
    });
    for (client, (path, status)) in kept.iter_mut().zip([
        ("/public/a", 200),
        ("/private/a", 401),
        ("/api/v1/health", 200),
    ]) {
        let response = client.request(&Request::get(path));
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.header("connection"), Some("close"), "{path}");
        assert!(client.closes_within(Duration::from_secs(5)), "{path}");
    }
    let response = in_flight.read_response();
    assert_eq!(response.assert_ok().header("connection"), Some("close"));
}

#[test]
fn idle_connection_is_served_after_listener_close() {
    let upstream = Upstream::start();
    for _ in 0..5 {
        let mut gateway = Gateway::start(Config::new(upstream.address));
        let mut idle = Client::connect(gateway.public);
        idle.request(&Request::get("/public/a")).assert_ok();
        let start = Instant::now();
        gateway.sigterm();
        await_free(gateway.public);
        if start.elapsed() > PAUSE {
            continue;
        }
        let response = idle.request(&Request::post("/public/a").body("hello"));
        assert_eq!(response.assert_ok().header("connection"), Some("close"));
        assert_eq!(gateway.wait_exit().code(), Some(0));
        return;
    }
    panic!("the machine is too busy to send a request within {PAUSE:?}");
}

#[test]
fn silent_connections_do_not_delay_shutdown() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let config = Config::new(upstream.address);
    let cert = config.write_beside("cert.pem", &certificate.cert);
    let key = config.write_beside("key.pem", &certificate.key);
    let tls = json!({ "certificates": [{ "cert": cert, "key": key }] });
    let limits = json!({ "head_timeout": "60s", "handshake_timeout": "60s" });
    let config = config
        .set("/listeners/0/tls", tls)
        .set("/listeners/0/limits", limits)
        .set("/shutdown", json!({ "grace": "60s" }));
    let mut gateway = Gateway::start(config);
    let before_the_handshake = TcpStream::connect(gateway.public).unwrap();
    let config = tls::client(&certificate, &["http/1.1"]);
    let before_a_request = tls::connect(gateway.public, "localhost", &config).unwrap();
    let config = tls::client(&certificate, &["h2"]);
    let before_the_preface = tls::connect(gateway.public, "localhost", &config).unwrap();
    gateway.sigterm();
    let exit = within(DEADLINE, "the gateway ends", || gateway.exit_status());
    assert_eq!(exit.code(), Some(0));
    drop((before_the_handshake, before_a_request, before_the_preface));
}

#[test]
fn successor_binds_while_predecessor_drains() {
    let (arrived, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let states: &'static [AtomicBool; 2] = Box::leak(Box::new([arrived, over]));
    let [arrived, over] = states;
    let upstream = serve_connections(move |mut stream| {
        while read_request(&mut stream) {
            arrived.store(true, Ordering::SeqCst);
            eventually("it may be answered", || {
                over.load(Ordering::SeqCst).then_some(())
            });
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let mut predecessor = Gateway::start(Config::new(upstream));
    let public = predecessor.public;
    let request = std::thread::spawn(move || Request::get("/public/a").send(public));
    eventually("it arrived", || {
        arrived.load(Ordering::SeqCst).then_some(())
    });
    predecessor.sigterm();
    await_free(public);
    // Until there is a successor.
    let ready = || Request::get("/ready").send(predecessor.admin).status;
    assert_eq!(ready(), 503);
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .set("/listeners", predecessor.config.file["listeners"].clone())
        .set("/admin", predecessor.config.file["admin"].clone());
    let successor = Gateway::start(config);
    assert!(predecessor.is_running());
    for _ in 0..20 {
        successor.get("/public/a").assert_ok();
        assert_eq!(Request::get("/ready").send(successor.admin).status, 200);
    }
    over.store(true, Ordering::SeqCst);
    assert_eq!(request.join().unwrap().status, 200);
    assert_eq!(predecessor.wait_exit().code(), Some(0));
}

#[test]
fn rolling_restart_resets_no_connection() {
    let upstream = Upstream::start();
    let start = || Gateway::start(Config::new(upstream.address));
    let mut gateways = [start(), start()];
    let addresses = [gateways[0].public, gateways[1].public];
    let (over, served, lost) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    // Each request on a connection of its own, at the other gateway where one does not listen.
    let send = |turn: usize| {
        let (first, second) = (addresses[turn % 2], addresses[(turn + 1) % 2]);
        let stream = connect_socket(first)
            .or_else(|_| connect_socket(second))
            .unwrap();
        let connected = Instant::now();
        let mut client = Client::from_stream(stream);
        let request = Request::post("/public/a").body("hello").to_bytes();
        let pause = connected.elapsed();
        let sent = client.try_send(request);
        match sent.and_then(|()| client.read_response_to("POST")) {
            Ok(response) if response.status == 200 => served.fetch_add(1, Ordering::Relaxed),
            _ => lost.fetch_add(usize::from(pause < PAUSE), Ordering::Relaxed),
        };
    };
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (send, over) = (&send, &over);
            scope.spawn(move || {
                let mut turn = client;
                while !over.load(Ordering::Relaxed) {
                    send(turn);
                    turn += 1;
                }
            });
        }
        let _over = SetOnDrop(&over);
        for round in 0..4 {
            let before = served.load(Ordering::Relaxed);
            eventually("requests go on", || {
                (served.load(Ordering::Relaxed) > before + 200).then_some(())
            });
            gateways[round % 2].restart_gracefully();
        }
    });
    assert_eq!(lost.load(Ordering::Relaxed), 0);
}

/// Waits until another process could listen on the address.
fn await_free(address: SocketAddr) {
    let start = Instant::now();
    eventually("the address is free", || TcpListener::bind(address).ok());
    // Long before the end of what is in flight.
    assert!(start.elapsed() < Duration::from_secs(5));
}
