//! The store stops, dies and comes back under load: the gateway behaves as documented, no user is
//! signed out, and no restart is needed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

struct Fixture {
    redis: Redis,
    gateway: Gateway,
    alice: SignedIn,
}

fn fixture(on_outage: Value) -> Fixture {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/timeout", json!("300ms"))
        .set("/store/on_outage", on_outage)
        .limit(
            "l",
            json!({ "algorithm": "sliding_window", "limit": 10_000_000, "window": "10m", "key": "ip" }),
        );
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    Fixture {
        redis,
        gateway,
        alice,
    }
}

impl Fixture {
    fn bearer_request(&self) -> Request {
        Request::get("/private/a").bearer(&self.alice.access_token)
    }

    fn cookie_request(&self) -> Request {
        Request::get("/private/a").cookie(&self.alice.cookie)
    }

    /// Sends requests with the cookie and with the token until `until`, from two clients, and
    /// counts the statuses. No response may hang, sign out or clear a cookie.
    fn run_load(&self, duration: Duration) -> BTreeMap<u16, usize> {
        let until = Instant::now() + duration;
        let mut statuses = BTreeMap::new();
        while Instant::now() < until {
            for request in [self.cookie_request(), self.bearer_request()] {
                let start = Instant::now();
                let response = self.gateway.request(&request);
                assert!(
                    start.elapsed() < Duration::from_secs(2),
                    "it hung: {:?}",
                    start.elapsed()
                );
                assert_ne!(
                    response.status,
                    401,
                    "an outage signs nobody out: {}",
                    response.text()
                );
                assert_eq!(
                    response.header("set-cookie"),
                    None,
                    "nor does it clear a cookie"
                );
                *statuses.entry(response.status).or_default() += 1;
            }
        }
        statuses
    }

    fn await_recovery(&self) {
        within(
            Duration::from_secs(5),
            "the gateway recovers by itself",
            || {
                let ok = |request: &Request| self.gateway.request(request).status == 200;
                (ok(&self.cookie_request()) && ok(&self.bearer_request())).then_some(())
            },
        );
        // Every worker has a link of its own; the last one to come back settles the gauge.
        eventually("the metric says so", || {
            (self.gateway.metric("portcullis_store_up", &[]) == 1.0).then_some(())
        });
    }
}

#[test]
fn hung_store_affects_only_protected_routes() {
    let fixture = fixture(json!({ "sessions": "deny", "limits": "local" }));
    assert_eq!(
        fixture
            .run_load(Duration::from_millis(300))
            .keys()
            .collect::<Vec<_>>(),
        [&200]
    );
    fixture.redis.pause();
    let statuses = fixture.run_load(Duration::from_secs(2));
    assert!(statuses.contains_key(&503), "{statuses:?}");
    // A credential that was verified just before may still be accepted; after that, every response
    // is a 503.
    let refused = fixture.gateway.request(&fixture.cookie_request());
    refused.assert_refused(503, "STORE_UNAVAILABLE");
    fixture
        .gateway
        .request(&fixture.bearer_request())
        .assert_refused(503, "STORE_UNAVAILABLE");
    let public = fixture.gateway.get("/public/a");
    assert!(
        public.assert_ok().header("x-ratelimit-remaining").is_some(),
        "limits go on locally"
    );
    assert_eq!(fixture.gateway.metric("portcullis_store_up", &[]), 0.0);
    assert!(fixture.gateway.metric("portcullis_store_errors_total", &[]) > 0.0);
    assert!(
        fixture
            .gateway
            .metric("portcullis_ratelimit_total", &["outcome=\"degraded\""])
            > 0.0
    );
    let admin = fixture.gateway.admin;
    assert_eq!(Request::get("/ready").send(admin).status, 503);
    let health = Request::get("/health").send(admin);
    assert_eq!(
        (health.status, &health.json()["store"]),
        (200, &json!("down"))
    );
    fixture.redis.resume();
    fixture.await_recovery();
    assert_eq!(Request::get("/ready").send(admin).status, 200);
}

