//! A client connection that is dropped at any of its awaits, and what is left of it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::future::poll_fn;
use std::io::Read;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::yield_now;

use super::buffer_pool;
use super::client::tests::connected;
use super::pool::UpstreamConnections;
use super::serve::{Connection, serve};
use crate::api::{ApiState, PublicApi};
use crate::config;
use crate::database::Database;
use crate::gateway::Services;
use crate::pipeline::admission::{AdmissionServices, Memo};
use crate::pipeline::snapshot::Snapshot;
use crate::pipeline::via::Via;
use crate::proxy::{Worker, WorkerProxy};
use crate::settings::ConnectionLimits;
use crate::telemetry::logging::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::fixtures::no_probe;

const BODY: &str = "hello";
/// More than any request takes from the pool.
const BUFFERS: usize = 32;

/// A worker, and what it has written.
struct Fixture {
    proxy: Arc<WorkerProxy>,
    limits: ConnectionLimits,
    log: File,
    _folder: tempfile::TempDir,
}

/// What requests hold until they are over.
#[derive(Debug, PartialEq)]
struct Held {
    contexts: usize,
    open_streams: usize,
    /// Buffers that are not in the pool.
    buffers: usize,
    in_flight: String,
}

impl Fixture {
    async fn new(upstream: SocketAddr) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("people.db").display().to_string();
        let text = format!(
            "listeners: [{{bind: '127.0.0.1:1'}}]
store: {{url: memory}}
database: {{url: 'sqlite:{database}'}}
tokens: {{signing: {{algorithm: HS256, secret: '0123456789abcdef0123456789abcdef'}}}}
upstreams: {{echo: {{servers: ['http://{upstream}']}}}}
routes:
  - {{name: public, match: {{prefix: /public}}, auth: none, upstream: echo}}
  - {{name: private, match: {{prefix: /private}}, auth: required, upstream: echo}}
"
        );
        let settings = config::parse(&text, &folder.path().join("portcullis.yaml")).unwrap();
        let limits = settings.boot.listeners.first().unwrap().limits.clone();
        let metrics = Arc::new(Metrics::new().unwrap());
        let database = Database::open(&settings.boot.database).await.unwrap();
        let snapshot = Snapshot::start(settings.reloadable, None, &no_probe(), &metrics).await;
        let services = Services::build(settings.boot, snapshot, no_probe(), database, metrics, 1);
        let log = folder.path().join("log");
        let access_log = AccessLog::to_file(File::create(&log).unwrap());
        let worker = worker(services.unwrap(), access_log);
        let connections = Arc::<UpstreamConnections>::default();
        Fixture {
            proxy: WorkerProxy::new(Arc::new(worker), connections).into(),
            limits,
            log: File::open(log).unwrap(),
            _folder: folder,
        }
    }

    fn held(&self) -> Held {
        let worker = &self.proxy.worker;
        let metrics = worker.metrics.render().unwrap();
        let mut gauges = metrics.lines().map(str::to_owned);
        Held {
            contexts: Arc::strong_count(worker),
            buffers: BUFFERS - buffer_pool::free_buffers(),
            open_streams: worker.open_streams.count(),
            in_flight: gauges
                .find(|line| line.starts_with("portcullis_requests_in_flight "))
                .unwrap(),
        }
    }

    /// The number of log lines since the last call.
    fn new_lines(&mut self) -> usize {
        self.proxy.worker.access_log.flush();
        let mut text = String::new();
        self.log.read_to_string(&mut text).unwrap();
        text.lines().count()
    }

    /// Serves a connection whose client sends these parts and reads to the end. It is dropped at the
    /// await after as many others. Returns whether it came to its end, and what the client received.
    async fn serve(&self, parts: &[String], awaits: usize) -> (bool, String) {
        let (client, socket) = connected().await;
        let peer = tokio::spawn(send_and_read(socket, parts.to_vec()));
        let (_sender, stop) = watch::channel(false);
        let connection = Box::new(Connection {
            client,
            head: None,
            proxy: Arc::clone(&self.proxy),
            stop,
        });
        let mut left = awaits;
        let is_complete = {
            let mut serving = pin!(serve(connection, &self.limits));
            poll_fn(|cx| match serving.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if left == 0 => Poll::Ready(false),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        };
        (is_complete, peer.await.unwrap())
    }
}

fn worker(services: Services, access_log: AccessLog) -> Worker {
    let api = ApiState {
        accounts: services.accounts,
        sessions: services.sessions.clone(),
        store: services.store.clone(),
        events: services.events.clone(),
        count_open_streams: Arc::new(|_| 0),
    };
    Worker {
        index: 0,
        snapshot: services.snapshot,
        admission: AdmissionServices {
            store: services.store,
            sessions: services.sessions,
            metrics: Arc::clone(&services.metrics),
            events: services.events,
            memo: Memo::default(),
            provider_tokens: services.provider_tokens,
        },
        open_streams: services.open_streams,
        readiness: services.readiness,
        metrics: services.metrics,
        access_log,
        api: PublicApi::new(api),
        via: Via::new("test").unwrap(),
        boot: services.boot,
    }
}

