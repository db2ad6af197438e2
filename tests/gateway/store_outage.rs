//! The store stops, dies and comes back under load: what is documented happens, nobody is signed
//! out by it, and nothing has to be restarted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::cuttable::Cuttable;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

struct Scene {
    redis: Redis,
    gateway: Gateway,
    alice: SignedIn,
}

fn scene(on_outage: Value) -> Scene {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/timeout", json!("300ms"))
        .set("/store/on_outage", on_outage)
        .limited(
            "l",
            json!({ "algorithm": "sliding_window", "limit": 10_000_000, "window": "10m", "key": "ip" }),
        );
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    Scene {
        redis,
        gateway,
        alice,
    }
}

impl Scene {
    fn bearer(&self) -> Request {
        Request::get("/private/a").bearer(&self.alice.access_token)
    }

    fn cookie(&self) -> Request {
        Request::get("/private/a").cookie(&self.alice.cookie)
    }

    /// Asks by cookie and by token until `until`, from two clients, and counts the statuses. No
    /// answer may hang, sign out or clear a cookie.
    fn load(&self, duration: Duration) -> BTreeMap<u16, usize> {
        let until = Instant::now() + duration;
        let mut statuses = BTreeMap::new();
        while Instant::now() < until {
            for request in [self.cookie(), self.bearer()] {
                let start = Instant::now();
                let answer = self.gateway.ask(&request);
                assert!(
                    start.elapsed() < Duration::from_secs(2),
                    "it hung: {:?}",
                    start.elapsed()
                );
                assert_ne!(
                    answer.status,
                    401,
                    "an outage signs nobody out: {}",
                    answer.text()
                );
                assert_eq!(
                    answer.header("set-cookie"),
                    None,
                    "nor does it clear a cookie"
                );
                *statuses.entry(answer.status).or_default() += 1;
            }
        }
        statuses
    }

    fn recovers(&self) {
        within(
            Duration::from_secs(5),
            "the gateway recovers by itself",
            || {
                let ok = |request: &Request| self.gateway.ask(request).status == 200;
                (ok(&self.cookie()) && ok(&self.bearer())).then_some(())
            },
        );
        // Every worker has a link of its own; the last one to come back settles the gauge.
        eventually("the metric says so", || {
            (self.gateway.metric("portcullis_store_up", &[]) == 1.0).then_some(())
        });
    }
}

#[test]
fn a_store_that_hangs_makes_protected_routes_503_and_leaves_public_ones_alone() {
    let scene = scene(json!({ "sessions": "deny", "limits": "local" }));
    assert_eq!(
        scene
            .load(Duration::from_millis(300))
            .keys()
            .collect::<Vec<_>>(),
        [&200]
    );
    scene.redis.stop();
    let statuses = scene.load(Duration::from_secs(2));
    assert!(statuses.contains_key(&503), "{statuses:?}");
    // What was verified in the last moment may still be answered; once that is over, all is 503.
    let refused = scene.gateway.ask(&scene.cookie());
    refused.refused(503, "STORE_UNAVAILABLE");
    scene
        .gateway
        .ask(&scene.bearer())
        .refused(503, "STORE_UNAVAILABLE");
    let public = scene.gateway.get("/public/a");
    assert!(
        public.ok().header("x-ratelimit-remaining").is_some(),
        "limits go on locally"
    );
    assert_eq!(scene.gateway.metric("portcullis_store_up", &[]), 0.0);
    assert!(scene.gateway.metric("portcullis_store_errors_total", &[]) > 0.0);
    assert!(
        scene
            .gateway
            .metric("portcullis_ratelimit_total", &["outcome=\"degraded\""])
            > 0.0
    );
    let admin = scene.gateway.admin;
    assert_eq!(Request::get("/ready").send(admin).status, 503);
    let health = Request::get("/health").send(admin);
    assert_eq!(
        (health.status, &health.json()["store"]),
        (200, &json!("down"))
    );
    scene.redis.cont();
    scene.recovers();
    assert_eq!(Request::get("/ready").send(admin).status, 200);
}

