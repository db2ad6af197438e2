//! Start and shutdown.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{
    self, ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, StreamOutcome,
};
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, PROPAGATION_DEADLINE, eventually, within};
use crate::support::websocket::{GOING_AWAY, WebSocketClient};

#[test]
fn idle_gateway_exits_promptly_with_0() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let mut idle = Client::connect(gateway.public);
    idle.request(&Request::get("/public/a")).assert_ok();
    let start = Instant::now();
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    // Long before the grace period of 25 seconds.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(idle.closes_within(PROPAGATION_DEADLINE));
}

#[test]
fn in_flight_request_finishes_before_exit() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let public = gateway.public;
    let request = std::thread::spawn(move || Request::get("/public/slow?ms=1500").send(public));
    eventually("it arrived", || upstream.has_seen("slow").then_some(()));
    gateway.sigterm();
    assert_eq!(request.join().unwrap().status, 200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn unfinished_requests_are_cut_and_logged_after_the_grace_period() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/shutdown", json!({ "grace": "1s" }));
    let mut gateway = Gateway::start(config);
    let public = gateway.public;
    let forwarded = std::thread::spawn(move || {
        let request = Request::get("/public/slow?ms=20000");
        request.header("X-Request-ID", "forwarded").try_send(public)
    });
    // A call of the gateway's own, without its body.
    let mut call = Client::connect(public);
    call.send(
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nX-Request-ID: call\r\n\
         Content-Type: application/json\r\nContent-Length: 10\r\n\r\n",
    );
    eventually("they arrived", || {
        let in_flight = gateway.metric("portcullis_requests_in_flight", &[]);
        (upstream.has_seen("slow") && in_flight == 2.0).then_some(())
    });
    let start = Instant::now();
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let lines = gateway.events();
    for (id, reason) in [
        ("forwarded", json!("the gateway is shutting down")),
        ("call", Value::Null),
    ] {
        let of_request = |line: &&Value| line["kind"] == "access" && line["request_id"] == id;
        let lines: Vec<&Value> = lines.iter().filter(of_request).collect();
        assert_eq!(lines.len(), 1, "{id}: {lines:?}");
        assert_eq!(lines[0]["status"], 0, "{}", lines[0]);
        assert_eq!(lines[0]["reason"], reason, "{}", lines[0]);
    }
    let _ = forwarded.join();
}

#[test]
fn websockets_and_streams_are_closed_on_drain() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let mut socket = WebSocketClient::open(gateway.public, "/public/ws", &[])
        .ok()
        .unwrap();
    assert_eq!(socket.echo("hello"), "hello");
    let mut events = Client::connect(gateway.public);
    events.send(Request::get("/public/sse").to_bytes());
    events.read_until("data: hello\n\n");
    gateway.sigterm();
    assert_eq!(socket.close_code(Duration::from_secs(5)), Some(GOING_AWAY));
    assert!(events.closes_within(Duration::from_secs(5)));
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn unresponsive_client_does_not_delay_exit() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    // It acknowledges nothing, and keeps the connection.
    let mut deaf = Frames::connect(gateway.public);
    let get = |path| frames::request("GET", path, &[]);
    let head = get("/public/a");
    deaf.send(HEADERS, END_STREAM | END_HEADERS, 1, &head)
        .unwrap();
    assert_eq!(deaf.stream_outcome(1), StreamOutcome::Status(200));
    let head = get("/public/slow?ms=2500");
    deaf.send(HEADERS, END_STREAM | END_HEADERS, 3, &head)
        .unwrap();
    eventually("it arrived", || upstream.has_seen("slow").then_some(()));
    let start = Instant::now();
    gateway.sigterm();
    // What is in flight is finished, the GOAWAY notwithstanding.
    let received = std::iter::from_fn(|| deaf.next()).find(|frame| frame.kind == HEADERS);
    assert_eq!(received.map(|frame| frame.stream), Some(3));
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let took = start.elapsed();
    // Well before the grace of 25 seconds.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// The GOAWAYs and PINGs until the connection ends: the kind, and the last stream of a GOAWAY.
fn read_goaways(client: &mut Frames) -> Vec<(u8, Option<u32>)> {
    let seen = std::iter::from_fn(|| client.next())
        .filter(|frame| frame.kind == GOAWAY || frame.kind == PING)
        .map(|frame| {
            let last = frame.payload[..4].try_into().map(u32::from_be_bytes);
            (frame.kind, last.ok().filter(|_| frame.kind == GOAWAY))
        })
        .collect();
    assert!(client.has_ended(), "the connection was closed, not reset");
    seen
}

