//! The calls of Envoy by gRPC: those that are none, who may make them, and the connections that carry
//! them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use portcullis::forward_auth::ext_authz_grpc::messages::CheckRequest;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::support::config::Config;
use crate::support::ext_authz::{Authorizer, CHECK, Query, Verdict, call, framed};
use crate::support::http2::Http2;
use crate::support::redis::Redis;
use crate::support::tls;
use crate::support::upgrade::{upgradable, upgrade};
use crate::support::wait::{SetOnDrop, eventually};

/// A limit that shows what a call has spent.
fn with_limit(config: Config) -> Config {
    let limit = json!({ "limit": 100, "window": "10m", "key": "ip" });
    config.limit("many", limit)
}

/// How much of the limit is left for a client, beside this look at it.
fn left(authorizer: &Authorizer, client: &str) -> String {
    let query = Query::get("/public/a").without("x-forwarded-for");
    let verdict = authorizer.query(&query.header("x-forwarded-for", client));
    verdict.all("x-ratelimit-remaining")[0].to_owned()
}

#[test]
fn malformed_call_is_denied_and_spends_nothing() {
    let authorizer = Authorizer::start(with_limit);
    let body = Query::get("/public/a").body();
    let compressed = [&[1], &body[1..]].concat();
    let twice = [&body[..], &body[..]].concat();
    let longer = [&[0, 0xff, 0xff, 0xff, 0xff], &body[5..]].concat();
    let garbage = [&[0, 0, 0, 0, 2], &[0xff; 2][..]].concat();
    let no_request = framed(&CheckRequest::default());
    for (name, body) in [
        ("empty", &[][..]),
        ("cut", &body[..20]),
        ("compressed", &compressed),
        ("twice", &twice),
        ("longer", &longer),
        ("garbage", &garbage),
        ("json", b"{}"),
        ("no request", &no_request),
    ] {
        let verdict = Verdict::of(call(authorizer.address, CHECK, body));
        assert_eq!(
            (verdict.status, verdict.code),
            (400, 3),
            "{name}: {verdict:?}"
        );
        assert_eq!(verdict.portcullis_code(), "BAD_REQUEST", "{name}");
    }
    assert_eq!(left(&authorizer, "192.0.2.7"), "99");
}

#[test]
fn malformed_request_is_denied_and_spends_nothing() {
    let authorizer = Authorizer::start(with_limit);
    let query = Query::get("/public/a");
    for (name, query) in [
        ("no method", query.clone().vary(|http| http.method.clear())),
        ("no scheme", query.clone().vary(|http| http.scheme.clear())),
        ("no host", query.clone().vary(|http| http.host.clear())),
        ("no path", query.clone().vary(|http| http.path.clear())),
        (
            "absolute",
            query
                .clone()
                .vary(|http| http.path = "http://a/public/a".to_owned()),
        ),
        (
            "fragment",
            query
                .clone()
                .vary(|http| http.path = "/public/a#b".to_owned()),
        ),
        (
            "user",
            query
                .clone()
                .vary(|http| http.host = "a@shop.example".to_owned()),
        ),
        ("no client", query.clone().without("x-forwarded-for")),
        (
            "garbled client",
            query.clone().header("x-forwarded-for", "unknown"),
        ),
        (
            "dot segment",
            query
                .clone()
                .vary(|http| http.path = "/public/../private".to_owned()),
        ),
        ("other host", query.clone().header("host", "other.example")),
        (
            "line end",
            query.clone().header("x-a", "1\r\nx-user-id: admin"),
        ),
    ] {
        let verdict = authorizer.query(&query);
        assert_eq!(
            (verdict.status, verdict.code),
            (400, 3),
            "{name}: {verdict:?}"
        );
    }
    let connect = query.vary(|http| http.method = "CONNECT".to_owned());
    assert_eq!(authorizer.query(&connect).status, 405);
    assert_eq!(left(&authorizer, "192.0.2.7"), "99");
}

