//! Access log lines of upstream timeouts, of malformed heads, and of nonexistent sessions.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::grpc;
use crate::support::http2::Http2;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

const READ: &str = "the upstream sent nothing for timeouts.read";
const STREAM_IDLE: &str = "no data passed for timeouts.stream_idle";

/// The access line of a request, by its identifier.
fn line(gateway: &Gateway, request_id: &str) -> Value {
    eventually(&format!("the line of {request_id}"), || {
        let mut lines = gateway.events().into_iter();
        lines.find(|line| line["kind"] == "access" && line["request_id"] == request_id)
    })
}

#[track_caller]
fn timed_out(gateway: &Gateway, request_id: &str, status: u16, reason: &str) {
    let line = line(gateway, request_id);
    assert_eq!(line["status"], status, "{line}");
    assert_eq!(line["code"], "UPSTREAM_TIMEOUT", "{line}");
    assert_eq!(line["reason"], reason, "{line}");
}

#[test]
fn the_line_of_a_504_names_the_timeout_that_passed() {
    // It accepts and never responds, or stops within a response.
    let server = serve_connections(|mut stream| while read_request(&mut stream) {});
    let stalling = serve_connections(|mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nstart");
        read_request(&mut stream);
    });
    let stalled = json!({ "servers": [format!("http://{stalling}")] });
    let route = |name: &str, upstream: &str| {
        json!({ "name": name, "match": { "prefix": format!("/{name}") }, "auth": "none",
            "upstream": upstream, "timeouts": { "read": "300ms" } })
    };
    let config = Config::new(server)
        .set("/upstreams/stalling", stalled)
        .route(route("silent", "echo"))
        .route(route("stalled", "stalling"));
    let gateway = Gateway::start(config);
    let get = |path: &str, id: &str| Request::get(path).header("X-Request-ID", id);
    let response = gateway.request(&get("/silent/a", "one"));
    response.assert_refused(504, "UPSTREAM_TIMEOUT");
    timed_out(&gateway, "one", 504, READ);
    let two = Http2::connect(gateway.public);
    let (status, _) = two.request("GET", "/silent/a", &[("x-request-id", "two")]);
    assert_eq!(status, 504);
    timed_out(&gateway, "two", 504, READ);
    let mut client = Client::connect(gateway.public);
    client.send(get("/stalled/a", "within").to_bytes());
    assert!(client.read_response_to("GET").is_err());
    timed_out(&gateway, "within", 200, READ);
}

#[test]
fn the_line_of_a_response_with_malformed_chunks_names_the_cause() {
    let server = serve_connections(|mut stream| {
        read_request(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = stream.write_all(format!("{head}5\r\nhello\r\nzz\r\n").as_bytes());
        read_request(&mut stream);
    });
    let gateway = Gateway::start(Config::new(server));
    let mut client = Client::connect(gateway.public);
    client.send(
        Request::get("/public/a")
            .header("X-Request-ID", "cut")
            .to_bytes(),
    );
    assert!(client.read_response_to("GET").is_err());
    let line = line(&gateway, "cut");
    assert_eq!(line["status"], 200, "{line}");
    let reason = "the upstream's response is not valid";
    assert_eq!(line["reason"], reason, "{line}");
}

#[test]
fn the_line_of_an_idle_stream_names_the_timeout_that_passed() {
    let upstream = Upstream::start();
    let timeouts = json!({ "read": "1h", "stream_idle": "300ms" });
    let config = Config::new(upstream.address).set("/upstreams/echo/timeouts", timeouts);
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    let request = Request::get("/public/sse").header("X-Request-ID", "stream");
    client.send(request.to_bytes());
    timed_out(&gateway, "stream", 200, STREAM_IDLE);
}

#[test]
fn the_line_names_the_timeout_of_an_upstream_over_http2_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(grpc::serve());
    let config = Config::new(server)
        .set("/upstreams/echo/protocol", json!("h2"))
        .set("/upstreams/echo/timeouts", json!({ "read": "300ms" }));
    let gateway = Gateway::start(config);
    let stalled = Request::get("/public/Stall").header("X-Request-ID", "one");
    gateway
        .request(&stalled)
        .assert_refused(504, "UPSTREAM_TIMEOUT");
    timed_out(&gateway, "one", 504, READ);
    let two = Http2::connect(gateway.public);
    assert_eq!(
        two.request("GET", "/public/Stall", &[("x-request-id", "two")])
            .0,
        504
    );
    timed_out(&gateway, "two", 504, READ);
    let stream = [("accept", "text/event-stream"), ("x-request-id", "reset")];
    assert!(two.open("GET", "/public/Stall", &stream, b"").is_err());
    timed_out(&gateway, "reset", 504, READ);
}

