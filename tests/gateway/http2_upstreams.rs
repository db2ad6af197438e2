//! HTTP/1.x clients of HTTP/2 upstreams.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Request, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2_upstream::{BIG, Http2Upstream};
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;
use crate::support::websocket::WebSocketClient;

/// Much less than any timeout of the gateway.
const PROMPTLY: Duration = Duration::from_secs(10);

fn config(upstream: &Http2Upstream) -> Config {
    Config::new(upstream.address)
        .set("/upstreams/echo/protocol", json!("h2"))
        .set("/routes/2/max_body", json!("100MiB"))
}

fn start() -> (Gateway, Http2Upstream) {
    let upstream = Http2Upstream::start();
    (Gateway::start(config(&upstream)), upstream)
}

fn access_line(gateway: &Gateway, path: &str) -> Value {
    eventually("the access line", || {
        let mut events = gateway.events().into_iter();
        events.find(|event| event["kind"] == "access" && event["path"] == path)
    })
}

#[test]
fn request_and_response_change_their_version_and_nothing_else() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    client.send(
        "POST /public/a%20b?q=1 HTTP/1.1\r\nHost: localhost\r\nX-Name: Value\r\nX-Hop: 1\r\n\
         Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: trailers\r\nTrailer: X-Sum\r\nCookie: a=1; b=2\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    assert_eq!(client.read_until("\r\n"), "HTTP/1.1 200 OK\r\n");
    let response = client.read_until("\r\n0\r\n\r\n");
    assert!(!response.contains("x-trailer"), "{response}");
    for field in [
        "transfer-encoding: chunked",
        "date: ",
        "x-request-id: ",
        "via: 2 ",
    ] {
        assert!(response.to_lowercase().contains(field), "{response}");
    }
    client.send(Request::post("/public/next").body("hello").to_bytes());
    let response = client.read_response();
    let echo = response.echo();
    assert_eq!(
        (echo.target(), &echo.0["body"]),
        ("/public/next", &json!("hello"))
    );
    assert_eq!(echo.0["scheme"], "http");
    assert_eq!(echo.0["authority"], "localhost");
    assert_eq!(echo.header("content-length").as_deref(), Some("5"));
    assert_eq!(echo.header("host"), None);
    assert_eq!(response.header("connection"), Some("keep-alive"));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn fields_about_a_connection_do_not_reach_the_upstream() {
    let (gateway, _upstream) = start();
    let request = Request::get("/public/a%20b?q=1")
        .header("X-Name", "Value")
        .header("X-Hop", "1")
        .header("Connection", "keep-alive, X-Hop")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers")
        .header("Cookie", "a=1; b=2");
    let echo = gateway.request(&request).echo();
    assert_eq!(echo.target(), "/public/a%20b?q=1");
    assert_eq!(echo.header("x-name").as_deref(), Some("Value"));
    assert_eq!(echo.header("cookie").as_deref(), Some("a=1; b=2"));
    for name in [
        "x-hop",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "host",
    ] {
        assert_eq!(echo.header(name), None, "{name}");
    }
    let call = Request::post("/public/Call")
        .header("Content-Type", "application/grpc")
        .body("hello");
    let echo = gateway.request(&call).echo();
    assert_eq!(echo.header("te").as_deref(), Some("trailers"));
}

#[test]
fn target_and_host_are_those_that_the_configuration_demands() {
    let upstream = Http2Upstream::start();
    let config = config(&upstream)
        .set("/upstreams/echo/host", json!("inside.example"))
        .route(
            json!({ "name": "short", "match": { "prefix": "/short" }, "auth": "none",
            "upstream": "echo", "strip_prefix": true }),
        );
    let echo = Gateway::start(config).get("/short/a?q=1").echo();
    assert_eq!(echo.target(), "/a?q=1");
    assert_eq!(echo.0["authority"], "inside.example");
    assert_eq!(
        echo.header("x-forwarded-host").as_deref(),
        Some("localhost")
    );
}

#[test]
fn bodies_are_delimited_as_in_http_1_1() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    let response = client.request(&Request::get("/public/length"));
    assert_eq!(response.header("content-length"), Some("5"));
    assert_eq!(response.text(), "hello");
    let response = client.request(&Request::new("HEAD", "/public/length"));
    assert_eq!(response.header("content-length"), Some("5"));
    for status in [204, 304] {
        let response = client.request(&Request::get(&format!("/public/status-{status}")));
        assert_eq!(response.status, status);
        assert_eq!(response.header("transfer-encoding"), None, "{status}");
    }
    let response = client.request(&Request::get("/public/status-200"));
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    let response = client.request(&Request::get("/public/interim"));
    assert_eq!(
        (response.status, response.echo().target()),
        (200, "/public/interim")
    );
    assert_eq!(upstream.connections(), 1);
    let short = gateway.get("/public/short");
    short.assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
}

