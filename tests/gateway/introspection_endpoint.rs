//! What backends learn from `POST introspect`: whether a token is valid, and whose it is.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api_keys::with_another_secret;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::introspection::{SCOPE, call, create_key, introspect};
use crate::support::issuer::Issuer;
use crate::support::key_calls::{ADMIN_KEYS, admin_create};
use crate::support::postgres::Postgres;
use crate::support::provider::{Endpoint, Provider};
use crate::support::redis::Redis;
use crate::support::tokens::{hs256, modified_claims, now};
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};

fn config() -> Config {
    Config::new(Upstream::start().address).set("/api_keys", json!({}))
}

fn inactive() -> Value {
    json!({ "active": false })
}

/// Members that every token has, with the dates left out.
fn undated(introspection: &Value) -> Value {
    let mut members = introspection.clone();
    let members = members.as_object_mut().unwrap();
    for date in ["exp", "iat"] {
        members.remove(date);
    }
    json!(members)
}

#[test]
fn own_tokens_and_session_tokens_are_active_with_their_user() {
    for store in [None, Some(Redis::start())] {
        let config = match &store {
            Some(redis) => config().store(&redis.url()),
            None => config(),
        };
        let gateway = Gateway::start(config);
        let key = create_key(&gateway);
        let ann = gateway.register("ann@example.com");
        let rights = json!({ "roles": ["staff", "admin"], "scopes": ["read", "write"] });
        let path = format!("/admin/users/{}", ann.user);
        gateway
            .admin(Request::new("PATCH", &path).json(&rights))
            .assert_ok();
        // Twice: the second one finds what the first has cached.
        for _ in 0..2 {
            let own = introspect(&gateway, &key, &ann.access_token);
            assert!(own["exp"].as_i64().unwrap() > now(), "{own}");
            assert!(own["iat"].as_i64().unwrap() <= now(), "{own}");
            assert!(
                own["jti"].as_str().is_some_and(|id| !id.is_empty()),
                "{own}"
            );
            let mut common = undated(&own);
            common.as_object_mut().unwrap().remove("jti");
            let expected = json!({
                "active": true, "sub": ann.user, "iss": "portcullis", "aud": "portcullis",
                "token_type": "Bearer", "scope": "read write", "email": "ann@example.com",
                "roles": ["staff", "admin"], "sid": ann.session,
            });
            assert_eq!(common, expected);
            let session = introspect(&gateway, &key, &ann.session_token);
            assert!(session["exp"].as_i64() > own["exp"].as_i64(), "{session}");
            assert!(session["iat"].as_i64().unwrap() <= now(), "{session}");
            let mut expected = expected;
            expected["token_type"] = json!("Session");
            expected.as_object_mut().unwrap().remove("aud");
            assert_eq!(undated(&session), expected);
        }
        // Its ID is the one by which the token is blacklisted.
        let own = introspect(&gateway, &key, &ann.access_token);
        let entry = json!({ "jti": own["jti"], "ttl": 60 });
        gateway
            .admin(Request::post("/admin/blacklist").json(&entry))
            .assert_ok();
        assert_eq!(introspect(&gateway, &key, &ann.access_token), inactive());
        assert_eq!(
            introspect(&gateway, &key, &ann.session_token)["active"],
            true
        );
    }
}

#[test]
fn tokens_of_other_issuers_and_keys_are_active_with_their_user() {
    let (issuer, provider) = (Issuer::new(), Provider::start());
    let mut entry = provider.introspection_settings("corp");
    entry["audience"] = json!("shop");
    let config = issuer.trusted_in(config());
    let gateway = Gateway::start(config.set("/tokens/introspection", json!([entry])));
    let key = create_key(&gateway);
    let bearer = issuer.bearer("bob", "token-1");
    let signed = introspect(&gateway, &key, bearer.strip_prefix("Bearer ").unwrap());
    assert!(signed["exp"].as_i64().unwrap() > now(), "{signed}");
    let expected = json!({
        "active": true, "sub": "bob", "iss": "https://id.example", "aud": "shop",
        "token_type": "Bearer", "jti": "token-1", "roles": [],
    });
    assert_eq!(undated(&signed), expected);
    let end = now() + 300;
    let members = json!({
        "sub": "cid", "scope": "read write", "roles": ["staff"], "email": "cid@example.com",
        "aud": ["shop"], "exp": end, "iat": now() - 1,
    });
    provider.set_token("opaque", members);
    let opaque = introspect(&gateway, &key, "opaque");
    assert_eq!(
        (&opaque["sub"], &opaque["iss"]),
        (&json!("corp:cid"), &json!(provider.issuer))
    );
    assert_eq!(
        (&opaque["exp"], &opaque["aud"]),
        (&json!(end), &json!("shop"))
    );
    assert_eq!(
        (&opaque["scope"], &opaque["roles"]),
        (&json!("read write"), &json!(["staff"]))
    );
    assert_eq!(opaque["email"], "cid@example.com");
    // It has the form of a session token, and no expiry.
    let hex = "ab".repeat(32);
    provider.set_token(&hex, json!({ "sub": "cid", "aud": "shop" }));
    let hex = introspect(&gateway, &key, &hex);
    assert_eq!((&hex["sub"], hex.get("exp")), (&json!("corp:cid"), None));
    let body = json!({
        "service": "nightly", "name": "job", "scopes": ["orders:read"], "roles": ["robot"],
        "expires_at": "2100-01-01T00:00:00Z",
    });
    let other = admin_create(&gateway, &body);
    let of_key = introspect(&gateway, &key, &other.secret);
    let expected = json!({
        "active": true, "sub": "service:nightly", "iss": "portcullis", "token_type": "Bearer",
        "jti": other.id, "scope": "orders:read", "roles": ["robot"],
    });
    assert_eq!(undated(&of_key), expected);
    assert_eq!(of_key["exp"], 4_102_444_800_u64);
    let of_itself = introspect(&gateway, &key, &key);
    assert_eq!(
        (&of_itself["scope"], of_itself.get("exp")),
        (&json!(SCOPE), None)
    );
}