#[test]
fn every_decision_on_a_limit_without_the_store_is_counted_as_degraded() {
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
    gateway.ask(&denied).refused(503, "STORE_UNAVAILABLE");
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
fn logging_out_during_an_outage_does_not_pretend() {
    let scene = scene(json!({ "sessions": "deny" }));
    scene.redis.stop();
    let logout = Request::post("/api/v1/auth/logout").bearer(&scene.alice.access_token);
    scene.gateway.ask(&logout).refused(503, "STORE_UNAVAILABLE");
    scene.redis.cont();
    scene.recovers();
}

#[test]
fn a_store_that_dies_and_comes_back_empty_is_used_again_without_a_restart() {
    let mut scene = scene(json!({ "sessions": "deny" }));
    scene.redis.kill();
    let statuses = scene.load(Duration::from_secs(1));
    assert!(statuses.contains_key(&503), "{statuses:?}");
    scene.redis.restart();
    // Without persistence the sessions are really gone now, and that is a true answer.
    within(Duration::from_secs(5), "the empty store answers", || {
        let answer = scene.gateway.ask(&scene.cookie());
        (answer.status == 401).then_some(())
    });
    // Each worker finds the way back by itself: for a moment one may answer and another not yet.
    let again = eventually("everybody signs in again", || {
        scene.gateway.try_login("alice@example.com")
    });
    eventually("every worker is back", || {
        scene.gateway.lets_in(&again).then_some(())
    });
}

#[test]
fn cached_serves_what_this_gateway_knows_and_nothing_else() {
    let scene = scene(json!({ "sessions": "cached", "cached_for": "1m", "limits": "local" }));
    let stranger = scene.gateway.register("bob@example.com");
    scene.gateway.ask(&scene.cookie()).ok();
    scene.gateway.ask(&scene.bearer()).ok();
    scene.redis.stop();
    assert_eq!(
        scene
            .load(Duration::from_secs(1))
            .keys()
            .collect::<Vec<_>>(),
        [&200]
    );
    let unseen = format!("portcullis={}", "ab".repeat(32));
    let answer = scene
        .gateway
        .ask(&Request::get("/private/a").cookie(&unseen));
    answer.refused(503, "STORE_UNAVAILABLE");
    drop(stranger);
    assert_eq!(Request::get("/ready").send(scene.gateway.admin).status, 200);
    scene.redis.cont();
    scene.recovers();
}

#[test]
fn token_only_takes_a_valid_token_but_no_cookie_it_cannot_check() {
    let scene = scene(json!({ "sessions": "token_only", "limits": "allow" }));
    let logout = scene.gateway.register("bob@example.com");
    let end = Request::post("/api/v1/auth/logout").bearer(&logout.access_token);
    assert_eq!(scene.gateway.ask(&end).status, 204);
    scene.redis.stop();
    within(Duration::from_secs(2), "the outage is noticed", || {
        (scene.gateway.metric("portcullis_store_up", &[]) == 0.0
            || scene.gateway.ask(&scene.bearer()).status == 200)
            .then_some(())
    });
    scene.gateway.ask(&scene.bearer()).ok();
    let forged = Request::get("/private/a").bearer("nonsense");
    scene.gateway.ask(&forged).refused(401, "TOKEN_INVALID");
    // It knows of this revocation: it served it.
    let revoked = scene
        .gateway
        .ask(&Request::get("/private/a").bearer(&logout.access_token));
    assert_eq!(revoked.status, 401, "{}", revoked.text());
    let unseen = format!("portcullis={}", "ab".repeat(32));
    scene
        .gateway
        .ask(&Request::get("/private/a").cookie(&unseen))
        .refused(503, "STORE_UNAVAILABLE");
    scene.redis.cont();
    scene.recovers();
}

#[test]
fn limits_deny_or_allow_as_they_are_told() {
    for (mode, expected) in [("deny", 503), ("allow", 200), ("local", 200)] {
        let scene = scene(json!({ "sessions": "deny", "limits": mode }));
        scene.redis.stop();
        within(Duration::from_secs(2), "limits follow on_outage", || {
            (scene.gateway.get("/public/a").status == expected).then_some(())
        });
        scene.redis.cont();
        scene.recovers();
    }
}

#[test]
fn local_limits_still_refuse() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/timeout", json!("300ms"))
        .limited(
            "l",
            json!({ "algorithm": "sliding_window", "limit": 3, "window": "10m", "key": "ip" }),
        );
    let gateway = Gateway::start(config);
    redis.stop();
    let statuses: Vec<u16> = (0..6).map(|_| gateway.get("/public/a").status).collect();
    assert_eq!(
        statuses.iter().filter(|s| **s == 200).count(),
        3,
        "{statuses:?}"
    );
    assert_eq!(statuses.last(), Some(&429));
    redis.cont();
}

