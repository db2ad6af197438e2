//! Requests with every kind of body, in every way in which it can arrive and be responded to, and what
//! the next request on both connections finds.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::support::client::{Client, Request, Response, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::{read_head, serve_connections};

#[derive(Debug, Clone, Copy, PartialEq)]
enum BodyFraming {
    None,
    Length,
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sending {
    Whole,
    InParts,
    /// With bytes behind it that are no request.
    TooLong,
    /// The client closes its side within it.
    TooShort,
    Malformed,
}

/// When the upstream responds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Timing {
    After,
    During,
    Before,
}

#[derive(Debug, Clone, Copy)]
struct Exchange {
    framing: BodyFraming,
    sending: Sending,
    timing: Timing,
    keep: bool,
    is_http10: bool,
}

const BODY: &str = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

impl Exchange {
    fn all() -> Vec<Exchange> {
        let mut all = Vec::new();
        for framing in [BodyFraming::None, BodyFraming::Length, BodyFraming::Chunked] {
            for sending in [
                Sending::Whole,
                Sending::InParts,
                Sending::TooLong,
                Sending::TooShort,
                Sending::Malformed,
            ] {
                for timing in [Timing::After, Timing::During, Timing::Before] {
                    for keep in [true, false] {
                        for is_http10 in [true, false] {
                            all.push(Exchange {
                                framing,
                                sending,
                                timing,
                                keep,
                                is_http10,
                            });
                        }
                    }
                }
            }
        }
        all.retain(|one| one.is_possible());
        all
    }

    fn is_possible(&self) -> bool {
        let has_body = self.framing != BodyFraming::None;
        let needs_body = matches!(
            self.sending,
            Sending::InParts | Sending::TooShort | Sending::Malformed
        ) || self.timing != Timing::After;
        has_body || !needs_body
    }

    /// The head does not become a request.
    fn is_rejected(&self) -> bool {
        match self.framing {
            BodyFraming::None => false,
            BodyFraming::Length => self.sending == Sending::Malformed,
            BodyFraming::Chunked => self.is_http10,
        }
    }

    /// The body never comes to its end.
    fn is_broken(&self) -> bool {
        matches!(self.sending, Sending::TooShort | Sending::Malformed)
    }

    fn target(&self, number: usize) -> String {
        let timing = match self.timing {
            Timing::After => "after",
            Timing::During => "during",
            Timing::Before => "before",
        };
        format!("/public/{timing}/{number}")
    }