#[test]
fn idle_http2_connection_gets_one_final_goaway() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let mut idle = Frames::connect(gateway.public);
    idle.accept_settings();
    let head = frames::request("GET", "/public/a", &[]);
    for stream in [1, 3] {
        idle.send(HEADERS, END_STREAM | END_HEADERS, stream, &head)
            .unwrap();
        idle.read_until_end_of(stream);
    }
    let mut unused = Frames::connect(gateway.public);
    unused.accept_settings();
    let start = Instant::now();
    gateway.sigterm();
    // Clients that send more meanwhile may be sure that it was not processed.
    assert_eq!(read_goaways(&mut idle), [(GOAWAY, Some(3))]);
    assert_eq!(read_goaways(&mut unused), [(GOAWAY, Some(0))]);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// An upstream that responds once it is released; counts the requests that have arrived.
#[derive(Default)]
struct Held {
    arrived: AtomicUsize,
    released: AtomicBool,
}

impl Held {
    fn start() -> (&'static Held, SocketAddr) {
        let held: &'static Held = Box::leak(Box::default());
        let address = serve_connections(move |mut stream| {
            while read_request(&mut stream) {
                held.arrived.fetch_add(1, Ordering::SeqCst);
                eventually("it may respond", || {
                    held.released.load(Ordering::SeqCst).then_some(())
                });
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            }
        });
        (held, address)
    }

    fn await_requests(&self, count: usize) {
        eventually("the requests arrived", || {
            (self.arrived.load(Ordering::SeqCst) >= count).then_some(())
        });
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }
}

#[test]
fn an_http2_connection_gets_its_goaway_after_the_end_of_its_open_streams() {
    let (held, upstream) = Held::start();
    let config = Config::new(upstream).set("/shutdown", json!({ "grace": "60s" }));
    let mut gateway = Gateway::start(config);
    let mut client = Frames::connect(gateway.public);
    client.accept_settings();
    let head = frames::request("GET", "/public/a", &[]);
    for stream in [1, 3] {
        client
            .send(HEADERS, END_STREAM | END_HEADERS, stream, &head)
            .unwrap();
    }
    held.await_requests(2);
    gateway.sigterm();
    eventually("the listener has closed", || {
        TcpListener::bind(gateway.public).ok()
    });
    // The client has received no notice, and continues.
    client
        .send(HEADERS, END_STREAM | END_HEADERS, 5, &head)
        .unwrap();
    held.await_requests(3);
    held.release();
    let mut open = 3;
    let goaway = std::iter::from_fn(|| client.next()).find(|frame| {
        assert_ne!(frame.kind, PING);
        let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
        open -= usize::from(ends);
        frame.kind == GOAWAY
    });
    assert_eq!(open, 0, "streams that the GOAWAY overtook");
    assert_eq!(goaway.unwrap().payload[..4], 5_u32.to_be_bytes());
    assert_eq!(read_goaways(&mut client), []);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn an_http2_connection_that_never_pauses_gets_its_goaway_in_two_steps() {
    let (held, upstream) = Held::start();
    let config = Config::new(upstream).set("/shutdown", json!({ "grace": "60s" }));
    let mut gateway = Gateway::start(config);
    let mut client = Frames::connect(gateway.public);
    client.accept_settings();
    client.set_read_timeout(Duration::from_millis(100));
    let head = frames::request("GET", "/public/a", &[]);
    let open = |client: &mut Frames, stream: u32| {
        let flags = END_STREAM | END_HEADERS;
        client.send(HEADERS, flags, stream, &head).unwrap();
    };
    open(&mut client, 1);
    held.await_requests(1);
    gateway.sigterm();
    let mut streams = 1;
    let first = eventually("a GOAWAY", || {
        open(&mut client, streams * 2 + 1);
        streams += 1;
        client.next().filter(|frame| frame.kind == GOAWAY)
    });
    assert_eq!(first.payload[..4], (u32::MAX >> 1).to_be_bytes());
    client.set_read_timeout(DEADLINE);
    let ping = std::iter::from_fn(|| client.next()).find(|frame| frame.kind == PING);
    client.send(PING, ACK, 0, &ping.unwrap().payload).unwrap();
    let last = std::iter::from_fn(|| client.next()).find(|frame| frame.kind == GOAWAY);
    assert_eq!(last.unwrap().payload[..4], (streams * 2 - 1).to_be_bytes());
    held.release();
    let received = std::iter::from_fn(|| client.next()).filter(|frame| frame.kind == HEADERS);
    assert_eq!(received.count() as u32, streams);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn timed_out_http2_connection_gets_a_goaway() {
    let upstream = Upstream::start();
    let limits = json!({ "keepalive": "1s" });
    let config = Config::new(upstream.address).set("/listeners/0/limits", limits);
    let gateway = Gateway::start(config);
    let mut idle = Frames::connect(gateway.public);
    idle.accept_settings();
    let head = frames::request("GET", "/public/a", &[]);
    idle.send(HEADERS, END_STREAM | END_HEADERS, 1, &head)
        .unwrap();
    idle.read_until_end_of(1);
    assert_eq!(read_goaways(&mut idle), [(GOAWAY, Some(1))]);
}

#[test]
fn draining_gateway_is_unready_but_still_serves() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/shutdown", json!({ "delay": "4s" }));
    let mut gateway = Gateway::start(config);
    gateway.sigterm();
    within(PROPAGATION_DEADLINE, "it is not ready", || {
        (Request::get("/ready").send(gateway.admin).status == 503).then_some(())
    });
    assert_eq!(Request::get("/health").send(gateway.admin).status, 200);
    gateway.get("/public/a").assert_ok();
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn sighup_before_ready_reloads_once_ready() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let regular = config.write();
    let text = std::fs::read(&regular).unwrap();
    // A pipe in the place of the file: the gateway waits for what is written into it.
    let pipe = config.folder().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let file = config.folder().join("linked.yaml");
    symlink(&pipe, &file).unwrap();
    let mut gateway = Gateway::spawn_from(config, file.clone());
    eventually("the signal is caught", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid()));
        let status = status.unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        // SIGHUP is signal 1, and the lowest bit.
        (caught & 1 == 1).then_some(())
    });
    gateway.sighup();
    // This waits for the gateway to open it; the reload is to find the same text in a file.
    let mut writer = File::options().write(true).open(&pipe).unwrap();
    let link = file.with_extension("new");
    symlink(&regular, &link).unwrap();
    std::fs::rename(&link, &file).unwrap();
    writer.write_all(&text).unwrap();
    drop(writer);
    eventually("it reloads", || {
        assert!(gateway.is_running());
        let text = Request::get("/metrics")
            .try_send(gateway.admin)
            .ok()?
            .text();
        let reloads = "portcullis_config_reloads_total{outcome=\"applied\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(reloads))?;
        (count != "0").then_some(())
    });
}