async fn send_and_read(mut socket: TcpStream, parts: Vec<String>) -> String {
    for part in parts {
        // The gateway may have dropped the connection.
        let _ = socket.write_all(part.as_bytes()).await;
        settle().await;
    }
    let mut received = Vec::new();
    let _ = socket.read_to_end(&mut received).await;
    String::from_utf8(received).unwrap()
}

/// Lets every other task run until it waits.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

/// Serves connections, each request with a response in many pieces. A request that is not as it was sent
/// is a fault: it began within another one.
async fn serve_upstream(listener: TcpListener, faults: Arc<Mutex<Vec<String>>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let faults = Arc::clone(&faults);
        tokio::spawn(async move { while respond(&mut stream, &faults).await.is_ok() {} });
    }
}

async fn respond(stream: &mut TcpStream, faults: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let head = read_until(stream, "\r\n\r\n").await?;
    let body = match &head {
        head if head.contains("Content-Length: 5\r\n") => read_until(stream, BODY).await?,
        head if head.contains("chunked\r\n") => read_until(stream, "0\r\n\r\n").await?,
        _ => String::new(),
    };
    let target = head.split(' ').nth(1).unwrap_or_default();
    // Of the lines of chunks, every second one is data.
    let data: String = match head.contains("chunked\r\n") {
        true => body.split("\r\n").skip(1).step_by(2).collect(),
        false => body.clone(),
    };
    let is_whole = data == BODY || (body.is_empty() && head.starts_with("GET "));
    if !target.starts_with("/public/") || !is_whole {
        faults.lock().push(head.clone() + &body);
    }
    let response = match head.contains("websocket") {
        true => format!("HTTP/1.1 101 A\r\nUpgrade: websocket\r\n\r\n{target}"),
        false => {
            let length = target.len();
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{target}\r\n0\r\n\r\n"
            )
        }
    };
    for piece in response.split_inclusive('\n') {
        stream.write_all(piece.as_bytes()).await?;
        settle().await;
    }
    match head.contains("websocket") {
        true => Err(std::io::ErrorKind::UnexpectedEof.into()),
        false => Ok(()),
    }
}

async fn read_until(stream: &mut TcpStream, end: &str) -> std::io::Result<String> {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// A request in parts, and what the response to it contains.
fn scenarios(number: usize) -> [(Vec<String>, String); 4] {
    let parts = |start: &str, fields: &str, rest: &[&str]| {
        let head = format!("{start}/{number} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let (one, two) = head.split_at(20);
        let rest = rest.iter().copied();
        [one, two]
            .into_iter()
            .chain(rest)
            .map(str::to_owned)
            .collect()
    };
    let target = format!("/public/{number}");
    let chunked = "Connection: close\r\nTransfer-Encoding: chunked\r\n";
    let chunks = ["2\r\nh", "e\r\n3\r\nllo\r\n", "0\r\n\r\n"];
    let length = "Connection: close\r\nContent-Length: 5\r\n";
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    [
        (
            parts("POST /public", length, &["he", "llo"]),
            target.clone(),
        ),
        (parts("POST /public", chunked, &chunks), target.clone()),
        (
            parts("POST /private", chunked, &chunks),
            "UNAUTHENTICATED".to_owned(),
        ),
        (parts("GET /public", upgrade, &[]), target),
    ]
}

#[tokio::test]
async fn connection_that_is_dropped_at_any_await_leaves_nothing_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let faults = Arc::<Mutex<Vec<String>>>::default();
    tokio::spawn(serve_upstream(listener, Arc::clone(&faults)));
    let mut fixture = Fixture::new(address).await;
    let taken: Vec<_> = (0..BUFFERS).map(|_| buffer_pool::take()).collect();
    taken.into_iter().for_each(buffer_pool::give);
    let mut number = 0;
    for index in 0..scenarios(0).len() {
        let mut lines = 0;
        for awaits in 0.. {
            // A whole one: it fills the pools, and finds nothing of the one before.
            number += 1;
            let [(parts, expected), ..] = scenarios(number);
            let (is_complete, received) = fixture.serve(&parts, usize::MAX).await;
            assert!(is_complete && received.contains(&expected), "{received:?}");
            assert_eq!(fixture.new_lines(), 1);
            let held = fixture.held();
            assert_eq!(
                (held.open_streams, held.buffers),
                (0, 0),
                "{index} {awaits}"
            );
            number += 1;
            let (parts, expected) = scenarios(number).into_iter().nth(index).unwrap();
            let (is_complete, received) = fixture.serve(&parts, awaits).await;
            assert_eq!(fixture.held(), held, "{index} {awaits}");
            let new_lines = fixture.new_lines();
            // From some await on there is a request.
            assert!(
                new_lines == lines || (new_lines, lines) == (1, 0),
                "{index} {awaits}"
            );
            lines = new_lines;
            if is_complete {
                assert!(received.contains(&expected), "{received:?}");
                assert!(awaits > 3, "{index} {awaits}");
                break;
            }
        }
        assert_eq!(lines, 1);
    }
    assert!(faults.lock().is_empty(), "{:?}", faults.lock());
}
