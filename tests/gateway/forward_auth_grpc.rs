//! Decisions for Envoy by gRPC: what the upstream and the client of a request receive.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::ext_authz::{Authorizer, Query, Verdict};
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::tokens;
use crate::support::wait::eventually;

/// The identity headers that are on by default.
const IDENTITY: [&str; 4] = ["x-user-id", "x-user-email", "x-user-roles", "x-session-id"];

/// Runs a check with each engine of the store.
fn with_each_store(change: impl Fn(Config) -> Config, check: impl Fn(&Authorizer)) {
    check(&Authorizer::start(&change));
    let redis = Redis::start();
    check(&Authorizer::start(|config| {
        change(config).store(&redis.url())
    }));
}

#[track_caller]
fn assert_denied(verdict: &Verdict, status: u16, code: &str) {
    assert_eq!(verdict.status, status, "{verdict:?}");
    assert_ne!(verdict.code, 0, "{verdict:?}");
    assert_eq!(verdict.portcullis_code(), code, "{verdict:?}");
    assert_eq!(verdict.all("x-portcullis-code"), [code], "{verdict:?}");
    assert_eq!(verdict.all("x-request-id").len(), 1, "{verdict:?}");
    assert_eq!(verdict.all("cache-control"), ["no-store"], "{verdict:?}");
}

#[test]
fn session_passes_with_its_identity_and_without_its_cookie() {
    with_each_store(std::convert::identity, |authorizer| {
        let alice = authorizer.sign_in();
        let query = Query::get("/private/a?b=%2f")
            .header("cookie", &format!("theme=dark; {}; lang=de", alice.cookie))
            .header("x-request-id", "req-1")
            .header("x-user-id", "forged");
        let verdict = authorizer.query(&query);
        assert!(verdict.is_allowed(), "{verdict:?}");
        assert_eq!(verdict.set["x-user-id"], alice.user);
        assert_eq!(verdict.set["x-user-email"], "alice@example.com");
        assert_eq!(verdict.set["x-session-id"].len(), 64);
        assert_eq!(verdict.set["cookie"], "theme=dark; lang=de");
        assert_eq!(verdict.set["x-request-id"], "req-1");
        assert_eq!(verdict.all("x-request-id"), ["req-1"]);
        assert!(verdict.removes("x-user-roles"), "{verdict:?}");
        let both = verdict
            .removed
            .iter()
            .find(|name| verdict.set.contains_key(*name));
        assert_eq!(both, None);
        assert_eq!(verdict.portcullis_code(), "OK");
        assert_eq!(verdict.metadata["x-request-id"], "req-1");
        assert_eq!(verdict.metadata["cache-control"], "no-store");
        // Only the session cookie: nothing is left.
        let verdict = authorizer.query(&Query::get("/private/a").header("cookie", &alice.cookie));
        assert!(verdict.removes("cookie") && !verdict.set.contains_key("cookie"));
    });
}

#[test]
fn forged_headers_reach_no_upstream() {
    let authorizer = Authorizer::start(std::convert::identity);
    let forged = [
        "x-user-id",
        "x-session-id",
        "x_user_id",
        "x.user-email",
        "x-portcullis-code",
        "x_portcullis_assertion",
        "x-portcullis-assertion",
        "proxy",
        "x_forwarded_for",
    ];
    for path in ["/optional/a", "/public/a"] {
        let plain = Query::get(path).header("x-plain", "kept");
        let query = forged
            .iter()
            .fold(plain, |query, name| query.header(name, "admin"));
        for query in [query.clone(), query.raw(&[("x-user-id", b"again")])] {
            let verdict = authorizer.query(&query);
            assert!(verdict.is_allowed(), "{verdict:?}");
            for name in IDENTITY.iter().chain(&forged) {
                assert!(verdict.removes(name), "{path} {name}: {verdict:?}");
            }
            let set: Vec<&String> = verdict.set.keys().collect();
            assert_eq!(set, ["x-request-id"], "{path}");
            assert!(!verdict.removes("x-plain") && !verdict.removes("x-forwarded-for"));
        }
    }
}

