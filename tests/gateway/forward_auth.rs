//! Decisions for front proxies, in the dialects of HTTP: the same as on direct requests, in the form
//! that each front proxy understands.

use serde_json::{Value, json};

use crate::support::calls::{CLIENT, Dialect};
use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::ext_authz::Query;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// The names of all identity headers of the configuration below.
const IDENTITY: [&str; 6] = [
    "x-user-id",
    "x-user-email",
    "x-user-roles",
    "x-session-id",
    "x-remote-user",
    "x-name",
];

pub(crate) struct Fixture {
    pub(crate) gateway: Gateway,
    _upstream: Upstream,
}

pub(crate) fn fixture(vary: impl FnOnce(Config) -> Config) -> Fixture {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).forward_auth();
    Fixture {
        gateway: Gateway::start(vary(config)),
        _upstream: upstream,
    }
}

/// The values of all identity headers, by name.
fn identity(response: &Response) -> Vec<(&'static str, Vec<&str>)> {
    let names = IDENTITY.into_iter();
    names.map(|name| (name, response.all(name))).collect()
}

#[test]
fn allowed_request_has_every_identity_header() {
    let other = json!({ "name": "other", "match": { "prefix": "/other" }, "upstream": "echo",
        "identity_headers": { "user": "X-Remote-User", "name": "X-Name" } });
    let fixture = fixture(|config| config.route(other));
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        for (target, user) in [("/private/a", "x-user-id"), ("/other/a", "x-remote-user")] {
            let response = fixture
                .gateway
                .query(&dialect.get(target).cookie(&alice.cookie));
            response.assert_allowed(dialect);
            let expected = IDENTITY.map(|name| {
                let value = match name {
                    _ if name == user => &*alice.user,
                    "x-user-email" => "alice@example.com",
                    "x-session-id" => &*alice.session,
                    _ => "",
                };
                (name, vec![value])
            });
            assert_eq!(identity(&response), expected, "{dialect:?} {target}");
            assert!(response.body.is_empty(), "{dialect:?}: {}", response.text());
        }
    }
}

#[test]
fn anonymous_request_has_every_identity_header_without_a_value() {
    let fixture = fixture(|config| {
        config.set("/identity_headers/name", json!("X-Name")).set(
            "/routes/0/identity_headers",
            json!({ "user": "X-Remote-User" }),
        )
    });
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        for call in [
            dialect.get("/optional/a"),
            dialect.get("/public/a"),
            dialect.get("/public/a").cookie(&alice.cookie),
            dialect.get("/optional/a").header("X-User-Id", "admin"),
            dialect.get("/public/a").header("x-user-id", "admin"),
        ] {
            let response = fixture.gateway.query(&call);
            response.assert_allowed(dialect);
            let expected = IDENTITY.map(|name| (name, vec![""]));
            assert_eq!(identity(&response), expected, "{dialect:?}");
        }
    }
}

#[test]
fn rejections_have_the_status_that_the_front_proxy_understands() {
    let admins = json!({ "name": "admins", "match": { "prefix": "/admins" }, "upstream": "echo",
        "require": { "roles": ["admin"] } });
    let fixture = fixture(|config| config.route(admins));
    let alice = fixture.gateway.register("alice@example.com");
    let ended = fixture.gateway.login("alice@example.com");
    let sign_out = Request::post("/api/v1/auth/logout").cookie(&ended.cookie);
    let sign_out = fixture.gateway.request(&sign_out.same_origin());
    assert_eq!(sign_out.status, 204, "{}", sign_out.text());
    for dialect in Dialect::ALL {
        let query = |call: Request| fixture.gateway.query(&call);
        let anonymous = query(dialect.get("/private/a"));
        anonymous.assert_denied(dialect, 401, "UNAUTHENTICATED");
        assert_eq!(
            anonymous.header("www-authenticate"),
            Some("Bearer realm=\"portcullis\"")
        );
        let gone = query(dialect.get("/private/a").cookie(&ended.cookie));
        gone.assert_denied(dialect, 401, "SESSION_REVOKED");
        let cleared = gone.header("set-cookie").unwrap_or_default();
        assert!(cleared.contains("Max-Age=0"), "{cleared}");
        let optional = query(dialect.get("/optional/a").cookie(&ended.cookie));
        optional.assert_allowed(dialect);
        let cleared = optional.header("set-cookie").unwrap_or_default();
        assert!(cleared.contains("Max-Age=0"), "{cleared}");
        query(dialect.get("/private/a").bearer("nonsense")).assert_denied(
            dialect,
            401,
            "TOKEN_INVALID",
        );
        query(dialect.get("/admins/a").cookie(&alice.cookie)).assert_denied(
            dialect,
            403,
            "FORBIDDEN",
        );
        query(dialect.get("/nowhere")).assert_denied(dialect, 404, "ROUTE_NOT_FOUND");
        query(dialect.get("/private/%2e%2e/public/a")).assert_denied(dialect, 400, "BAD_REQUEST");
        query(dialect.get("/private//a")).assert_denied(dialect, 400, "BAD_REQUEST");
    }
}

