//! Open streams: each type is closed within a second when its session ends or its token is revoked,
//! on whatever gateway that happens, and they are counted fleet-wide.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn, signal};
use crate::support::open_streams::{OpenStreams, start_fleet};
use crate::support::tokens;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

/// The session itself, as a program without cookies shows it.
fn session(user: &SignedIn) -> String {
    format!("Session {}", user.session_token)
}

fn bearer(user: &SignedIn) -> String {
    format!("Bearer {}", user.access_token)
}

#[test]
fn ended_session_closes_all_of_its_streams() {
    let fleet = start_fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let bob = fleet.one.register("bob@example.com");
    let mut sessions = OpenStreams::open_on(&fleet, ("Authorization", &session(&alice)));
    let mut tokens = OpenStreams::open_on(&fleet, ("Authorization", &bearer(&alice)));
    let mut others = OpenStreams::open_on(&fleet, ("Authorization", &session(&bob)));
    let since = Instant::now();
    let end = Request::delete(&format!("/admin/users/{}/sessions", alice.user));
    fleet.one.admin(end).assert_ok();
    sessions.await_closed(since);
    tokens.await_closed(since);
    others.assert_still_open(&fleet.upstream);
    let lag = "portcullis_revocation_lag_seconds_count";
    eventually("the lag is observed", || {
        (fleet.two.metric(lag, &[]) >= 1.0).then_some(())
    });
    // On the gateway that receives the request.
    let since = Instant::now();
    let logout = Request::post("/api/v1/auth/logout").bearer(&bob.access_token);
    assert_eq!(fleet.two.request(&logout).status, 204);
    others.await_closed(since);
    eventually("nothing is left", || {
        (fleet.two.metric("portcullis_live_connections", &[]) == 0.0).then_some(())
    });
}

#[test]
fn blacklisted_token_closes_its_streams() {
    let fleet = start_fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let mut tokens = OpenStreams::open_on(&fleet, ("Authorization", &bearer(&alice)));
    let mut sessions = OpenStreams::open_on(&fleet, ("Authorization", &session(&alice)));
    let id = tokens::claims(&alice.access_token)["jti"]
        .as_str()
        .unwrap()
        .to_owned();
    let since = Instant::now();
    let key = format!("portcullis:blacklist:{id}");
    assert_eq!(fleet.redis.command(&["SET", &key, "1", "EX", "60"]), "OK");
    tokens.await_closed(since);
    // The session itself lives.
    sessions.assert_still_open(&fleet.upstream);
}

