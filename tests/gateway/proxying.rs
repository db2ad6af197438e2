//! Proxying: which route takes a request, what is forwarded, and the form of the response.

use std::io::Write;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{
    END_HEADERS, END_STREAM, Frames, HEADERS, StreamOutcome, header_block,
};
use crate::support::gateway::Gateway;
use crate::support::scripted_upstream::{read_request, serve_connections};
use crate::support::upstream::Upstream;
use crate::support::{ports, tls};

#[test]
fn most_specific_route_wins_regardless_of_order() {
    let upstream = Upstream::start();
    let route = |name: &str, matched: serde_json::Value| {
        json!({ "name": name, "match": matched, "auth": "none", "upstream": "echo",
                "response_headers": { "set": { "X-Route": name } } })
    };
    let config = Config::new(upstream.address)
        .route(route("api", json!({ "prefix": "/api" })))
        .route(route("api-admin", json!({ "prefix": "/api-admin" })))
        .route(route("nested", json!({ "prefix": "/api/admin" })))
        .route(route("exact", json!({ "path": "/api/admin" })))
        .route(route(
            "posts",
            json!({ "prefix": "/api", "methods": ["POST"] }),
        ))
        .route(route(
            "headed",
            json!({ "prefix": "/api", "headers": { "X-Version": "2" } }),
        ))
        .route(route(
            "host",
            json!({ "host": "a.example", "prefix": "/api" }),
        ))
        .route(route(
            "wild",
            json!({ "host": "*.example", "prefix": "/api" }),
        ));
    let gateway = Gateway::start(config);
    let cases = [
        (Request::get("/api"), "api"),
        (Request::get("/api/x"), "api"),
        (Request::get("/api-admin/x"), "api-admin"),
        (Request::get("/api/admin"), "exact"),
        (Request::get("/api/admin/x"), "nested"),
        (Request::get("/api/adminx"), "api"),
        (Request::post("/api/x").body(""), "posts"),
        (Request::get("/api/x").header("X-Version", "2"), "headed"),
        (
            Request::get("/api/x").header("Host", "A.Example:8080"),
            "host",
        ),
        (Request::get("/api/x").header("Host", "b.example"), "wild"),
        (Request::get("/%61pi/x"), "api"),
    ];
    for (request, expected) in cases {
        let response = gateway.request(&request);
        assert_eq!(
            response.header("x-route"),
            Some(expected),
            "{}",
            response.text()
        );
    }
    for target in ["/apix", "/API", "/", "/nowhere"] {
        gateway.get(target).assert_refused(404, "ROUTE_NOT_FOUND");
    }
}

#[test]
fn request_bytes_reach_the_upstream_unchanged() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "stripped", "match": { "prefix": "/stripped/deep" }, "auth": "none",
        "upstream": "echo", "strip_prefix": true,
    }));
    let gateway = Gateway::start(config);
    let cases = [
        ("/public/a%20b?q=%2F..%2F&x", "/public/a%20b?q=%2F..%2F&x"),
        ("/public/~a;v=1/b", "/public/~a;v=1/b"),
        ("/public/?", "/public/?"),
        ("/stripped/deep/a%20b?q=1", "/a%20b?q=1"),
        ("/stripped/deep", "/"),
        ("/stripped/deep?q=1", "/?q=1"),
    ];
    for (sent, expected) in cases {
        assert_eq!(gateway.get(sent).echo().target(), expected, "{sent}");
    }
}

#[test]
fn route_edits_headers() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "edited", "match": { "prefix": "/edited" }, "auth": "none", "upstream": "echo",
        "request_headers": { "set": { "X-Added": "one" }, "remove": ["X-Dropped"] },
        "response_headers": { "set": { "X-Answer": "two" }, "remove": ["X-Secret"] },
    }));
    let gateway = Gateway::start(config);
    let request = Request::get("/edited/reply?X-Secret=1&X-Kept=1").header("X-Dropped", "1");
    let response = gateway.request(&request);
    assert_eq!(response.header("x-answer"), Some("two"));
    assert_eq!(
        (response.header("x-secret"), response.header("x-kept")),
        (None, Some("1"))
    );
    let echo = response.echo();
    assert_eq!(echo.header("x-added").as_deref(), Some("one"));
    assert_eq!(echo.header("x-dropped"), None);
}

#[test]
fn preflight_is_handled_before_authentication() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "shared", "match": { "prefix": "/shared" }, "auth": "required", "upstream": "echo",
        "cors": { "origins": ["https://app.example"], "methods": ["GET", "PUT"],
                  "headers": ["X-Custom"], "expose": ["X-RateLimit-Remaining"],
                  "credentials": true, "max_age": "10m" },
    }));
    let gateway = Gateway::start(config);
    let preflight = |origin: &str| {
        let request = Request::new("OPTIONS", "/shared/a")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "PUT")
            .header("Access-Control-Request-Headers", "x-custom");
        gateway.request(&request)
    };
    let response = preflight("https://app.example");
    assert!([200, 204].contains(&response.status), "{response:?}");
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(
        response.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(response.header("access-control-max-age"), Some("600"));
    assert!(
        response
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    assert!(
        response
            .header("access-control-allow-headers")
            .unwrap()
            .to_lowercase()
            .contains("x-custom")
    );
    let foreign = preflight("https://evil.example");
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    assert_eq!(
        upstream.requests(),
        0,
        "a preflight does not reach the upstream"
    );
    // An error of the gateway can be read by the page that caused it.
    let refused =
        gateway.request(&Request::get("/shared/a").header("Origin", "https://app.example"));
    refused.assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://app.example")
    );
}