    fn head(&self, number: usize) -> String {
        let version = if self.is_http10 { "1.0" } else { "1.1" };
        let connection = if self.keep { "keep-alive" } else { "close" };
        let sign = if self.is_rejected() { "+" } else { "" };
        let framing = match self.framing {
            BodyFraming::None => String::new(),
            BodyFraming::Length => format!("Content-Length: {sign}{}\r\n", BODY.len()),
            BodyFraming::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let target = self.target(number);
        format!(
            "POST {target} HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n{framing}\r\n"
        )
    }

    /// The bytes behind the head, in parts.
    fn parts(&self) -> Vec<String> {
        let (one, two) = BODY.split_at(7);
        let mut parts = match self.framing {
            BodyFraming::None => vec![],
            BodyFraming::Length => vec![one.to_owned(), two.to_owned()],
            BodyFraming::Chunked => vec![
                format!("{:x};a=b\r\n{one}\r\n", one.len()),
                format!("{:x}\r\n{two}\r\n0\r\nX-Trailer: 1\r\n\r\n", two.len()),
            ],
        };
        match self.sending {
            Sending::Whole => parts = vec![parts.concat()],
            Sending::InParts => {}
            Sending::TooLong => parts = vec![parts.concat() + "no request\r\n\r\n"],
            Sending::TooShort => parts.truncate(1),
            Sending::Malformed => parts = vec![parts.concat().replace(";a=b", " ;")],
        }
        parts
    }

    /// Sends the request. Returns whether both connections are kept: the upstream's too, since it is
    /// told nothing of the client's. `None`: the client's wish does not show it.
    fn run(&self, gateway: &Gateway, number: usize) -> Option<bool> {
        let stream = connect_socket(gateway.public).unwrap();
        let mut client = Client::from_stream(stream.try_clone().unwrap());
        client.send(self.head(number));
        let parts = self.parts();
        let (first, rest) = parts
            .split_first()
            .map_or(("", &[][..]), |(one, rest)| (one, rest));
        let _ = client.try_send(first);
        if self.sending == Sending::TooShort {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let is_early = self.timing != Timing::After;
        let (before, after) = rest.split_at(if is_early { 0 } else { rest.len() });
        for part in before {
            std::thread::sleep(Duration::from_millis(5));
            let _ = client.try_send(part);
        }
        let keeps = match client.read_response_to("POST") {
            Ok(response) => self.check(&response),
            Err(error) => {
                assert!(self.is_broken() && !self.is_rejected(), "{self:?}: {error}");
                false
            }
        };
        if keeps {
            self.assert_next(&mut client);
            return Some(true);
        }
        for part in after {
            let _ = client.try_send(part);
        }
        assert!(client.closes_within(Duration::from_secs(5)), "{self:?}");
        match (is_early, self.keep) {
            _ if self.is_broken() => Some(false),
            (false, _) => Some(true),
            (true, true) => Some(false),
            (true, false) => None,
        }
    }

    /// Returns whether the client connection is kept.
    fn check(&self, response: &Response) -> bool {
        let closes = response.header("connection") == Some("close");
        let is_early = self.timing != Timing::After;
        if self.is_rejected() || (self.is_broken() && response.status == 400) {
            assert_eq!(
                (response.status, closes),
                (400, true),
                "{self:?}: {response:?}"
            );
            assert!(self.is_rejected() || self.sending == Sending::Malformed);
            return false;
        }
        assert!(is_early || !self.is_broken(), "{self:?}: {response:?}");
        assert_eq!(response.status, 200, "{self:?}: {response:?}");
        assert!(self.keep || closes, "{self:?}: {response:?}");
        assert!(is_early || self.keep != closes, "{self:?}: {response:?}");
        !closes
    }

    /// The connection continues behind the body.
    fn assert_next(&self, client: &mut Client) {
        if self.sending == Sending::TooLong {
            let next = client.read_response();
            assert_eq!(next.status, 400, "{self:?}: {next:?}");
        } else {
            let next = client.request(&Request::get("/public/next"));
            assert_eq!(next.text(), "next", "{self:?}");
        }
    }
}

/// What an upstream saw: the connections on which each target was requested, bodies, and bytes that are
/// no request.
#[derive(Default)]
struct Seen {
    connections: usize,
    targets: HashMap<String, Vec<usize>>,
    bodies: Vec<String>,
    faults: Vec<String>,
}

/// Serves `POST /public/<when>/<number>` and `GET /public/next`.
fn serve_bodies(mut stream: TcpStream, seen: &Mutex<Seen>) {
    let connection = {
        let mut seen = seen.lock();
        seen.connections += 1;
        seen.connections
    };
    while let Some(head) = read_head(&mut stream) {
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let known = head.starts_with("POST /public/") || head.starts_with("GET /public/next");
        if !known {
            seen.lock().faults.push(head.clone());
        }
        let mut all = seen.lock();
        all.targets
            .entry(target.clone())
            .or_default()
            .push(connection);
        drop(all);
        let respond = |stream: &mut TcpStream, body: &str| {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(head.as_bytes());
        };
        if target == "/public/next" {
            respond(&mut stream, "next");
            continue;
        }
        let is_before = target.contains("/before/");
        if is_before {
            respond(&mut stream, "early");
        }
        let mut body = Vec::new();
        let is_during = target.contains("/during/");
        if is_during {
            let mut byte = [0];
            if !matches!(stream.read(&mut byte), Ok(1)) {
                return;
            }
            body.push(byte[0]);
            respond(&mut stream, "early");
        }
        let Some(body) = read_body(&mut stream, &head, body) else {
            return;
        };
        if !is_before && !is_during {
            respond(&mut stream, "late");
        }
        seen.lock().bodies.push(body);
    }
}

/// Reads a body as its head declares it; `None`: the connection ended within it.
fn read_body(stream: &mut TcpStream, head: &str, mut read: Vec<u8>) -> Option<String> {
    let lower = head.to_ascii_lowercase();
    let (has_length, is_chunked) = (
        lower.contains("content-length:"),
        lower.contains("transfer-encoding: chunked"),
    );
    assert!(!(has_length && is_chunked), "both framings: {head}");
    let is_complete = |read: &[u8]| match (has_length, is_chunked) {
        (true, _) => read.len() >= BODY.len(),
        (_, true) => read.ends_with(b"\r\n0\r\n\r\n"),
        _ => true,
    };
    let mut byte = [0];
    while !is_complete(&read) {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        read.push(byte[0]);
    }
    let text = String::from_utf8(read).unwrap();
    if !is_chunked {
        return Some(text);
    }
    let mut decoded = String::new();
    let mut rest = text.as_str();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).expect("a size without an extension");
        if size == 0 {
            assert_eq!(after, "\r\n", "no trailers");
            return Some(decoded);
        }
        decoded.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap();
    }
}

#[test]
fn every_body_ends_where_its_framing_says() {
    let seen = Arc::<Mutex<Seen>>::default();
    let shared = Arc::clone(&seen);
    let upstream = serve_connections(move |stream| serve_bodies(stream, &shared));
    let gateway = Gateway::start_on_one_worker(Config::new(upstream));
    let last = |target: &str| Some(*seen.lock().targets.get(target)?.last()?);
    for (number, exchange) in Exchange::all().iter().enumerate() {
        let is_kept = exchange.run(&gateway, number);
        let used = last(&exchange.target(number));
        assert!(used.is_none() || !exchange.is_rejected(), "{exchange:?}");
        let next = gateway.get("/public/next");
        assert_eq!(next.text(), "next", "after {exchange:?}");
        if let (Some(used), Some(is_kept)) = (used, is_kept) {
            assert_eq!(last("/public/next") == Some(used), is_kept, "{exchange:?}");
        }
    }
    let seen = seen.lock();
    assert!(seen.faults.is_empty(), "{:?}", seen.faults);
    for body in &seen.bodies {
        assert!(body.is_empty() || body == BODY, "{body:?}");
    }
    for (target, connections) in &seen.targets {
        let is_once = target == "/public/next" || connections.len() == 1;
        assert!(is_once, "{target}: {connections:?}");
    }
}
