//! A request body has to average `body_rate` after its first 20 seconds.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, connect_socket};
use crate::support::config::Config;
use crate::support::frames::{
    DATA, END_HEADERS, Frames, HEADERS, RST_STREAM, request, status_of_block,
};
use crate::support::gateway::Gateway;
use crate::support::grpc;
use crate::support::scripted_upstream::serve_connections;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

const GRACE_PERIOD: Duration = Duration::from_secs(20);
/// Before this the silence of the upstream would end the request in any case.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(50);
const BETWEEN_BYTES: Duration = Duration::from_secs(1);

/// A gateway before an upstream of each kind: HTTP/1.1, gRPC, and one that reads and says nothing.
fn start_with_upstreams(rpc: SocketAddr) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let mute =
        serve_connections(|mut stream| while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {});
    let route = |name: &str| {
        let prefix = format!("/{name}");
        json!({ "name": name, "match": { "prefix": prefix }, "auth": "none", "upstream": name })
    };
    let config = Config::new(upstream.address)
        .set(
            "/upstreams/rpc",
            json!({ "servers": [format!("http://{rpc}")], "protocol": "h2" }),
        )
        .set(
            "/upstreams/mute",
            json!({ "servers": [format!("http://{mute}")] }),
        )
        .route(route("rpc"))
        .route(route("mute"));
    (Gateway::start(config), upstream)
}

#[test]
fn slow_request_body_is_408_on_both_protocols() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (gateway, _upstream) = start_with_upstreams(runtime.block_on(grpc::serve()));
    let start = Instant::now();
    let one = |head: &str| {
        let socket = connect_socket(gateway.public).unwrap();
        socket.set_read_timeout(Some(BETWEEN_BYTES)).unwrap();
        let mut client = Client::from_stream(socket);
        client.send(format!(
            "POST {head}\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n"
        ));
        let response = loop {
            assert!(start.elapsed() < RESPONSE_DEADLINE, "no response");
            let _ = client.try_send("x");
            if let Ok(response) = client.read_response_to("POST") {
                break response;
            }
        };
        response.assert_refused(408, "REQUEST_TIMEOUT");
    };
    let two = || {
        let mut client = Frames::connect(gateway.public);
        client.set_read_timeout(BETWEEN_BYTES);
        // gRPC is exempt, and was there first.
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        for (stream, path, more) in [(1, "/rpc/Echo", &grpc[..]), (3, "/public/a", &[])] {
            let head = request("POST", path, more);
            client.send(HEADERS, END_HEADERS, stream, &head).unwrap();
        }
        // The beginning of a message of 1 MiB.
        client.send(DATA, 0, 1, &[0, 0, 0x10, 0, 0]).unwrap();
        let outcome = loop {
            assert!(start.elapsed() < RESPONSE_DEADLINE, "no response");
            for stream in [1, 3] {
                let _ = client.send(DATA, 0, stream, b"x");
            }
            match client.next() {
                Some(frame) if frame.stream == 1 && frame.kind == RST_STREAM => {
                    panic!("the gRPC call was reset")
                }
                Some(frame) if frame.stream == 3 && frame.kind == HEADERS => {
                    break status_of_block(&frame.payload);
                }
                _ => {}
            }
        };
        assert_eq!(outcome, 408);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| one("/public/a HTTP/1.1"));
        // The upstream takes the body without a word.
        scope.spawn(|| one("/mute HTTP/1.1\r\nExpect: 100-continue"));
        scope.spawn(two);
    });
    assert!(start.elapsed() >= GRACE_PERIOD);
    eventually("all are logged", || {
        let events = gateway.events();
        let late = events
            .iter()
            .filter(|line| line["code"] == "REQUEST_TIMEOUT");
        (late.count() == 3).then_some(())
    });
}
