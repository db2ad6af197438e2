//! Answers that stay open: each kind of them is closed within a second when its session ends or its
//! token is revoked, on whatever gateway that happens, and they are counted fleet-wide.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn, signal};
use crate::support::open::{Open, fleet};
use crate::support::tokens;
use crate::support::wait::{SOON, eventually, within};
use crate::support::websocket::{POLICY, Socket};

/// The session itself, as a program without cookies shows it.
fn session(who: &SignedIn) -> String {
    format!("Session {}", who.session_token)
}

fn bearer(who: &SignedIn) -> String {
    format!("Bearer {}", who.access_token)
}

#[test]
fn every_kind_ends_with_its_session_wherever_that_ends_and_no_other_does() {
    let fleet = fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let bob = fleet.one.register("bob@example.com");
    let mut sessions = Open::at(&fleet, ("Authorization", &session(&alice)));
    let mut tokens = Open::at(&fleet, ("Authorization", &bearer(&alice)));
    let mut others = Open::at(&fleet, ("Authorization", &session(&bob)));
    let since = Instant::now();
    let end = Request::delete(&format!("/admin/users/{}/sessions", alice.user));
    fleet.one.admin(end).ok();
    sessions.close(since);
    tokens.close(since);
    others.go_on(&fleet.upstream);
    let lag = "portcullis_revocation_lag_seconds_count";
    eventually("the lag is observed", || {
        (fleet.two.metric(lag, &[]) >= 1.0).then_some(())
    });
    // On the gateway that is told itself.
    let since = Instant::now();
    let logout = Request::post("/api/v1/auth/logout").bearer(&bob.access_token);
    assert_eq!(fleet.two.ask(&logout).status, 204);
    others.close(since);
    eventually("nothing is left", || {
        (fleet.two.metric("portcullis_live_connections", &[]) == 0.0).then_some(())
    });
}

#[test]
fn every_kind_ends_when_another_program_blacklists_its_token() {
    let fleet = fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let mut tokens = Open::at(&fleet, ("Authorization", &bearer(&alice)));
    let mut sessions = Open::at(&fleet, ("Authorization", &session(&alice)));
    let id = tokens::claims(&alice.access_token)["jti"]
        .as_str()
        .unwrap()
        .to_owned();
    let since = Instant::now();
    let key = format!("portcullis:blacklist:{id}");
    assert_eq!(fleet.redis.command(&["SET", &key, "1", "EX", "60"]), "OK");
    tokens.close(since);
    // The session itself lives.
    sessions.go_on(&fleet.upstream);
}

#[test]
fn every_kind_ends_when_the_user_is_disabled_or_the_session_evicted_or_run_out() {
    let fleet = fleet(|config| {
        config
            .set("/sessions/max_per_user", json!(1))
            .set("/sessions/ttl", json!("10s"))
            .set("/sessions/idle_timeout", json!(null))
    });
    let alice = fleet.one.register("alice@example.com");
    let mut evicted = Open::at(&fleet, ("Authorization", &session(&alice)));
    let since = Instant::now();
    let alice = fleet.one.login("alice@example.com");
    evicted.close(since);
    let mut disabled = Open::at(&fleet, ("Authorization", &session(&alice)));
    let since = Instant::now();
    let disable = Request::new("PATCH", &format!("/admin/users/{}", alice.user));
    fleet
        .one
        .admin(disable.json(&json!({ "disabled": true })))
        .ok();
    disabled.close(since);
    let since = Instant::now();
    let bob = fleet.one.register("bob@example.com");
    let mut expiring = Open::at(&fleet, ("Authorization", &session(&bob)));
    expiring.go_on(&fleet.upstream);
    assert_eq!(
        expiring.socket.close_code(Duration::from_secs(20)),
        Some(POLICY)
    );
    assert!(
        since.elapsed() > Duration::from_secs(9),
        "{:?}",
        since.elapsed()
    );
    assert!(
        since.elapsed() < Duration::from_secs(15),
        "{:?}",
        since.elapsed()
    );
    expiring.events.closes_within(SOON);
    expiring.poll_closes();
    assert!(expiring.call.ends_within(SOON));
}