#[test]
fn plain_http_is_redirected_to_https_when_configured() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/listeners/0/redirect_to_https", json!(true));
    let gateway = Gateway::start(config);
    let request = Request::get("/private/a?b=c").header("Host", "shop.example");
    let response = gateway.request(&request);
    assert!([301, 308].contains(&response.status), "{}", response.status);
    assert_eq!(
        response.header("location"),
        Some("https://shop.example/private/a?b=c")
    );
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn plain_http_redirect_uses_the_tls_port() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let config = Config::new(upstream.address);
    let cert = config.write_beside("site.pem", &certificate.cert);
    let key = config.write_beside("site.key", &certificate.key);
    let secure = ports::free();
    let mut config = config.set("/listeners/0/redirect_to_https", json!(true));
    config.file["listeners"]
        .as_array_mut()
        .unwrap()
        .push(json!({
            "bind": secure.to_string(),
            "tls": { "certificates": [{ "cert": cert, "key": key }] },
        }));
    let gateway = Gateway::start(config);
    let location = |host: &str| {
        let request = Request::get("/private/a?b=c").header("Host", host);
        let response = gateway.request(&request);
        assert_eq!(response.status, 308);
        response.header("location").unwrap().to_owned()
    };
    let (plain, secure) = (gateway.public.port(), secure.port());
    assert_eq!(
        location(&format!("shop.example:{plain}")),
        format!("https://shop.example:{secure}/private/a?b=c")
    );
    let mapped = "the client's port is not the listener's: something in front maps ports";
    for host in ["shop.example", "shop.example:81"] {
        assert_eq!(
            location(host),
            "https://shop.example/private/a?b=c",
            "{mapped}"
        );
    }
    // HTTP/2 by prior knowledge names the port in `:authority`.
    let mut client = Frames::connect(gateway.public);
    let authority = format!("shop.example:{plain}");
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", &*authority),
        (":path", "/private/a"),
    ];
    let flags = END_HEADERS | END_STREAM;
    client
        .send(HEADERS, flags, 1, &header_block(&fields))
        .unwrap();
    assert_eq!(client.stream_outcome(1), StreamOutcome::Status(308));
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn body_over_the_limit_is_413_in_any_framing() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "small", "match": { "prefix": "/small" }, "auth": "none", "upstream": "echo",
        "max_body": "1KiB",
    }));
    let gateway = Gateway::start(config);
    gateway
        .request(&Request::post("/small/a").body(vec![b'x'; 1024]))
        .assert_ok();
    let big = gateway.request(&Request::post("/small/a").body(vec![b'x'; 1025]));
    big.assert_refused(413, "BODY_TOO_LARGE");
    let mut client = Client::connect(gateway.public);
    client.send("POST /small/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    client.send(chunk);
    assert_eq!(client.read_response().status, 413);
    assert_eq!(
        gateway
            .request(&Request::post("/public/a").body(vec![b'x'; 1 << 20]))
            .status,
        200
    );
}

#[test]
fn http_1_0_upstream_response_is_upgraded() {
    let heads = [
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
    ];
    for response in heads {
        let upstream = serve_connections(move |mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(response.as_bytes());
        });
        let gateway = Gateway::start(Config::new(upstream));
        let mut client = Client::connect(gateway.public);
        for _ in 0..2 {
            client.send(Request::get("/public/a").to_bytes());
            client.read_until("HTTP/1.1 200 ");
            client.read_until("ok");
            // What ends a chunked body.
            if !response.contains("Content-Length") {
                client.read_until("\r\n0\r\n\r\n");
            }
        }
    }
}

#[test]
fn proxy_protocol_is_accepted_from_trusted_peers_only() {
    let v1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([203, 0, 113, 8, 127, 0, 0, 1, 0x12, 0x34, 0, 80]);
    let upstream = Upstream::start();
    let start = |trusted: serde_json::Value| {
        Gateway::start(
            Config::new(upstream.address)
                .set("/listeners/0/proxy_protocol", json!(true))
                .set("/listeners/0/trusted_proxies", trusted),
        )
    };
    let trusting = start(json!(["127.0.0.0/8"]));
    let unknown = b"PROXY UNKNOWN 1 2 3 4 5 6\r\n".to_vec();
    for (header, expected) in [
        (&v1, "203.0.113.7"),
        (&v2, "203.0.113.8"),
        // The proxy speaks for itself.
        (&unknown, "127.0.0.1"),
    ] {
        let mut client = Client::connect(trusting.public);
        client.send(header);
        let echo = client.request(&Request::get("/public/a")).echo();
        assert_eq!(echo.header("x-forwarded-for").as_deref(), Some(expected));
    }
    let wary = start(json!([]));
    let mut client = Client::connect(wary.public);
    client
        .send(&v1)
        .send(Request::get("/public/spoof").to_bytes());
    let reported = client
        .read_response_to("GET")
        .is_ok_and(|response| response.status == 200);
    assert!(!reported, "a stranger's PROXY header is not HTTP");
    assert!(!upstream.has_seen("spoof"));
}

#[test]
fn error_format_follows_accept() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let send = |accept: &str| gateway.request(&Request::get("/private/a").header("Accept", accept));
    let html = send("text/html,application/xhtml+xml,*/*;q=0.8");
    assert!(
        html.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(html.text().contains("UNAUTHENTICATED"), "{}", html.text());
    let problem = send("application/problem+json");
    assert_eq!(
        problem.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(problem.json()["status"], 401);
    for accept in ["*/*", "application/json", "image/png"] {
        let json = send(accept);
        assert!(
            json.header("content-type")
                .unwrap()
                .starts_with("application/json"),
            "{accept}"
        );
        json.assert_refused(401, "UNAUTHENTICATED");
    }
    let server = send("*/*")
        .header("server")
        .unwrap_or_default()
        .to_lowercase();
    assert!(
        !server.contains("pingora"),
        "what it is made of is not told: {server}"
    );
}