#[test]
fn other_tokens_are_inactive_and_nothing_else() {
    let gateway = Gateway::start(config());
    let key = create_key(&gateway);
    let ann = gateway.register("ann@example.com");
    let vary = |changes: &Value| hs256(&modified_claims(&ann.access_token, changes));
    let ended = gateway.login("ann@example.com");
    let log_out = Request::post("/api/v1/auth/logout").bearer(&ended.access_token);
    assert_eq!(gateway.request(&log_out).status, 204);
    let revoked = admin_create(&gateway, &json!({ "service": "old", "name": "old" }));
    let revocation = gateway.admin(Request::delete(&revoked.path(ADMIN_KEYS)));
    revocation.assert_ok();
    let elsewhere = json!({ "service": "far", "name": "far", "allowed_ips": ["192.0.2.1"] });
    let elsewhere = admin_create(&gateway, &elsewhere);
    for token in [
        &vary(&json!({ "exp": now() - 60, "iat": now() - 120 })),
        &vary(&json!({ "cnf": { "x5t#S256": "A".repeat(43) } })),
        &ended.access_token,
        &ended.session_token,
        &revoked.secret,
        &elsewhere.secret,
        &with_another_secret(&key),
        &format!("{key}x"),
        &format!("{}x", ann.access_token),
        &format!("Bearer {}", ann.access_token),
        &ann.refresh_token,
        &"0".repeat(64),
        &"x".repeat(60_000),
        "pck_",
        "unknown",
        "not a token",
        " ",
        "\u{e4}",
        "a\r\nb: c",
        "\0",
    ] {
        assert_eq!(introspect(&gateway, &key, token), inactive(), "{token}");
    }
    let log = gateway.logs();
    for secret in [
        &ann.access_token,
        &ann.refresh_token,
        &ended.session_token,
        &key,
    ] {
        let (_, secret) = secret.split_at(40);
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn only_opaque_tokens_are_sent_to_their_server() {
    let provider = Provider::start();
    let entry = provider.introspection_settings("corp");
    let gateway = Gateway::start(config().set("/tokens/introspection", json!([entry])));
    let key = create_key(&gateway);
    let ann = gateway.register("ann@example.com");
    let ended = gateway.login("ann@example.com");
    let log_out = Request::post("/api/v1/auth/logout").bearer(&ended.access_token);
    assert_eq!(gateway.request(&log_out).status, 204);
    for token in [&ann.session_token, &ann.access_token, &key] {
        assert_eq!(introspect(&gateway, &key, token)["active"], true);
    }
    for token in [
        &ann.refresh_token,
        &ended.session_token,
        &ended.access_token,
        &with_another_secret(&key),
        "unknown",
        "not a token",
    ] {
        assert_eq!(introspect(&gateway, &key, token), inactive(), "{token}");
    }
    let received = provider.received(Endpoint::Introspection).into_iter();
    let sent: Vec<_> = received
        .filter_map(|seen| seen.parameter("token"))
        .collect();
    assert_eq!(sent, ["unknown"]);
    provider.stop();
    let unknown = gateway.request(&call("unseen").bearer(&key));
    unknown.assert_refused(503, "PROVIDER_UNAVAILABLE");
}

/// A gateway behind a proxy that reports the client's address.
fn start_bound(bind: &str) -> (Gateway, SignedIn, String) {
    let config = config()
        .set("/listeners/0/trusted_proxies", json!(["127.0.0.1"]))
        .set("/sessions/bind", json!({ "ip": bind }));
    let gateway = Gateway::start(config);
    let key = create_key(&gateway);
    let ann = gateway.register("ann@example.com");
    (gateway, ann, key)
}

#[test]
fn tokens_of_other_clients_follow_their_binding_without_an_event() {
    for (bind, is_active) in [("warn", true), ("deny", false)] {
        let (gateway, ann, key) = start_bound(bind);
        let unknown = with_another_secret(&key);
        let from = |address: &str, token: &str| {
            let request = call(token).bearer(&key).header("X-Forwarded-For", address);
            gateway.request(&request).assert_ok().json()["active"] == true
        };
        for token in [&ann.access_token, &ann.session_token] {
            assert!(from("127.0.0.1", token), "{bind}");
            assert_eq!(from("192.0.2.7", token), is_active, "{bind}");
        }
        assert!(!from("192.0.2.7", &unknown));
        // The client of the call is not the one that presented the token. One that is has an event.
        let stolen = Request::get("/private/a").bearer(&ann.access_token);
        gateway.request(&stolen.header("X-Forwarded-For", "192.0.2.9"));
        let log = gateway.wait_for_log("binding_mismatch");
        assert_eq!(log.matches("binding_mismatch").count(), 1, "{log}");
        assert_eq!(log.matches("api_key_refused").count(), 0, "{log}");
    }
}

#[test]
fn ends_are_known_to_every_gateway_within_a_second() {
    let (redis, server) = (Redis::start(), Postgres::server());
    let database = server.database();
    let start = || {
        let config = config().store(&redis.url());
        Gateway::start(config.postgres(server.address, &database))
    };
    let [one, two] = [start(), start()];
    let caller = json!({ "service": "billing", "name": "backend", "scopes": [SCOPE] });
    let caller = admin_create(&one, &caller);
    let key = &caller.secret;
    let ann = one.register("ann@example.com");
    let all = one.login("ann@example.com");
    let subject = admin_create(&one, &json!({ "service": "nightly", "name": "job" }));
    let is_active = |token: &str| introspect(&two, key, token)["active"] == true;
    let tokens = [
        &ann.access_token,
        &ann.session_token,
        &subject.secret,
        &all.access_token,
    ];
    for token in tokens {
        for _ in 0..3 {
            assert!(is_active(token));
        }
    }
    let await_end = |token: &str| {
        within(PROPAGATION_DEADLINE, "the token is inactive", || {
            (!is_active(token)).then_some(())
        });
    };
    let path = format!("/admin/sessions/{}", ann.session);
    one.admin(Request::delete(&path)).assert_ok();
    await_end(&ann.access_token);
    await_end(&ann.session_token);
    assert!(is_active(&all.access_token));
    one.admin(Request::delete(&subject.path(ADMIN_KEYS)))
        .assert_ok();
    await_end(&subject.secret);
    let everywhere = Request::post("/api/v1/auth/logout-all").bearer(&all.access_token);
    one.request(&everywhere).assert_ok();
    await_end(&all.access_token);
    // The caller's key itself.
    one.admin(Request::delete(&caller.path(ADMIN_KEYS)))
        .assert_ok();
    within(PROPAGATION_DEADLINE, "the key ends", || {
        let response = two.request(&call("a").bearer(key));
        (response.status != 200).then(|| response.assert_refused(401, "TOKEN_REVOKED").status)
    });
    let secret = subject.secret.split_at(40).1;
    assert!(!redis.dump().contains(secret));
}

#[test]
fn outage_of_the_store_is_unknown() {
    let mut redis = Redis::start();
    let config = config().store(&redis.url());
    let gateway = Gateway::start(config.set("/store/timeout", json!("300ms")));
    let key = create_key(&gateway);
    let ann = gateway.register("ann@example.com");
    for token in [&ann.access_token, &ann.session_token] {
        assert_eq!(introspect(&gateway, &key, token)["active"], true);
    }
    redis.kill();
    for token in [&ann.access_token, &ann.session_token] {
        within(Duration::from_secs(15), "the outage is noticed", || {
            let response = gateway.request(&call(token).bearer(&key));
            assert!(
                !response.text().contains(r#""active":false"#),
                "{}",
                response.text()
            );
            let is_unknown = response.status != 200;
            is_unknown.then(|| response.assert_refused(503, "STORE_UNAVAILABLE").status)
        });
    }
    // What needs no store is known, and the key continues by its row.
    assert_eq!(introspect(&gateway, &key, &ann.refresh_token), inactive());
    assert_eq!(introspect(&gateway, &key, "not a token"), inactive());
    assert_eq!(introspect(&gateway, &key, &key)["active"], true);
    redis.restart();
    eventually("the store is back", || {
        let response = gateway.request(&call("unknown").bearer(&key));
        (response.status == 200).then_some(())
    });
}
