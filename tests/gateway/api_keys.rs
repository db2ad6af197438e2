//! API keys: what they permit, and what becomes of all others.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::api_keys::{KeyOperator, ShownKey, with_another_secret};
use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

/// A gateway that takes keys in `X-API-Key` too.
struct Fixture {
    gateway: Gateway,
    operator: KeyOperator,
    _upstream: Upstream,
}

fn start(vary: impl FnOnce(Config) -> Config) -> Fixture {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/api_keys", json!({ "header": "X-API-Key" }));
    let gateway = Gateway::start(vary(config));
    Fixture {
        operator: KeyOperator::of(&gateway.config),
        gateway,
        _upstream: upstream,
    }
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Fixture {
    fn request(&self, key: &str) -> Response {
        self.gateway
            .request(&Request::get("/private/a").bearer(key))
    }

    fn service_key(&self) -> ShownKey {
        self.operator.create("service:billing", |_| {})
    }
}

#[test]
fn key_passes_in_either_header_and_reaches_no_upstream() {
    let fixture = start(|config| {
        config
            .route(json!({
                "name": "robots", "match": { "prefix": "/robots" }, "auth": "required",
                "upstream": "echo", "require": { "roles": ["robot"], "scopes": ["read"] },
            }))
            .route(json!({
                "name": "forwarding", "match": { "prefix": "/forwarding" }, "auth": "required",
                "upstream": "echo", "forward_credentials": true,
            }))
    });
    let key = fixture.operator.create("service:billing", |new| {
        new.roles = list(&["robot"]);
        new.scopes = list(&["read", "write"]);
    });
    let bearer = Request::get("/robots/a").bearer(&key.key);
    let header = Request::get("/robots/a").header("x-api-key", &key.key);
    // Several times: the later ones are admitted by the memo, where there is one.
    for request in [&bearer, &header].into_iter().cycle().take(8) {
        let echo = fixture.gateway.request(request).echo();
        assert_eq!(echo.header("x-user-id").as_deref(), Some("service:billing"));
        assert_eq!(echo.header("x-user-roles").as_deref(), Some("robot"));
        assert_eq!(echo.header("x-session-id"), None);
        assert!(!echo.0.to_string().contains(&key.key), "{}", echo.0);
    }
    // As a bearer token it goes where a bearer token goes, in its header nowhere.
    for (target, passes) in [
        ("/forwarding/a", true),
        ("/public/a", true),
        ("/optional/a", false),
    ] {
        let bearer = Request::get(target).bearer(&key.key);
        let echo = fixture.gateway.request(&bearer).echo();
        let forwarded = echo.header("authorization");
        assert_eq!(forwarded.is_some(), passes, "{target}: {}", echo.0);
        let header = Request::get(target)
            .header("x-api-key", &key.key)
            .header("X.Api.Key", "look-alike");
        let echo = fixture.gateway.request(&header).echo();
        assert!(
            !echo.0.to_string().contains(&key.key),
            "{target}: {}",
            echo.0
        );
        assert!(!echo.0.to_string().contains("look-alike"), "{}", echo.0);
    }
    // It has what it was given, and nothing else.
    let plain = fixture.service_key();
    let refused = fixture
        .gateway
        .request(&Request::get("/robots/a").bearer(&plain.key));
    assert_eq!(refused.status, 403);
    fixture.request(&plain.key).assert_ok();
}

#[test]
fn wrong_keys_are_all_alike() {
    let fixture = start(|config| config);
    let key = fixture.service_key();
    fixture.request(&key.key).assert_ok();
    let wrong = with_another_secret(&key.key);
    let unknown = wrong.replace(key.id.as_str(), "0000000000000000");
    let unknown = with_another_secret(&unknown);
    let mut malformed = key.key.clone();
    let last = malformed.pop().unwrap();
    malformed.push(if last == 'a' { 'b' } else { 'a' });
    let short = key.key.split_at(40).0.to_owned();
    let all = [&wrong, &unknown, &malformed, &short, &"pck_".to_owned()];
    for key in all {
        for request in [
            Request::get("/private/a").bearer(key),
            Request::get("/private/a").header("x-api-key", key),
            Request::get("/optional/a").header("x-api-key", key),
        ] {
            let started = Instant::now();
            let response = fixture.gateway.request(&request);
            response.assert_refused(401, "TOKEN_INVALID");
            assert!(started.elapsed() >= Duration::from_millis(50), "{key}");
        }
    }
    for header in ["", " ", "Bearer pck_", "é"] {
        let request = Request::get("/private/a").header("x-api-key", header);
        let response = fixture.gateway.request(&request);
        response.assert_refused(401, "TOKEN_INVALID");
    }
    // The holder of the secret learns more.
    assert!(fixture.operator.revoke(&key));
    let revoked = fixture.service_key();
    fixture.operator.revoke(&revoked);
    fixture
        .request(&revoked.key)
        .assert_refused(401, "TOKEN_REVOKED");
    let wrong = with_another_secret(&revoked.key);
    fixture.request(&wrong).assert_refused(401, "TOKEN_INVALID");
    let logs = fixture.gateway.wait_for_log("api_key_refused");
    for secret in all
        .into_iter()
        .chain([&key.key, &revoked.key])
        .filter(|key| key.len() > 60)
    {
        let secret = secret.split_at(40).1;
        assert!(!logs.contains(secret), "a secret is in the log");
    }
}

#[test]
fn key_ends_by_its_rules() {
    let fixture = start(|config| config.set("/listeners/0/trusted_proxies", json!(["127.0.0.1"])));
    let office = fixture.operator.create("service:billing", |new| {
        new.allowed_ips = vec![
            "192.0.2.0/24".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ];
    });
    let from = |address: &str| {
        let request = Request::get("/private/a").bearer(&office.key);
        fixture
            .gateway
            .request(&request.header("x-forwarded-for", address))
    };
    for _ in 0..3 {
        from("192.0.2.7").assert_ok();
        from("2001:db8::7").assert_ok();
        from("::ffff:192.0.2.7").assert_ok();
        from("192.0.3.7").assert_refused(403, "FORBIDDEN");
        fixture
            .request(&office.key)
            .assert_refused(403, "FORBIDDEN");
    }
    // No other peer decides where a request comes from.
    let untrusting = start(|config| config);
    let office = untrusting.operator.create("service:billing", |new| {
        new.allowed_ips = vec!["192.0.2.0/24".parse().unwrap()];
    });
    let claimed = Request::get("/private/a").header("x-forwarded-for", "192.0.2.7");
    let response = untrusting.gateway.request(&claimed.bearer(&office.key));
    response.assert_refused(403, "FORBIDDEN");
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let short = fixture.operator.create("service:billing", |new| {
        new.expires_at = Some(u64::try_from(now).unwrap() + 1_500);
    });
    fixture.request(&short.key).assert_ok();
    eventually("the key expires", || {
        let response = fixture.request(&short.key);
        (response.status != 200).then(|| {
            response.assert_refused(401, "TOKEN_EXPIRED");
        })
    });
}

#[test]
fn key_is_read_from_its_headers_alone() {
    let fixture = start(|config| config);
    let key = fixture.service_key().key;
    let get = || Request::get("/private/a");
    let basic = |pair: String| {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        get().header("authorization", &format!("Basic {encoded}"))
    };
    for request in [
        Request::get(&format!("/private/a?api_key={key}&access_token={key}")),
        get().cookie(&format!("X-API-Key={key}")),
        get().header("x-apikey", &key),
        get().header("api-key", &key),
        get().header("authorization", &key),
        get().header("authorization", &format!("ApiKey {key}")),
        basic(format!(":{key}")),
        basic(format!("{key}:")),
    ] {
        let response = fixture.gateway.request(&request);
        response.assert_refused(401, "UNAUTHENTICATED");
    }
    for request in [
        get().cookie(&format!("portcullis={key}")),
        get().header("authorization", &format!("Session {key}")),
    ] {
        let response = fixture.gateway.request(&request);
        assert_eq!(response.status, 401, "{}", response.text());
    }
}

#[test]
fn addresses_apply_to_open_streams() {
    let fixture = start(|config| config);
    let (key, other) = (fixture.service_key(), fixture.service_key());
    let open = |key: &ShownKey| {
        let authorization = format!("Bearer {}", key.key);
        let headers = [("authorization", authorization.as_str())];
        let to = fixture.gateway.public;
        let mut socket = WebSocketClient::open(to, "/private/ws", &headers)
            .ok()
            .unwrap();
        assert_eq!(socket.echo("hello"), "hello");
        socket
    };
    let (mut closed, mut kept) = (open(&key), open(&other));
    for (key, addresses) in [(&key, "192.0.2.0/24"), (&other, "127.0.0.0/8")] {
        let path = format!("/admin/api-keys/{}", key.id);
        let change = Request::new("PATCH", &path).json(&json!({ "allowed_ips": [addresses] }));
        fixture.gateway.admin(change).assert_ok();
    }
    fixture.request(&key.key).assert_refused(403, "FORBIDDEN");
    let code = closed.close_code(PROPAGATION_DEADLINE);
    assert_eq!(code, Some(POLICY_VIOLATION));
    assert_eq!(kept.echo("still"), "still");
}

/// A client that takes the key for its ID.
#[test]
fn secret_in_a_path_is_not_logged() {
    let fixture = start(|config| config);
    let key = fixture.service_key();
    let path = format!("/public/{}/rotate", key.key);
    fixture.gateway.get(&path).assert_ok();
    let (start, secret) = key.key.split_at("pck_0123456789abcdef_".len());
    let logs = fixture
        .gateway
        .wait_for_log(&format!("/public/{start}.../rotate"));
    assert!(!logs.contains(secret), "the secret is in the log");
}

#[test]
fn two_credentials_are_ambiguous() {
    let fixture = start(|config| config);
    let key = fixture.service_key();
    let ann = fixture.gateway.register("ann@example.com");
    let get = || Request::get("/private/a");
    for request in [
        get().bearer(&key.key).header("x-api-key", &key.key),
        get()
            .bearer(&ann.access_token)
            .header("x-api-key", &key.key),
        get()
            .header("authorization", &format!("Session {}", ann.session_token))
            .header("x-api-key", &key.key),
        get()
            .header("x-api-key", &key.key)
            .header("x-api-key", &key.key),
        get().bearer(&key.key).bearer(&key.key),
        get().bearer(&ann.access_token).header("x-api-key", ""),
    ] {
        // Also once each of them is known.
        for _ in 0..3 {
            fixture.request(&key.key).assert_ok();
            let known = get().bearer(&ann.access_token);
            fixture.gateway.request(&known).assert_ok();
            let response = fixture.gateway.request(&request);
            response.assert_refused(400, "AMBIGUOUS_CREDENTIALS");
        }
    }
    // A cookie comes after a key, and another scheme is no credential of the gateway.
    for request in [
        get().header("x-api-key", &key.key).cookie(&ann.cookie),
        get().bearer(&key.key).cookie(&ann.cookie),
        get()
            .header("x-api-key", &key.key)
            .header("authorization", "Basic YTpi"),
    ] {
        let echo = fixture.gateway.request(&request).echo();
        assert_eq!(echo.header("x-user-id").as_deref(), Some("service:billing"));
    }
    let bad = get().header("x-api-key", "pck_x").cookie(&ann.cookie);
    fixture
        .gateway
        .request(&bad)
        .assert_refused(401, "TOKEN_INVALID");
}

#[test]
fn key_has_what_its_owner_has_and_changes_nothing() {
    let fixture = start(|config| config);
    let ann = fixture.gateway.register("ann@example.com");
    let patch = |body| {
        let request = Request::new("PATCH", &format!("/admin/users/{}", ann.user)).json(&body);
        fixture.gateway.admin(request).assert_ok();
    };
    patch(json!({ "roles": ["editor", "admin"] }));
    let key = fixture
        .operator
        .create(&ann.user, |new| new.roles = list(&["editor", "root"]));
    let roles = || fixture.request(&key.key).echo().header("x-user-roles");
    assert_eq!(roles().as_deref(), Some("editor"));
    patch(json!({ "roles": ["root"] }));
    assert_eq!(roles().as_deref(), Some("root"));
    patch(json!({ "roles": [] }));
    assert_eq!(roles().unwrap_or_default(), "");
    let calls = [
        ("POST", "auth/logout"),
        ("POST", "auth/logout-all"),
        ("DELETE", "sessions"),
        ("PATCH", "sessions/current"),
        ("POST", "sessions/current/extend"),
        ("PUT", "profile"),
        ("PUT", "profile/password"),
        ("DELETE", "profile/avatar"),
    ];
    let as_key = |method, path: &str| {
        let request = Request::new(method, &format!("/api/v1/{path}")).bearer(&key.key);
        fixture
            .gateway
            .request(&request.json(&json!({ "name": "Eve" })))
    };
    for (method, path) in calls {
        as_key(method, path).assert_refused(403, "FORBIDDEN");
    }
    let profile = as_key("GET", "profile").data();
    assert_eq!(profile["email"], "ann@example.com");
    assert_eq!(as_key("GET", "sessions").data()["count"], 1);
    // Neither of these ends a key.
    let own = Request::post("/api/v1/auth/logout-all").bearer(&ann.access_token);
    fixture.gateway.request(&own).assert_ok();
    fixture.request(&key.key).assert_ok();
    patch(json!({ "password": "another good one" }));
    fixture.request(&key.key).assert_ok();
    patch(json!({ "disabled": true }));
    fixture
        .request(&key.key)
        .assert_refused(401, "TOKEN_REVOKED");
    patch(json!({ "disabled": false }));
    fixture.request(&key.key).assert_ok();
    let delete = Request::delete(&format!("/admin/users/{}", ann.user));
    assert_eq!(fixture.gateway.admin(delete).status, 204);
    fixture
        .request(&key.key)
        .assert_refused(401, "TOKEN_REVOKED");
}

#[test]
fn limits_count_each_key_and_follow_its_roles() {
    let limit = |roles: &[&str], most| json!({ "algorithm": "sliding_log", "limit": most, "window": "10m", "key": "token", "roles": roles });
    let fixture = start(|config| {
        config
            .limit("free", limit(&["free"], 2))
            .limit("paid", limit(&["paid"], 4))
    });
    let create = |role| {
        let roles = list(&[role]);
        fixture
            .operator
            .create("service:billing", |new| new.roles = roles)
    };
    for (role, most) in [("free", 2), ("free", 2), ("paid", 4)] {
        let key = create(role);
        // A wrong secret spends nothing of it.
        for _ in 0..3 {
            let wrong = with_another_secret(&key.key);
            fixture.request(&wrong).assert_refused(401, "TOKEN_INVALID");
        }
        for request in 0..most {
            let response = fixture.request(&key.key);
            response.assert_ok();
            let remaining = response.numeric_header("x-ratelimit-remaining");
            assert_eq!(remaining, most - 1 - request, "{role}");
        }
        fixture
            .request(&key.key)
            .assert_refused(429, "RATE_LIMITED");
        let wrong = with_another_secret(&key.key);
        fixture.request(&wrong).assert_refused(401, "TOKEN_INVALID");
    }
}

#[test]
fn uses_are_recorded_and_reported() {
    let fixture = start(|config| config);
    let key = fixture.service_key();
    for _ in 0..3 {
        fixture.request(&key.key).assert_ok();
    }
    let used = eventually("the uses are written", || {
        let read = fixture.operator.get(&key);
        (read.request_count == 3).then_some(read)
    });
    assert!(used.last_used_at.is_some());
    assert_eq!(used.last_used_ip, Some("127.0.0.1".parse().unwrap()));
    eventually("the active keys are counted", || {
        let active = fixture.gateway.metric("portcullis_api_keys_active", &[]);
        (active == 1.0).then_some(())
    });
    fixture
        .request(&with_another_secret(&key.key))
        .assert_refused(401, "TOKEN_INVALID");
    let outcome = ["outcome=\"token_invalid\""];
    assert!(fixture.gateway.metric("portcullis_auth_total", &outcome) >= 1.0);
    let find = |wanted: &dyn Fn(&serde_json::Value) -> bool| {
        eventually("the line is written", || {
            fixture
                .gateway
                .events()
                .into_iter()
                .find(|line| wanted(line))
        })
    };
    let access = find(&|line| line["kind"] == "access" && line["status"] == 200);
    assert_eq!(access["api_key_id"], key.id.as_str());
    assert_eq!(access["user_id"], "service:billing");
    assert_eq!(access["credential"], "api_key");
    assert_eq!(access.get("session_id"), None);
    let refused = find(&|line| line["event"] == "api_key_refused");
    assert_eq!(refused["client_ip"], "127.0.0.1");
    assert_eq!(refused.get("api_key_id"), None);
    let listed = eventually("the event is in the journal", || {
        let listed = fixture.gateway.admin(Request::get("/admin/events"));
        listed.text().contains("api_key_refused").then_some(listed)
    });
    listed.assert_ok();
}
