//! Clients that do not take their response: they are cut off after `write_timeout`, for upstream
//! and local responses alike, and no other client is.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, StreamOutcome,
    WINDOW_UPDATE, frame, request,
};
use crate::support::gateway::Gateway;
use crate::support::ports;
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually};

const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// SETTINGS_INITIAL_WINDOW_SIZE.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];
const SOME_WINDOW: [u8; 6] = [0, 4, 0, 1, 0, 0];

fn start(upstream: &Upstream) -> Gateway {
    let limits = json!({ "write_timeout": "1s" });
    Gateway::start(Config::new(upstream.address).set("/listeners/0/limits", limits))
}

/// One that waits for three seconds, long enough for a busy machine, for the upstream too.
fn start_with_short_timeout(upstream: &Upstream) -> Gateway {
    let limits = json!({ "write_timeout": "3s" });
    let timeouts = json!({ "read": "3s", "write": "3s" });
    let config = Config::new(upstream.address)
        .set("/listeners/0/limits", limits)
        .set("/upstreams/echo/timeouts", timeouts);
    Gateway::start(config)
}

fn get(client: &mut Frames, stream: u32, path: &str) {
    let block = request("GET", path, &[]);
    let flags = END_HEADERS | END_STREAM;
    client.send(HEADERS, flags, stream, &block).unwrap();
}

/// Grants the client that many bytes more on a stream.
fn send_window_update(client: &mut Frames, stream: u32, bytes: u32) {
    let increment = bytes.to_be_bytes();
    client.send(WINDOW_UPDATE, 0, stream, &increment).unwrap();
}

#[test]
fn stream_without_window_is_reset() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Frames::connect(gateway.public);
    client.send(SETTINGS, 0, 0, &NO_WINDOW).unwrap();
    // The gateway's own responses, small and large, and an upstream's.
    let paths = [
        "/private/a",
        "/api/v1/openapi.json",
        "/public/a",
        "/public/big?bytes=1000000",
    ];
    for (n, path) in paths.iter().enumerate() {
        get(&mut client, 2 * n as u32 + 1, path);
    }
    let (mut responses, mut resets) = (Vec::new(), Vec::new());
    while resets.len() < paths.len() {
        let frame = client.next().expect("the connection goes on");
        match frame.kind {
            HEADERS => responses.push(frame.stream),
            RST_STREAM => resets.push(frame.stream),
            DATA => panic!("there is no window: {frame:?}"),
            _ => {}
        }
    }
    responses.sort_unstable();
    resets.sort_unstable();
    assert_eq!(responses, [1, 3, 5, 7]);
    assert_eq!(resets, [1, 3, 5, 7]);
    client.send(SETTINGS, 0, 0, &SOME_WINDOW).unwrap();
    get(&mut client, 9, "/public/a");
    assert_eq!(client.stream_outcome(9), StreamOutcome::Status(200));
}

#[test]
fn stalled_stream_is_reset_despite_partial_frames() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .set("/listeners/0/limits", json!({ "write_timeout": "1s" }))
        .set("/routes/2/max_body", json!("1GiB"));
    let gateway = Gateway::start(config);
    let mut client = Frames::connect(gateway.public);
    client.set_read_timeout(Duration::from_millis(1));
    let settings = [0, 4, 0, 0, 4, 0];
    client.send(SETTINGS, 0, 0, &settings).unwrap();
    get(&mut client, 1, "/public/big?bytes=100000");
    let upload = request("POST", "/public/a", &[]);
    client.send(HEADERS, END_HEADERS, 3, &upload).unwrap();
    let piece = frame(DATA, 0, 3, &[b'a'; 100]);
    let (begin, end) = piece.split_at(50);
    client.send_all(begin).unwrap();
    let reset = eventually("the stream is reset", || {
        let next = [end, begin].concat();
        client.send_all(&next).expect("the connection goes on");
        let frame = client.next()?;
        assert_ne!(frame.kind, GOAWAY);
        (frame.kind == RST_STREAM).then_some(frame.stream)
    });
    assert_eq!(reset, 1);
    client.send_all(end).unwrap();
    client.send(DATA, END_STREAM, 3, b"").unwrap();
    client.set_read_timeout(DEADLINE);
    assert_eq!(client.stream_outcome(3), StreamOutcome::Status(200));
}

#[test]
fn stream_without_connection_window_is_reset() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Frames::connect(gateway.public);
    // More than the 64 KiB that a connection begins with, on streams that have windows left.
    for stream in [1, 3] {
        get(&mut client, stream, "/public/big?bytes=60000");
    }
    let mut reset = None;
    while reset.is_none() {
        let frame = client.next().expect("the connection goes on");
        reset = (frame.kind == RST_STREAM).then_some(frame.stream);
    }
    send_window_update(&mut client, 0, 1 << 20);
    get(&mut client, 5, "/public/a");
    assert_eq!(client.stream_outcome(5), StreamOutcome::Status(200));
}

