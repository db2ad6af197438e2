//! Hostile HTTP/2 clients: their frames are refused and cost bounded memory, and other clients are
//! not affected.

use std::time::{Duration, Instant};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    StreamOutcome, WINDOW_UPDATE, frame, header_block, request,
};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// What a flood may add to the gateway's memory.
const GROWTH_KIB: u64 = 40 * 1024;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Resident memory in KiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    kib.unwrap().parse().unwrap()
}

/// Sends the same frames until the other side has had enough or `most` were sent; tells whether it
/// had. Memory has to stay bounded and other clients served.
fn flood(
    gateway: &Gateway,
    start: impl FnOnce(&mut Frames),
    most: usize,
    frames: impl Fn(usize) -> Vec<u8>,
) -> bool {
    gateway.get("/public/before").assert_ok();
    let before = resident(gateway);
    let mut client = Frames::connect(gateway.public);
    client.set_write_timeout(Duration::from_secs(2));
    start(&mut client);
    let mut ended = false;
    for batch in 0..most.div_ceil(100) {
        let bytes: Vec<u8> = (batch * 100..(batch + 1) * 100).flat_map(&frames).collect();
        ended = client.send_all(&bytes).is_err();
        if ended {
            break;
        }
    }
    let requested = Instant::now();
    gateway.get("/public/meanwhile").assert_ok();
    assert!(
        requested.elapsed() < Duration::from_secs(2),
        "{:?}",
        requested.elapsed()
    );
    let growth = resident(gateway).saturating_sub(before);
    assert!(growth < GROWTH_KIB, "{growth} KiB more");
    ended || client.ends_within(Duration::from_secs(3))
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    let block = request("GET", path, &[]);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

#[test]
fn rapid_resets_end_the_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let ended = flood(
        &gateway,
        |_| {},
        50_000,
        |n| {
            let stream = 2 * n as u32 + 1;
            let mut bytes = get(stream, "/public/slow?ms=300");
            bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
            bytes
        },
    );
    assert!(ended);
    assert!(upstream.requests() < 5_000, "{}", upstream.requests());
}

#[test]
fn provoked_resets_end_the_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let ended = flood(
        &gateway,
        |_| {},
        50_000,
        |n| {
            let stream = 2 * n as u32 + 1;
            let mut bytes = get(stream, "/public/slow?ms=300");
            // A window cannot grow by nothing: a stream error (RFC 9113, section 6.9).
            bytes.extend(frame(WINDOW_UPDATE, 0, stream, &[0; 4]));
            bytes
        },
    );
    assert!(ended);
    assert!(upstream.requests() < 5_000, "{}", upstream.requests());
}

#[test]
fn endless_header_block_ends_the_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let start = |client: &mut Frames| {
        let block = request("GET", "/public/a", &[]);
        client.send(HEADERS, END_STREAM, 1, &block).unwrap();
    };
    let field = header_block(&[("x-filler", &"y".repeat(100))]).repeat(50);
    let ended = flood(&gateway, start, 20_000, |_| {
        frame(CONTINUATION, 0, 1, &field)
    });
    assert!(ended);
    assert_eq!(upstream.requests(), 2, "nothing of the attacker's");
}

#[test]
fn empty_frame_floods_cost_no_memory() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let post = |client: &mut Frames| {
        let block = request("POST", "/public/a", &[]);
        client.send(HEADERS, END_HEADERS, 1, &block).unwrap();
    };
    flood(&gateway, post, 200_000, |_| frame(DATA, 0, 1, b""));
    // The responses to these are not read: they may not accumulate either.
    flood(&gateway, |_| {}, 300_000, |_| frame(PING, 0, 0, &[0; 8]));
    flood(
        &gateway,
        |_| {},
        300_000,
        |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
    );
}

#[test]
fn excess_streams_are_refused_and_others_continue() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Frames::connect(gateway.public);
    for n in 0..300 {
        client
            .send_all(&get(2 * n + 1, "/public/slow?ms=700"))
            .unwrap();
    }
    let (mut received, mut refused) = (0, 0);
    while received + refused < 300 {
        let frame = client.next().expect("the connection stays");
        match frame.kind {
            HEADERS => received += 1,
            RST_STREAM => {
                assert_eq!(frame.payload, [0, 0, 0, 7], "REFUSED_STREAM");
                refused += 1;
            }
            _ => {}
        }
    }
    assert!((100..=200).contains(&received), "{received} answered");
    assert!(upstream.requests() <= 200, "{}", upstream.requests());
}

