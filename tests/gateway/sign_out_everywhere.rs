//! A user without a session signs out everywhere: all their tokens are refused, and the streams
//! that they opened are closed, on every gateway, and also while the store is away.

use std::time::Instant;

use serde_json::json;

use crate::support::client::Request;
use crate::support::issuer::Issuer;
use crate::support::open_streams::{Fleet, OpenStreams, start_fleet};
use crate::support::wait::eventually;

fn sign_out_all(fleet: &Fleet, bearer: &str) {
    let everywhere = Request::post("/api/v1/auth/logout-all").header("Authorization", bearer);
    fleet.one.request(&everywhere).assert_ok();
}

#[test]
fn sessionless_token_streams_close_on_every_gateway() {
    let issuer = Issuer::new();
    let fleet = start_fleet(|config| issuer.trusted_in(config));
    let (theirs, others) = (issuer.bearer("42", "one"), issuer.bearer("43", "two"));
    let mut closing = OpenStreams::open_on(&fleet, ("Authorization", &theirs));
    let mut staying = OpenStreams::open_on(&fleet, ("Authorization", &others));
    let since = Instant::now();
    sign_out_all(&fleet, &issuer.bearer("42", "three"));
    closing.await_closed(since);
    staying.assert_still_open(&fleet.upstream);
}

#[test]
fn sign_out_everywhere_holds_during_store_outage() {
    for policy in ["cached", "token_only"] {
        let issuer = Issuer::new();
        let mut fleet = start_fleet(|config| {
            let outage = json!({ "sessions": policy });
            issuer.trusted_in(config).set("/store/on_outage", outage)
        });
        let (theirs, others) = (issuer.bearer("42", "one"), issuer.bearer("43", "two"));
        let status = |fleet: &Fleet, bearer: &str| {
            let request = Request::get("/private/a").header("Authorization", bearer);
            fleet.one.request(&request).status
        };
        assert_eq!(status(&fleet, &theirs), 200);
        assert_eq!(status(&fleet, &others), 200);
        sign_out_all(&fleet, &issuer.bearer("42", "three"));
        fleet.redis.kill();
        eventually("the store is down", || {
            (fleet.one.metric("portcullis_store_up", &[]) == 0.0).then_some(())
        });
        assert_eq!(status(&fleet, &theirs), 401, "{policy}");
        assert_eq!(status(&fleet, &others), 200, "{policy}");
    }
}

#[test]
fn repeated_sign_out_emits_no_second_event() {
    let issuer = Issuer::new();
    let fleet = start_fleet(|config| issuer.trusted_in(config));
    let revoked = issuer.bearer("42", "one");
    let sign_out = Request::post("/api/v1/auth/logout").header("Authorization", &revoked);
    for _ in 0..5 {
        assert_eq!(fleet.one.request(&sign_out).status, 204);
    }
    // The events of one gateway are written in their order.
    let last = Request::post("/api/v1/auth/logout");
    let last = last.header("Authorization", &issuer.bearer("43", "two"));
    assert_eq!(fleet.one.request(&last).status, 204);
    let list = Request::get("/admin/events?event=token_blacklisted&limit=100");
    let written = || {
        let events = fleet.one.admin(list.clone()).data()["events"].clone();
        let count = events.as_array().map_or(0, Vec::len);
        (count >= 2).then_some(count)
    };
    assert_eq!(eventually("both events are written", written), 2);
}
