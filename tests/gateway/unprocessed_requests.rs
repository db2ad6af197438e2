//! Requests that an HTTP/2 upstream has declared unprocessed are retried, whatever the method;
//! others are not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;

/// Frames that the first connection receives in place of a response.
#[derive(Clone, Copy)]
struct ClosingFrames(&'static [&'static [u8]]);

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// No stream was processed; NO_ERROR.
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// No stream was processed; ENHANCE_YOUR_CALM.
const GOAWAY_ENHANCE_YOUR_CALM: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
/// Stream 1 may have been processed.
const GOAWAY_ABOVE: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
const RST_REFUSED_STREAM: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
const RST_CANCEL: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];

/// An upstream whose first connection says farewell to its first request; later ones respond `done`
/// with the length of the body. Counts the requests that it served.
fn start_closing_upstream(farewell: ClosingFrames) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&served);
    std::thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        std::thread::spawn(move || close_connection(first, farewell));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for stream in listener.incoming().flatten() {
            stream.set_nonblocking(true).unwrap();
            runtime.spawn(serve(stream, Arc::clone(&shared)));
        }
    });
    (address, served)
}

fn close_connection(mut stream: TcpStream, farewell: ClosingFrames) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).unwrap();
    stream.write_all(SETTINGS).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        let ends = matches!(head[3], 0 | 1) && head[4] & 1 == 1;
        if ends {
            break;
        }
    }
    for frame in farewell.0 {
        stream.write_all(frame).unwrap();
    }
    if farewell.0.contains(&GOAWAY_ABOVE) {
        // The end of the connection, and no word on the stream.
        return;
    }
    let _ = stream.read_to_end(&mut Vec::new());
}

async fn serve(stream: TcpStream, served: Arc<AtomicUsize>) {
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        served.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                length += data.len();
            }
            let response = http::Response::new(());
            let mut send = respond.send_response(response, false).unwrap();
            let text = format!("done {length}");
            send.send_data(Bytes::from(text), true).unwrap();
        });
    }
}

fn gateway(upstream: SocketAddr) -> Gateway {
    Gateway::start(Config::new(upstream).set("/upstreams/echo/protocol", json!("h2")))
}

#[test]
fn unprocessed_request_is_retried_for_any_method() {
    for farewell in [
        &[GOAWAY][..],
        &[GOAWAY_ENHANCE_YOUR_CALM],
        &[RST_REFUSED_STREAM],
    ] {
        let (upstream, served) = start_closing_upstream(ClosingFrames(farewell));
        let response = gateway(upstream).request(&Request::post("/public/a").body("hello"));
        assert_eq!((response.status, response.text().as_str()), (200, "done 5"));
        assert_eq!(served.load(Ordering::SeqCst), 1, "{farewell:?}");

        let (upstream, served) = start_closing_upstream(ClosingFrames(farewell));
        let started = gateway(upstream);
        let mut client = Client::connect(started.public);
        client.send(
            "POST /public/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        );
        assert_eq!(
            client.read_until("\r\n\r\n"),
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        assert_eq!(
            client.read_head().unwrap().status,
            200,
            "one interim response"
        );
        assert_eq!(served.load(Ordering::SeqCst), 1, "{farewell:?}");

        let (upstream, served) = start_closing_upstream(ClosingFrames(farewell));
        let gateway = gateway(upstream);
        let two = Http2::connect(gateway.public);
        let mut response = two.open("POST", "/public/a", &[], b"hello").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "done 5"));
        assert_eq!(served.load(Ordering::SeqCst), 1, "{farewell:?}");
    }
}

#[test]
fn possibly_processed_request_is_not_retried() {
    for farewell in [&[GOAWAY_ABOVE][..], &[RST_CANCEL]] {
        let (upstream, served) = start_closing_upstream(ClosingFrames(farewell));
        let gateway = gateway(upstream);
        let response = gateway.request(&Request::post("/public/a").body("hello"));
        response.assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
        assert_eq!(served.load(Ordering::SeqCst), 0, "{farewell:?}");
    }
}

#[test]
fn retried_body_is_counted_once() {
    let (upstream, _) = start_closing_upstream(ClosingFrames(&[RST_REFUSED_STREAM]));
    let config = Config::new(upstream)
        .set("/upstreams/echo/protocol", json!("h2"))
        .route(
            json!({ "name": "small", "match": { "prefix": "/small" }, "auth": "none",
            "upstream": "echo", "max_body": "8B" }),
        );
    let gateway = Gateway::start(config);
    let response = gateway.request(&Request::post("/small/a").body("hello"));
    assert_eq!((response.status, response.text().as_str()), (200, "done 5"));
}
