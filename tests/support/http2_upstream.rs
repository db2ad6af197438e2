//! An HTTP/2 upstream in clear that responds as the last segment of the path says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::response::Builder;
use http::{HeaderMap, Method, Request, Response};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// The response to a path, by its last segment:
///
/// | last segment | response |
/// | --- | --- |
/// | `length` | `hello` with its length |
/// | `status-NNN` | that status, without a body |
/// | `short` | a length of 10 and no body |
/// | `big` | [`BIG`] bytes |
/// | `count` | the number of bytes of the body |
/// | `events` | an event, and no end |
/// | `interim` | an interim response before the echo |
/// | `early-NNN` | that status and `early`, before the body is read |
/// | `eager` | `early`, before the body is read, which then happens |
/// | `late-NNN` | that status and, if it is 200, `hello` with its length; the end of the stream comes later |
/// | `trailed` | as `late-200`, with trailers as the end |
/// | `endless` | as `late-200`, without an end |
/// | `reset`, `cut` | a reset before the response, or after a part of it |
/// | `stall` | none |
/// | `close` | the echo, after which the connection ends |
/// | `drop` | none, and the end of a connection that has responded before |
/// | other | an echo without a length, with a trailer |
pub struct Http2Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
    _runtime: Runtime,
}

/// Size of the `big` response.
pub const BIG: usize = 3_000_000;
/// How long the end of a stream may come after the response.
const LATE: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    /// The paths of streams that the gateway has reset.
    resets: Mutex<Vec<String>>,
    /// The paths of streams that have ended although a reset was possible.
    ends: Mutex<Vec<String>>,
}

impl Http2Upstream {
    pub fn start() -> Http2Upstream {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, number, Arc::clone(&shared)));
            }
        });
        Http2Upstream {
            address,
            state,
            _runtime: runtime,
        }
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Whether the gateway has reset the stream of this path.
    pub fn was_reset(&self, path: &str) -> bool {
        self.state.resets.lock().iter().any(|reset| reset == path)
    }

    /// Whether the stream of this path has ended, without a reset.
    pub fn has_ended(&self, path: &str) -> bool {
        self.state.ends.lock().iter().any(|end| end == path)
    }
}

async fn serve(stream: TcpStream, number: usize, state: Arc<State>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut requests = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        requests += 1;
        if requests > 1 && request.uri().path().ends_with("/drop") {
            return;
        }
        let closes = request.uri().path().ends_with("/close");
        let handling = tokio::spawn(respond_to(request, respond, number, Arc::clone(&state)));
        if closes {
            connection.graceful_shutdown();
        }
        drop(handling);
    }
}

async fn respond_to(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    number: usize,
    state: Arc<State>,
) {
    let path = request.uri().path().to_owned();
    let last = path.rsplit('/').next().unwrap_or_default();
    let (kind, status) = last.split_once('-').unwrap_or((last, "200"));
    let head = Response::builder()
        .status(status)
        .header("x-connection", number);
    match kind {
        "length" => send(&mut respond, head.header("content-length", 5), "hello"),
        "status" => end(&mut respond, head),
        "short" => end(&mut respond, head.header("content-length", 10)),
        "big" => send_slowly(begin(&mut respond, head), BIG).await,
        "count" => {
            let length = read_all(request.into_body()).await.len();
            send(&mut respond, head, length.to_string());
        }
        "events" => {
            let head = head.header("content-type", "text/event-stream");
            let mut stream = begin(&mut respond, head);
            let event = Bytes::from_static(b"data: hello\n\n");
            stream.send_data(event, false).unwrap();
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            reset.map(|_| state.resets.lock().push(path)).unwrap();
        }
        "early" => {
            send(&mut respond, head.header("content-length", 5), "early");
            tokio::time::sleep(Duration::from_secs(30)).await;
            drop(request);
        }
        "eager" => respond_early(request, respond, head, &state).await,
        "late" | "trailed" | "endless" => {
            let stream = begin_late(&request, &mut respond, head, status);
            end_late(stream, kind, &path, &state).await;
        }
        "reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "cut" => {
            let mut stream = begin(&mut respond, head);
            let part = Bytes::from_static(b"part");
            stream.send_data(part, false).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "stall" => {
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            reset.map(|_| state.resets.lock().push(path)).unwrap();
        }
        _ => {
            if kind == "interim" {
                let interim = Response::builder().status(103).body(()).unwrap();
                respond.send_informational(interim).unwrap();
            }
            echo(request, respond, head).await;
        }
    }
}

/// Sends a head that data follows.
fn begin(respond: &mut SendResponse<Bytes>, head: Builder) -> SendStream<Bytes> {
    let head = head.body(()).unwrap();
    respond.send_response(head, false).unwrap()
}

fn send(respond: &mut SendResponse<Bytes>, head: Builder, body: impl Into<Bytes>) {
    begin(respond, head).send_data(body.into(), true).unwrap();
}

/// Sends a response that is a head alone.
fn end(respond: &mut SendResponse<Bytes>, head: Builder) {
    respond.send_response(head.body(()).unwrap(), true).unwrap();
}

/// Responds before it reads the body.
async fn respond_early(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    head: Builder,
    state: &State,
) {
    send(&mut respond, head.header("content-length", 5), "early");
    let (parts, mut body) = request.into_parts();
    while let Some(Ok(_)) = body.data().await {}
    let outcomes = match body.is_end_stream() {
        true => &state.ends,
        false => &state.resets,
    };
    outcomes.lock().push(parts.uri.path().to_owned());
}

/// Sends a whole response, but for the end of its stream.
fn begin_late(
    request: &Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    head: Builder,
    status: &str,
) -> SendStream<Bytes> {
    if status != "200" {
        return begin(respond, head);
    }
    let mut stream = begin(respond, head.header("content-length", 5));
    if request.method() != Method::HEAD {
        stream.send_data("hello".into(), false).unwrap();
    }
    stream
}

/// Ends a stream after a moment, unless it is reset.
async fn end_late(mut stream: SendStream<Bytes>, kind: &str, path: &str, state: &State) {
    let reset = std::future::poll_fn(|cx| stream.poll_reset(cx));
    if kind == "endless" {
        reset.await.unwrap();
        state.resets.lock().push(path.to_owned());
    } else if tokio::time::timeout(LATE, reset).await.is_ok() {
        state.resets.lock().push(path.to_owned());
    } else {
        let ended = match kind {
            "trailed" => stream.send_trailers(HeaderMap::new()),
            _ => stream.send_data(Bytes::new(), true),
        };
        ended.unwrap();
        state.ends.lock().push(path.to_owned());
    }
}

async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, head: Builder) {
    let (parts, body) = request.into_parts();
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    let body = read_all(body).await;
    let seen = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.path_and_query().unwrap().as_str(),
        "scheme": parts.uri.scheme_str(),
        "authority": parts.uri.authority().map(http::uri::Authority::as_str),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut stream = begin(&mut respond, head);
    let _ = stream.send_data(seen.to_string().into(), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailer", "yes".parse().unwrap());
    let _ = stream.send_trailers(trailers);
}

async fn read_all(mut body: RecvStream) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
    }
    read
}

async fn send_slowly(mut stream: SendStream<Bytes>, mut left: usize) {
    while left > 0 {
        stream.reserve_capacity(left.min(16 * 1024));
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else { return };
        let length = capacity.min(left);
        left -= length;
        if stream
            .send_data(vec![b'x'; length].into(), left == 0)
            .is_err()
        {
            return;
        }
    }
}