/// Fields that make a request malformed, or one that the gateway does not serve (RFC 9113, 8.2, 8.3).
const ADDED: [(&str, &[(&str, &str)]); 16] = [
    ("an uppercase name", &[("X-Upper", "y")]),
    ("connection", &[("connection", "close")]),
    ("keep-alive", &[("keep-alive", "timeout=5")]),
    ("proxy-connection", &[("proxy-connection", "close")]),
    ("transfer-encoding", &[("transfer-encoding", "chunked")]),
    ("upgrade", &[("upgrade", "websocket")]),
    ("te", &[("te", "gzip")]),
    ("another host", &[("host", "other.example")]),
    (
        "two hosts",
        &[("host", "localhost"), ("host", "other.example")],
    ),
    ("a second authority", &[(":authority", "other.example")]),
    ("a second path", &[(":path", "/private/a")]),
    ("an unknown pseudo-header", &[(":protocol-x", "y")]),
    ("a line feed in a value", &[("x-bad", "a\nb")]),
    ("a NUL in a value", &[("x-bad", "a\0b")]),
    ("a space in a name", &[("x bad", "y")]),
    (
        "differing lengths",
        &[("content-length", "1"), ("content-length", "2")],
    ),
];

const GET: (&str, &str) = (":method", "GET");
const HTTP: (&str, &str) = (":scheme", "http");
const LOCAL: (&str, &str) = (":authority", "localhost");
const PATH: (&str, &str) = (":path", "/public/a");

/// The same, for requests as a whole.
const COMPLETE_HEADS: [(&str, &[(&str, &str)]); 14] = [
    ("an empty scheme", &[GET, (":scheme", ""), LOCAL, PATH]),
    (
        "a scheme that is not served",
        &[GET, (":scheme", "ftp"), LOCAL, PATH],
    ),
    (
        "a path without a slash",
        &[GET, HTTP, LOCAL, (":path", "public/a")],
    ),
    ("an empty path", &[GET, HTTP, LOCAL, (":path", "")]),
    ("an asterisk", &[GET, HTTP, LOCAL, (":path", "*")]),
    (
        "a space in the path",
        &[GET, HTTP, LOCAL, (":path", "/public/a b")],
    ),
    (
        "a dot segment",
        &[GET, HTTP, LOCAL, (":path", "/public/../private/a")],
    ),
    (
        "a pseudo-header after a field",
        &[GET, HTTP, LOCAL, ("x-first", "y"), PATH],
    ),
    ("no path", &[GET, HTTP, LOCAL]),
    ("no method", &[HTTP, LOCAL, PATH]),
    ("no authority", &[GET, HTTP, PATH]),
    (
        "userinfo",
        &[GET, HTTP, (":authority", "u@localhost"), PATH],
    ),
    (
        "CONNECT",
        &[(":method", "CONNECT"), (":authority", "localhost:80")],
    ),
    ("TRACE", &[(":method", "TRACE"), HTTP, LOCAL, PATH]),
];

#[test]
fn malformed_http2_request_never_reaches_an_upstream() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let added = ADDED.map(|(what, more)| (what, request("GET", "/public/a", more)));
    let whole = COMPLETE_HEADS.map(|(what, fields)| (what, header_block(fields)));
    for (what, block) in added.into_iter().chain(whole) {
        let mut client = Frames::connect(gateway.public);
        client
            .send(HEADERS, END_HEADERS | END_STREAM, 1, &block)
            .unwrap();
        let outcome = client.stream_outcome(1);
        let refused = matches!(
            outcome,
            StreamOutcome::Reset
                | StreamOutcome::ConnectionClosed
                | StreamOutcome::Status(400 | 405)
        );
        assert!(refused, "{what}: {outcome:?}");
        assert_eq!(upstream.requests(), 0, "{what}");
    }
    gateway.get("/public/a").assert_ok();
}