#[test]
fn limit_decisions_during_outage_are_counted_as_degraded() {
    let mut redis = Redis::start();
    let limit = |on_outage: &str| {
        json!({ "algorithm": "sliding_window", "limit": 2, "window": "10m", "key": "ip",
            "on_outage": on_outage })
    };
    let config = Config::new(Upstream::start().address)
        .store(&redis.url())
        .set("/limits/here", limit("local"))
        .set("/limits/never", limit("deny"))
        .set("/routes/1/limits", json!(["never"]))
        .set("/routes/2/limits", json!(["here"]));
    let gateway = Gateway::start(config);
    redis.kill();
    let statuses: Vec<u16> = (0..4).map(|_| gateway.get("/public/a").status).collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
    let denied = Request::get("/optional/a").header("X-Request-ID", "denied");
    gateway
        .request(&denied)
        .assert_refused(503, "STORE_UNAVAILABLE");
    let counted = |limit: &str, outcome: &str| {
        let labels = [
            format!("limit=\"{limit}\""),
            format!("outcome=\"{outcome}\""),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        gateway.metric("portcullis_ratelimit_total", &labels)
    };
    assert_eq!(
        (counted("here", "degraded"), counted("here", "limited")),
        (4.0, 0.0)
    );
    assert_eq!(counted("never", "degraded"), 1.0);
    let line = eventually("the line", || {
        let mut lines = gateway.events().into_iter();
        lines.find(|line| line["request_id"] == "denied")
    });
    assert_eq!(line["limit"], "never", "{line}");
}

#[test]
fn logout_during_outage_is_503() {
    let fixture = fixture(json!({ "sessions": "deny" }));
    fixture.redis.pause();
    let logout = Request::post("/api/v1/auth/logout").bearer(&fixture.alice.access_token);
    fixture
        .gateway
        .request(&logout)
        .assert_refused(503, "STORE_UNAVAILABLE");
    fixture.redis.resume();
    fixture.await_recovery();
}

#[test]
fn restarted_empty_store_is_used_again() {
    let mut fixture = fixture(json!({ "sessions": "deny" }));
    fixture.redis.kill();
    let statuses = fixture.run_load(Duration::from_secs(1));
    assert!(statuses.contains_key(&503), "{statuses:?}");
    fixture.redis.restart();
    // Without persistence the sessions are really gone now, and the response is correct.
    within(Duration::from_secs(5), "the empty store answers", || {
        let response = fixture.gateway.request(&fixture.cookie_request());
        (response.status == 401).then_some(())
    });
    // Each worker reconnects by itself: for a moment one may be ready before another.
    let again = eventually("everybody signs in again", || {
        fixture.gateway.try_login("alice@example.com")
    });
    eventually("every worker is back", || {
        fixture.gateway.accepts(&again).then_some(())
    });
}

#[test]
fn cached_mode_serves_only_cached_sessions() {
    let fixture = fixture(json!({ "sessions": "cached", "cached_for": "1m", "limits": "local" }));
    let stranger = fixture.gateway.register("bob@example.com");
    fixture
        .gateway
        .request(&fixture.cookie_request())
        .assert_ok();
    fixture
        .gateway
        .request(&fixture.bearer_request())
        .assert_ok();
    fixture.redis.pause();
    assert_eq!(
        fixture
            .run_load(Duration::from_secs(1))
            .keys()
            .collect::<Vec<_>>(),
        [&200]
    );
    let unseen = format!("portcullis={}", "ab".repeat(32));
    let response = fixture
        .gateway
        .request(&Request::get("/private/a").cookie(&unseen));
    response.assert_refused(503, "STORE_UNAVAILABLE");
    drop(stranger);
    assert_eq!(
        Request::get("/ready").send(fixture.gateway.admin).status,
        200
    );
    fixture.redis.resume();
    fixture.await_recovery();
}

#[test]
fn token_only_mode_accepts_tokens_but_no_cookies() {
    let fixture = fixture(json!({ "sessions": "token_only", "limits": "allow" }));
    let logout = fixture.gateway.register("bob@example.com");
    let end = Request::post("/api/v1/auth/logout").bearer(&logout.access_token);
    assert_eq!(fixture.gateway.request(&end).status, 204);
    fixture.redis.pause();
    within(Duration::from_secs(2), "the outage is noticed", || {
        (fixture.gateway.metric("portcullis_store_up", &[]) == 0.0
            || fixture.gateway.request(&fixture.bearer_request()).status == 200)
            .then_some(())
    });
    fixture
        .gateway
        .request(&fixture.bearer_request())
        .assert_ok();
    let forged = Request::get("/private/a").bearer("nonsense");
    fixture
        .gateway
        .request(&forged)
        .assert_refused(401, "TOKEN_INVALID");
    // It knows of this revocation: it served it.
    let revoked = fixture
        .gateway
        .request(&Request::get("/private/a").bearer(&logout.access_token));
    assert_eq!(revoked.status, 401, "{}", revoked.text());
    let unseen = format!("portcullis={}", "ab".repeat(32));
    fixture
        .gateway
        .request(&Request::get("/private/a").cookie(&unseen))
        .assert_refused(503, "STORE_UNAVAILABLE");
    fixture.redis.resume();
    fixture.await_recovery();
}

#[test]
fn limits_follow_on_outage() {
    for (mode, expected) in [("deny", 503), ("allow", 200), ("local", 200)] {
        let fixture = fixture(json!({ "sessions": "deny", "limits": mode }));
        fixture.redis.pause();
        within(Duration::from_secs(2), "limits follow on_outage", || {
            (fixture.gateway.get("/public/a").status == expected).then_some(())
        });
        fixture.redis.resume();
        fixture.await_recovery();
    }
}

#[test]
fn local_limits_refuse_during_outage() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/timeout", json!("300ms"))
        .limit(
            "l",
            json!({ "algorithm": "sliding_window", "limit": 3, "window": "10m", "key": "ip" }),
        );
    let gateway = Gateway::start(config);
    redis.pause();
    let statuses: Vec<u16> = (0..6).map(|_| gateway.get("/public/a").status).collect();
    assert_eq!(
        statuses.iter().filter(|s| **s == 200).count(),
        3,
        "{statuses:?}"
    );
    assert_eq!(statuses.last(), Some(&429));
    redis.resume();
}

