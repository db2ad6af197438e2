//! A person without a session signs out everywhere: every token of theirs is refused, and what it
//! opened is closed, on whatever gateway, and also while the store is away.

use std::time::Instant;

use serde_json::json;

use crate::support::client::Request;
use crate::support::issuer::Issuer;
use crate::support::open::{Fleet, Open, fleet};
use crate::support::wait::eventually;

fn sign_out_everywhere(fleet: &Fleet, bearer: &str) {
    let everywhere = Request::post("/api/v1/auth/logout-all").header("Authorization", bearer);
    fleet.one.ask(&everywhere).ok();
}

#[test]
fn what_a_token_without_a_session_opened_is_closed_on_every_gateway() {
    let issuer = Issuer::new();
    let fleet = fleet(|config| issuer.trusted_in(config));
    let (theirs, others) = (issuer.bearer("42", "one"), issuer.bearer("43", "two"));
    let mut closing = Open::at(&fleet, ("Authorization", &theirs));
    let mut staying = Open::at(&fleet, ("Authorization", &others));
    let since = Instant::now();
    sign_out_everywhere(&fleet, &issuer.bearer("42", "three"));
    closing.close(since);
    staying.go_on(&fleet.upstream);
}

#[test]
fn who_has_signed_out_everywhere_stays_out_while_the_store_is_away() {
    for policy in ["cached", "token_only"] {
        let issuer = Issuer::new();
        let mut fleet = fleet(|config| {
            let outage = json!({ "sessions": policy });
            issuer.trusted_in(config).set("/store/on_outage", outage)
        });
        let (theirs, others) = (issuer.bearer("42", "one"), issuer.bearer("43", "two"));
        let status = |fleet: &Fleet, bearer: &str| {
            let request = Request::get("/private/a").header("Authorization", bearer);
            fleet.one.ask(&request).status
        };
        assert_eq!(status(&fleet, &theirs), 200);
        assert_eq!(status(&fleet, &others), 200);
        sign_out_everywhere(&fleet, &issuer.bearer("42", "three"));
        fleet.redis.kill();
        eventually("the store is down", || {
            (fleet.one.metric("portcullis_store_up", &[]) == 0.0).then_some(())
        });
        assert_eq!(status(&fleet, &theirs), 401, "{policy}");
        assert_eq!(status(&fleet, &others), 200, "{policy}");
    }
}

#[test]
fn signing_out_again_by_a_revoked_token_is_no_further_event() {
    let issuer = Issuer::new();
    let fleet = fleet(|config| issuer.trusted_in(config));
    let revoked = issuer.bearer("42", "one");
    let sign_out = Request::post("/api/v1/auth/logout").header("Authorization", &revoked);
    for _ in 0..5 {
        assert_eq!(fleet.one.ask(&sign_out).status, 204);
    }
    // The events of one gateway are written in their order.
    let last = Request::post("/api/v1/auth/logout");
    let last = last.header("Authorization", &issuer.bearer("43", "two"));
    assert_eq!(fleet.one.ask(&last).status, 204);
    let list = Request::get("/admin/events?event=token_blacklisted&limit=100");
    let written = || {
        let events = fleet.one.admin(list.clone()).data()["events"].clone();
        let count = events.as_array().map_or(0, Vec::len);
        (count >= 2).then_some(count)
    };
    assert_eq!(eventually("both events are written", written), 2);
}
