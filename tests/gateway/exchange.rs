//! One request and its response on an upstream connection: every way in which either can arrive, and
//! what the next request on both connections finds.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::{ServerConnection, StreamOwned};
use serde_json::json;

use crate::support::client::{Client, Request, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::{read_head, serve_connections};
use crate::support::tls;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually};

/// A response of an upstream, and what its client receives.
struct Case {
    method: &'static str,
    bytes: &'static str,
    status: u16,
    body: &'static str,
    /// The upstream connection carries the next request.
    is_reused: bool,
}

const CASES: [Case; 9] = [
    Case {
        method: "POST",
        bytes: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kept: yes\r\n\r\nhello",
        status: 200,
        body: "hello",
        is_reused: true,
    },
    Case {
        method: "POST",
        bytes: "HTTP/1.1 200 OK\r\nX-Kept: yes\r\nTransfer-Encoding: chunked\r\n\r\n\
                3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n",
        status: 200,
        body: "hello",
        is_reused: true,
    },
    Case {
        method: "POST",
        bytes: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Kept: yes\r\nConnection: close\r\n\r\nhello",
        status: 200,
        body: "hello",
        is_reused: false,
    },
    Case {
        method: "POST",
        bytes: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nX-Kept: yes\r\n\r\nhello",
        status: 200,
        body: "hello",
        is_reused: false,
    },
    Case {
        method: "POST",
        bytes: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                HTTP/1.1 404 Not Found\r\nX-Kept: yes\r\nContent-Length: 2\r\n\r\nno",
        status: 404,
        body: "no",
        is_reused: true,
    },
    Case {
        method: "POST",
        bytes: "HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n",
        status: 204,
        body: "",
        is_reused: true,
    },
    Case {
        method: "POST",
        bytes: "HTTP/1.1 304 Not Modified\r\nX-Kept: yes\r\nContent-Length: 5\r\n\r\n",
        status: 304,
        body: "",
        is_reused: true,
    },
    Case {
        method: "HEAD",
        bytes: "HTTP/1.1 200 OK\r\nX-Kept: yes\r\nContent-Length: 5\r\n\r\n",
        status: 200,
        body: "",
        is_reused: true,
    },
    Case {
        method: "POST",
        bytes: "HTTP/1.1 200 OK\r\nX-Kept: yes\r\nContent-Length: 0\r\n\r\n",
        status: 200,
        body: "",
        is_reused: true,
    },
];

/// An upstream that counts its connections and hands each request's target to a function, which
/// writes a response. `false` ends the connection.
fn start(
    respond: impl Fn(&mut TcpStream, &str) -> bool + Send + Sync + 'static,
) -> (Gateway, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let (counter, respond) = (Arc::clone(&connections), Arc::new(respond));
    let upstream = serve_connections(move |mut stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        stream.set_nodelay(true).unwrap();
        while let Some(target) = read_target(&mut stream) {
            if !respond(&mut stream, &target) {
                return;
            }
        }
    });
    (
        Gateway::start_on_one_worker(Config::new(upstream)),
        connections,
    )
}

/// Reads the head of a request without a body, and returns its target.
fn read_target(stream: &mut TcpStream) -> Option<String> {
    let head = read_head(stream)?;
    Some(head.split(' ').nth(1)?.to_owned())
}

/// `/public/<case>/<how many bytes>/<piece length>`
fn parse_script(target: &str) -> (&'static Case, usize, usize) {
    let mut numbers = target.split('/').skip(2).map(|part| part.parse().unwrap());
    let case = &CASES[numbers.next().unwrap()];
    (case, numbers.next().unwrap(), numbers.next().unwrap())
}

fn write_in_pieces(stream: &mut TcpStream, bytes: &[u8], length: usize) {
    for piece in bytes.chunks(length) {
        let _ = stream.write_all(piece);
        if piece.len() < bytes.len() {
            std::thread::yield_now();
        }
    }
}

fn start_scripted() -> (Gateway, Arc<AtomicUsize>) {
    start(|stream, target| {
        let (case, length, piece) = parse_script(target);
        write_in_pieces(stream, &case.bytes.as_bytes()[..length], piece);
        length == case.bytes.len()
    })
}

fn send(client: &mut Client, case: usize, length: usize, piece: usize) {
    let method = CASES[case].method;
    let target = format!("/public/{case}/{length}/{piece}");
    client.send(Request::new(method, &target).to_bytes());
}