#[test]
fn attributes_replace_no_malformed_field() {
    let authorizer = Authorizer::start(with_limit);
    let query = Query::get("/public/a");
    for (name, query) in [
        (
            "garbled client of a peer",
            query
                .clone()
                .header("x-forwarded-for", "unknown")
                .source("192.0.2.8"),
        ),
        (
            "fragment apart",
            query.clone().vary(|http| http.fragment = "b".to_owned()),
        ),
        ("two lists", query.clone().raw(&[]).header("x-a", "1")),
    ] {
        let verdict = authorizer.query(&query);
        let found = (verdict.status, verdict.code);
        assert_eq!(found, (400, 3), "{name}: {verdict:?}");
    }
    assert_eq!(left(&authorizer, "192.0.2.7"), "99");
}

#[test]
fn oversized_call_is_denied() {
    let authorizer = Authorizer::start(with_limit);
    let body = Query::get("/public/a").vary(|http| http.fragment = "a".repeat(2 << 20));
    let fields = (0..300).fold(Query::get("/public/a"), |query, index| {
        query.header(&format!("x-{index}"), "1")
    });
    let head = Query::get("/public/a").header("x-a", &"a".repeat(200 << 10));
    for (query, status, code) in [
        (body, 413, "BODY_TOO_LARGE"),
        (fields, 431, "HEADERS_TOO_LARGE"),
        (head, 431, "HEADERS_TOO_LARGE"),
    ] {
        let verdict = authorizer.query(&query);
        assert_eq!((verdict.status, verdict.portcullis_code()), (status, code));
        assert_ne!(verdict.code, 0);
    }
}

#[test]
fn call_of_another_peer_is_denied_before_it_is_read() {
    let mut authorizer = Authorizer::start(with_limit);
    assert_eq!(left(&authorizer, "192.0.2.7"), "99");
    authorizer.gateway.reload("applied", |config| {
        config.put("/forward_auth/trusted_proxies", json!(["192.0.2.0/24"]));
    });
    for body in [Query::get("/public/a").body(), b"garbage".to_vec()] {
        let verdict = Verdict::of(call(authorizer.address, CHECK, &body));
        assert_eq!((verdict.status, verdict.code), (403, 7), "{verdict:?}");
        assert_eq!(verdict.portcullis_code(), "FORBIDDEN");
    }
    let health = call(authorizer.address, HEALTH, &[0; 5]);
    assert_eq!(health.status, 403);
    authorizer.gateway.reload("applied", |config| {
        config.put("/forward_auth/trusted_proxies", json!(["127.0.0.0/8"]));
    });
    assert_eq!(left(&authorizer, "192.0.2.7"), "98");
}

const HEALTH: &str = "/grpc.health.v1.Health/Check";

#[test]
fn health_is_reported() {
    let authorizer = Authorizer::start(std::convert::identity);
    let reply = call(authorizer.address, HEALTH, &[0; 5]);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.outcome_field("grpc-status"), Some("0"));
    assert_eq!(reply.body, [0, 0, 0, 0, 2, 8, 1]);
}

#[test]
fn gateway_that_drains_is_reported_as_not_serving() {
    let shutdown = json!({ "delay": "60s" });
    let authorizer = Authorizer::start(|config| config.set("/shutdown", shutdown));
    authorizer.gateway.sigterm();
    eventually("the gateway is not serving", || {
        let reply = call(authorizer.address, HEALTH, &[0; 5]);
        (reply.body == [0, 0, 0, 0, 2, 8, 2]).then_some(())
    });
    assert!(authorizer.query(&Query::get("/public/a")).is_allowed());
}

#[test]
fn other_methods_are_not_found() {
    let authorizer = Authorizer::start(std::convert::identity);
    for path in [
        "/envoy.service.auth.v3.Authorization/Other",
        "/envoy.service.auth.v2.Authorization/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/",
    ] {
        assert_eq!(
            call(authorizer.address, path, &[0; 5]).status,
            404,
            "{path}"
        );
    }
    // A request that is no call.
    let client = Http2::connect(authorizer.address);
    for (method, path) in [("GET", CHECK), ("POST", CHECK), ("GET", "/public/a")] {
        let (status, body) = client.request(method, path, &[]);
        assert_eq!(status, 404, "{method} {path}: {body}");
    }
}