#[test]
fn upstream_receives_the_credentials_that_it_would_receive_directly() {
    let forwards = json!({
        "name": "forwards", "match": { "prefix": "/forwards" }, "auth": "required",
        "upstream": "echo", "forward_credentials": true,
    });
    let authorizer = Authorizer::start(|config| config.route(forwards));
    let alice = authorizer.sign_in();
    let bearer = format!("Bearer {}", alice.access_token);
    let session = format!("Session {}", alice.session_token);
    for (path, authorization, removed) in [
        ("/private/a", bearer.as_str(), true),
        ("/private/a", &session, true),
        ("/forwards/a", &bearer, false),
        ("/forwards/a", &session, true),
        ("/public/a", &bearer, false),
        ("/public/a", &session, true),
        ("/public/a", "Basic YTpi", false),
        ("/optional/a", "Basic YTpi", false),
    ] {
        let query = Query::get(path).header("authorization", authorization);
        let verdict = authorizer.query(&query);
        assert!(verdict.is_allowed(), "{path}: {verdict:?}");
        assert_eq!(
            verdict.removes("authorization"),
            removed,
            "{path} {authorization}"
        );
        assert!(!verdict.set.contains_key("authorization"));
    }
    // A cookie that is no text stays as it is.
    let query = Query::get("/public/a").raw(&[("cookie", b"a=\xe9")]);
    let verdict = authorizer.query(&query);
    assert!(!verdict.removes("cookie") && !verdict.set.contains_key("cookie"));
}

#[test]
fn rejection_is_what_the_client_receives() {
    with_each_store(std::convert::identity, |authorizer| {
        let verdict = authorizer.query(&Query::get("/private/a").header("x-request-id", "req-2"));
        assert_denied(&verdict, 401, "UNAUTHENTICATED");
        assert_eq!(verdict.code, 16);
        assert_eq!(verdict.all("x-request-id"), ["req-2"]);
        assert!(verdict.all("www-authenticate")[0].starts_with("Bearer"));
        let body: Value = serde_json::from_str(&verdict.body).unwrap();
        assert_eq!(body["error"]["code"], "UNAUTHENTICATED");
        assert!(verdict.all("content-length").is_empty());
        // A page where the client prefers one.
        let html = Query::get("/private/a").header("accept", "text/html");
        let verdict = authorizer.query(&html);
        assert!(verdict.all("content-type")[0].starts_with("text/html"));
        // A gRPC call is rejected by its status, too: 200 would let it pass.
        let call = Query::get("/private/a").header("content-type", "application/grpc");
        let call = call.vary(|http| http.method = "POST".to_owned());
        assert_denied(&authorizer.query(&call), 401, "UNAUTHENTICATED");

        let alice = authorizer.sign_in();
        let query = Query::get("/private/a").header("cookie", &alice.cookie);
        assert!(authorizer.query(&query).is_allowed());
        let sign_out = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
        assert_eq!(authorizer.gateway.request(&sign_out).status, 204);
        let verdict = authorizer.query(&query);
        assert_denied(&verdict, 401, "SESSION_REVOKED");
        assert!(verdict.all("set-cookie")[0].contains("Max-Age=0"));
        // On a route with optional authentication, the cookie is cleared as well.
        let verdict = authorizer.query(&Query::get("/optional/a").header("cookie", &alice.cookie));
        assert!(verdict.is_allowed(), "{verdict:?}");
        let clearing = verdict
            .response
            .iter()
            .find(|(name, ..)| name == "set-cookie");
        let (_, value, replaces) = clearing.unwrap();
        assert!(value.contains("Max-Age=0") && !replaces, "{verdict:?}");
        let verdict = authorizer.query(&Query::get("/nowhere"));
        assert_denied(&verdict, 404, "ROUTE_NOT_FOUND");
        assert_eq!(verdict.code, 5);
    });
}

#[test]
fn browser_is_sent_to_sign_in() {
    let pages = json!({
        "name": "pages", "match": { "prefix": "/pages" }, "auth": "required",
        "upstream": "echo", "on_unauthenticated": "redirect",
    });
    let authorizer = Authorizer::start(|config| config.route(pages));
    let verdict = authorizer.query(
        &Query::get("/pages/a?b=1")
            .header("accept", "text/html")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document"),
    );
    assert_denied(&verdict, 303, "UNAUTHENTICATED");
    assert_eq!(verdict.code, 16);
    let location = verdict.all("location")[0];
    let expected = "https://shop.example/api/v1/sign-in?return_to=%2Fpages%2Fa%3Fb%3D1";
    assert_eq!(location, expected);
}

