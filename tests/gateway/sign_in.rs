//! Registration and sign-in: access, responses, and the cost of guessing.

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::redis::Redis;
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

fn gateway() -> Gateway {
    Gateway::start(Config::new(Upstream::start().address))
}

#[test]
fn registration_responds_like_login() {
    let gateway = gateway();
    let body = json!({ "email": "alice@example.com", "password": PASSWORD, "name": "Alice", "role": "admin" });
    let response = gateway.request(
        &Request::post("/api/v1/auth/signup")
            .header("User-Agent", "tests/1")
            .header("X-Device-Type", "mobile")
            .header("X-Device-Name", "Alice's phone")
            .json(&body),
    );
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let data = response.data();
    assert_eq!(data["user"]["email"], "alice@example.com");
    assert_eq!(data["user"]["name"], "Alice");
    assert_eq!(
        data["user"]["roles"],
        json!([]),
        "a role in the body is not assigned"
    );
    assert_eq!(data["token_type"], "Bearer");
    assert_eq!(data["expires_in"], 900);
    assert_eq!(data["session"]["status"], "active");
    assert_eq!(
        data["session"]["device"],
        json!({ "type": "mobile", "name": "Alice's phone" })
    );
    assert_eq!(data["session"]["user_agent"], "tests/1");
    assert_eq!(
        response.header("x-session-id"),
        data["session"]["id"].as_str()
    );
    assert!(
        data.get("session_token").is_none_or(Value::is_null),
        "only when it is asked for"
    );
    let again = Request::post("/api/v1/auth/register").json(&body);
    gateway.request(&again).assert_refused(409, "USER_EXISTS");
}

#[test]
fn cookie_is_http_only_and_expires_with_session() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    assert!(alice.cookie.starts_with("portcullis="), "{}", alice.cookie);
    assert_eq!(alice.cookie, format!("portcullis={}", alice.session_token));
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=2592000"] {
        assert!(
            alice.set_cookie.contains(attribute),
            "{attribute}: {}",
            alice.set_cookie
        );
    }
}

#[test]
fn over_tls_the_cookie_has_the_host_prefix() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/sessions", json!({}));
    let certificate = tls::certificate("localhost");
    let cert = config.write_beside("site.pem", &certificate.cert);
    let key = config.write_beside("site.key", &certificate.key);
    let config = config.set(
        "/listeners/0/tls",
        json!({ "certificates": [{ "cert": cert, "key": key }] }),
    );
    let gateway = Gateway::start(config);
    let wire = tls::connect(
        gateway.public,
        "localhost",
        &tls::client(&certificate, &["http/1.1"]),
    );
    let mut client = Client::from_stream(wire.unwrap());
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let response = client.request(&Request::post("/api/v1/auth/register").json(&body));
    let cookie = response.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-portcullis="), "{cookie}");
    assert!(
        cookie.contains("Secure") && !cookie.contains("Domain"),
        "{cookie}"
    );
}

