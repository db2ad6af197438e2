//! Rate limits: what they count, what they report, and the cost of a refusal.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::tokens::now;
use crate::support::upstream::Upstream;

fn limit(algorithm: &str, limit: u64, window: &str, key: impl Into<Value>) -> Value {
    json!({ "algorithm": algorithm, "limit": limit, "window": window, "key": key.into() })
}

/// The draft's `r` of one limit in a `RateLimit` header.
fn remaining(response: &Response, name: &str) -> Option<u64> {
    let items = response.all("ratelimit").join(",");
    let item = items
        .split(',')
        .find(|item| item.trim().starts_with(&format!("\"{name}\"")))?;
    item.split(';')
        .find_map(|p| p.trim().strip_prefix("r="))?
        .parse()
        .ok()
}

#[test]
fn limit_headers_count_down_until_429() {
    let redis = Redis::start();
    for store in ["memory", &redis.url()] {
        for algorithm in ["sliding_window", "sliding_log", "token_bucket"] {
            let upstream = Upstream::start();
            let mut spec = limit(algorithm, 3, "2s", "user");
            if algorithm == "token_bucket" {
                spec["burst"] = json!(3);
            }
            let gateway = Gateway::start(
                Config::new(upstream.address)
                    .store(store)
                    .limit("per-user", spec),
            );
            let alice = gateway.register("alice@example.com");
            let request = Request::get("/private/a").bearer(&alice.access_token);
            for left in [2, 1, 0] {
                let response = gateway.request(&request);
                let what = format!("{store} {algorithm} {left}: {response:?}");
                assert_eq!(response.status, 200, "{what}");
                assert_eq!(response.numeric_header("x-ratelimit-limit"), 3, "{what}");
                assert_eq!(
                    response.numeric_header("x-ratelimit-remaining"),
                    left,
                    "{what}"
                );
                let reset = response.numeric_header("x-ratelimit-reset") as i64;
                assert!((now()..=now() + 5).contains(&reset), "{what}");
                assert_eq!(remaining(&response, "per-user"), Some(left), "{what}");
                let policy = response.header("ratelimit-policy").unwrap();
                assert!(policy.starts_with("\"per-user\";q=3;w=2"), "{what}");
            }
            let refused = gateway.request(&request);
            refused.assert_refused(429, "RATE_LIMITED");
            assert_eq!(refused.numeric_header("x-ratelimit-remaining"), 0);
            assert_eq!(
                upstream.requests(),
                3,
                "a refusal does not reach the upstream"
            );
            let wait = refused.numeric_header("retry-after");
            assert!((1..=4).contains(&wait), "{algorithm}: {wait}");
            // The promise is about that moment, so this is the one place that waits for a time.
            std::thread::sleep(Duration::from_secs(wait));
            gateway.request(&request).assert_ok();
        }
    }
}

#[test]
fn sliding_log_never_exceeds_its_limit() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .limit("strict", limit("sliding_log", 10, "1s", "route"));
    let gateway = Gateway::start(config);
    let until = Instant::now() + Duration::from_secs(3);
    let send = || {
        let mut client = Client::connect(gateway.public);
        let mut admitted = Vec::new();
        while Instant::now() < until {
            let before = Instant::now();
            if client.request(&Request::get("/public/a")).status == 200 {
                admitted.push((before, Instant::now()));
            }
        }
        admitted
    };
    let mut admitted: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        workers
            .into_iter()
            .flat_map(|w| w.join().unwrap())
            .collect()
    });
    admitted.sort_unstable();
    assert!(admitted.len() >= 20, "{} admitted", admitted.len());
    // Each decision lies between its request and its response. The one that was requested last need
    // not be the last one decided.
    for eleven in admitted.windows(11) {
        let last = eleven.iter().map(|(_, response)| *response).max().unwrap();
        let widest = last - eleven[0].0;
        assert!(
            widest >= Duration::from_secs(1),
            "11 admitted within {widest:?}"
        );
    }
}