#[test]
fn body_follows_accept_and_is_not_that_of_the_original_method() {
    let fixture = fixture(|config| config);
    let html = |dialect: Dialect| dialect.get("/private/a").header("Accept", "text/html");
    for dialect in [Dialect::ForwardAuth, Dialect::ExtAuthz] {
        let json = fixture.gateway.query(&dialect.get("/private/a"));
        assert_eq!(json.code(), "UNAUTHENTICATED", "{dialect:?}");
        let page = fixture.gateway.query(&html(dialect));
        assert!(page.text().starts_with("<!DOCTYPE html>"), "{dialect:?}");
    }
    for dialect in Dialect::ALL {
        // A response to HEAD has no body, and one to a call about a HEAD has.
        let mut client = Client::connect(fixture.gateway.config.authorizer());
        for _ in 0..2 {
            client.send(dialect.call("HEAD", "/private/a").to_bytes());
            let method = if dialect == Dialect::ExtAuthz {
                "HEAD"
            } else {
                "GET"
            };
            let head = client.read_response_to(method).unwrap();
            head.assert_denied(dialect, 401, "UNAUTHENTICATED");
            assert_eq!(
                head.body.is_empty(),
                dialect != Dialect::ForwardAuth,
                "{dialect:?}"
            );
        }
        // A gRPC call is not rejected with the status 200.
        let grpc = dialect
            .call("POST", "/private/a")
            .header("Content-Type", "application/grpc")
            .header("TE", "trailers");
        fixture
            .gateway
            .query(&grpc)
            .assert_denied(dialect, 401, "UNAUTHENTICATED");
    }
}

/// nginx drops every body, and with it the connection that the body came by.
#[test]
fn rejection_for_nginx_has_no_body() {
    let fixture = fixture(|config| config.set("/routes/0/on_unauthenticated", json!("redirect")));
    let dialect = Dialect::AuthRequest;
    let mut client = Client::connect(fixture.gateway.config.authorizer());
    for (call, status) in [
        (dialect.get("/private/a"), 401),
        (dialect.get("/private/a").header("Accept", "text/html"), 303),
        (dialect.get("/optional/a").bearer("nonsense"), 401),
        (dialect.get("/nowhere").header("Accept", "text/html"), 404),
        (dialect.get("/public//a"), 400),
        (dialect.get("/public/a").header("X_User_Id", "forged"), 400),
    ] {
        let response = client.request(&call);
        assert_eq!(response.status, dialect.status(status), "{response:?}");
        assert_eq!(response.header("content-length"), Some("0"), "{response:?}");
        assert_eq!(response.header("content-type"), None, "{response:?}");
        assert!(response.header("x-portcullis-code").is_some());
        assert_eq!(response.all("cache-control"), ["no-store"], "{response:?}");
    }
}

/// A limit by address and one by user.
fn limited(config: Config) -> Config {
    let window = |limit: u64, key: &str| json!({ "algorithm": "sliding_log", "limit": limit, "window": "1h", "key": key });
    config
        .set("/listeners/0/trusted_proxies", json!(["127.0.0.1"]))
        .limit("per-address", window(100, "ip"))
        .limit("per-user", window(3, "user"))
}

