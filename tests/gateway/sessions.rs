//! The sessions of a user: listed, ended, replaced, and guarded against other sites.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn};
use crate::support::http2::Http2;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

fn gateway() -> Gateway {
    Gateway::start(Config::new(Upstream::start().address))
}

fn sessions(gateway: &Gateway, user: &SignedIn, query: &str) -> Value {
    let request = Request::get(&format!("/api/v1/sessions{query}")).bearer(&user.access_token);
    gateway.request(&request).assert_ok().data()
}

#[test]
fn users_list_only_their_own_sessions() {
    let gateway = gateway();
    let first = gateway.register("alice@example.com");
    let second = gateway.login("alice@example.com");
    gateway.register("bob@example.com");
    let list = sessions(&gateway, &second, "");
    assert_eq!(list["count"], 2);
    let ids: Vec<_> = list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["id"].clone())
        .collect();
    assert_eq!(ids, [json!(second.session), json!(first.session)]);
    let current = &list["sessions"][0];
    assert_eq!(current["current"], true);
    assert_eq!(current["is_active"], true);
    assert_eq!(current["user_id"], json!(second.user));
    assert_eq!(current["ip_address"], "127.0.0.1");
    assert!(
        !list.to_string().contains(&second.session_token),
        "the secret is never listed"
    );
    let page = sessions(&gateway, &second, "?limit=1");
    assert_eq!(
        (
            page["count"].clone(),
            page["sessions"].as_array().unwrap().len()
        ),
        (json!(2), 1)
    );
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = sessions(&gateway, &second, &format!("?limit=1&cursor={cursor}"));
    assert_eq!(rest["sessions"][0]["id"], json!(first.session));
}

#[test]
fn ending_one_session_leaves_the_others() {
    let gateway = gateway();
    let first = gateway.register("alice@example.com");
    let second = gateway.login("alice@example.com");
    let bob = gateway.register("bob@example.com");
    let end = |user: &SignedIn, id: &str| {
        gateway
            .request(&Request::delete(&format!("/api/v1/sessions/{id}")).bearer(&user.access_token))
    };
    end(&bob, &first.session).assert_refused(404, "NOT_FOUND");
    end(&bob, "nonsense").assert_refused(404, "NOT_FOUND");
    assert!(gateway.accepts(&first));
    assert_eq!(end(&second, &first.session).status, 204);
    assert!(!gateway.accepts(&first));
    assert!(gateway.accepts(&second) && gateway.accepts(&bob));
    assert_eq!(sessions(&gateway, &second, "?status=revoked")["count"], 1);
    assert_eq!(sessions(&gateway, &second, "?status=all")["count"], 2);
}

#[test]
fn ending_other_sessions_keeps_the_current() {
    let gateway = gateway();
    let first = gateway.register("alice@example.com");
    let second = gateway.login("alice@example.com");
    let third = gateway.login("alice@example.com");
    let request = Request::delete("/api/v1/sessions").bearer(&second.access_token);
    assert_eq!(gateway.request(&request).assert_ok().data()["revoked"], 2);
    assert!(gateway.accepts(&second));
    assert!(!gateway.accepts(&first) && !gateway.accepts(&third));
}

#[test]
fn logout_clears_the_cookie_and_is_idempotent() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let logout = Request::post("/api/v1/auth/logout")
        .cookie(&alice.cookie)
        .same_origin();
    for _ in 0..2 {
        let response = gateway.request(&logout);
        assert_eq!(response.status, 204, "{}", response.text());
        let cleared = response.all("set-cookie");
        assert!(
            cleared.iter().any(|c| c.starts_with("portcullis=;")),
            "{cleared:?}"
        );
        assert!(
            cleared
                .iter()
                .all(|c| c.contains("Max-Age=0") && c.contains("Path=/")),
            "{cleared:?}"
        );
    }
    assert!(!gateway.accepts(&alice));
    let bearer = gateway.request(&Request::get("/private/a").bearer(&alice.access_token));
    assert_eq!(bearer.status, 401, "the access token ends with it");
}

#[test]
fn session_limit_evicts_oldest_or_refuses_new() {
    let capped = |on_limit: &str| {
        let upstream = Upstream::start();
        Gateway::start(
            Config::new(upstream.address)
                .set("/sessions/max_per_user", json!(2))
                .set("/sessions/on_limit", json!(on_limit)),
        )
    };
    let gateway = capped("evict_oldest");
    let first = gateway.register("alice@example.com");
    let second = gateway.login("alice@example.com");
    let third = gateway.login("alice@example.com");
    assert!(!gateway.accepts(&first));
    assert!(gateway.accepts(&second) && gateway.accepts(&third));
    assert_eq!(sessions(&gateway, &third, "")["count"], 2);

    let gateway = capped("reject");
    let first = gateway.register("alice@example.com");
    gateway.login("alice@example.com");
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let third = gateway.request(&Request::post("/api/v1/auth/login").json(&body));
    third.assert_refused(429, "SESSION_LIMIT_REACHED");
    assert!(gateway.accepts(&first));
}