#[test]
fn a_refresh_closes_nothing_and_the_end_of_a_token_neither() {
    let fleet = fleet(|config| config.set("/tokens/access_ttl", json!("6s")));
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let register = Request::post("/api/v1/auth/register").json(&body);
    let data = fleet.one.ask(&register).data();
    let token = format!("Bearer {}", data["access_token"].as_str().unwrap());
    let mut open = Open::at(&fleet, ("Authorization", &token));
    let since = Instant::now();
    let refresh = json!({ "refresh_token": data["refresh_token"] });
    fleet
        .one
        .ask(&Request::post("/api/v1/auth/refresh").json(&refresh))
        .ok();
    open.go_on(&fleet.upstream);
    while since.elapsed() < Duration::from_secs(20) {
        let old = Request::get("/private/a").header("Authorization", &token);
        if fleet.one.ask(&old).status == 401 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    open.go_on(&fleet.upstream);
}

#[test]
fn a_token_without_a_session_ends_what_it_opened_at_its_exp() {
    let (key, jwk) = tokens::es256("first");
    let keys = json!({ "keys": [jwk] }).to_string();
    let fleet = fleet(move |config| {
        let file = config.beside("keys.json", &keys);
        let issuer = json!({ "issuer": "https://id.example", "audience": "shop",
            "jwks_file": file, "algorithms": ["ES256"] });
        config.set("/tokens/trusted_issuers", json!([issuer]))
    });
    let token = |lifetime: i64| -> String {
        let claims = json!({ "iss": "https://id.example", "aud": "shop", "sub": "42",
            "exp": tokens::now() + lifetime });
        let header = r#"{"alg":"ES256","kid":"first"}"#;
        let token = tokens::signed(header, &claims.to_string(), &key, Algorithm::ES256);
        format!("Bearer {token}")
    };
    let (short, long) = (token(8), token(600));
    let since = Instant::now();
    let mut ending = Open::at(&fleet, ("Authorization", &short));
    let mut staying = Open::at(&fleet, ("Authorization", &long));
    assert_eq!(
        ending.socket.close_code(Duration::from_secs(20)),
        Some(POLICY)
    );
    assert!(
        since.elapsed() > Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    assert!(ending.events.closes_within(SOON));
    ending.poll_closes();
    assert!(ending.call.ends_within(SOON));
    staying.go_on(&fleet.upstream);
}

#[test]
fn what_ended_during_an_outage_of_the_store_is_found_after_it() {
    let fleet = fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let bob = fleet.one.register("bob@example.com");
    let mut ended = Open::at(&fleet, ("Authorization", &session(&alice)));
    let mut others = Open::at(&fleet, ("Authorization", &session(&bob)));
    fleet.link.cut();
    eventually("the store is down there", || {
        (fleet.two.metric("portcullis_store_up", &[]) == 0.0).then_some(())
    });
    let end = Request::delete(&format!("/admin/users/{}/sessions", alice.user));
    fleet.one.admin(end).ok();
    // What cannot be known closes nothing.
    ended.go_on(&fleet.upstream);
    fleet.link.restore();
    eventually("the store is up again", || {
        (fleet.two.metric("portcullis_store_up", &[]) == 1.0).then_some(())
    });
    ended.close(Instant::now());
    others.go_on(&fleet.upstream);
}

/// The session as its owner sees it at a gateway.
fn live(gateway: &Gateway, who: &SignedIn) -> Value {
    let current = Request::get("/api/v1/sessions/current").bearer(&who.access_token);
    gateway.ask(&current).data()["live_connections"].clone()
}

/// The user as the admin of a gateway sees it: whether online, and with how many connections.
fn user(gateway: &Gateway, who: &SignedIn) -> (Value, Value) {
    let shown = gateway
        .admin(Request::get(&format!("/admin/users/{}", who.user)))
        .data();
    (shown["online"].clone(), shown["live_connections"].clone())
}

#[test]
fn open_answers_are_counted_fleet_wide_and_nothing_stays_behind() {
    let mut fleet = fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let open = Open::at(&fleet, ("Authorization", &session(&alice)));
    let here = Socket::open(
        fleet.one.public,
        "/private/ws",
        &[("Authorization", &session(&alice))],
    );
    for gateway in [&fleet.one, &fleet.two] {
        // The long poll counts once it is long.
        eventually("all five are counted", || {
            (live(gateway, &alice) == 5).then_some(())
        });
        assert_eq!(user(gateway, &alice), (json!(true), json!(5)));
    }
    drop(here);
    eventually("the one here is not", || {
        (live(&fleet.two, &alice) == 4).then_some(())
    });
    drop(open);
    eventually("none is", || (live(&fleet.one, &alice) == 0).then_some(()));
    // A gateway that is drained takes its report back.
    let _socket = Socket::open(
        fleet.two.public,
        "/private/ws",
        &[("Authorization", &session(&alice))],
    );
    eventually("one is", || (live(&fleet.one, &alice) == 1).then_some(()));
    fleet.two.sigterm();
    fleet.two.wait_exit();
    assert_eq!(live(&fleet.one, &alice), 0);
}

#[test]
fn a_gateway_that_dies_is_not_counted_for_long_and_one_that_lives_is() {
    let mut fleet = fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let session = session(&alice);
    let credential = [("Authorization", session.as_str())];
    let _kept = Socket::open(fleet.one.public, "/private/ws", &credential)
        .ok()
        .unwrap();
    let _lost = Socket::open(fleet.two.public, "/private/ws", &credential)
        .ok()
        .unwrap();
    eventually("both are counted", || {
        (live(&fleet.one, &alice) == 2).then_some(())
    });
    signal(fleet.two.pid(), "KILL");
    fleet.two.wait_exit();
    within(Duration::from_secs(35), "the dead one is forgotten", || {
        let count = live(&fleet.one, &alice);
        assert!(count == 1 || count == 2, "{count}");
        (count == 1).then_some(())
    });
}