#[test]
fn limits_are_those_of_direct_requests() {
    let fixture = fixture(limited);
    let alice = fixture.gateway.register("alice@example.com");
    let direct = Request::get("/private/a")
        .header("X-Forwarded-For", CLIENT)
        .cookie(&alice.cookie);
    fixture.gateway.request(&direct).assert_ok();
    for (dialect, left) in [(Dialect::AuthRequest, 1), (Dialect::ForwardAuth, 0)] {
        let response = fixture
            .gateway
            .query(&dialect.get("/private/a").cookie(&alice.cookie));
        response.assert_allowed(dialect);
        assert_eq!(response.numeric_header("x-ratelimit-remaining"), left);
        assert!(response.header("ratelimit").is_some(), "{response:?}");
        assert!(response.header("ratelimit-policy").is_some());
    }
    for dialect in Dialect::ALL {
        let response = fixture
            .gateway
            .query(&dialect.get("/private/a").cookie(&alice.cookie));
        response.assert_denied(dialect, 429, "RATE_LIMITED");
        assert!(response.numeric_header("retry-after") > 3000);
        assert_eq!(response.numeric_header("x-ratelimit-remaining"), 0);
    }
    fixture
        .gateway
        .request(&direct)
        .assert_refused(429, "RATE_LIMITED");
}

#[test]
fn known_session_costs_no_round_trip() {
    let redis = crate::support::redis::Redis::start();
    let url = redis.url();
    let fixture = fixture(|config| config.store(&url));
    let alice = fixture.gateway.register("alice@example.com");
    let lookups = || {
        let series = "portcullis_store_operation_duration_seconds_count";
        fixture.gateway.metric(series, &["operation=\"decide\""])
    };
    let mut client = Client::connect(fixture.gateway.config.authorizer());
    let mut query = |dialect: Dialect| {
        let call = dialect.get("/private/a").cookie(&alice.cookie);
        client.request(&call).assert_allowed(dialect);
    };
    Dialect::ALL.into_iter().for_each(&mut query);
    let before = lookups();
    for _ in 0..5 {
        Dialect::ALL.into_iter().for_each(&mut query);
    }
    assert_eq!(lookups(), before);
}

/// A gateway may be asked about a request that it has forwarded itself.
#[test]
fn query_is_no_loop() {
    let fixture = fixture(|config| config);
    let echo = fixture.gateway.get("/public/a").echo();
    let via = echo.header("via").unwrap();
    for dialect in Dialect::ALL {
        let call = dialect.get("/public/a").header("Via", &via);
        fixture.gateway.query(&call).assert_allowed(dialect);
    }
}

#[test]
fn queries_are_uses_of_their_session() {
    let fixture = fixture(|config| config);
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        let call = dialect.get("/private/a").cookie(&alice.cookie);
        fixture.gateway.query(&call).assert_allowed(dialect);
    }
    let verdict = Query::get("/private/a").header("cookie", &alice.cookie);
    let verdict = verdict.send(fixture.gateway.config.authorizer());
    assert!(verdict.is_allowed(), "{verdict:?}");
    let path = format!("/admin/sessions?user={}", alice.user);
    let session = eventually("the uses are written", || {
        let list = fixture.gateway.admin(Request::get(&path)).data();
        let session = list["sessions"][0].clone();
        (session["request_count"] == 4).then_some(session)
    });
    let addresses = session["ip_addresses"].as_array().unwrap();
    assert!(addresses.contains(&json!(CLIENT)), "{session}");
    assert_eq!(session["live_connections"], 0, "{session}");
}