#[test]
fn response_is_the_same_in_one_piece_and_byte_by_byte() {
    let (gateway, connections) = start_scripted();
    for (index, case) in CASES.iter().enumerate() {
        for piece in [case.bytes.len(), 1, 7] {
            let mut client = Client::connect(gateway.public);
            let before = connections.load(Ordering::SeqCst);
            for _ in 0..3 {
                send(&mut client, index, case.bytes.len(), piece);
                let response = client.read_response_to(case.method).unwrap();
                assert_eq!(response.status, case.status, "{}", case.bytes);
                assert_eq!(response.text(), case.body, "{}", case.bytes);
                assert_eq!(response.header("x-kept"), Some("yes"), "{}", case.bytes);
            }
            let opened = connections.load(Ordering::SeqCst) - before;
            // One may be left from the case before.
            let expected = if case.is_reused { 0..=1 } else { 2..=3 };
            assert!(expected.contains(&opened), "{opened}: {}", case.bytes);
        }
    }
}

#[test]
fn response_cut_at_any_byte_is_never_taken_for_complete() {
    let (gateway, _) = start_scripted();
    for (index, case) in CASES.iter().enumerate() {
        let last = case.bytes.rfind("HTTP/1.").unwrap();
        let head_end = last + case.bytes[last..].find("\r\n\r\n").unwrap() + 4;
        for cut in 0..case.bytes.len() {
            let mut client = Client::connect(gateway.public);
            send(&mut client, index, cut, cut.max(1));
            let response = client.read_response_to(case.method);
            if cut < head_end {
                let response = response.unwrap();
                assert_eq!(response.status, 502, "{cut}: {}", case.bytes);
            } else {
                assert!(response.is_err(), "{cut}: {} {response:?}", case.bytes);
            }
            assert!(client.closes_within(Duration::from_secs(5)), "{cut}");
        }
        // The connections that were cut carry nothing more.
        let mut client = Client::connect(gateway.public);
        send(&mut client, index, case.bytes.len(), 1000);
        let response = client.read_response_to(case.method).unwrap();
        assert_eq!(response.status, case.status);
    }
}

#[test]
fn response_without_length_ends_with_its_connection() {
    let (gateway, _) = start(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhel");
        std::thread::sleep(Duration::from_millis(20));
        let _ = stream.write_all(b"lo");
        false
    });
    let mut client = Client::connect(gateway.public);
    for _ in 0..2 {
        let response = client.request(&Request::post("/public/a"));
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "hello");
    }
    let mut client = Client::connect(gateway.public);
    client.send("GET /public/a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.header("transfer-encoding"), None);
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(response.text(), "hello");
}

#[test]
fn http_1_0_client_keeps_its_connection_if_it_asks_for_it() {
    let (gateway, _) = start(|stream, _| {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        stream.write_all(response).is_ok()
    });
    let mut client = Client::connect(gateway.public);
    for _ in 0..2 {
        client.send("GET /public/a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = client.read_response();
        assert_eq!(response.header("connection"), Some("keep-alive"));
        assert_eq!(response.text(), "hello");
    }
    client.send("GET /public/a HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().header("connection"), Some("close"));
    assert!(client.closes_within(Duration::from_secs(5)));
}

#[test]
fn malformed_response_is_502_or_cut_off() {
    const RESPONSES: [(&str, bool); 14] = [
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok", true),
        ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\nok", true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: a\0b\r\n\r\nok",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX\u{1}A: b\r\n\r\nok",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok", true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nok\r\n0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n",
            false,
        ),
    ];
    let (gateway, _) = start(|stream, target| {
        let index: usize = target.rsplit('/').next().unwrap().parse().unwrap();
        stream.write_all(RESPONSES[index].0.as_bytes()).is_ok()
    });
    for (index, (response, is_head)) in RESPONSES.iter().enumerate() {
        let mut client = Client::connect(gateway.public);
        client.send(Request::post(&format!("/public/{index}")).to_bytes());
        let received = client.read_response_to("POST");
        if *is_head {
            received
                .unwrap_or_else(|error| panic!("{response:?}: {error}"))
                .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
        } else {
            assert!(received.is_err(), "{response:?}: {received:?}");
        }
    }
}

/// An upstream that responds once on each connection, and then treats it as `then` says: before or
/// after the second request arrives.
fn start_responding_once(
    then: fn(&mut TcpStream),
) -> (Gateway, Arc<Mutex<HashMap<String, usize>>>) {
    let counts = Arc::<Mutex<HashMap<String, usize>>>::default();
    let shared = Arc::clone(&counts);
    let upstream = serve_connections(move |mut stream| {
        if let Some(target) = read_target(&mut stream) {
            *shared.lock().entry(target).or_default() += 1;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            then(&mut stream);
        }
        if let Some(target) = read_target(&mut stream) {
            *shared.lock().entry(target).or_default() += 1;
        }
    });
    (Gateway::start_on_one_worker(Config::new(upstream)), counts)
}

#[test]
fn connection_that_was_closed_or_written_to_while_idle_is_not_used() {
    let closes: fn(&mut TcpStream) = |stream| {
        let _ = stream.shutdown(Shutdown::Both);
    };
    let speaks: fn(&mut TcpStream) = |stream| {
        std::thread::sleep(Duration::from_millis(20));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    };
    let speaks_at_once: fn(&mut TcpStream) = |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    };
    for then in [closes, speaks, speaks_at_once] {
        let (gateway, counts) = start_responding_once(then);
        for number in 0..4 {
            let target = format!("/public/{number}");
            let response = gateway.request(&Request::post(&target));
            assert_eq!((response.status, response.text().as_str()), (200, "ok"));
            assert_eq!(counts.lock()[&target], 1);
            std::thread::sleep(Duration::from_millis(60));
        }
    }
}