#[test]
fn method_that_is_not_accepted_is_refused_before_its_body_ends() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let empty = ("content-length", "0");
    let connect = [
        (":method", "CONNECT"),
        (":authority", "localhost:80"),
        empty,
    ];
    let trace = [(":method", "TRACE"), HTTP, LOCAL, PATH, empty];
    for block in [header_block(&connect), header_block(&trace)] {
        let mut client = Frames::connect(gateway.public);
        client.send(HEADERS, END_HEADERS, 1, &block).unwrap();
        let started = Instant::now();
        assert_eq!(client.stream_outcome(1), StreamOutcome::Status(405));
        assert!(started.elapsed() < Duration::from_secs(3));
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn ambiguous_authority_is_logged_and_counted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Frames::connect(gateway.public);
    let conflict = request("GET", "/public/a", &[("host", "other.example")]);
    let flags = END_HEADERS | END_STREAM;
    for stream in [1, 3] {
        client.send(HEADERS, flags, stream, &conflict).unwrap();
        assert_eq!(client.stream_outcome(stream), StreamOutcome::Status(400));
    }
    let good = request("GET", "/public/a", &[]);
    client.send(HEADERS, flags, 5, &good).unwrap();
    assert_eq!(client.stream_outcome(5), StreamOutcome::Status(200));
    eventually("both access lines", || {
        let events = gateway.events();
        let refused = events.iter().filter(|event| event["code"] == "BAD_REQUEST");
        (refused.count() == 2).then_some(())
    });
    let counted = gateway.metric("portcullis_requests_total", &["code=\"400\""]);
    assert_eq!(counted, 2.0);
}

#[test]
fn value_with_whitespace_around_it_is_refused_logged_and_counted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = Frames::connect(gateway.public);
    let flags = END_HEADERS | END_STREAM;
    let padded = [
        ("x-a", " b"),
        ("x-a", "b "),
        ("x-a", "\tb"),
        ("x-a", "b\t"),
        ("x-a", " "),
        ("authorization", " Bearer x"),
    ];
    for (stream, field) in (1..).step_by(2).zip(padded) {
        let block = request("GET", "/public/a", &[field]);
        client.send(HEADERS, flags, stream, &block).unwrap();
        let outcome = client.stream_outcome(stream);
        assert_eq!(outcome, StreamOutcome::Status(400), "{field:?}");
    }
    assert_eq!(upstream.requests(), 0);
    let inside = request("GET", "/public/a", &[("x-a", "b \tc"), ("x-b", "")]);
    client.send(HEADERS, flags, 101, &inside).unwrap();
    assert_eq!(client.stream_outcome(101), StreamOutcome::Status(200));
    eventually("the access lines", || {
        let events = gateway.events();
        let refused = events.iter().filter(|event| {
            event["code"] == "BAD_REQUEST"
                && event["path"] == "/public/a"
                && event["reason"] == "a header value begins or ends with whitespace"
        });
        (refused.count() == padded.len()).then_some(())
    });
    let counted = gateway.metric("portcullis_requests_total", &["code=\"400\""]);
    assert_eq!(counted, padded.len() as f64);
}

#[test]
fn body_with_wrong_length_is_not_forwarded_as_complete() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    for (declared, parts) in [
        ("3", vec!["hello"]),
        ("9", vec!["hello"]),
        ("4", vec!["he", "llo"]),
        ("0", vec!["hello"]),
    ] {
        let mut client = Frames::connect(gateway.public);
        let block = request("POST", "/public/length", &[("content-length", declared)]);
        client.send(HEADERS, END_HEADERS, 1, &block).unwrap();
        // The body comes once the gateway may have forwarded the head.
        std::thread::sleep(Duration::from_millis(50));
        for (n, part) in parts.iter().enumerate() {
            let end = if n + 1 == parts.len() { END_STREAM } else { 0 };
            let _ = client.send(DATA, end, 1, part.as_bytes());
        }
        let outcome = client.stream_outcome(1);
        let refused = matches!(
            outcome,
            StreamOutcome::Reset | StreamOutcome::ConnectionClosed | StreamOutcome::Status(400)
        );
        assert!(refused, "{declared}: {outcome:?}");
    }
    assert!(!upstream.has_seen("length"));
    Request::get("/public/a").send(gateway.public).assert_ok();
}
