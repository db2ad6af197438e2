//! Backends: one that reports what it saw and misbehaves on request, and one that records every
//! byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio_tungstenite::tungstenite::accept;

use super::client::Wire;

/// An HTTP/1.1 server that answers with what it saw. The last segment of a path may ask for more:
///
/// | last segment | answer |
/// | --- | --- |
/// | `slow?ms=N` | the echo, N milliseconds later |
/// | `status-NNN?name=value&…` | the echo with that status and these response headers |
/// | `sse` | an event stream: one event at once, then what [`Upstream::publish`] says |
/// | `chunked` | `one two three` in three chunks, and a trailer |
/// | `big?bytes=N` | that many bytes |
/// | `ws` | a WebSocket that echoes |
/// | `close` | none: the connection is closed |
/// | `garbage` | bytes that are not HTTP |
/// | `reply?name=value&…` | the echo with these response headers |
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    targets: Mutex<Vec<String>>,
    streams: Mutex<Vec<Sender<String>>>,
}

impl Upstream {
    pub fn start() -> Upstream {
        Upstream::at("127.0.0.1:0".parse().unwrap())
    }

    /// Starts one where a test wants it.
    pub fn at(address: SocketAddr) -> Upstream {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_nodelay(true);
                serve(stream, &shared);
            }
        });
        Upstream { address, state }
    }

    /// Serves a unix socket instead.
    pub fn on_unix_socket(path: &Path) -> Upstream {
        let listener = UnixListener::bind(path).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &shared);
            }
        });
        Upstream {
            address: "127.0.0.1:1".parse().unwrap(),
            state,
        }
    }

    /// How many requests arrived.
    pub fn requests(&self) -> usize {
        self.state.targets.lock().len()
    }

    /// Whether a request whose target contains this arrived.
    pub fn has_seen(&self, part: &str) -> bool {
        self.state
            .targets
            .lock()
            .iter()
            .any(|target| target.contains(part))
    }

    /// Sends an event on every open event stream; returns how many there are.
    pub fn publish(&self, text: &str) -> usize {
        let mut streams = self.state.streams.lock();
        streams.retain(|stream| stream.send(text.to_owned()).is_ok());
        streams.len()
    }
}

/// A request as it arrived.
pub struct SeenRequest {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The head as it came, for the WebSocket library, which wants to read it itself.
    head: Vec<u8>,
}

fn serve(stream: impl Wire + 'static, state: &Arc<State>) {
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        let mut stream: Box<dyn Wire> = Box::new(stream);
        let mut buffer = Vec::new();
        while let Some(seen) = read_request(&mut stream, &mut buffer) {
            state.targets.lock().push(seen.target.clone());
            match respond(stream, &seen, &state) {
                Some(kept) => stream = kept,
                None => return,
            }
        }
    });
}

/// Answers one request; the stream comes back when the connection goes on.
fn respond(mut stream: Box<dyn Wire>, seen: &SeenRequest, state: &State) -> Option<Box<dyn Wire>> {
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let number = || {
        query
            .split_once('=')
            .and_then(|(_, n)| n.parse().ok())
            .unwrap_or(0_u64)
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    match last {
        "slow" => {
            std::thread::sleep(Duration::from_millis(number()));
            echo(&mut stream, seen, "200", "").ok()?;
        }
        "big" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", number());
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&vec![b'x'; number() as usize]).ok()?;
        }
        "chunked" => {
            let body = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                        4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\nX-Trailer: yes\r\n\r\n";
            stream.write_all(body.as_bytes()).ok()?;
        }
        "sse" => {
            stream_events(stream, state);
            return None;
        }
        "ws" => {
            echo_frames(stream, seen);
            return None;
        }
        "close" => return None,
        "garbage" => {
            stream.write_all(b"this is not HTTP at all\r\n\r\n").ok()?;
            return None;
        }
        "reply" => echo(&mut stream, seen, "200", &response_headers(query)).ok()?,
        _ => match last.strip_prefix("status-") {
            Some(status) => echo(&mut stream, seen, status, &response_headers(query)).ok()?,
            None => echo(&mut stream, seen, "200", "").ok()?,
        },
    }
    Some(stream)
}