#[test]
fn request_on_a_stale_connection_is_repeated_once_if_safe() {
    // The second request of each connection is read, and the connection is closed.
    let (gateway, counts) = start_responding_once(|_| {});
    assert_eq!(gateway.get("/public/first").text(), "ok");
    let response = gateway.get("/public/safe");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(counts.lock()["/public/safe"], 2);
    let response = gateway.request(&Request::post("/public/unsafe"));
    response.assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    assert_eq!(counts.lock()["/public/unsafe"], 1);
    assert_eq!(gateway.get("/public/second").text(), "ok");
    let with_body = Request::new("GET", "/public/body").body("x");
    let response = gateway.request(&with_body);
    response.assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    assert_eq!(counts.lock()["/public/body"], 1);
}

#[test]
fn request_is_not_repeated_once_a_response_has_begun() {
    let (gateway, counts) = start_responding_once(|stream| {
        read_target(stream);
        let _ = stream.write_all(b"HTTP/1.1 200");
        let _ = stream.shutdown(Shutdown::Both);
    });
    assert_eq!(gateway.get("/public/first").text(), "ok");
    gateway
        .get("/public/begun")
        .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    assert_eq!(
        counts.lock().get("/public/begun"),
        None,
        "read by the script"
    );
}

#[test]
fn cancelled_exchange_leaves_nothing_behind() {
    let ended = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&ended);
    let upstream = serve_connections(move |mut stream| {
        let head = read_head(&mut stream).unwrap_or_default();
        if head.contains("/download") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nfirst");
        }
        // Until the gateway ends the connection.
        while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
        shared.fetch_add(1, Ordering::SeqCst);
    });
    let gateway = Gateway::start_on_one_worker(Config::new(upstream));
    let heads = [
        ("waiting", "GET /public/waiting HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "upload",
            "POST /public/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
        ),
        (
            "download",
            "GET /public/download HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ];
    for (number, (name, head)) in heads.iter().enumerate() {
        let stream = connect_socket(gateway.public).unwrap();
        let mut client = Client::from_stream(stream.try_clone().unwrap());
        client.send(head);
        if *name == "download" {
            client.read_until("first");
        }
        std::thread::sleep(Duration::from_millis(100));
        // A reset: a client that only closes its side may still wait for the response.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop((client, stream));
        eventually("the upstream connection ends", || {
            (ended.load(Ordering::SeqCst) == number + 1).then_some(())
        });
        let path = format!("/public/{name}");
        eventually("the request is logged", || {
            let events = gateway.events();
            let lines = events.iter().filter(|line| line["path"] == path);
            (lines.count() == 1).then_some(())
        });
    }
    assert_eq!(gateway.metric("portcullis_requests_in_flight", &[]), 0.0);
}

/// An upstream of TLS that counts its connections and responds to every request.
fn start_tls(counter: Arc<AtomicUsize>, certificate: &tls::Certificate) -> SocketAddr {
    let settings = tls::server(certificate);
    serve_connections(move |stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        let session = ServerConnection::new(Arc::clone(&settings)).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        let (mut head, mut byte) = (Vec::new(), [0]);
        while matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                let sent = stream.write_all(response).and_then(|()| stream.flush());
                if sent.is_err() {
                    return;
                }
            }
        }
    })
}

