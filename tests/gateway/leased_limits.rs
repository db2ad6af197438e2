//! Leased limits in real gateways: the headers, the cost, and what is returned.

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

fn start(redis: &Redis, upstream: &Upstream, limit: u64) -> Gateway {
    let limit = json!({ "algorithm": "sliding_log", "limit": limit, "window": "10m",
        "key": "route", "consistency": "leased" });
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .limit("busy", limit);
    Gateway::start(config)
}

fn remaining_units(gateway: &Gateway) -> u64 {
    let response = gateway.admin(Request::get("/admin/limits/busy/public"));
    response.data()["remaining"].as_u64().unwrap()
}

#[test]
fn limit_headers_count_down_to_the_exact_limit() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let gateway = start(&redis, &upstream, 200);
    for n in 1..=200 {
        let response = gateway.get("/public/a");
        assert_eq!(response.status, 200, "{n}");
        let remaining = response.header("x-ratelimit-remaining").map(str::to_owned);
        assert_eq!(remaining, Some((200 - n).to_string()));
    }
    let refused = gateway.get("/public/a");
    refused.assert_refused(429, "RATE_LIMITED");
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((590..=600).contains(&retry_after), "{retry_after}");
    let leases = |outcome| gateway.metric("portcullis_cache_total", &["leases", outcome]);
    assert!(
        leases("hit") > 2.0 * leases("miss"),
        "{} {}",
        leases("hit"),
        leases("miss")
    );
    let listed = gateway.admin(Request::get("/admin/limits")).data();
    assert_eq!(listed["limits"][0]["consistency"], "leased");
    // A reset is in force here at once.
    let reset = gateway.admin(Request::delete("/admin/limits/busy/public"));
    assert_eq!(reset.status, 204);
    assert_eq!(gateway.get("/public/a").status, 200);
}

#[test]
fn unused_units_are_returned() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let (mut ends, stays) = (
        start(&redis, &upstream, 1000),
        start(&redis, &upstream, 1000),
    );
    let request = |gateway: &Gateway, times| {
        for _ in 0..times {
            gateway.get("/public/a").assert_ok();
        }
    };
    request(&stays, 50);
    eventually("what is not used is back", || {
        (remaining_units(&stays) == 950).then_some(())
    });
    request(&ends, 50);
    ends.sigterm();
    ends.wait_exit();
    assert_eq!(remaining_units(&stays), 900);
}

#[test]
fn signed_in_requests_rarely_query_the_store() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let limit = json!({ "algorithm": "sliding_window", "limit": 100_000, "window": "1h",
        "key": "user", "consistency": "leased" });
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .limit("per-user", limit);
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    let request = Request::get("/private/a").cookie(&alice.cookie);
    let hits = || gateway.metric("portcullis_cache_total", &["leases", "hit"]);
    // Until the gateway is sure that it hears of changes each request asks.
    eventually("permits are used", || {
        gateway.request(&request).assert_ok();
        (hits() > 0.0).then_some(())
    });
    let before = hits();
    for _ in 0..200 {
        gateway.request(&request).assert_ok();
    }
    assert!(hits() - before > 120.0, "{} of 200", hits() - before);
}