#[test]
fn limits_are_those_of_direct_requests() {
    let limit = json!({ "limit": 3, "window": "10m", "key": "ip" });
    with_each_store(
        |config| {
            let peers = json!(["127.0.0.1"]);
            let config = config.set("/listeners/0/trusted_proxies", peers);
            config.limit("few", limit.clone())
        },
        |authorizer| {
            let query = Query::get("/public/a");
            let verdict = authorizer.query(&query);
            assert!(verdict.is_allowed());
            assert_eq!(verdict.all("x-ratelimit-limit"), ["3"]);
            assert_eq!(verdict.all("x-ratelimit-remaining"), ["2"]);
            assert!(verdict.response.iter().all(|(.., replaces)| *replaces));
            let direct = Request::get("/public/a").header("X-Forwarded-For", "192.0.2.7");
            assert_eq!(authorizer.gateway.request(&direct).status, 200);
            // What is no query of a request spends nothing.
            let malformed = query.clone().vary(|http| http.host.clear());
            for _ in 0..5 {
                assert_denied(&authorizer.query(&malformed), 400, "BAD_REQUEST");
            }
            assert_eq!(authorizer.query(&query).all("x-ratelimit-remaining"), ["0"]);
            let verdict = authorizer.query(&query);
            assert_denied(&verdict, 429, "RATE_LIMITED");
            assert_eq!(verdict.code, 8);
            assert_eq!(verdict.all("x-ratelimit-remaining"), ["0"]);
            let seconds: u64 = verdict.all("retry-after")[0].parse().unwrap();
            assert!(seconds > 0);
            // Another client has a counter of its own; so has the peer of Envoy's connection.
            let other = query.clone().without("x-forwarded-for").source("192.0.2.8");
            assert_eq!(authorizer.query(&other).all("x-ratelimit-remaining"), ["2"]);
            assert_denied(
                &authorizer.query(&other.source("192.0.2.7")),
                429,
                "RATE_LIMITED",
            );
        },
    );
}

#[test]
fn known_session_costs_no_look_up() {
    let redis = Redis::start();
    let authorizer = Authorizer::start_by(
        |config| config.store(&redis.url()),
        Gateway::start_on_one_worker,
    );
    let alice = authorizer.sign_in();
    let query = Query::get("/private/a").header("cookie", &alice.cookie);
    assert!(authorizer.query(&query).is_allowed());
    let decided = || {
        let operations = "portcullis_store_operation_duration_seconds_count";
        authorizer
            .gateway
            .metric(operations, &["operation=\"decide\""])
    };
    let before = decided();
    for _ in 0..20 {
        assert!(authorizer.query(&query).is_allowed());
    }
    // An entry may be refreshed ahead of its expiry.
    let looked_up = decided() - before;
    assert!(looked_up <= 1.0, "{looked_up}");
}

#[test]
fn store_outage_is_a_denied_503() {
    let mut redis = Redis::start();
    let limit = json!({ "limit": 100, "window": "1m", "key": "ip" });
    let outage = json!({ "sessions": "deny", "limits": "deny" });
    let authorizer = Authorizer::start(|config| {
        let config = config.limit("many", limit).store(&redis.url());
        config
            .set("/store/on_outage", outage)
            .set("/store/timeout", json!("200ms"))
    });
    let alice = authorizer.sign_in();
    let query = Query::get("/private/a").header("cookie", &alice.cookie);
    assert!(authorizer.query(&query).is_allowed());
    redis.kill();
    let verdict = eventually("the store is found to be down", || {
        let verdict = authorizer.query(&query);
        (!verdict.is_allowed()).then_some(verdict)
    });
    assert_denied(&verdict, 503, "STORE_UNAVAILABLE");
    assert_eq!(verdict.code, 14);
    assert_eq!(verdict.all("retry-after").len(), 1);
    assert!(verdict.all("set-cookie").is_empty());
}