fn response_headers(query: &str) -> String {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(n, v)| format!("{n}: {v}\r\n")).collect()
}

fn echo(
    stream: &mut Box<dyn Wire>,
    seen: &SeenRequest,
    status: &str,
    headers: &str,
) -> std::io::Result<()> {
    let body = json!({
        "method": seen.method,
        "target": seen.target,
        "headers": seen.headers,
        "body": String::from_utf8_lossy(&seen.body),
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 {status} Echo\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if seen.method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

fn stream_events(mut stream: Box<dyn Wire>, state: &State) {
    let (sender, receiver) = channel();
    let _ = sender.send("hello".to_owned());
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    state.streams.lock().push(sender);
    for text in receiver {
        let event = format!("data: {text}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        if stream
            .write_all(chunk.as_bytes())
            .and_then(|()| stream.flush())
            .is_err()
        {
            return;
        }
    }
}

fn echo_frames(stream: Box<dyn Wire>, seen: &SeenRequest) {
    let Ok(mut socket) = accept(PrefixedStream {
        head: seen.head.clone(),
        stream,
    }) else {
        return;
    };
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            return;
        }
    }
}

/// A stream whose first bytes were read already.
struct PrefixedStream {
    head: Vec<u8>,
    stream: Box<dyn Wire>,
}

impl Read for PrefixedStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.head.is_empty() {
            return self.stream.read(buffer);
        }
        let count = self.head.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.head[..count]);
        self.head.drain(..count);
        Ok(count)
    }
}

impl Write for PrefixedStream {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Reads the next request of a connection; `None`: the connection ended.
pub fn read_request(stream: &mut Box<dyn Wire>, buffer: &mut Vec<u8>) -> Option<SeenRequest> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        fill_buffer(stream, buffer)?;
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).ok()?;
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|h| {
            (
                h.name.to_owned(),
                String::from_utf8_lossy(h.value).into_owned(),
            )
        })
        .collect();
    let value = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    };
    let body = if value("transfer-encoding").is_some() {
        read_chunks(stream, buffer)?
    } else {
        let length = value("content-length")
            .and_then(|l| l.parse().ok())
            .unwrap_or(0);
        read_exact(stream, buffer, length)?
    };
    Some(SeenRequest {
        method: parsed.method?.to_owned(),
        target: parsed.path?.to_owned(),
        body,
        headers,
        head,
    })
}

fn read_chunks(stream: &mut Box<dyn Wire>, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            match buffer.windows(2).position(|w| w == b"\r\n") {
                Some(at) => break at,
                None => fill_buffer(stream, buffer)?,
            }
        };
        let line: Vec<u8> = buffer.drain(..line_end + 2).take(line_end).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?, 16).ok()?;
        body.extend(read_exact(stream, buffer, size)?);
        read_exact(stream, buffer, 2)?;
        if size == 0 {
            return Some(body);
        }
    }
}

fn read_exact(stream: &mut Box<dyn Wire>, buffer: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while buffer.len() < count {
        fill_buffer(stream, buffer)?;
    }
    Some(buffer.drain(..count).collect())
}

fn fill_buffer(stream: &mut Box<dyn Wire>, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk) {
        Ok(count @ 1..) => {
            buffer.extend_from_slice(&chunk[..count]);
            Some(())
        }
        _ => None,
    }
}

/// A backend that records every byte that it receives and always responds with the same bytes.
pub struct Recorder {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    pub fn responding(reply: &'static str) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || record(stream, reply, &shared));
            }
        });
        Recorder { address, received }
    }

    pub fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.received.lock()).into_owned()
    }
}

fn record(mut stream: TcpStream, reply: &str, received: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 16 * 1024];
    let mut head = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        received.lock().extend_from_slice(&chunk[..count]);
        head.extend_from_slice(&chunk[..count]);
        if head.windows(4).any(|w| w == b"\r\n\r\n") {
            head.clear();
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }
}