#[test]
fn cancelled_requests_never_mix_up_responses() {
    let redis = Redis::start();
    let slow = FaultProxy::before(redis.address);
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&format!("redis://{}", slow.address))
        .set("/store/timeout", json!("2s"));
    let gateway = Gateway::start(config);
    let people: Vec<_> = (0..6)
        .map(|n| gateway.register(&format!("u{n}@example.com")))
        .collect();
    slow.delay(Duration::from_millis(20));
    std::thread::scope(|scope| {
        for person in &people {
            let gateway = &gateway;
            scope.spawn(move || {
                let request = Request::get("/private/a").cookie(&person.cookie);
                for round in 0..15 {
                    if round % 2 == 0 {
                        // Leaves without waiting for the response.
                        let mut client = crate::support::client::Client::connect(gateway.public);
                        client.send(request.to_bytes());
                        continue;
                    }
                    let response = gateway.request(&request);
                    if response.status == 200 {
                        assert_eq!(
                            response.echo().header("x-user-id").as_ref(),
                            Some(&person.user)
                        );
                    } else {
                        assert_eq!(response.status, 503, "{}", response.text());
                    }
                }
            });
        }
    });
    slow.cut();
    within(Duration::from_secs(5), "the cut is noticed", || {
        let request = Request::get("/private/a").cookie(&people[0].cookie);
        (gateway.request(&request).status == 503).then_some(())
    });
    slow.restore();
    within(Duration::from_secs(5), "the restored line is used", || {
        let request = Request::get("/private/a").cookie(&people[0].cookie);
        (gateway.request(&request).status == 200).then_some(())
    });
}

#[test]
fn missing_store_is_awaited() {
    let mut redis = Redis::start();
    redis.kill();
    let upstream = Upstream::start();
    let gateway =
        Gateway::start_with_arguments(Config::new(upstream.address).store(&redis.url()), &[]);
    gateway.get("/public/a").assert_ok();
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let request = Request::get("/private/a").cookie(&unknown);
    gateway
        .request(&request)
        .assert_refused(503, "STORE_UNAVAILABLE");
    redis.restart();
    within(Duration::from_secs(5), "it is found", || {
        (gateway.request(&request).status == 401).then_some(())
    });
}

#[test]
fn wrong_store_password_is_reported_but_not_logged() {
    let redis = Redis::start();
    redis.command(&["CONFIG", "SET", "requirepass", "the right one"]);
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/password", json!("canary-wrong-password"));
    let gateway = Gateway::start_with_arguments(config, &[]);
    gateway.get("/public/a").assert_ok();
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let request = Request::get("/private/a").cookie(&unknown);
    gateway
        .request(&request)
        .assert_refused(503, "STORE_UNAVAILABLE");
    assert_eq!(Request::get("/ready").send(gateway.admin).status, 503);
    assert!(!gateway.logs().contains("canary-wrong-password"));
}

#[test]
fn session_ends_before_its_token_is_refused() {
    let redis = Redis::start();
    let line = FaultProxy::before(redis.address);
    let config = Config::new(Upstream::start().address);
    let gateway = Gateway::start(config.store(&format!("redis://{}", line.address)));
    let alice = gateway.register("alice@example.com");
    // A key that is set to 1 for a time: the blacklist's entry.
    line.cut_before(b"\r\n$1\r\n1\r\n$2\r\nPX\r\n");
    let out = || gateway.request(&Request::post("/api/v1/auth/logout").bearer(&alice.access_token));
    out().assert_refused(503, "STORE_UNAVAILABLE");
    line.restore();
    let cookie = Request::get("/private/a").cookie(&alice.cookie);
    let response = eventually("every link to the store is there again", || {
        Some(gateway.request(&cookie)).filter(|response| response.status != 503)
    });
    response.assert_refused(401, "SESSION_REVOKED");
    // It can be asked for again.
    eventually("signed out for sure", || {
        (out().status == 204).then_some(())
    });
}