/// Sends bytes and returns the response with its access line.
fn refused(gateway: &Gateway, bytes: &[u8]) -> (Response, Value) {
    let mut client = Client::connect(gateway.public);
    client.send(bytes);
    let response = client.read_response();
    let line = line(gateway, response.header("x-request-id").unwrap());
    assert_eq!(line["status"], response.status, "{line}");
    assert_eq!(line["bytes_sent"], response.body.len(), "{line}");
    (response, line)
}

#[test]
fn the_line_of_a_refused_head_has_what_was_parsed() {
    let config = Config::new(Upstream::start().address);
    let limits = json!({ "head_timeout": "300ms", "fields": 20 });
    let gateway = Gateway::start(config.set("/listeners/0/limits", limits));
    let request = "GET /a?secret=1 HTTP/1.1\r\nHost: Example.test:80\r\n";
    let fields = "A: b\r\n".repeat(30);
    for (status, head) in [
        (400, format!("{request}no field\r\n\r\n")),
        (431, format!("{request}{fields}\r\n")),
        (408, request.to_owned()),
    ] {
        let (response, line) = refused(&gateway, head.as_bytes());
        assert_eq!(response.status, status);
        assert_eq!(line["method"], "GET", "{line}");
        assert_eq!(line["host"], "example.test", "{line}");
        assert_eq!(line["path"], "/a", "{line}");
        assert!(!line.to_string().contains("secret"), "{line}");
    }
    let (_, line) = refused(&gateway, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n");
    for absent in ["method", "host", "path"] {
        assert!(line.get(absent).is_none(), "{line}");
    }
    let fields: Vec<(String, &str)> = (0..30).map(|i| (format!("a{i}"), "b")).collect();
    let mut headers: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (&**a, *b)).collect();
    headers.push(("x-request-id", "two"));
    let two = Http2::connect(gateway.public);
    assert_eq!(two.request("GET", "/a?secret=1", &headers).0, 431);
    let line = self::line(&gateway, "two");
    assert_eq!(line["method"], "GET", "{line}");
    assert_eq!(line["path"], "/a", "{line}");
    assert!(line["host"].is_string(), "{line}");
}

#[test]
fn log_line_distinguishes_missing_from_ended_session() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    let ann = gateway.register("ann@example.com");
    let logout = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    assert_eq!(gateway.request(&logout.same_origin()).status, 204);
    let unknown = format!("portcullis={}", "0".repeat(64));
    for (id, cookie, code, reason) in [
        (
            "ended",
            &ann.cookie,
            "SESSION_REVOKED",
            "the session was revoked",
        ),
        (
            "unknown",
            &unknown,
            "SESSION_NOT_FOUND",
            "no session has this credential's ID",
        ),
    ] {
        let request = Request::get("/private/a").cookie(cookie);
        gateway
            .request(&request.header("X-Request-ID", id))
            .assert_refused(401, code);
        assert_eq!(line(&gateway, id)["reason"], reason);
    }
}

#[test]
fn every_warning_about_an_upstream_names_the_request() {
    // It reads the head alone, so the rest of a body resets the connection.
    let server = serve_connections(|mut stream| {
        read_request(&mut stream);
    });
    let gateway = Gateway::start(Config::new(server));
    let upload = Request::post("/public/a").body(vec![b'x'; 4 << 20]);
    for id in ["first", "second", "third"] {
        let upload = upload.clone().header("X-Request-ID", id);
        let response = gateway.request(&upload);
        assert_eq!(response.status, 502, "{}", response.text());
        let warned = || {
            let mut lines = gateway.events().into_iter();
            lines.find(|line| line["level"] == "WARN" && line["request_id"] == id)
        };
        let warning = eventually("the failed attempt is logged", warned);
        assert!(warning["server"].is_string(), "{warning}");
    }
    for line in gateway.events() {
        let target = line["target"].as_str().unwrap_or_default();
        assert!(!target.starts_with("pingora"), "{line}");
    }
}
