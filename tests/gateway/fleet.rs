//! Several gateways that share store, database and keys behave as one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, signal};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, PROPAGATION_DEADLINE, within};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

struct Fleet {
    // Fields go in this order: the gateways before what they use.
    one: Gateway,
    two: Gateway,
    redis: Redis,
}

fn start_fleet() -> Fleet {
    start_fleet_with(|config| config)
}

fn start_fleet_with(vary: impl Fn(Config) -> Config) -> Fleet {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let limit = "/identity/builtin/sign_in_limits/attempts_per_address";
    let many = json!({ "limit": 100_000, "window": "1m" });
    let first = Config::new(upstream.address)
        .store(&redis.url())
        .set(limit, many.clone());
    let database = first.file["database"]["url"].clone();
    let second = Config::new(upstream.address)
        .store(&redis.url())
        .set(limit, many)
        .set("/database/url", database);
    Fleet {
        one: Gateway::start(vary(first)),
        two: Gateway::start(vary(second)),
        redis,
    }
}

#[test]
fn session_is_valid_on_every_gateway() {
    let fleet = start_fleet();
    let alice = fleet.one.register("alice@example.com");
    for request in [
        Request::get("/private/a").cookie(&alice.cookie),
        Request::get("/private/a").bearer(&alice.access_token),
    ] {
        let echo = fleet.two.request(&request).echo();
        assert_eq!(echo.header("x-user-id").as_ref(), Some(&alice.user));
    }
    fleet.two.login("alice@example.com");
}

