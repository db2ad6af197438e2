//! Two gateways that share a store, and one answer of each kind that stays open.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;

use super::client::{Client, Request, socket as connect};
use super::config::Config;
use super::cuttable::Cuttable;
use super::gateway::Gateway;
use super::grpc;
use super::http2::{Http2, Stream};
use super::redis::Redis;
use super::upstream::Upstream;
use super::wait::{SOON, eventually};
use super::websocket::{POLICY, Socket};

/// Two gateways; the streams are opened at `two`.
pub struct Fleet {
    // Fields go in this order: the gateways before what they use.
    pub one: Gateway,
    pub two: Gateway,
    pub upstream: Upstream,
    pub link: Cuttable,
    pub redis: Redis,
    _calls: Runtime,
}

pub fn fleet(vary: impl Fn(Config) -> Config) -> Fleet {
    let redis = Redis::start();
    let link = Cuttable::before(redis.address);
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

/// One answer of each kind, all of the same credential, none of them finished.
pub struct Open {
    pub socket: Socket,
    pub events: Client,
    poll: TcpStream,
    pub call: Stream,
    _connection: Http2,
}

impl Open {
    pub fn at(fleet: &Fleet, credential: (&str, &str)) -> Open {
        let at = fleet.two.public;
        let socket = Socket::open(at, "/private/ws", &[credential]).ok().unwrap();
        let send = |path: &str| {
            let mut stream = connect(at).unwrap();
            let request = Request::get(path).header(credential.0, credential.1);
            stream.write_all(&request.to_bytes()).unwrap();
            stream
        };
        let mut events = Client::over(send("/private/sse"));
        events.until("data: hello\n\n");
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
        call.until("hi");
        Open {
            socket,
            events,
            poll,
            call,
            _connection: connection,
        }
    }

    /// Waits for all of them to be closed.
    #[track_caller]
    pub fn close(&mut self, since: Instant) {
        assert_eq!(self.socket.close_code(SOON), Some(POLICY), "WebSocket");
        assert!(self.events.closes_within(SOON), "event stream");
        self.poll_closes();
        assert!(self.call.ends_within(SOON), "gRPC stream");
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }

    #[track_caller]
    pub fn poll_closes(&mut self) {
        self.poll.set_read_timeout(Some(SOON)).unwrap();
        let ended = match self.poll.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(e) => e.kind() == ErrorKind::ConnectionReset,
        };
        assert!(ended, "long poll");
    }

    /// That those which can say something still do.
    #[track_caller]
    pub fn go_on(&mut self, upstream: &Upstream) {
        assert_eq!(self.socket.echo("still here"), "still here");
        assert!(upstream.publish("still here") > 0);
        self.events.until("data: still here\n\n");
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
