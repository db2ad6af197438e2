//! Registering and signing in: who may, what it answers, and what guessing costs.

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::cuttable::Cuttable;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::redis::Redis;
use crate::support::tls;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

fn gateway() -> Gateway {
    Gateway::start(Config::new(Upstream::start().address))
}

#[test]
fn a_registration_answers_as_a_login_and_signs_in() {
    let gateway = gateway();
    let body = json!({ "email": "alice@example.com", "password": PASSWORD, "name": "Alice", "role": "admin" });
    let answer = gateway.ask(
        &Request::post("/api/v1/auth/signup")
            .header("User-Agent", "tests/1")
            .header("X-Device-Type", "mobile")
            .header("X-Device-Name", "Alice's phone")
            .json(&body),
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let data = answer.data();
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
        answer.header("x-session-id"),
        data["session"]["id"].as_str()
    );
    assert!(
        data.get("session_token").is_none_or(Value::is_null),
        "only when it is asked for"
    );
    let again = Request::post("/api/v1/auth/register").json(&body);
    gateway.ask(&again).refused(409, "USER_EXISTS");
}

#[test]
fn the_cookie_is_out_of_reach_of_scripts_and_lives_as_long_as_the_session() {
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
    let cert = config.beside("site.pem", &certificate.cert);
    let key = config.beside("site.key", &certificate.key);
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
    let mut client = Client::over(wire.unwrap());
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let answer = client.ask(&Request::post("/api/v1/auth/register").json(&body));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-portcullis="), "{cookie}");
    assert!(
        cookie.contains("Secure") && !cookie.contains("Domain"),
        "{cookie}"
    );
}

#[test]
fn a_sign_in_replaces_the_cookies_session_whatever_stands_beside_the_cookie() {
    let gateway = gateway();
    let old = gateway.register("alice@example.com");
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let login = Request::post("/api/v1/auth/login").json(&body);
    // Its credential is the password; what else came is not asked who it is.
    let login = login.cookie(&old.cookie).bearer("stale").same_origin();
    gateway.ask(&login).ok();
    let private = Request::get("/private/a").cookie(&old.cookie);
    gateway.ask(&private).refused(401, "SESSION_REVOKED");
}

#[test]
fn login_takes_the_right_password_and_says_the_same_of_every_wrong_one() {
    let gateway = gateway();
    gateway.register("alice@example.com");
    gateway.login("alice@example.com");
    let ask = |body: &Value| gateway.ask(&Request::post("/api/v1/auth/login").json(body));
    let wrong = ask(&json!({ "email": "alice@example.com", "password": "not the password" }));
    let unknown = ask(&json!({ "email": "nobody@example.com", "password": "not the password" }));
    wrong.refused(401, "INVALID_CREDENTIALS");
    unknown.refused(401, "INVALID_CREDENTIALS");
    assert_eq!(
        wrong.json()["error"]["message"],
        unknown.json()["error"]["message"]
    );
    assert!(wrong.header("set-cookie").is_none() && unknown.header("set-cookie").is_none());
    let missing = ask(&json!({ "email": "alice@example.com" }));
    missing.refused(400, "VALIDATION_FAILED");
    assert!(
        missing.json()["error"]["fields"]
            .to_string()
            .contains("password"),
        "{}",
        missing.text()
    );
    let not_json = Request::post("/api/v1/auth/login").header("Content-Type", "application/json");
    assert_eq!(gateway.ask(&not_json.body("{")).status, 400);
    let form = Request::post("/api/v1/auth/login").header("Content-Type", "text/plain");
    gateway
        .ask(&form.body("{}"))
        .refused(415, "UNSUPPORTED_MEDIA_TYPE");
}

#[test]
fn an_unknown_user_takes_as_long_as_a_wrong_password() {
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
            let answer = gateway.ask(&Request::post("/api/v1/auth/login").json(&body));
            took[index].push(start.elapsed());
            answer.refused(401, "INVALID_CREDENTIALS");
        }
    }
    let [known, unknown] = took.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    // A forgotten hash would be tenfold faster; anything near is noise here.
    assert!(
        unknown * 3 > known && known * 3 > unknown,
        "{known:?} against {unknown:?}"
    );
}

#[test]
fn registration_is_closed_unless_it_was_opened() {
    let config = Config::new(Upstream::start().address).set("/identity", json!({ "builtin": {} }));
    let gateway = Gateway::start(config);
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let answer = gateway.ask(&Request::post("/api/v1/auth/register").json(&body));
    answer.refused(403, "REGISTRATION_CLOSED");
}

#[test]
fn a_password_is_taken_exactly_as_typed_and_bounded_before_it_is_hashed() {
    let gateway = gateway();
    let register = |email: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        gateway.ask(&Request::post("/api/v1/auth/register").json(&body))
    };
    register("short@example.com", "elevenchars").refused(400, "VALIDATION_FAILED");
    let odd = " leading, trailing and 🔑 ";
    assert_eq!(register("odd@example.com", odd).status, 201);
    let login = |password: &str| {
        let body = json!({ "email": "odd@example.com", "password": password });
        gateway
            .ask(&Request::post("/api/v1/auth/login").json(&body))
            .status
    };
    assert_eq!(login(odd.trim()), 401);
    assert_eq!(login(odd), 200);
    assert_eq!(register("long@example.com", &"x".repeat(64)).status, 201);
    let huge = register("huge@example.com", &"x".repeat(1 << 20));
    assert!([400, 413].contains(&huge.status), "{}", huge.status);
}

#[test]
fn a_session_that_no_client_received_does_not_stay() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let link = Cuttable::before(redis.address);
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
    gateway.ask(&login).refused(503, "STORE_UNAVAILABLE");
    let records = || {
        let keys = redis.keys();
        keys.iter().filter(|key| key.contains("session:{")).count()
    };
    eventually("the session was written", || (records() >= 2).then_some(()));
    link.restore();
    eventually("it has ended", || (alive() == Some(json!(1))).then_some(()));
    eventually("the other one goes on", || {
        gateway.lets_in(&ann).then_some(())
    });
}

#[test]
fn signing_in_again_in_the_same_browser_replaces_the_session() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let again = Request::post("/api/v1/auth/login")
        .cookie(&alice.cookie)
        .same_origin()
        .json(&body);
    let answer = gateway.ask(&again);
    answer.ok();
    let fresh = answer.header("set-cookie").unwrap();
    assert!(
        !fresh.starts_with(&alice.cookie),
        "a new token at each sign-in"
    );
    assert!(!gateway.lets_in(&alice));
}

#[test]
fn guessing_passwords_is_limited_by_account_and_by_address() {
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
        gateway.ask(&Request::post("/api/v1/auth/login").json(&body))
    };
    for _ in 0..3 {
        guess("alice@example.com").refused(401, "INVALID_CREDENTIALS");
    }
    let limited = guess("Alice@Example.com");
    limited.refused(429, "RATE_LIMITED");
    assert!(limited.number("retry-after") > 0);
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