#[test]
fn tls_connection_is_reused_despite_its_session_tickets() {
    let (authority, certificate) = tls::issue("localhost");
    let connections = Arc::new(AtomicUsize::new(0));
    let upstream = start_tls(Arc::clone(&connections), &certificate);
    let config = Config::new(upstream);
    let ca = config.write_beside("ca.pem", &authority.cert);
    let url = format!("https://localhost:{}", upstream.port());
    let config = config.set(
        "/upstreams/echo",
        json!({ "servers": [url], "tls": { "ca": ca } }),
    );
    let gateway = Gateway::start_on_one_worker(config);
    for _ in 0..4 {
        let response = gateway.request(&Request::post("/public/a"));
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn no_byte_passes_an_upgrade_before_its_101() {
    let received = Arc::<Mutex<Vec<u8>>>::default();
    let shared = Arc::clone(&received);
    let upstream = serve_connections(move |mut stream| {
        let Some(head) = read_head(&mut stream) else {
            return;
        };
        let agrees = head.contains("/agrees");
        std::thread::sleep(Duration::from_millis(100));
        stream.set_nonblocking(true).unwrap();
        let early = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).unwrap();
        assert!(!early, "bytes before the 101");
        if !agrees {
            let refused = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno";
            let _ = stream.write_all(refused);
            let next = read_head(&mut stream).unwrap_or_default();
            shared.lock().extend_from_slice(next.as_bytes());
            let _ = stream.write_all(refused);
            return;
        }
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\n\r\nfirst",
        );
        let mut bytes = [0; 6];
        if stream.read_exact(&mut bytes).is_ok() {
            shared.lock().extend_from_slice(&bytes);
            let _ = stream.write_all(b"second");
        }
    });
    let gateway = Gateway::start_on_one_worker(Config::new(upstream));
    let head = |path: &str| {
        format!(
            "GET /public/{path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n\r\n"
        )
    };
    let mut client = Client::connect(gateway.public);
    client.send(head("agrees") + "eager!");
    client.read_until("HTTP/1.1 101 ");
    client.read_until("\r\n\r\nfirst");
    client.read_until("second");
    assert_eq!(*received.lock(), b"eager!");
    assert!(client.closes_within(Duration::from_secs(5)));
    // Without a 101, what follows is the next request.
    let next = "GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::connect(gateway.public);
    client.send(head("declines") + next);
    assert_eq!(client.read_response().text(), "no");
    assert_eq!(client.read_response().text(), "no");
    let received = String::from_utf8(received.lock().clone()).unwrap();
    assert!(received.contains("GET /public/next "), "{received}");
}

#[test]
fn endless_interim_responses_are_malformed() {
    let upstream = serve_connections(|mut stream| {
        read_head(&mut stream).unwrap();
        let many = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
        while stream.write_all(many.as_bytes()).is_ok() {}
    });
    let gateway = Gateway::start(Config::new(upstream));
    // A client of HTTP/1.0 receives none of them.
    for version in ["1.0", "1.1"] {
        let mut client = Client::connect(gateway.public);
        client.send(format!("GET /public/a HTTP/{version}\r\nHost: a\r\n\r\n"));
        let last = (0..2000).find_map(|_| {
            let head = client.read_head().unwrap();
            (head.status != 103).then_some(head.status)
        });
        assert_eq!(last, Some(502), "{version}");
    }
}

#[test]
fn request_that_waits_for_a_connection_is_closed_with_its_session() {
    // It accepts connections, and never finishes a handshake.
    let silent = serve_connections(|_stream| std::thread::sleep(Duration::from_secs(60)));
    let upstream = json!({
        "servers": [format!("https://{silent}")],
        "timeouts": { "connect": "15s" },
    });
    let gateway = Gateway::start(Config::new(silent).set("/upstreams/echo", upstream));
    let user = gateway.register("ann@example.com");
    let mut client = Client::connect(gateway.public);
    client.send(
        Request::get("/private/a")
            .bearer(&user.access_token)
            .to_bytes(),
    );
    // Long enough to count as open.
    std::thread::sleep(Duration::from_millis(500));
    let end = Request::delete(&format!("/admin/users/{}/sessions", user.user));
    gateway.admin(end).assert_ok();
    assert!(client.closes_within(PROPAGATION_DEADLINE));
}

#[test]
fn end_of_a_tunnel_reaches_a_client_that_still_sends() {
    const SIZE: usize = 1_000_000;
    let upstream = serve_connections(|mut stream| {
        read_head(&mut stream).unwrap();
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).unwrap();
        // It reads nothing, so that bytes of the client wait at the gateway.
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(&[b'z'; SIZE]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_secs(20));
    });
    let gateway = Gateway::start(Config::new(upstream));
    let mut client = connect_socket(gateway.public).unwrap();
    let head =
        "GET /public/a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut sender = client.try_clone().unwrap();
    std::thread::spawn(move || while sender.write_all(&[b'a'; 8192]).is_ok() {});
    let (mut received, mut part) = (0, [0; 4096]);
    while let Ok(count @ 1..) = client.read(&mut part) {
        received += part
            .iter()
            .take(count)
            .filter(|byte| **byte == b'z')
            .count();
    }
    assert_eq!(received, SIZE);
}