#[test]
fn only_trusted_peers_are_heard_and_only_on_the_paths_of_dialects() {
    let mut fixture = fixture(limited);
    let call = Dialect::ForwardAuth.get("/public/a");
    for path in [
        "/",
        "/auth-request/",
        "/ext-authz",
        "/forward-auth/public/a",
        "/api/v1/health",
        "/public/a",
        "/metrics",
    ] {
        let response = fixture.gateway.query(&Request::get(path));
        response.assert_refused(404, "NOT_FOUND");
    }
    fixture.gateway.reload("applied", |config| {
        config.put("/forward_auth/trusted_proxies", json!(["192.0.2.0/24"]));
    });
    let charged = |gateway: &Gateway| gateway.metric("portcullis_ratelimit_total", &[]);
    let before = charged(&fixture.gateway);
    for dialect in Dialect::ALL {
        let response = fixture.gateway.query(&dialect.get("/public/a"));
        response.assert_denied(dialect, 403, "FORBIDDEN");
        let dialect = format!("dialect=\"{}\"", dialect.name());
        let labels = [&*dialect, "outcome=\"forbidden\""];
        let counted = fixture
            .gateway
            .metric("portcullis_forward_auth_total", &labels);
        assert!((counted - 1.0).abs() < 0.1, "{labels:?}: {counted}");
    }
    fixture
        .gateway
        .query(&Request::get("/other"))
        .assert_refused(403, "FORBIDDEN");
    assert_eq!(charged(&fixture.gateway), before);
    fixture.gateway.reload("applied", |config| {
        config.put("/forward_auth/trusted_proxies", json!(["127.0.0.0/8"]));
    });
    fixture
        .gateway
        .query(&call)
        .assert_allowed(Dialect::ForwardAuth);
    assert!(charged(&fixture.gateway) > before);
}

#[test]
fn decisions_are_logged_and_counted() {
    let fixture = fixture(|config| config);
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        let id = format!("call-{}", dialect.name());
        let call = dialect
            .get("/private/a?secret=1")
            .header("X-Request-ID", &id);
        let response = fixture.gateway.query(&call.clone().cookie(&alice.cookie));
        assert_eq!(response.header("x-request-id"), Some(&*id));
        fixture.gateway.query(&call);
        let id = format!("\"request_id\":\"{id}\"");
        eventually("both lines", || {
            (fixture.gateway.logs().matches(&id).count() == 2).then_some(())
        });
        let logs = fixture.gateway.logs();
        let lines = logs.lines().filter(|line| line.contains(&id));
        let mut lines: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        // Each worker writes its own.
        lines.sort_by_key(|line| line["status"].as_u64());
        for line in &lines {
            assert_eq!(line["dialect"], dialect.name(), "{line}");
            assert_eq!(line["client_ip"], CLIENT, "{line}");
            assert_eq!(line["host"], "shop.example", "{line}");
            assert_eq!(line["path"], "/private/a", "{line}");
            assert_eq!(line["route"], "private", "{line}");
            assert!(line.get("upstream").is_none(), "{line}");
        }
        assert_eq!(lines[0]["status"], 200);
        assert_eq!(lines[0]["user_id"], alice.user);
        assert_eq!(lines[1]["status"], 401);
        assert_eq!(lines[1]["code"], "UNAUTHENTICATED");
        for outcome in ["allowed", "unauthenticated"] {
            let labels = [
                &*format!("dialect=\"{}\"", dialect.name()),
                &*format!("outcome=\"{outcome}\""),
            ];
            let counted = fixture
                .gateway
                .metric("portcullis_forward_auth_total", &labels);
            assert!((counted - 1.0).abs() < 0.1, "{labels:?}: {counted}");
        }
    }
    // The log has the status that the client is meant to receive, and the trace of the request.
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let unknown = Dialect::AuthRequest
        .get("/nowhere")
        .header("X-Request-ID", "call-unknown")
        .header("traceparent", &format!("00-{trace}-{span}-01"));
    fixture.gateway.query(&unknown);
    let line = eventually("the call is logged", || {
        let mut lines = fixture.gateway.events().into_iter();
        lines.find(|line| line["request_id"] == "call-unknown")
    });
    assert_eq!(
        (&line["status"], &line["trace_id"]),
        (&json!(404), &json!(trace))
    );
    assert!(!fixture.gateway.logs().contains("secret=1"));
}