#[test]
fn client_that_waits_for_100_continue_receives_it() {
    let (gateway, _upstream) = start();
    let mut client = Client::connect(gateway.public);
    client.send(
        "POST /public/count HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
         Content-Length: 5\r\n\r\n",
    );
    assert_eq!(
        client.read_until("\r\n\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.send("hello");
    assert_eq!(client.read_response().text(), "5");
    assert_eq!(
        client.request(&Request::get("/public/length")).text(),
        "hello"
    );
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let (gateway, _upstream) = start();
    let mut client = Client::connect(gateway.public);
    assert_eq!(client.request(&Request::get("/public/big")).body.len(), BIG);
    let upload = Request::post("/public/count").body(vec![b'x'; BIG]);
    assert_eq!(client.request(&upload).text(), BIG.to_string());
    client.send("POST /public/count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..100 {
        client.send(format!("{:x}\r\n{}\r\n", 20_000, "x".repeat(20_000)));
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read_response().text(), "2000000");
}

#[test]
fn client_that_reads_slowly_gets_all_of_a_response() {
    let (gateway, _upstream) = start();
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/big").to_bytes());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(client.read_response().body.len(), BIG);
    assert_eq!(
        client.request(&Request::get("/public/length")).text(),
        "hello"
    );
}

#[test]
fn early_rejection_ends_the_upload_and_no_other_stream() {
    let (gateway, upstream) = start();
    let mut events = Client::connect(gateway.public);
    events.send(Request::get("/public/events").to_bytes());
    events.read_until("data: hello\n\n");
    let start = Instant::now();
    let socket = connect_socket(gateway.public).unwrap();
    let mut client = Client::from_stream(socket);
    client.send("POST /public/early-413 HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\nx");
    let response = client.read_response();
    assert_eq!((response.status, response.text().as_str()), (413, "early"));
    assert_eq!(response.header("connection"), Some("close"));
    assert!(client.closes_within(PROMPTLY));
    assert!(start.elapsed() < PROMPTLY);
    assert!(!upstream.was_reset("/public/events"));
}

#[test]
fn failed_streams_are_reported_or_cut_off() {
    let (gateway, _upstream) = start();
    let reset = gateway.get("/public/reset");
    reset.assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/cut").to_bytes());
    client.read_until("part");
    assert!(client.closes_within(PROMPTLY));
    let line = access_line(&gateway, "/public/cut");
    assert_eq!(
        (&line["status"], &line["code"]),
        (&json!(200), &Value::Null),
        "{line}"
    );
    let errors = ["upstream=\"echo\"", "kind=\"reset\""];
    assert!(gateway.metric("portcullis_upstream_errors_total", &errors) >= 2.0);
    assert_eq!(gateway.get("/public/length").text(), "hello");
}

#[test]
fn stalled_stream_times_out_and_is_reset() {
    let upstream = Http2Upstream::start();
    let timeouts = json!({ "read": "700ms" });
    let config = config(&upstream).set("/upstreams/echo/timeouts", timeouts);
    let gateway = Gateway::start(config);
    let response = gateway.get("/public/stall");
    response.assert_refused(504, "UPSTREAM_TIMEOUT");
    eventually("the reset", || {
        upstream.was_reset("/public/stall").then_some(())
    });
    assert_eq!(gateway.get("/public/length").text(), "hello");
}

#[test]
fn stream_of_a_client_that_has_gone_is_reset() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/events").to_bytes());
    client.read_until("data: hello\n\n");
    drop(client);
    eventually("the reset", || {
        upstream.was_reset("/public/events").then_some(())
    });
    let line = access_line(&gateway, "/public/events");
    assert_eq!(line["status"], 200, "{line}");
}

#[test]
fn revocation_ends_a_stream() {
    let (gateway, upstream) = start();
    let alice = gateway.register("alice@example.com");
    let mut client = Client::connect(gateway.public);
    client.send(
        Request::get("/private/events")
            .cookie(&alice.cookie)
            .to_bytes(),
    );
    client.read_until("data: hello\n\n");
    let sign_out = Request::post("/api/v1/auth/logout")
        .same_origin()
        .cookie(&alice.cookie);
    let start = Instant::now();
    gateway.request(&sign_out);
    assert!(client.closes_within(PROMPTLY));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    eventually("the reset", || {
        upstream.was_reset("/private/events").then_some(())
    });
}

#[test]
fn many_streams_share_a_connection() {
    let upstream = Http2Upstream::start();
    // One worker has one pool.
    let gateway = Gateway::start_after(config(&upstream), "taskset -cp 0 $$ >/dev/null");
    gateway.get("/public/length");
    let open = |count: usize| {
        let mut clients: Vec<Client> = (0..count)
            .map(|_| Client::connect(gateway.public))
            .collect();
        for client in &mut clients {
            client.send(Request::get("/public/events").to_bytes());
        }
        for client in &mut clients {
            client.read_until("data: hello\n\n");
        }
        clients
    };
    let _full = open(100);
    assert_eq!(upstream.connections(), 1);
    let _more = open(1);
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn connection_that_has_ended_is_not_used_again() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    for round in 1..=3 {
        let response = client.request(&Request::post("/public/close").body("hello"));
        assert_eq!(response.echo().0["body"], "hello");
        assert_eq!(upstream.connections(), round);
    }
}

#[test]
fn request_on_a_stale_connection_is_repeated_once_if_safe() {
    let (gateway, upstream) = start();
    let mut client = Client::connect(gateway.public);
    client.request(&Request::get("/public/length"));
    let response = client.request(&Request::get("/public/drop"));
    assert_eq!((response.status, upstream.connections()), (200, 2));
    let response = client.request(&Request::post("/public/drop").body("hello"));
    response.assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    assert_eq!(upstream.connections(), 2);
    let errors = ["upstream=\"echo\"", "kind=\"reset\""];
    assert_eq!(
        gateway.metric("portcullis_upstream_errors_total", &errors),
        1.0
    );
}

#[test]
fn connection_that_has_seen_negotiate_serves_one_client() {
    let (gateway, _upstream) = start();
    let mut client = Client::connect(gateway.public);
    let request = Request::get("/public/length").header("Authorization", "Negotiate YII=");
    let own = client
        .request(&request)
        .header("x-connection")
        .unwrap()
        .to_owned();
    let response = client.request(&Request::get("/public/length"));
    assert_eq!(response.header("x-connection"), Some(&*own));
    for _ in 0..12 {
        let response = gateway.get("/public/length");
        assert_ne!(response.header("x-connection"), Some(&*own));
    }
}

#[test]
fn websocket_uses_http_1_1_in_clear_and_over_tls() {
    let upstream = Upstream::start();
    let inside = tls::certificate("inside.example");
    let config = Config::new(upstream.address);
    let cert = config.write_beside("site.pem", &inside.cert);
    let key = config.write_beside("site.key", &inside.key);
    let certificates = json!({ "certificates": [{ "cert": cert, "key": key }] });
    let secured = Gateway::start(config.set("/listeners/0/tls", certificates));
    let plain = Gateway::start(Config::new(upstream.address));
    for server in [
        format!("http://{}", plain.public),
        format!("https://{}", secured.public),
    ] {
        let mut config = Config::new(upstream.address);
        if server.starts_with("https") {
            let ca = config.write_beside("ca.pem", &inside.cert);
            let tls = json!({ "server_name": "inside.example", "ca": ca });
            config.put("/upstreams/echo/tls", tls);
        }
        config.put("/upstreams/echo/servers", json!([server]));
        config.put("/upstreams/echo/protocol", json!("h2"));
        let gateway = Gateway::start(config);
        let response = gateway.get("/public/a");
        assert_eq!(response.status, 200, "{server}");
        let via = response.echo().all("via").join(", ");
        assert!(via.contains("2 portcullis"), "{via}");
        let mut socket = WebSocketClient::open(gateway.public, "/public/ws", &[]).unwrap();
        assert_eq!(socket.echo("hello"), "hello");
        assert_eq!(gateway.get("/public/b").status, 200, "{server}");
    }
}
