//! Decisions for front proxies over a fleet, and while the store is away.

use serde_json::json;

use crate::support::calls::Dialect;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};

#[test]
fn revocation_is_in_force_on_every_gateway() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let first = Config::new(upstream.address)
        .store(&redis.url())
        .forward_auth();
    let database = first.file["database"]["url"].clone();
    let second = Config::new(upstream.address)
        .store(&redis.url())
        .set("/database/url", database)
        .forward_auth();
    let (one, two) = (Gateway::start(first), Gateway::start(second));
    for dialect in Dialect::ALL {
        let alice = match dialect {
            Dialect::AuthRequest => one.register("alice@example.com"),
            _ => one.login("alice@example.com"),
        };
        let call = dialect.get("/private/a").cookie(&alice.cookie);
        for _ in 0..3 {
            two.query(&call).assert_allowed(dialect);
        }
        let sign_out = Request::post("/api/v1/auth/logout").cookie(&alice.cookie);
        assert_eq!(one.request(&sign_out.same_origin()).status, 204);
        let response = within(PROPAGATION_DEADLINE, "the revocation arrives", || {
            let response = two.query(&call);
            (response.status != 200).then_some(response)
        });
        response.assert_denied(dialect, 401, "SESSION_REVOKED");
    }
}

#[test]
fn store_that_is_away_is_neither_a_yes_nor_a_no() {
    let (mut redis, upstream) = (Redis::start(), Upstream::start());
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/timeout", json!("300ms"))
        .set("/store/on_outage", json!({ "sessions": "deny" }))
        .set("/sessions/durable", json!(false))
        .forward_auth();
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    redis.kill();
    for dialect in Dialect::ALL {
        let call = dialect.get("/private/a").cookie(&alice.cookie);
        let response = eventually("cached entries are void", || {
            let response = gateway.query(&call);
            (response.status != 200).then_some(response)
        });
        response.assert_denied(dialect, 503, "STORE_UNAVAILABLE");
        response.numeric_header("retry-after");
        assert!(response.all("set-cookie").is_empty(), "{response:?}");
        gateway
            .query(&dialect.get("/public/a"))
            .assert_allowed(dialect);
    }
    redis.restart();
    for dialect in Dialect::ALL {
        // The store has lost its data, and the session with it.
        let call = dialect.get("/private/a").cookie(&alice.cookie);
        let response = eventually("the store is used again", || {
            let response = gateway.query(&call);
            (response.header("x-portcullis-code") != Some("STORE_UNAVAILABLE")).then_some(response)
        });
        response.assert_denied(dialect, 401, "SESSION_NOT_FOUND");
    }
}