#[test]
fn disabled_evicted_or_expired_sessions_close_streams() {
    let fleet = start_fleet(|config| {
        config
            .set("/sessions/max_per_user", json!(1))
            .set("/sessions/ttl", json!("10s"))
            .set("/sessions/idle_timeout", json!(null))
    });
    let alice = fleet.one.register("alice@example.com");
    let mut evicted = OpenStreams::open_on(&fleet, ("Authorization", &session(&alice)));
    let since = Instant::now();
    let alice = fleet.one.login("alice@example.com");
    evicted.await_closed(since);
    let mut disabled = OpenStreams::open_on(&fleet, ("Authorization", &session(&alice)));
    let since = Instant::now();
    let disable = Request::new("PATCH", &format!("/admin/users/{}", alice.user));
    fleet
        .one
        .admin(disable.json(&json!({ "disabled": true })))
        .assert_ok();
    disabled.await_closed(since);
    let since = Instant::now();
    let bob = fleet.one.register("bob@example.com");
    let mut expiring = OpenStreams::open_on(&fleet, ("Authorization", &session(&bob)));
    expiring.assert_still_open(&fleet.upstream);
    assert_eq!(
        expiring.socket.close_code(Duration::from_secs(20)),
        Some(POLICY_VIOLATION)
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
    expiring.events.closes_within(PROPAGATION_DEADLINE);
    expiring.await_poll_closed();
    assert!(expiring.call.ends_within(PROPAGATION_DEADLINE));
}

#[test]
fn refresh_and_token_expiry_close_no_stream() {
    let fleet = start_fleet(|config| config.set("/tokens/access_ttl", json!("6s")));
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let register = Request::post("/api/v1/auth/register").json(&body);
    let data = fleet.one.request(&register).data();
    let token = format!("Bearer {}", data["access_token"].as_str().unwrap());
    let mut open = OpenStreams::open_on(&fleet, ("Authorization", &token));
    let since = Instant::now();
    let refresh = json!({ "refresh_token": data["refresh_token"] });
    fleet
        .one
        .request(&Request::post("/api/v1/auth/refresh").json(&refresh))
        .assert_ok();
    open.assert_still_open(&fleet.upstream);
    while since.elapsed() < Duration::from_secs(20) {
        let old = Request::get("/private/a").header("Authorization", &token);
        if fleet.one.request(&old).status == 401 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    open.assert_still_open(&fleet.upstream);
}

#[test]
fn sessionless_token_closes_its_streams_at_expiry() {
    let (key, jwk) = tokens::es256("first");
    let keys = json!({ "keys": [jwk] }).to_string();
    let fleet = start_fleet(move |config| {
        let file = config.write_beside("keys.json", &keys);
        let issuer = json!({ "issuer": "https://id.example", "audience": "shop",
            "jwks_file": file, "algorithms": ["ES256"] });
        config.set("/tokens/trusted_issuers", json!([issuer]))
    });
    let token = |lifetime: i64| -> String {
        let claims = json!({ "iss": "https://id.example", "aud": "shop", "sub": "42",
            "exp": tokens::now() + lifetime });
        let header = r#"{"alg":"ES256","kid":"first"}"#;
        let token = tokens::sign_with_key(header, &claims.to_string(), &key, Algorithm::ES256);
        format!("Bearer {token}")
    };
    let (short, long) = (token(8), token(600));
    let since = Instant::now();
    let mut ending = OpenStreams::open_on(&fleet, ("Authorization", &short));
    let mut staying = OpenStreams::open_on(&fleet, ("Authorization", &long));
    assert_eq!(
        ending.socket.close_code(Duration::from_secs(20)),
        Some(POLICY_VIOLATION)
    );
    assert!(
        since.elapsed() > Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    assert!(ending.events.closes_within(PROPAGATION_DEADLINE));
    ending.await_poll_closed();
    assert!(ending.call.ends_within(PROPAGATION_DEADLINE));
    staying.assert_still_open(&fleet.upstream);
}

#[test]
fn sessions_ended_during_outage_close_streams_afterwards() {
    let fleet = start_fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let bob = fleet.one.register("bob@example.com");
    let mut ended = OpenStreams::open_on(&fleet, ("Authorization", &session(&alice)));
    let mut others = OpenStreams::open_on(&fleet, ("Authorization", &session(&bob)));
    fleet.link.cut();
    eventually("the store is down there", || {
        (fleet.two.metric("portcullis_store_up", &[]) == 0.0).then_some(())
    });
    let end = Request::delete(&format!("/admin/users/{}/sessions", alice.user));
    fleet.one.admin(end).assert_ok();
    // What cannot be known closes nothing.
    ended.assert_still_open(&fleet.upstream);
    fleet.link.restore();
    eventually("the store is up again", || {
        (fleet.two.metric("portcullis_store_up", &[]) == 1.0).then_some(())
    });
    ended.await_closed(Instant::now());
    others.assert_still_open(&fleet.upstream);
}

/// The session as its owner sees it at a gateway.
fn live_connections(gateway: &Gateway, user: &SignedIn) -> Value {
    let current = Request::get("/api/v1/sessions/current").bearer(&user.access_token);
    gateway.request(&current).data()["live_connections"].clone()
}

/// The user as the admin of a gateway sees it: whether online, and with how many connections.
fn online_and_connections(gateway: &Gateway, caller: &SignedIn) -> (Value, Value) {
    let shown = gateway
        .admin(Request::get(&format!("/admin/users/{}", caller.user)))
        .data();
    (shown["online"].clone(), shown["live_connections"].clone())
}

#[test]
fn open_streams_are_counted_across_the_fleet() {
    let mut fleet = start_fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let open = OpenStreams::open_on(&fleet, ("Authorization", &session(&alice)));
    let here = WebSocketClient::open(
        fleet.one.public,
        "/private/ws",
        &[("Authorization", &session(&alice))],
    );
    for gateway in [&fleet.one, &fleet.two] {
        // The long poll counts once it is long.
        eventually("all five are counted", || {
            (live_connections(gateway, &alice) == 5).then_some(())
        });
        assert_eq!(
            online_and_connections(gateway, &alice),
            (json!(true), json!(5))
        );
    }
    drop(here);
    eventually("the one here is not", || {
        (live_connections(&fleet.two, &alice) == 4).then_some(())
    });
    drop(open);
    eventually("none is", || {
        (live_connections(&fleet.one, &alice) == 0).then_some(())
    });
    // A gateway that is drained takes its report back.
    let _socket = WebSocketClient::open(
        fleet.two.public,
        "/private/ws",
        &[("Authorization", &session(&alice))],
    );
    eventually("one is", || {
        (live_connections(&fleet.one, &alice) == 1).then_some(())
    });
    fleet.two.sigterm();
    fleet.two.wait_exit();
    assert_eq!(live_connections(&fleet.one, &alice), 0);
}

#[test]
fn dead_gateway_leaves_the_open_stream_count() {
    let mut fleet = start_fleet(|config| config);
    let alice = fleet.one.register("alice@example.com");
    let session = session(&alice);
    let credential = [("Authorization", session.as_str())];
    let _kept = WebSocketClient::open(fleet.one.public, "/private/ws", &credential)
        .ok()
        .unwrap();
    let _lost = WebSocketClient::open(fleet.two.public, "/private/ws", &credential)
        .ok()
        .unwrap();
    eventually("both are counted", || {
        (live_connections(&fleet.one, &alice) == 2).then_some(())
    });
    signal(fleet.two.pid(), "KILL");
    fleet.two.wait_exit();
    within(Duration::from_secs(35), "the dead one is forgotten", || {
        let count = live_connections(&fleet.one, &alice);
        assert!(count == 1 || count == 2, "{count}");
        (count == 1).then_some(())
    });
}
