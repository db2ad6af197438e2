//! Exchanges of provider tokens that are cut off: the gateway is killed, or the store is down.

use std::time::Duration;

use serde_json::json;

use super::provider_tokens::{AFTER_PAUSE, Fixture, assert_ok, with_recheck};
use crate::support::clock::Clock;
use crate::support::config::Config;
use crate::support::provider::{Endpoint, Transfer};
use crate::support::redis::Redis;
use crate::support::wait::{eventually, within};

/// Longer than a gateway may take for an exchange, with the timeout below.
const CLAIM_SECONDS: i64 = 60;

/// Rechecks sessions every second, with time enough to interrupt a recheck.
fn with_slow_recheck(config: Config) -> Config {
    with_recheck("1s", "continue")(config).set("/identity/providers/corp/timeout", json!("5s"))
}

/// Uses a session at the first gateway until that has sent the provider a refresh token.
fn await_exchange(fixture: &Fixture, cookie: &str) {
    eventually("an exchange has begun", || {
        assert_ok(&fixture.get(0, "/private/a", cookie));
        (fixture.provider.exchanges("refresh_token") >= 1).then_some(())
    });
}

/// Uses a session at every gateway, none of which may reject it, until this many rechecks had the outcome.
fn await_rechecks(fixture: &Fixture, cookie: &str, outcome: &str, count: f64) {
    within(AFTER_PAUSE, outcome, || {
        for gateway in 0..fixture.gateways.len() {
            assert_ok(&fixture.get(gateway, "/private/a", cookie));
        }
        (fixture.rechecks(outcome) >= count).then_some(())
    });
}

#[test]
fn gateway_that_is_killed_in_an_exchange_signs_no_user_out() {
    // The provider goes on to take the refresh token, or has replaced it in the lost response.
    for (rotates, outcome) in [(false, "renewed"), (true, "unknown")] {
        let clock = Clock::start();
        let redis = Redis::start_persistent_by(&clock);
        let vary = |config: Config| with_slow_recheck(config).clock(&clock);
        let mut fixture = Fixture::fleet_on(redis, vary);
        fixture.provider.set_rotation(rotates);
        let cookie = fixture.sign_in();
        fixture
            .provider
            .vary_next(Endpoint::Token, |reply| reply.transfer = Transfer::Silent);
        await_exchange(&fixture, &cookie);
        drop(fixture.gateways.remove(0));
        // The other gateway does not use the refresh token a second time before it knows better.
        assert_ok(&fixture.get(0, "/private/a", &cookie));
        assert_ok(&fixture.get(0, "/bearer/a", &cookie));
        assert_eq!(fixture.provider.exchanges("refresh_token"), 1);
        clock.step(CLAIM_SECONDS);
        await_rechecks(&fixture, &cookie, outcome, 1.0);
        assert_eq!(fixture.rechecks("ended"), 0.0);
        assert_ok(&fixture.get(0, "/private/a", &cookie));
    }
}

#[test]
fn exchange_of_durable_sessions_ends_without_the_store() {
    let mut fixture = Fixture::fleet(with_slow_recheck);
    let cookie = fixture.sign_in();
    fixture.provider.vary_next(Endpoint::Token, |reply| {
        reply.delay = Duration::from_secs(1);
    });
    await_exchange(&fixture, &cookie);
    fixture.redis.as_mut().unwrap().kill();
    await_rechecks(&fixture, &cookie, "renewed", 1.0);
    let exchanged = fixture.provider.exchanges("refresh_token");
    // The next one, too, is with the successor that the database has.
    await_rechecks(&fixture, &cookie, "renewed", 2.0);
    assert!(fixture.provider.exchanges("refresh_token") > exchanged);
    // The store comes back empty.
    fixture.redis.as_mut().unwrap().restart();
    let renewed = fixture.rechecks("renewed");
    await_rechecks(&fixture, &cookie, "renewed", renewed + 2.0);
    assert_eq!(fixture.rechecks("ended"), 0.0);
}
