//! Clocks of gateways and of Redis are stepped by an hour while clients of the whole fleet
//! continue: by more than any leeway. `histories` steps them within the leeway.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::clock::Clock;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::redis::Redis;
use crate::support::tokens;
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, SetOnDrop, eventually, within};

const HOUR: i64 = 3600;
/// What a clock goes through, and a limit for each of it.
const STEPS: [(&str, i64); 3] = [("ahead", HOUR), ("behind", -HOUR), ("right", 0)];
/// How long the clients go on with a clock that is off.
const SKEW_DURATION: Duration = Duration::from_millis(600);
/// No response may take longer: the store's timeout, and a busy machine.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(5);

#[test]
fn limits_refill_by_the_clock_of_the_store() {
    let clock = Clock::start();
    clock.step(HOUR);
    let redis = Redis::start_persistent_by(&clock);
    let limit = json!({ "limit": 1_000_000, "window": "1m", "key": "ip" });
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).store(&redis.url());
    let gateway = Gateway::start(config.limit("l", limit));
    let expected = || tokens::now() + HOUR..=tokens::now() + HOUR + 125;
    eventually("the gateway goes by the clock of the store", || {
        let reset = gateway
            .get("/public/a")
            .assert_ok()
            .numeric_header("x-ratelimit-reset");
        expected().contains(&(reset as i64)).then_some(())
    });
    let connection = crate::support::http2::Http2::connect(gateway.public);
    assert_eq!(connection.request("GET", "/public/a", &[]).0, 200);
}

struct Fleet {
    // Fields go in this order: the gateways before what they use.
    gateways: [Gateway; 3],
    /// That of the first gateway.
    clock: Clock,
    redis: Redis,
    redis_clock: Clock,
    done: AtomicBool,
    statuses: Mutex<BTreeMap<u16, usize>>,
}

fn start_fleet() -> Fleet {
    let (clock, redis_clock) = (Clock::start(), Clock::start());
    let redis = Redis::start_persistent_by(&redis_clock);
    let upstream = Upstream::start();
    let config = || {
        let config = Config::new(upstream.address)
            .store(&redis.url())
            .set("/sessions/max_per_user", json!(1000));
        STEPS
            .iter()
            .fold(config, |config, (name, _)| with_limited_route(config, name))
    };
    let first = config().clock(&clock);
    let database = first.file["database"]["url"].clone();
    let other = || Gateway::start(config().set("/database/url", database.clone()));
    Fleet {
        gateways: [Gateway::start(first), other(), other()],
        clock,
        redis,
        redis_clock,
        done: AtomicBool::new(false),
        statuses: Mutex::default(),
    }
}

/// Adds a route with a limit of five.
fn with_limited_route(config: Config, name: &str) -> Config {
    let five = json!({ "algorithm": "sliding_log", "limit": 5, "window": "12h", "key": "ip" });
    let route = json!({
        "name": name, "match": { "prefix": format!("/{name}") }, "auth": "none", "upstream": "echo",
        "limits": [name],
    });
    config.set(&format!("/limits/{name}"), five).route(route)
}

impl Fleet {
    /// Asks with a session's cookie at one gateway after the other, until it is over.
    fn request_until_done(&self, user: &SignedIn) {
        let request = Request::get("/private/a").cookie(&user.cookie);
        for gateway in self.gateways.iter().cycle() {
            if self.done.load(Ordering::SeqCst) {
                return;
            }
            let requested = Instant::now();
            let response = gateway.request(&request);
            assert!(
                requested.elapsed() < RESPONSE_DEADLINE,
                "it hung: {:?}",
                requested.elapsed()
            );
            assert!(
                matches!(response.status, 200 | 503),
                "{}: {}",
                response.status,
                response.text()
            );
            *self.statuses.lock().entry(response.status).or_default() += 1;
        }
    }

    /// What must hold whatever the clocks say.
    fn assert_invariants(&self, round: &str) {
        let admitted = |gateway: &Gateway| {
            let get = || gateway.get(&format!("/{round}/a")).status;
            let statuses: Vec<u16> = (0..4).map(|_| get()).collect();
            assert!(statuses.iter().all(|it| matches!(it, 200 | 429)));
            statuses.iter().filter(|status| **status == 200).count()
        };
        let admitted: usize = self.gateways.iter().map(admitted).sum();
        assert_eq!(admitted, 5, "{round}");
        for serves in 0..self.gateways.len() {
            self.assert_revocation_reaches_all(serves, round);
        }
    }