#[test]
fn open_file_limit_is_raised_and_reported() {
    let upstream = Upstream::start();
    let limits = json!({ "connections": 100_000 });
    let config = Config::new(upstream.address).set("/listeners/0/limits", limits);
    let gateway = Gateway::start_after(config, "ulimit -Sn 256 && ulimit -Hn 4096");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<&str> = files.unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["4096", "4096"]);
    let reported = eventually("a line about it", || {
        let mut lines = gateway.events().into_iter();
        lines.find(|line| line["limit"] == 4096)
    });
    assert_eq!(reported["level"], "WARN");
    assert_eq!(reported["connections"], 100_000);
}

#[test]
fn occupied_port_fails_startup_and_is_named() {
    let upstream = Upstream::start();
    for pointer in ["/listeners/0/bind", "/admin/bind"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let config = Config::new(upstream.address).set(pointer, json!(address));
        let start = Instant::now();
        let mut gateway = Gateway::spawn(config, &[]);
        assert_eq!(gateway.wait_exit().code(), Some(1), "{pointer}");
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        assert!(gateway.logs().contains(&address), "{}", gateway.logs());
    }
}

#[test]
fn invalid_configuration_fails_startup_with_every_mistake() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .set("/routes/0/upstraem", json!("echo"))
        .set("/tokens/signing/secret", json!("short"));
    let mut gateway = Gateway::spawn(config, &[]);
    assert_eq!(gateway.wait_exit().code(), Some(1));
    let logs = gateway.logs();
    assert!(
        logs.contains("upstraem") && logs.contains("upstream"),
        "{logs}"
    );
    assert!(
        logs.contains("portcullis.yaml:"),
        "each with its place: {logs}"
    );
    assert!(!logs.contains("short\""), "a secret is not printed: {logs}");
}