#[test]
fn two_gateways_share_one_limit_in_redis() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let start = || {
        Gateway::start(
            Config::new(upstream.address)
                .store(&redis.url())
                .limit("shared", limit("sliding_window", 20, "10m", "route")),
        )
    };
    let gateways = [start(), start()];
    let admitted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|n| {
                let gateway = &gateways[n % 2];
                scope.spawn(move || {
                    (0..15)
                        .filter(|_| gateway.get("/public/a").status == 200)
                        .count()
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert_eq!(admitted, 20);
    assert_eq!(upstream.requests(), 20);
}

#[test]
fn refusal_by_one_limit_spends_no_other() {
    let redis = Redis::start();
    for store in ["memory", &redis.url()] {
        let upstream = Upstream::start();
        let config = Config::new(upstream.address)
            .store(store)
            .limit("wide", limit("sliding_window", 10, "10m", "user"))
            .limit("narrow", limit("sliding_log", 2, "10m", "session"));
        let gateway = Gateway::start(config);
        let alice = gateway.register("alice@example.com");
        let request = Request::get("/private/a").cookie(&alice.cookie);
        for _ in 0..2 {
            gateway.request(&request).assert_ok();
        }
        for _ in 0..3 {
            let refused = gateway.request(&request);
            refused.assert_refused(429, "RATE_LIMITED");
            assert_eq!(remaining(&refused, "wide"), Some(8), "{store}: {refused:?}");
            assert_eq!(
                remaining(&refused, "narrow"),
                Some(0),
                "{store}: {refused:?}"
            );
            assert_eq!(
                refused.numeric_header("x-ratelimit-limit"),
                2,
                "the one with the least remaining"
            );
        }
        let second = gateway.login("alice@example.com");
        let response = gateway.request(&Request::get("/private/a").cookie(&second.cookie));
        assert_eq!(remaining(response.assert_ok(), "wide"), Some(7), "{store}");
    }
}

#[test]
fn limits_without_identity_precede_authentication() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .limit("per-address", limit("sliding_window", 3, "10m", "ip"))
        .limit("per-user", limit("sliding_window", 100, "10m", "user"));
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    for _ in 0..3 {
        let response = gateway.request(&Request::get("/private/a").bearer("nonsense"));
        response.assert_refused(401, "TOKEN_INVALID");
        response.numeric_header("x-ratelimit-remaining");
    }
    // Whatever its credential: the address has spent its limit on failures.
    let good = Request::get("/private/a").bearer(&alice.access_token);
    gateway.request(&good).assert_refused(429, "RATE_LIMITED");
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn header_limit_falls_back_to_the_address() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .limit("roof", limit("sliding_window", 100, "10m", "ip"))
        .limit(
            "per-key",
            limit("sliding_window", 2, "10m", "header:X-Api-Key"),
        );
    let gateway = Gateway::start(config);
    let with = |key: &str| {
        gateway
            .request(&Request::get("/public/a").header("X-Api-Key", key))
            .status
    };
    assert_eq!(
        [with("one"), with("one"), with("one"), with("two")],
        [200, 200, 429, 200]
    );
    let without = || gateway.get("/public/a").status;
    assert_eq!([without(), without(), without()], [200, 200, 429]);
}

#[test]
fn similar_limit_keys_are_counted_separately() {
    let upstream = Upstream::start();
    let key = json!(["header:X-A", "header:X-B"]);
    let config = Config::new(upstream.address)
        .limit("roof", limit("sliding_window", 100, "10m", "ip"))
        .limit("pair", limit("sliding_window", 1, "10m", key));
    let gateway = Gateway::start(config);
    let send = |a: &str, b: &str| {
        gateway
            .request(&Request::get("/public/a").header("X-A", a).header("X-B", b))
            .status
    };
    for (a, b) in [
        ("a:b", "c"),
        ("a", "b:c"),
        ("a:", "b:c"),
        ("{a}", "b"),
        ("a", "{b}"),
    ] {
        assert_eq!([send(a, b), send(a, b)], [200, 429], "{a} and {b}");
    }
}

#[test]
fn shadow_limit_counts_but_never_refuses() {
    let upstream = Upstream::start();
    let mut spec = limit("sliding_window", 2, "10m", "ip");
    spec["shadow"] = json!(true);
    let gateway = Gateway::start(Config::new(upstream.address).limit("trial", spec));
    for _ in 0..5 {
        let response = gateway.get("/public/a");
        assert!(
            response.assert_ok().header("x-ratelimit-limit").is_none(),
            "shadow limits are not told"
        );
        assert!(response.header("ratelimit").is_none());
    }
    let counted = |outcome: &str| {
        gateway.metric(
            "portcullis_ratelimit_total",
            &["limit=\"trial\"", &format!("\"{outcome}\"")],
        )
    };
    assert_eq!((counted("allowed"), counted("shadow_limited")), (2.0, 3.0));
}

#[test]
fn limit_applies_only_to_its_roles() {
    let upstream = Upstream::start();
    let mut spec = limit("sliding_window", 1, "10m", "user");
    spec["except_roles"] = json!(["partner"]);
    let gateway = Gateway::start(Config::new(upstream.address).limit("public-only", spec));
    let alice = gateway.register("alice@example.com");
    let bob = gateway.register("bob@example.com");
    let role = Request::new("PATCH", &format!("/admin/users/{}", bob.user));
    gateway
        .admin(role.json(&json!({ "roles": ["partner"] })))
        .assert_ok();
    let send = |cookie: &str| {
        gateway
            .request(&Request::get("/private/a").cookie(cookie))
            .status
    };
    assert_eq!([send(&alice.cookie), send(&alice.cookie)], [200, 429]);
    assert_eq!(
        [send(&bob.cookie), send(&bob.cookie), send(&bob.cookie)],
        [200, 200, 200]
    );
}

#[test]
fn refusal_keeps_the_connection_usable() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .limit("few", limit("sliding_window", 1, "10m", "ip"))
        .route(json!({ "name": "free", "match": { "prefix": "/free" }, "auth": "none", "upstream": "echo" }));
    let gateway = Gateway::start(config);
    let mut client = Client::connect(gateway.public);
    client.request(&Request::get("/public/a")).assert_ok();
    client
        .request(&Request::get("/public/a"))
        .assert_refused(429, "RATE_LIMITED");
    client.request(&Request::get("/free/a")).assert_ok();
    let with_body =
        Request::post("/public/a").body("GET /free/smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    client
        .request(&with_body)
        .assert_refused(429, "RATE_LIMITED");
    // The connection goes on at the right place, or it is closed: never inside the body.
    if client
        .try_send(Request::get("/free/after").to_bytes())
        .is_ok()
        && let Ok(response) = client.read_response_to("GET")
    {
        assert_eq!(response.echo().target(), "/free/after");
    }
    assert!(!upstream.has_seen("smuggled"));
}

#[test]
fn upstream_limit_headers_are_replaced() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        Config::new(upstream.address).limit("mine", limit("sliding_window", 9, "10m", "ip")),
    );
    let response = gateway.get("/public/reply?X-RateLimit-Limit=999&RateLimit=theirs;r=5");
    assert_eq!(response.assert_ok().all("x-ratelimit-limit"), ["9"]);
    assert!(
        !response.all("ratelimit").join(",").contains("theirs"),
        "{response:?}"
    );
}

#[test]
fn changed_limit_applies_without_a_free_burst() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(
        Config::new(upstream.address).limit("l", limit("sliding_log", 3, "10m", "ip")),
    );
    assert_eq!([0; 3].map(|_| gateway.get("/public/a").status), [200; 3]);
    gateway.reload("applied", |config| config.put("/limits/l/limit", json!(5)));
    assert_eq!(
        [0; 3].map(|_| gateway.get("/public/a").status),
        [200, 200, 429]
    );
}

#[test]
fn problem_json_429_names_the_exceeded_limit() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(
        Config::new(upstream.address).limit("only", limit("sliding_window", 1, "10m", "ip")),
    );
    gateway.get("/public/a").assert_ok();
    let request = Request::get("/public/a").header("Accept", "application/problem+json");
    let response = gateway.request(&request);
    assert_eq!(response.status, 429);
    assert_eq!(
        response.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(response.json()["status"], 429);
    assert!(response.json()["type"].is_string() && response.json()["title"].is_string());
}