#[test]
fn sign_in_replaces_the_session_of_the_cookie() {
    let gateway = gateway();
    let old = gateway.register("alice@example.com");
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let login = Request::post("/api/v1/auth/login").json(&body);
    // Its credential is the password; what else came is not asked who it is.
    let login = login.cookie(&old.cookie).bearer("stale").same_origin();
    gateway.request(&login).assert_ok();
    let private = Request::get("/private/a").cookie(&old.cookie);
    gateway
        .request(&private)
        .assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn login_errors_are_indistinguishable() {
    let gateway = gateway();
    gateway.register("alice@example.com");
    gateway.login("alice@example.com");
    let send = |body: &Value| gateway.request(&Request::post("/api/v1/auth/login").json(body));
    let wrong = send(&json!({ "email": "alice@example.com", "password": "not the password" }));
    let unknown = send(&json!({ "email": "nobody@example.com", "password": "not the password" }));
    wrong.assert_refused(401, "INVALID_CREDENTIALS");
    unknown.assert_refused(401, "INVALID_CREDENTIALS");
    assert_eq!(
        wrong.json()["error"]["message"],
        unknown.json()["error"]["message"]
    );
    assert!(wrong.header("set-cookie").is_none() && unknown.header("set-cookie").is_none());
    let missing = send(&json!({ "email": "alice@example.com" }));
    missing.assert_refused(400, "VALIDATION_FAILED");
    assert!(
        missing.json()["error"]["fields"]
            .to_string()
            .contains("password"),
        "{}",
        missing.text()
    );
    let not_json = Request::post("/api/v1/auth/login").header("Content-Type", "application/json");
    assert_eq!(gateway.request(&not_json.body("{")).status, 400);
    let form = Request::post("/api/v1/auth/login").header("Content-Type", "text/plain");
    gateway
        .request(&form.body("{}"))
        .assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
}

#[test]
fn unknown_user_takes_as_long_as_wrong_password() {
    let gateway = gateway();
    gateway.register("alice@example.com");
    let mut took = [Vec::new(), Vec::new()];
    // Nine of each, in turn: under the limit for one account, and neither side has the warm cache.
    for _ in 0..9 {
        for (index, email) in ["alice@example.com", "nobody@example.com"]
            .iter()
            .enumerate()
        {
            let body = json!({ "email": email, "password": "not the password" });
            let start = std::time::Instant::now();
            let response = gateway.request(&Request::post("/api/v1/auth/login").json(&body));
            took[index].push(start.elapsed());
            response.assert_refused(401, "INVALID_CREDENTIALS");
        }
    }
    let [cached, unknown] = took.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    // A forgotten hash would be tenfold faster; anything near is noise here.
    assert!(
        unknown * 3 > cached && cached * 3 > unknown,
        "{cached:?} against {unknown:?}"
    );
}

#[test]
fn registration_is_disabled_by_default() {
    let config = Config::new(Upstream::start().address).set("/identity", json!({ "builtin": {} }));
    let gateway = Gateway::start(config);
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let response = gateway.request(&Request::post("/api/v1/auth/register").json(&body));
    response.assert_refused(403, "REGISTRATION_CLOSED");
}

#[test]
fn password_is_exact_and_length_is_bounded() {
    let gateway = gateway();
    let register = |email: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        gateway.request(&Request::post("/api/v1/auth/register").json(&body))
    };
    register("short@example.com", "elevenchars").assert_refused(400, "VALIDATION_FAILED");
    let odd = " leading, trailing and 🔑 ";
    assert_eq!(register("odd@example.com", odd).status, 201);
    let login = |password: &str| {
        let body = json!({ "email": "odd@example.com", "password": password });
        gateway
            .request(&Request::post("/api/v1/auth/login").json(&body))
            .status
    };
    assert_eq!(login(odd.trim()), 401);
    assert_eq!(login(odd), 200);
    assert_eq!(register("long@example.com", &"x".repeat(64)).status, 201);
    let huge = register("huge@example.com", &"x".repeat(1 << 20));
    assert!([400, 413].contains(&huge.status), "{}", huge.status);
}

#[test]
fn undelivered_session_is_ended() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let link = FaultProxy::before(redis.address);
    let config = Config::new(upstream.address).store(&format!("redis://{}", link.address));
    let gateway = Gateway::start(config.set("/store/timeout", json!("1s")));
    let ann = gateway.register("ann@example.com");
    let alive = || {
        let list = Request::get(&format!("/admin/sessions?user={}", ann.user));
        let list = gateway.admin(list);
        (list.status == 200).then(|| list.data()["count"].clone())
    };
    assert_eq!(alive(), Some(json!(1)));
    // It is part of the session's record. The record is written, and the response is lost.
    link.cut_after(b"ann@example.com");
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let login = Request::post("/api/v1/auth/login").json(&body);
    gateway
        .request(&login)
        .assert_refused(503, "STORE_UNAVAILABLE");
    let records = || {
        let keys = redis.keys();
        keys.iter().filter(|key| key.contains("session:{")).count()
    };
    eventually("the session was written", || (records() >= 2).then_some(()));
    link.restore();
    eventually("it has ended", || (alive() == Some(json!(1))).then_some(()));
    eventually("the other one goes on", || {
        gateway.accepts(&ann).then_some(())
    });
}

#[test]
fn repeated_browser_sign_in_replaces_the_session() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let again = Request::post("/api/v1/auth/login")
        .cookie(&alice.cookie)
        .same_origin()
        .json(&body);
    let response = gateway.request(&again);
    response.assert_ok();
    let fresh = response.header("set-cookie").unwrap();
    assert!(
        !fresh.starts_with(&alice.cookie),
        "a new token at each sign-in"
    );
    assert!(!gateway.accepts(&alice));
}

#[test]
fn password_guessing_is_limited_by_account_and_address() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set(
        "/identity/builtin/sign_in_limits",
        json!({
            "attempts_per_address": { "limit": 8, "window": "1m" },
            "failures_per_account": { "limit": 3, "window": "10m" },
        }),
    );
    let gateway = Gateway::start(config);
    gateway.register("alice@example.com");
    let guess = |email: &str| {
        let body = json!({ "email": email, "password": "not the password" });
        gateway.request(&Request::post("/api/v1/auth/login").json(&body))
    };
    for _ in 0..3 {
        guess("alice@example.com").assert_refused(401, "INVALID_CREDENTIALS");
    }
    let limited = guess("Alice@Example.com");
    limited.assert_refused(429, "RATE_LIMITED");
    assert!(limited.numeric_header("retry-after") > 0);
    let mut statuses: Vec<u16> = (0..6)
        .map(|n| guess(&format!("user{n}@example.com")).status)
        .collect();
    statuses.dedup();
    assert_eq!(
        statuses,
        [401, 429],
        "eight attempts of one address, whoever it tried"
    );
}