    /// Who signs in at one gateway is let in at all, and after signing out at none.
    fn assert_revocation_reaches_all(&self, serves: usize, round: &str) {
        let user = self.gateways[serves].login("alice@example.com");
        for gateway in &self.gateways {
            assert!(gateway.accepts(&user), "{round} {serves}");
        }
        let out = Request::post("/api/v1/auth/logout").same_origin();
        let response = self.gateways[serves].request(&out.cookie(&user.cookie));
        assert_eq!(response.status, 204, "{round}: {}", response.text());
        assert!(!self.gateways[serves].accepts(&user));
        for gateway in &self.gateways {
            within(PROPAGATION_DEADLINE, round, || {
                (!gateway.accepts(&user)).then_some(())
            });
        }
    }

    /// Steps a clock while clients go on, and looks at what was promised; tells what they saw.
    fn run_through_steps(&self, step: impl Fn(i64)) {
        let people: Vec<SignedIn> = (0..3)
            .map(|n| self.gateways[n].login("alice@example.com"))
            .collect();
        std::thread::scope(|scope| {
            let _over = SetOnDrop(&self.done);
            let clients: Vec<_> = people
                .iter()
                .map(|user| scope.spawn(|| self.request_until_done(user)))
                .collect();
            for (round, offset) in STEPS {
                step(offset);
                self.assert_invariants(round);
                std::thread::sleep(SKEW_DURATION);
                assert!(clients.iter().all(|client| !client.is_finished()));
            }
        });
        let seen = self.statuses.lock();
        assert!(seen[&200] > 100, "{seen:?}");
        eprintln!("{seen:?}");
    }
}

/// The offset in seconds of the clock that reported this time.
fn clock_offset(reported: i64) -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    reported - since.unwrap().as_secs() as i64
}

#[test]
fn gateway_with_wrong_clock_uses_store_time() {
    let fleet = start_fleet();
    let first = &fleet.gateways[0];
    first.register("alice@example.com");
    fleet.run_through_steps(|offset| {
        fleet.clock.step(offset);
        let claims = tokens::claims(&first.login("alice@example.com").access_token);
        let off = clock_offset(claims["iat"].as_i64().unwrap());
        assert!((off - offset).abs() < 5, "{off}");
    });
    let statuses = fleet.statuses.lock().clone();
    assert_eq!(statuses.len(), 1, "{statuses:?}");
}

#[test]
fn token_expiry_follows_the_gateway_clock() {
    let fleet = start_fleet();
    let first = &fleet.gateways[0];
    let alice = first.register("alice@example.com");
    let request = Request::get("/private/a").bearer(&alice.access_token);
    for (offset, expected) in [
        (HOUR, Some("TOKEN_EXPIRED")),
        (-HOUR, Some("TOKEN_INVALID")),
        (0, None),
    ] {
        fleet.clock.step(offset);
        // A gateway reads its clock once in a while.
        eventually("the gateway follows its clock", || {
            let response = first.request(&request);
            let is_expected = match expected {
                Some(code) => response.status == 401 && response.text().contains(code),
                None => response.status == 200,
            };
            is_expected.then_some(())
        });
        fleet.gateways[1].request(&request).assert_ok();
    }
}

#[test]
fn wrong_redis_clock_neither_ends_nor_revives_sessions() {
    let fleet = start_fleet();
    fleet.gateways[0].register("alice@example.com");
    let ended = fleet.gateways[0].login("alice@example.com");
    let path = format!("/admin/sessions/{}", ended.session);
    fleet.gateways[0].admin(Request::delete(&path)).assert_ok();
    fleet.run_through_steps(|offset| {
        fleet.redis_clock.step(offset);
        let time = fleet.redis.command(&["TIME"]);
        let seconds = time.lines().next().unwrap().parse().unwrap();
        let off = clock_offset(seconds);
        assert!((off - offset).abs() < 5, "{off}");
        for gateway in &fleet.gateways {
            assert!(!gateway.accepts(&ended), "{offset}");
        }
    });
    // All is as it was: with the right time nothing waits for an hour to pass.
    let ready = |gateway: &Gateway| Request::get("/ready").send(gateway.admin).status == 200;
    eventually("every gateway is ready", || {
        fleet.gateways.iter().all(ready).then_some(())
    });
    let health: Value = Request::get("/health").send(fleet.gateways[0].admin).json();
    assert_eq!(health["store"], "connected");
}