#[test]
fn other_dialects_are_served_over_http2() {
    let authorizer = Authorizer::start(std::convert::identity);
    let alice = authorizer.sign_in();
    let client = Http2::connect(authorizer.address);
    let named = [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-uri", "/private/a"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let by_url = [
        ("x-original-method", "GET"),
        ("x-original-url", "https://shop.example/private/a"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let envoy = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    for (path, fields) in [
        ("/forward-auth", &named[..]),
        ("/auth-request", &by_url),
        ("/ext-authz/private/a", &envoy),
    ] {
        let with_cookie = [fields, &[("cookie", alice.cookie.as_str())]].concat();
        let allowed = client.open("GET", path, &with_cookie, b"").unwrap();
        assert_eq!(allowed.status, 200, "{path}");
        assert_eq!(allowed.headers["x-user-id"], alice.user.as_str(), "{path}");
        assert_eq!(allowed.headers["x-portcullis-code"], "OK", "{path}");
        let refused = client.open("HEAD", path, fields, b"").unwrap();
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(
            refused.headers["x-portcullis-code"], "UNAUTHENTICATED",
            "{path}"
        );
    }
}

#[test]
fn calls_are_carried_by_tls_and_by_a_unix_socket() {
    let certificate = tls::certificate("localhost");
    let authorizer = Authorizer::start(|config| {
        let cert = config.write_beside("site.pem", &certificate.cert);
        let key = config.write_beside("site.key", &certificate.key);
        let tls = json!({ "certificates": [{ "cert": cert, "key": key }] });
        config.set("/forward_auth/tls", tls)
    });
    let verdict = Query::get("/public/a").send_over(async {
        let connector = TlsConnector::from(tls::client(&certificate, &["h2"]));
        let socket = TcpStream::connect(authorizer.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, socket).await.unwrap()
    });
    assert!(verdict.is_allowed(), "{verdict:?}");

    let authorizer = Authorizer::start(|mut config| {
        let socket = config.folder().join("authz.sock");
        let bind = format!("unix:{}", socket.display());
        config.put("/forward_auth", json!({ "bind": bind }));
        config
    });
    let socket = authorizer.gateway.config.folder().join("authz.sock");
    let verdict =
        Query::get("/private/a").send_over(async { UnixStream::connect(socket).await.unwrap() });
    assert_eq!(
        (verdict.status, verdict.portcullis_code()),
        (401, "UNAUTHENTICATED")
    );
}

/// Queries until the load is over. Connects again only where the gateway has closed the connection.
fn load(address: SocketAddr, over: &AtomicBool, completed: &AtomicUsize) {
    let query = Query::get("/public/a").body();
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut client = Http2::connect(address);
    while !over.load(Ordering::Relaxed) {
        match client.open("POST", CHECK, &fields, &query) {
            Ok(mut stream) => {
                assert_eq!(stream.status, 200);
                while let Some(part) = stream.next() {
                    part.unwrap();
                }
                completed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(!error.is_reset(), "{error}");
                client = Http2::connect(address);
            }
        }
    }
}

#[test]
fn upgrade_and_drain_lose_no_call() {
    let redis = Redis::start();
    let authorizer = Authorizer::start_by(|config| config.store(&redis.url()), upgradable);
    let (over, completed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let done = SetOnDrop(&over);
        for _ in 0..2 {
            scope.spawn(|| load(authorizer.address, &over, &completed));
        }
        let wait_for_more = || {
            let before = completed.load(Ordering::Relaxed);
            eventually("further calls are completed", || {
                (completed.load(Ordering::Relaxed) > before + 20).then_some(())
            });
        };
        wait_for_more();
        upgrade(&authorizer.gateway);
        wait_for_more();
        drop(done);
    });
    assert!(
        Query::get("/public/a")
            .send(authorizer.address)
            .is_allowed()
    );
}
