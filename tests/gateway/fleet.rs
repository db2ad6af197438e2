//! Several gateways that share store, database and keys are one.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::within;
use crate::support::websocket::{POLICY, Socket};

struct Fleet {
    // Fields go in this order: the gateways before what they use.
    one: Gateway,
    two: Gateway,
    _redis: Redis,
}

fn fleet() -> Fleet {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let first = Config::new(upstream.address).store(&redis.url());
    let database = first.file["database"]["url"].clone();
    let second = Config::new(upstream.address)
        .store(&redis.url())
        .set("/database/url", database);
    Fleet {
        one: Gateway::start(first),
        two: Gateway::start(second),
        _redis: redis,
    }
}

#[test]
fn who_signs_in_at_one_gateway_is_signed_in_at_the_other() {
    let fleet = fleet();
    let alice = fleet.one.register("alice@example.com");
    for request in [
        Request::get("/private/a").cookie(&alice.cookie),
        Request::get("/private/a").bearer(&alice.access_token),
    ] {
        let echo = fleet.two.ask(&request).echo();
        assert_eq!(echo.header("x-user-id").as_ref(), Some(&alice.user));
    }
    fleet.two.login("alice@example.com");
}

#[test]
fn a_revocation_at_one_gateway_is_in_force_at_the_other_within_a_second() {
    let fleet = fleet();
    let alice = fleet.one.register("alice@example.com");
    let cookie = Request::get("/private/a").cookie(&alice.cookie);
    let bearer = Request::get("/private/a").bearer(&alice.access_token);
    // The other gateway knows both by now.
    for request in [&cookie, &bearer] {
        fleet.two.ask(request).ok();
    }
    let logout = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    assert_eq!(fleet.one.ask(&logout).status, 204);
    within(
        Duration::from_secs(1),
        "the other gateway refuses it",
        || {
            let gone = |request: &Request| fleet.two.ask(request).status == 401;
            (gone(&cookie) && gone(&bearer)).then_some(())
        },
    );
    fleet.two.ask(&cookie).refused(401, "SESSION_REVOKED");
}

#[test]
fn an_idle_socket_at_one_gateway_closes_when_the_other_ends_its_session() {
    let fleet = fleet();
    let alice = fleet.one.register("alice@example.com");
    let bearer = format!("Bearer {}", alice.access_token);
    let headers = [("Authorization", bearer.as_str())];
    let mut socket = Socket::open(fleet.two.public, "/private/ws", &headers)
        .ok()
        .unwrap();
    assert_eq!(socket.echo("hello"), "hello");
    let mut events = Client::connect(fleet.two.public);
    events.send(
        Request::get("/private/sse")
            .cookie(&alice.cookie)
            .to_bytes(),
    );
    events.until("data: hello\n\n");
    let end = Request::delete(&format!("/admin/users/{}/sessions", alice.user));
    fleet.one.admin(end).ok();
    assert_eq!(socket.close_code(Duration::from_millis(1500)), Some(POLICY));
    assert!(events.closes_within(Duration::from_millis(1500)));
}

#[test]
fn roles_changed_at_one_gateway_count_at_the_other() {
    let fleet = fleet();
    let alice = fleet.one.register("alice@example.com");
    let request = Request::get("/private/a").bearer(&alice.access_token);
    fleet.two.ask(&request).ok();
    let roles = Request::new("PATCH", &format!("/admin/users/{}", alice.user));
    fleet
        .one
        .admin(roles.json(&json!({ "roles": ["ops"] })))
        .ok();
    within(Duration::from_secs(1), "the role counts", || {
        let role = fleet.two.ask(&request).echo().header("x-user-roles");
        (role.as_deref() == Some("ops")).then_some(())
    });
}

#[test]
fn a_gateway_that_joins_later_finds_what_is_there() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let first = Config::new(upstream.address).store(&redis.url());
    let database = first.file["database"]["url"].clone();
    let one = Gateway::start(first);
    let alice = one.register("alice@example.com");
    let second = Config::new(upstream.address)
        .store(&redis.url())
        .set("/database/url", database);
    let two = Gateway::start(second);
    two.ask(&Request::get("/private/a").cookie(&alice.cookie))
        .ok();
    drop(one);
    two.ask(&Request::get("/private/a").cookie(&alice.cookie))
        .ok();
    drop(redis);
}