#[test]
fn joined_and_repeated_credentials_are_ambiguous() {
    let authorizer = Authorizer::start(std::convert::identity);
    let alice = authorizer.sign_in();
    let bearer = format!("Bearer {}", alice.access_token);
    let (cookie, own) = (alice.cookie.as_str(), alice.cookie.as_bytes());
    let get = || Query::get("/private/a");
    for query in [
        get()
            .header("authorization", &bearer)
            .header("authorization", &bearer),
        get()
            .header("authorization", "Basic YTpi")
            .header("authorization", &bearer),
        get().header("cookie", "a=1").header("cookie", cookie),
        get().header("cookie", cookie).header("cookie", cookie),
        get().raw(&[("cookie", own), ("cookie", own)]),
        get().raw(&[("authorization", bearer.as_bytes()); 2]),
    ] {
        let verdict = authorizer.query(&query);
        assert_denied(&verdict, 400, "AMBIGUOUS_CREDENTIALS");
    }
    // Apart, two fields of cookies are one.
    let split = get().raw(&[("cookie", b"a=1"), ("cookie", own)]);
    let verdict = authorizer.query(&split);
    assert!(verdict.is_allowed(), "{verdict:?}");
    assert_eq!(verdict.set["cookie"], "a=1");
}

#[test]
fn bound_token_is_no_plain_bearer_token() {
    let authorizer = Authorizer::start(std::convert::identity);
    let alice = authorizer.sign_in();
    let bound = tokens::modified_claims(&alice.access_token, &json!({ "cnf": { "jkt": "x" } }));
    let bound = format!("Bearer {}", tokens::hs256(&bound));
    let verdict = authorizer.query(&Query::get("/private/a").header("authorization", &bound));
    assert_denied(&verdict, 401, "TOKEN_INVALID");
}

#[test]
fn upgrade_by_cookie_comes_from_its_own_origin() {
    let authorizer = Authorizer::start(std::convert::identity);
    let alice = authorizer.sign_in();
    let upgrade = |origin: &str| {
        Query::get("/private/ws")
            .header("cookie", &alice.cookie)
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("origin", origin)
    };
    assert!(
        authorizer
            .query(&upgrade("https://shop.example"))
            .is_allowed()
    );
    let verdict = authorizer.query(&upgrade("https://evil.example"));
    assert_denied(&verdict, 403, "CSRF_REJECTED");
}

#[test]
fn each_query_is_logged_and_counted_once() {
    let authorizer = Authorizer::start(std::convert::identity);
    let alice = authorizer.sign_in();
    let query = |id: &str| {
        let query = Query::get("/private/a?secret=1").header("x-request-id", id);
        query.header("cookie", &alice.cookie)
    };
    assert!(authorizer.query(&query("passes")).is_allowed());
    let refused = query("refused").without("cookie");
    assert_denied(&authorizer.query(&refused), 401, "UNAUTHENTICATED");
    authorizer
        .gateway
        .wait_for_log("\"request_id\":\"refused\"");
    let lines = authorizer.gateway.events();
    for (id, status, code, user) in [
        ("passes", 200, Value::Null, json!(alice.user)),
        ("refused", 401, json!("UNAUTHENTICATED"), Value::Null),
    ] {
        let of_query = |line: &&Value| line["kind"] == "access" && line["request_id"] == id;
        let lines: Vec<&Value> = lines.iter().filter(of_query).collect();
        let [line] = lines.as_slice() else {
            panic!("{id}: {lines:?}");
        };
        assert_eq!(line["dialect"], "ext-authz-grpc", "{line}");
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["code"], code, "{line}");
        assert_eq!(line["user_id"], user, "{line}");
        assert_eq!(line["client_ip"], "192.0.2.7", "{line}");
        assert_eq!(line["host"], "shop.example", "{line}");
        assert_eq!(line["path"], "/private/a", "{line}");
        assert_eq!(line["method"], "GET", "{line}");
    }
    for (outcome, count) in [("allowed", 1.0), ("unauthenticated", 1.0)] {
        let labels = [
            "dialect=\"ext-authz-grpc\"",
            &format!("outcome=\"{outcome}\""),
        ];
        let counted = authorizer
            .gateway
            .metric("portcullis_forward_auth_total", &labels);
        assert!(
            (counted - count).abs() < f64::EPSILON,
            "{outcome}: {counted}"
        );
    }
    assert!(!authorizer.gateway.logs().contains("secret=1"));
}
