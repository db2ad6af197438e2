//! Which route takes a request, what is forwarded of it, and in what form the answer comes.

use std::io::Write;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, block};
use crate::support::gateway::Gateway;
use crate::support::raw::{read_request, serving};
use crate::support::upstream::Upstream;
use crate::support::{ports, tls};

#[test]
fn routes_match_by_segment_and_the_most_specific_wins_whatever_the_order() {
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
        let answer = gateway.ask(&request);
        assert_eq!(
            answer.header("x-route"),
            Some(expected),
            "{}",
            answer.text()
        );
    }
    for target in ["/apix", "/API", "/", "/nowhere"] {
        gateway.get(target).refused(404, "ROUTE_NOT_FOUND");
    }
}

#[test]
fn the_upstream_gets_the_very_bytes_that_came() {
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
fn headers_are_edited_as_the_route_says() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "edited", "match": { "prefix": "/edited" }, "auth": "none", "upstream": "echo",
        "request_headers": { "set": { "X-Added": "one" }, "remove": ["X-Dropped"] },
        "response_headers": { "set": { "X-Answer": "two" }, "remove": ["X-Secret"] },
    }));
    let gateway = Gateway::start(config);
    let request = Request::get("/edited/reply?X-Secret=1&X-Kept=1").header("X-Dropped", "1");
    let answer = gateway.ask(&request);
    assert_eq!(answer.header("x-answer"), Some("two"));
    assert_eq!(
        (answer.header("x-secret"), answer.header("x-kept")),
        (None, Some("1"))
    );
    let echo = answer.echo();
    assert_eq!(echo.header("x-added").as_deref(), Some("one"));
    assert_eq!(echo.header("x-dropped"), None);
}

#[test]
fn a_preflight_is_answered_here_before_authentication() {
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
        gateway.ask(&request)
    };
    let answer = preflight("https://app.example");
    assert!([200, 204].contains(&answer.status), "{answer:?}");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    assert!(
        answer
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
    let refused = gateway.ask(&Request::get("/shared/a").header("Origin", "https://app.example"));
    refused.refused(401, "UNAUTHENTICATED");
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://app.example")
    );
}

#[test]
fn plain_http_is_sent_to_https_when_the_listener_says_so() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/listeners/0/redirect_to_https", json!(true));
    let gateway = Gateway::start(config);
    let request = Request::get("/private/a?b=c").header("Host", "shop.example");
    let answer = gateway.ask(&request);
    assert!([301, 308].contains(&answer.status), "{}", answer.status);
    assert_eq!(
        answer.header("location"),
        Some("https://shop.example/private/a?b=c")
    );
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn plain_http_is_redirected_to_the_port_of_the_tls_listener() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let config = Config::new(upstream.address);
    let cert = config.beside("site.pem", &certificate.cert);
    let key = config.beside("site.key", &certificate.key);
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
        let answer = gateway.ask(&request);
        assert_eq!(answer.status, 308);
        answer.header("location").unwrap().to_owned()
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
    client.send(HEADERS, flags, 1, &block(&fields)).unwrap();
    assert_eq!(client.outcome(1), Outcome::Status(308));
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_body_over_the_routes_size_is_a_413_however_it_is_framed() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "small", "match": { "prefix": "/small" }, "auth": "none", "upstream": "echo",
        "max_body": "1KiB",
    }));
    let gateway = Gateway::start(config);
    gateway
        .ask(&Request::post("/small/a").body(vec![b'x'; 1024]))
        .ok();
    let big = gateway.ask(&Request::post("/small/a").body(vec![b'x'; 1025]));
    big.refused(413, "BODY_TOO_LARGE");
    let mut client = Client::connect(gateway.public);
    client.send("POST /small/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    client.send(chunk);
    assert_eq!(client.answer().status, 413);
    assert_eq!(
        gateway
            .ask(&Request::post("/public/a").body(vec![b'x'; 1 << 20]))
            .status,
        200
    );
}

#[test]
fn an_upstream_that_speaks_http_1_0_is_answered_for_in_http_1_1() {
    let heads = [
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
    ];
    for answer in heads {
        let upstream = serving(move |mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(answer.as_bytes());
        });
        let gateway = Gateway::start(Config::new(upstream));
        let mut client = Client::connect(gateway.public);
        for _ in 0..2 {
            client.send(Request::get("/public/a").to_bytes());
            client.until("HTTP/1.1 200 ");
            client.until("ok");
            // What ends a chunked body.
            if !answer.contains("Content-Length") {
                client.until("0\r\n\r\n");
            }
        }
    }
}

#[test]
fn the_proxy_protocol_names_the_client_from_trusted_peers_only() {
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
        let echo = client.ask(&Request::get("/public/a")).echo();
        assert_eq!(echo.header("x-forwarded-for").as_deref(), Some(expected));
    }
    let wary = start(json!([]));
    let mut client = Client::connect(wary.public);
    client
        .send(&v1)
        .send(Request::get("/public/spoof").to_bytes());
    let told = client
        .answer_to("GET")
        .is_ok_and(|answer| answer.status == 200);
    assert!(!told, "a stranger's PROXY header is not HTTP");
    assert!(!upstream.saw("spoof"));
}

#[test]
fn errors_come_in_the_form_that_was_asked_for() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let ask = |accept: &str| gateway.ask(&Request::get("/private/a").header("Accept", accept));
    let html = ask("text/html,application/xhtml+xml,*/*;q=0.8");
    assert!(
        html.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(html.text().contains("UNAUTHENTICATED"), "{}", html.text());
    let problem = ask("application/problem+json");
    assert_eq!(
        problem.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(problem.json()["status"], 401);
    for accept in ["*/*", "application/json", "image/png"] {
        let json = ask(accept);
        assert!(
            json.header("content-type")
                .unwrap()
                .starts_with("application/json"),
            "{accept}"
        );
        json.refused(401, "UNAUTHENTICATED");
    }
    let server = ask("*/*")
        .header("server")
        .unwrap_or_default()
        .to_lowercase();
    assert!(
        !server.contains("pingora"),
        "what it is made of is not told: {server}"
    );
}
