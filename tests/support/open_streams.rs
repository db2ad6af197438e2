//! Two gateways that share a store, and one open response of each type.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;

use super::client::{Client, Request, connect_socket as connect};
use super::config::Config;
use super::fault_proxy::FaultProxy;
use super::gateway::Gateway;
use super::grpc;
use super::http2::{Http2, Stream};
use super::redis::Redis;
use super::upstream::Upstream;
use super::wait::{PROPAGATION_DEADLINE, eventually};
use super::websocket::{POLICY_VIOLATION, WebSocketClient};

/// Two gateways; the streams are opened at `two`.
pub struct Fleet {
    // Fields go in this order: the gateways before what they use.
    pub one: Gateway,
    pub two: Gateway,
    pub upstream: Upstream,
    pub link: FaultProxy,
    pub redis: Redis,
    _calls: Runtime,
}

pub fn start_fleet(vary: impl Fn(Config) -> Config) -> Fleet {
    let redis = Redis::start();
    let link = FaultProxy::before(redis.address);
    let upstream = Upstream::start();
    let calls = Runtime::new().unwrap();
    let server = calls.block_on(grpc::serve());
    let config = |store: &str| {
        let upstream = Config::new(upstream.address)
            .store(store)
            .set(
                "/upstreams/calls",
                json!({ "servers": [format!("http://{server}")], "protocol": "h2" }),
            )
            .route(json!({ "name": "calls", "match": { "prefix": "/calls" },
                "auth": "required", "upstream": "calls" }));
        vary(upstream)
    };
    let first = config(&redis.url());
    let database = first.file["database"]["url"].clone();
    let second = config(&format!("redis://{}", link.address)).set("/database/url", database);
    Fleet {
        one: Gateway::start(first),
        two: Gateway::start(second),
        upstream,
        link,
        redis,
        _calls: calls,
    }
}

/// One open response of each type, all with the same credential.
pub struct OpenStreams {
    pub socket: WebSocketClient,
    pub events: Client,
    poll: TcpStream,
    pub call: Stream,
    _connection: Http2,
}

impl OpenStreams {
    pub fn open_on(fleet: &Fleet, credential: (&str, &str)) -> OpenStreams {
        let at = fleet.two.public;
        let socket = WebSocketClient::open(at, "/private/ws", &[credential])
            .ok()
            .unwrap();
        let send = |path: &str| {
            let mut stream = connect(at).unwrap();
            let request = Request::get(path).header(credential.0, credential.1);
            stream.write_all(&request.to_bytes()).unwrap();
            stream
        };
        let mut events = Client::from_stream(send("/private/sse"));
        events.read_until("data: hello\n\n");
        let before = fleet.upstream.requests();
        let poll = send("/private/slow?ms=20000");
        eventually("the poll waits", || {
            (fleet.upstream.requests() > before).then_some(())
        });
        let connection = Http2::connect(at);
        let headers = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            (credential.0, credential.1),
        ];
        let mut call = connection
            .open("POST", "/calls/Watch", &headers, b"x")
            .unwrap();
        call.read_until("hi");
        OpenStreams {
            socket,
            events,
            poll,
            call,
            _connection: connection,
        }
    }

    /// Waits for all of them to be closed.
    #[track_caller]
    pub fn await_closed(&mut self, since: Instant) {
        assert_eq!(
            self.socket.close_code(PROPAGATION_DEADLINE),
            Some(POLICY_VIOLATION),
            "WebSocket"
        );
        assert!(
            self.events.closes_within(PROPAGATION_DEADLINE),
            "event stream"
        );
        self.await_poll_closed();
        assert!(self.call.ends_within(PROPAGATION_DEADLINE), "gRPC stream");
        assert!(
            since.elapsed() < PROPAGATION_DEADLINE,
            "{:?}",
            since.elapsed()
        );
    }

    #[track_caller]
    pub fn await_poll_closed(&mut self) {
        self.poll
            .set_read_timeout(Some(PROPAGATION_DEADLINE))
            .unwrap();
        let ended = match self.poll.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(e) => e.kind() == ErrorKind::ConnectionReset,
        };
        assert!(ended, "long poll");
    }

    /// That those which can say something still do.
    #[track_caller]
    pub fn assert_still_open(&mut self, upstream: &Upstream) {
        assert_eq!(self.socket.echo("still here"), "still here");
        assert!(upstream.publish("still here") > 0);
        self.events.read_until("data: still here\n\n");
        assert!(
            !self.call.ends_within(Duration::from_millis(50)),
            "gRPC stream"
        );
        self.poll
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let waiting = self
            .poll
            .peek(&mut [0])
            .is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(waiting, "long poll");
    }
}