#[test]
fn slow_but_steady_reader_is_not_cut_off() {
    let upstream = Upstream::start();
    let gateway = start_with_short_timeout(&upstream);
    let mut client = Frames::connect(gateway.public);
    client.send(SETTINGS, 0, 0, &NO_WINDOW).unwrap();
    get(&mut client, 1, "/public/big?bytes=2000000");
    let (start, mut taken) = (Instant::now(), 0);
    while start.elapsed() < 6 * WRITE_TIMEOUT {
        send_window_update(&mut client, 1, 100);
        loop {
            let frame = client.next().expect("the connection goes on");
            assert_ne!(frame.kind, RST_STREAM, "after {taken} bytes");
            if frame.kind == DATA {
                taken += frame.payload.len();
                break;
            }
        }
        // The pace is what is tested.
        std::thread::sleep(WRITE_TIMEOUT / 5);
    }
    assert!((300..10_000).contains(&taken), "{taken}");
    // And then all the rest.
    send_window_update(&mut client, 1, 2_000_000);
    send_window_update(&mut client, 0, 2_000_000);
    while taken < 2_000_000 {
        let frame = client.next().expect("the connection goes on");
        assert_ne!(frame.kind, RST_STREAM, "after {taken} bytes");
        if frame.kind == DATA {
            taken += frame.payload.len();
        }
    }
}

#[test]
fn quiet_event_stream_is_not_cut_off() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Frames::connect(gateway.public);
    get(&mut client, 1, "/public/sse");
    assert_eq!(client.stream_outcome(1), StreamOutcome::Status(200));
    std::thread::sleep(2 * WRITE_TIMEOUT);
    eventually("the stream is open at the upstream", || {
        (upstream.publish("later") == 1).then_some(())
    });
    let mut seen = String::new();
    while !seen.contains("later") {
        let frame = client.next().expect("the connection goes on");
        assert_ne!(frame.kind, RST_STREAM);
        if frame.kind == DATA {
            seen.push_str(&String::from_utf8_lossy(&frame.payload));
        }
    }
}

#[test]
fn stalled_reader_is_closed_on_both_protocols() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    // Responses of the gateway's own over 16 KiB, and an upstream's; nothing is ever read.
    let own = Request::get("/api/v1/openapi.json")
        .to_bytes()
        .repeat(2_000);
    let large = Request::get("/public/big?bytes=50000000").to_bytes();
    for bytes in [own, large] {
        let mut client = Client::connect(gateway.public);
        std::thread::spawn(move || {
            // The gateway stops reading before it has everything.
            let _ = client.try_send(&bytes);
            // Held open until the test is over.
            std::thread::sleep(Duration::from_secs(60));
        });
    }
    let mut client = Frames::connect(gateway.public);
    let [a, b, c, d] = 0x7fff_0000_u32.to_be_bytes();
    client.send(SETTINGS, 0, 0, &[0, 4, a, b, c, d]).unwrap();
    send_window_update(&mut client, 0, 0x7000_0000);
    get(&mut client, 1, "/public/big?bytes=50000000");
    eventually("the upstream is asked", || {
        (upstream.requests() == 2).then_some(())
    });
    eventually("the connections are closed", || {
        (gateway.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
    });
    gateway.get("/public/a").assert_ok();
}

#[test]
fn tls_client_that_reads_nothing_is_closed_with_its_session() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let mut config = Config::new(upstream.address);
    let cert = config.write_beside("site.pem", &certificate.cert);
    let key = config.write_beside("site.key", &certificate.key);
    let listener = json!({
        "bind": ports::free().to_string(),
        "tls": { "certificates": [{ "cert": cert, "key": key }] },
        "limits": { "write_timeout": "3s" },
    });
    config.file["listeners"]
        .as_array_mut()
        .unwrap()
        .push(listener);
    let gateway = Gateway::start(config);
    let user = gateway.register("ann@example.com");
    let offered = tls::client(&certificate, &["http/1.1"]);
    let address = gateway.config.listener(1);
    let mut client = tls::connect(address, "localhost", &offered).unwrap();
    let request = Request::get("/private/big?bytes=50000000").bearer(&user.access_token);
    client.write_all(&request.to_bytes()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    let end = Request::delete(&format!("/admin/users/{}/sessions", user.user));
    gateway.admin(end).assert_ok();
    gateway.wait_for_log("the session or the token has ended");
    // What TLS holds of the response cannot be sent.
    eventually("the connection is closed", || {
        (gateway.metric("portcullis_connections_open", &[]) == 0.0).then_some(())
    });
    drop(client);
}