#[test]
fn answers_are_never_mixed_up_when_clients_leave_during_a_slow_store() {
    let redis = Redis::start();
    let slow = Cuttable::before(redis.address);
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
                        // Leaves without waiting for the answer.
                        let mut client = crate::support::client::Client::connect(gateway.public);
                        client.send(request.to_bytes());
                        continue;
                    }
                    let answer = gateway.ask(&request);
                    if answer.status == 200 {
                        assert_eq!(
                            answer.echo().header("x-user-id").as_ref(),
                            Some(&person.user)
                        );
                    } else {
                        assert_eq!(answer.status, 503, "{}", answer.text());
                    }
                }
            });
        }
    });
    slow.cut();
    within(Duration::from_secs(5), "the cut is noticed", || {
        let request = Request::get("/private/a").cookie(&people[0].cookie);
        (gateway.ask(&request).status == 503).then_some(())
    });
    slow.restore();
    within(Duration::from_secs(5), "the restored line is used", || {
        let request = Request::get("/private/a").cookie(&people[0].cookie);
        (gateway.ask(&request).status == 200).then_some(())
    });
}

#[test]
fn a_store_that_was_never_there_is_waited_for() {
    let mut redis = Redis::start();
    redis.kill();
    let upstream = Upstream::start();
    let gateway = Gateway::alive(Config::new(upstream.address).store(&redis.url()), &[]);
    gateway.get("/public/a").ok();
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let request = Request::get("/private/a").cookie(&unknown);
    gateway.ask(&request).refused(503, "STORE_UNAVAILABLE");
    redis.restart();
    within(Duration::from_secs(5), "it is found", || {
        (gateway.ask(&request).status == 401).then_some(())
    });
}

#[test]
fn a_wrong_password_for_the_store_is_told_without_telling_it() {
    let redis = Redis::start();
    redis.command(&["CONFIG", "SET", "requirepass", "the right one"]);
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/password", json!("canary-wrong-password"));
    let gateway = Gateway::alive(config, &[]);
    gateway.get("/public/a").ok();
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let request = Request::get("/private/a").cookie(&unknown);
    gateway.ask(&request).refused(503, "STORE_UNAVAILABLE");
    assert_eq!(Request::get("/ready").send(gateway.admin).status, 503);
    assert!(!gateway.logs().contains("canary-wrong-password"));
}

#[test]
fn a_session_has_ended_before_the_token_that_could_end_it_is_refused() {
    let redis = Redis::start();
    let line = Cuttable::before(redis.address);
    let config = Config::new(Upstream::start().address);
    let gateway = Gateway::start(config.store(&format!("redis://{}", line.address)));
    let alice = gateway.register("alice@example.com");
    // A key that is set to 1 for a time: the blacklist's entry.
    line.cut_before(b"\r\n$1\r\n1\r\n$2\r\nPX\r\n");
    let out = || gateway.ask(&Request::post("/api/v1/auth/logout").bearer(&alice.access_token));
    out().refused(503, "STORE_UNAVAILABLE");
    line.restore();
    let cookie = Request::get("/private/a").cookie(&alice.cookie);
    let answer = eventually("every link to the store is there again", || {
        Some(gateway.ask(&cookie)).filter(|answer| answer.status != 503)
    });
    answer.refused(401, "SESSION_REVOKED");
    // It can be asked for again.
    eventually("signed out for sure", || {
        (out().status == 204).then_some(())
    });
}