#[test]
fn cross_site_call_changes_nothing() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set(
        "/api",
        json!({ "allowed_origins": ["https://app.example"] }),
    );
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    let other = gateway.login("alice@example.com");
    let delete = || {
        Request::delete(&format!("/api/v1/sessions/{}", other.session))
            .header("Host", "shop.example")
            .cookie(&alice.cookie)
    };
    let foreign = [
        delete(),
        delete().header("Origin", "null"),
        delete().header("Origin", "https://evil.example"),
        delete().header("Origin", "http://shop.example.evil.example"),
        delete().header("Origin", "http://shop.example:8081"),
        delete().header("Sec-Fetch-Site", "cross-site"),
        delete().header("Sec-Fetch-Site", "same-site"),
        delete()
            .header("Origin", "https://evil.example")
            .same_origin(),
    ];
    for request in foreign {
        gateway
            .request(&request)
            .assert_refused(403, "CSRF_REJECTED");
        assert!(gateway.accepts(&other));
    }
    let logout = Request::post("/api/v1/auth/logout").cookie(&alice.cookie);
    gateway
        .request(&logout.header("Origin", "https://evil.example"))
        .assert_refused(403, "CSRF_REJECTED");
    assert!(gateway.accepts(&alice));
    // Reading is the browser's affair (CORS), a bearer token is no cookie, and our own may call.
    gateway
        .request(&Request::get("/api/v1/sessions").cookie(&alice.cookie))
        .assert_ok();
    let own = delete().header("Origin", "http://shop.example");
    assert_eq!(gateway.request(&own).status, 204);
    let allowed = Request::delete("/api/v1/sessions").cookie(&alice.cookie);
    gateway
        .request(&allowed.header("Origin", "https://app.example"))
        .assert_ok();
}

#[test]
fn state_changing_endpoints_reject_get() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    for path in ["auth/login", "auth/logout", "auth/register"] {
        let response =
            gateway.request(&Request::get(&format!("/api/v1/{path}")).cookie(&alice.cookie));
        response.assert_refused(405, "METHOD_NOT_ALLOWED");
        assert!(response.header("allow").unwrap().contains("POST"), "{path}");
    }
    assert!(gateway.accepts(&alice));
}

#[test]
fn other_paths_under_the_prefix_are_routed() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "backend-api", "match": { "prefix": "/api" }, "auth": "none", "upstream": "echo",
    }));
    let gateway = Gateway::start(config);
    let echo = gateway.get("/api/v1/orders").echo();
    assert_eq!(echo.target(), "/api/v1/orders");
    gateway
        .get("/api/v1/sessions")
        .assert_refused(401, "UNAUTHENTICATED");
}

#[test]
fn redis_sessions_are_hashes_and_keys_expire() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).store(&redis.url()).limit(
        "per-user",
        json!({ "algorithm": "sliding_window", "limit": 100, "window": "1m", "key": "user" }),
    );
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    gateway
        .request(&Request::get("/private/a").cookie(&alice.cookie))
        .assert_ok();
    let keys = redis.keys();
    assert!(!keys.is_empty());
    for key in keys {
        assert!(key.starts_with("portcullis:"), "{key}");
        let ttl: i64 = redis.command(&["TTL", &key]).parse().unwrap();
        assert!(ttl > 0, "{key} has no end");
    }
    let dump = redis.dump();
    for secret in [
        &alice.session_token,
        &alice.access_token,
        &PASSWORD.to_owned(),
    ] {
        assert!(!dump.contains(secret.as_str()));
    }
    assert!(
        dump.contains(&alice.session),
        "the session is there by its id"
    );
}

#[test]
fn corrupt_session_record_is_401() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address).store(&redis.url()));
    let alice = gateway.register("alice@example.com");
    let key = redis
        .keys()
        .into_iter()
        .find(|k| k.contains(":session:") && k.contains(&alice.session))
        .expect("a session key");
    for command in [
        ["SET", &key, "{broken json"].as_slice(),
        &["DEL", &key],
        &["LPUSH", &key, "x"],
    ] {
        redis.command(command);
        let response = gateway.request(&Request::get("/private/a").cookie(&alice.cookie));
        assert!(
            [401, 503].contains(&response.status),
            "{command:?}: {}",
            response.text()
        );
    }
    let bob = gateway.register("bob@example.com");
    assert!(gateway.accepts(&bob));
}

#[test]
fn requests_after_sign_out_are_refused() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address).store(&redis.url()));
    for round in 0..5 {
        let user = gateway.register(&format!("user{round}@example.com"));
        let signed_out = AtomicBool::new(false);
        let hammer = |request: Request| {
            let mut client = Client::connect(gateway.public);
            loop {
                let over = signed_out.load(Ordering::SeqCst);
                let status = client.request(&request).status;
                if over {
                    assert_eq!(status, 401);
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| hammer(Request::get("/private/a").cookie(&user.cookie)));
            scope.spawn(|| hammer(Request::get("/private/a").bearer(&user.access_token)));
            let logout = Request::post("/api/v1/auth/logout").bearer(&user.access_token);
            assert_eq!(gateway.request(&logout).status, 204);
            signed_out.store(true, Ordering::SeqCst);
        });
    }
}

#[test]
fn query_of_thousands_of_parameters_is_refused() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    let alice = gateway.register("alice@example.com");
    let names: Vec<String> = (0..10_000).map(|index| format!("{index:x}")).collect();
    let target = format!("/api/v1/sessions?{}", names.join("&"));
    let response = gateway.request(&Request::get(&target).cookie(&alice.cookie));
    response.assert_refused(400, "VALIDATION_FAILED");
    let fields = &response.json()["error"]["fields"];
    assert_eq!(fields.as_object().unwrap().len(), 1, "{fields}");
    assert!(fields["query"].is_string(), "{fields}");
    let http2 = Http2::connect(gateway.public);
    let (status, text) = http2.request("GET", &target, &[("cookie", &alice.cookie)]);
    assert_eq!(status, 400, "{text}");
    let few = Request::get("/api/v1/sessions?limit=1&status=all&unknown=1");
    gateway.request(&few.cookie(&alice.cookie)).assert_ok();
}
