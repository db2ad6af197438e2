//! A flood of unknown credentials costs honest users nothing: their cache entries stay. A flood of
//! refused ones fills no memory; a flood of valid ones stays within its share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::redis::Redis;
use crate::support::tokens;
use crate::support::upstream::Upstream;
use crate::support::wait::SetOnDrop;

const ACTIVE_USERS: usize = 12;
/// The maximum length of a token: cached ones take many bytes, and a short flood is a large one.
const PADDING: usize = 5_500;
/// Tokens of one kind in one flood: 14 MiB of them.
const FLOOD_SIZE: usize = 2_000;
/// Of kinds that cost no time to refuse.
const OTHER_CREDENTIALS: usize = FLOOD_SIZE / 4;
/// What a flood of refused credentials may add to the gateway's memory, once one was there.
const MAX_GROWTH: f64 = 9.0 * 1024.0 * 1024.0;

struct Fixture {
    gateway: Gateway,
    _redis: Redis,
    honest: Vec<SignedIn>,
    attacker: SignedIn,
}

fn fixture() -> Fixture {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let many = json!({ "limit": 100_000, "window": "1m" });
    let config = Config::new(upstream.address)
        .store(&redis.url())
        // How quickly a busy machine does it is no question here.
        .set("/store/timeout", json!("5s"))
        .set(
            "/identity/builtin/sign_in_limits/attempts_per_address",
            many,
        )
        // A caller without the role is cached and looked up, and gets no further.
        .route(json!({
            "name": "closed", "match": { "prefix": "/closed" }, "auth": "required",
            "require": { "roles": ["nobody"] }, "upstream": "echo",
        }));
    let gateway = Gateway::start(config);
    let honest = (0..ACTIVE_USERS).map(|n| gateway.register(&format!("user{n}@example.com")));
    Fixture {
        honest: honest.collect(),
        attacker: gateway.register("mallory@example.com"),
        gateway,
        _redis: redis,
    }
}

impl Fixture {
    /// Sends one flood of each type, all at once; `good_ones` of the credentials are valid.
    fn flood(&self, name: &str, good_ones: usize) {
        let claims = |n: usize| {
            let changes = json!({ "jti": format!("{name}-{n}"), "padding": "x".repeat(PADDING) });
            tokens::modified_claims(&self.attacker.access_token, &changes)
        };
        let good = |n| Request::get("/closed").bearer(&tokens::hs256(&claims(n)));
        let forged = |n| {
            let header = r#"{"alg":"HS256","typ":"at+jwt"}"#;
            let secret = "a secret that is not the gateway's, 0123456789";
            Request::get("/closed").bearer(&tokens::sign(header, &claims(n).to_string(), secret))
        };
        let random = |n| Request::get("/closed").bearer(&format!("{name}.{n}.random"));
        let cookie = |n| {
            let token = format!("{:0<58}{n:06x}", if name == "first" { "a" } else { "b" });
            Request::get("/closed").cookie(&format!("portcullis={token}"))
        };
        std::thread::scope(|scope| {
            scope.spawn(|| self.send_all(good_ones, good, 403));
            scope.spawn(|| {
                self.send_all(FLOOD_SIZE, forged, 401);
                self.send_all(OTHER_CREDENTIALS, random, 401);
                self.send_all(OTHER_CREDENTIALS, cookie, 401);
            });
        });
    }

    /// Sends requests with fresh credentials on one connection.
    fn send_all(&self, many: usize, request: impl Fn(usize) -> Request, expected: u16) {
        let mut client = Client::connect(self.gateway.public);
        for n in 0..many {
            let response = client.request(&request(n));
            assert_eq!(response.status, expected, "{n}: {}", response.text());
        }
    }

    /// Honest users ask by token and by cookie, one after the other; returns how often.
    fn count_accepted(&self, users: &[SignedIn]) -> usize {
        for user in users {
            for request in [
                Request::get("/private/a").bearer(&user.access_token),
                Request::get("/private/a").cookie(&user.cookie),
            ] {
                self.gateway.request(&request).assert_ok();
            }
        }
        2 * users.len()
    }

    /// Tokens that had to be verified, and requests for which the store was asked.
    fn cache_misses_and_queries(&self) -> (f64, f64) {
        let labels = ["cache=\"tokens\"", "outcome=\"miss\""];
        let verified = self.gateway.metric("portcullis_cache_total", &labels);
        let requested = "portcullis_store_operation_duration_seconds_count";
        let requested = self.gateway.metric(requested, &["operation=\"decide\""]);
        (verified, requested)
    }

    fn resident(&self) -> f64 {
        self.gateway.metric("process_resident_memory_bytes", &[])
    }
}

#[test]
fn token_flood_does_not_evict_active_users() {
    let fixture = fixture();
    for _ in 0..3 {
        fixture.count_accepted(&fixture.honest);
    }
    // Half of them go on during the flood, the others come back after it.
    let (busy, idle) = fixture.honest.split_at(ACTIVE_USERS / 2);
    let (over, requested) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = fixture.cache_misses_and_queries();
    let growth = std::thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                requested.fetch_add(fixture.count_accepted(busy), Ordering::SeqCst);
            }
        });
        fixture.flood("first", FLOOD_SIZE);
        let full = fixture.resident();
        fixture.flood("second", 0);
        fixture.resident() - full
    });
    let after = fixture.cache_misses_and_queries();
    let requested = requested.into_inner();
    // Good, forged and random ones are each verified once; good ones and cookies each looked up once.
    let verified = after.0 - before.0 - (FLOOD_SIZE + 2 * (FLOOD_SIZE + OTHER_CREDENTIALS)) as f64;
    let looked_up = after.1 - before.1 - (FLOOD_SIZE + 2 * OTHER_CREDENTIALS) as f64;
    eprintln!(
        "{requested} honest requests: {verified} verified again, {looked_up} looked up again; {:.1} MiB more",
        growth / 1024.0 / 1024.0
    );
    assert!(requested > 100, "{requested}");
    assert!(
        verified <= requested as f64 / 100.0,
        "{verified} of {requested}"
    );
    assert!(
        looked_up <= requested as f64 / 100.0,
        "{looked_up} of {requested}"
    );
    assert!(growth < MAX_GROWTH, "{growth}");
    // Those who come back are still known; about each the store is asked once in ten seconds in any case,
    // also in the background.
    fixture.count_accepted(idle);
    fixture.count_accepted(idle);
    let again = fixture.cache_misses_and_queries();
    assert_eq!(again.0, after.0);
    assert!(again.1 - after.1 <= idle.len() as f64, "{again:?}");
}