#[test]
fn revocation_reaches_other_gateways_within_a_second() {
    let fleet = start_fleet();
    let alice = fleet.one.register("alice@example.com");
    let cookie = Request::get("/private/a").cookie(&alice.cookie);
    let bearer = Request::get("/private/a").bearer(&alice.access_token);
    // The other gateway knows both by now.
    for request in [&cookie, &bearer] {
        fleet.two.request(request).assert_ok();
    }
    let logout = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    assert_eq!(fleet.one.request(&logout).status, 204);
    within(PROPAGATION_DEADLINE, "the other gateway refuses it", || {
        let gone = |request: &Request| fleet.two.request(request).status == 401;
        (gone(&cookie) && gone(&bearer)).then_some(())
    });
    fleet
        .two
        .request(&cookie)
        .assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn revocation_closes_idle_socket_on_another_gateway() {
    let fleet = start_fleet();
    let alice = fleet.one.register("alice@example.com");
    let bearer = format!("Bearer {}", alice.access_token);
    let headers = [("Authorization", bearer.as_str())];
    let mut socket = WebSocketClient::open(fleet.two.public, "/private/ws", &headers)
        .ok()
        .unwrap();
    assert_eq!(socket.echo("hello"), "hello");
    let mut events = Client::connect(fleet.two.public);
    events.send(
        Request::get("/private/sse")
            .cookie(&alice.cookie)
            .to_bytes(),
    );
    events.read_until("data: hello\n\n");
    let end = Request::delete(&format!("/admin/users/{}/sessions", alice.user));
    fleet.one.admin(end).assert_ok();
    assert_eq!(
        socket.close_code(PROPAGATION_DEADLINE),
        Some(POLICY_VIOLATION)
    );
    assert!(events.closes_within(PROPAGATION_DEADLINE));
}

#[test]
fn concurrent_sign_ins_across_gateways_respect_the_limit() {
    let fleet = start_fleet();
    fleet.one.register("alice@example.com");
    let failed = AtomicUsize::new(0);
    let signed_in: Vec<_> = std::thread::scope(|scope| {
        let failed = &failed;
        let sign_in = |n: usize| {
            let gateway = if n.is_multiple_of(2) {
                &fleet.one
            } else {
                &fleet.two
            };
            // One after another would be no race; a few at a time wait for their hash.
            scope.spawn(move || {
                within(Duration::from_secs(60), "a sign-in", || {
                    let response = gateway.try_login("alice@example.com");
                    failed.fetch_add(usize::from(response.is_none()), Ordering::Relaxed);
                    response
                })
            })
        };
        let tasks: Vec<_> = (0..50).map(sign_in).collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    let alive = |gateway: &Gateway| {
        let lives = |cookie: &String| {
            let request = Request::get("/private/a").cookie(cookie);
            gateway.request(&request).status == 200
        };
        let cookies = signed_in.iter().map(|signed_in| &signed_in.cookie);
        cookies.filter(|cookie| lives(cookie)).count()
    };
    let alive = (alive(&fleet.one), alive(&fleet.two));
    assert!(alive.0 <= 5 && alive.0 == alive.1, "{alive:?}");
    if failed.into_inner() > 0 {
        // A sign-in whose response was lost may occupy a place without a client.
        return;
    }
    assert_eq!(alive.0, 5);
    // Evictions are reported: with the session of the registration, all but five.
    let evicted = Request::get("/admin/events?event=evicted&limit=100");
    within(Duration::from_secs(5), "the events", || {
        let reported = fleet.two.admin(evicted.clone()).data()["events"].clone();
        (reported.as_array()?.len() == 46).then_some(())
    });
}

#[test]
fn concurrent_refreshes_lose_no_session() {
    // How quickly a busy machine does it is no question here.
    let fleet = start_fleet_with(|config| config.set("/store/timeout", json!("5s")));
    let alice = fleet.one.register("alice@example.com");
    let body = json!({ "refresh_token": alice.refresh_token });
    let refresh = Request::post("/api/v1/auth/refresh").json(&body);
    let responses: Vec<_> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..200_usize)
            .map(|n| {
                let gateway = if n.is_multiple_of(2) {
                    &fleet.one
                } else {
                    &fleet.two
                };
                let refresh = &refresh;
                scope.spawn(move || gateway.request(refresh).assert_ok().data())
            })
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    let successor = responses[0]["refresh_token"].as_str().unwrap();
    for response in &responses {
        assert_eq!(response["refresh_token"], successor);
        let token = response["access_token"].as_str().unwrap();
        let request = Request::get("/private/a").bearer(token);
        fleet.two.request(&request).assert_ok();
    }
    let next = json!({ "refresh_token": successor });
    let next = Request::post("/api/v1/auth/refresh").json(&next);
    fleet.two.request(&next).assert_ok();
}

#[test]
fn role_change_reaches_other_gateways() {
    let fleet = start_fleet();
    let alice = fleet.one.register("alice@example.com");
    let request = Request::get("/private/a").bearer(&alice.access_token);
    fleet.two.request(&request).assert_ok();
    let roles = Request::new("PATCH", &format!("/admin/users/{}", alice.user));
    fleet
        .one
        .admin(roles.json(&json!({ "roles": ["ops"] })))
        .assert_ok();
    within(PROPAGATION_DEADLINE, "the role counts", || {
        let role = fleet.two.request(&request).echo().header("x-user-roles");
        (role.as_deref() == Some("ops")).then_some(())
    });
}

#[test]
fn joining_gateway_sees_existing_sessions() {
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
    two.request(&Request::get("/private/a").cookie(&alice.cookie))
        .assert_ok();
    drop(one);
    two.request(&Request::get("/private/a").cookie(&alice.cookie))
        .assert_ok();
    drop(redis);
}

#[test]
fn revocation_reports_unreached_gateways() {
    let fleet = start_fleet();
    let end = |session: &str, wait: &str| {
        let path = format!("/admin/sessions/{session}{wait}");
        fleet.one.admin(Request::delete(&path))
    };
    let names = |response: &crate::support::client::Response, of: &str| {
        let response = response.data();
        response[of].as_array().map(Vec::len)
    };
    let alice = fleet.one.register("alice@example.com");
    let cookie = Request::get("/private/a").cookie(&alice.cookie);
    let (one, two) = (fleet.one.request(&cookie), fleet.two.request(&cookie));
    assert_eq!((one.status, two.status), (200, 200));
    let mut open = WebSocketClient::open(
        fleet.two.public,
        "/private/ws",
        &[("Authorization", &format!("Bearer {}", alice.access_token))],
    )
    .ok()
    .unwrap();
    within(DEADLINE, "both gateways are present", || {
        let missing = "/admin/users/nobody/sessions?wait=fleet";
        let response = fleet.one.admin(Request::delete(missing));
        (names(&response, "confirmed") == Some(2)).then_some(())
    });
    let response = end(&alice.session, "?wait=fleet");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.data()["revoked"], 1);
    assert_eq!(
        names(&response, "unconfirmed"),
        Some(0),
        "{}",
        response.text()
    );
    assert_eq!(fleet.two.request(&cookie).status, 401);
    assert_eq!(
        open.close_code(PROPAGATION_DEADLINE),
        Some(POLICY_VIOLATION)
    );

    let bob = fleet.one.login("alice@example.com");
    signal(fleet.two.pid(), "STOP");
    let response = end(&bob.session, "?wait=fleet");
    signal(fleet.two.pid(), "CONT");
    assert_eq!(response.data()["revoked"], 1);
    assert_eq!(
        names(&response, "confirmed"),
        Some(1),
        "{}",
        response.text()
    );
    assert_eq!(names(&response, "unconfirmed"), Some(1));
    assert_eq!(names(&end(&bob.session, ""), "confirmed"), None);
    let wrong = end(&bob.session, "?wait=all");
    wrong.assert_refused(400, "VALIDATION_FAILED");
}

#[test]
fn sign_out_everywhere_ends_unindexed_sessions() {
    let fleet = start_fleet();
    let alice = fleet.one.register("alice@example.com");
    let keys = fleet.redis.keys();
    let index = keys.iter().find(|key| key.contains("user:{")).unwrap();
    fleet.redis.command(&["DEL", index]);
    let everywhere = Request::post("/api/v1/auth/logout-all").bearer(&alice.access_token);
    let response = fleet.one.request(&everywhere);
    assert_eq!(response.data()["revoked"], 1);
    let cookie = Request::get("/private/a").cookie(&alice.cookie);
    assert_eq!(fleet.one.request(&cookie).status, 401);
}
