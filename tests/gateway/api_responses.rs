//! Responses of the gateway's own endpoints beside their bodies: limits, challenges, lines in the
//! log.

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

fn gateway() -> Gateway {
    Gateway::start(Config::new(Upstream::start().address))
}

fn login(gateway: &Gateway, password: &str) -> Response {
    let body = json!({ "email": "alice@example.com", "password": password });
    gateway.request(&Request::post("/api/v1/auth/login").json(&body))
}

#[test]
fn sign_in_responses_carry_remaining_attempts() {
    let gateway = gateway();
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let registered = gateway.request(&Request::post("/api/v1/auth/register").json(&body));
    assert_eq!(registered.status, 201);
    assert_eq!(registered.numeric_header("x-ratelimit-limit"), 120);
    assert_eq!(registered.numeric_header("x-ratelimit-remaining"), 119);
    let right = login(&gateway, PASSWORD);
    let wrong = login(&gateway, "not the password");
    assert_eq!((right.status, wrong.status), (200, 401));
    for (response, left) in [(right, 10), (wrong, 9)] {
        assert_eq!(response.numeric_header("x-ratelimit-limit"), 10);
        assert_eq!(response.numeric_header("x-ratelimit-remaining"), left);
        let policy = response.header("ratelimit-policy").unwrap();
        assert!(policy.contains("\"sign-in-address\";q=120"), "{policy}");
        assert!(policy.contains("\"sign-in-account\";q=10"), "{policy}");
    }
    let allowed = ["limit=\"sign-in-account\"", "outcome=\"allowed\""];
    assert_eq!(
        gateway.metric("portcullis_ratelimit_total", &allowed) as u64,
        2
    );
}

#[test]
fn sign_in_log_line_names_the_user() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let signed_in = login(&gateway, PASSWORD);
    let token = signed_in.data()["refresh_token"].clone();
    let refresh = Request::post("/api/v1/auth/refresh").json(&json!({ "refresh_token": token }));
    gateway.request(&refresh).assert_ok();
    let session = signed_in.data()["session"]["id"].clone();
    let line = |path: &str| -> Option<Value> {
        let lines = gateway.events().into_iter();
        let mut of_path = lines.filter(|line| line["path"] == path);
        of_path.next()
    };
    for (path, session) in [
        ("/api/v1/auth/register", json!(alice.session)),
        ("/api/v1/auth/login", session.clone()),
        ("/api/v1/auth/refresh", session),
    ] {
        let line = eventually(&format!("a line of {path}"), || line(path));
        assert_eq!(line["user_id"], json!(alice.user), "{line}");
        assert_eq!(line["session_id"], session, "{line}");
    }
}

#[test]
fn invalid_token_challenge_requires_a_presented_token() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let list = || Request::get("/api/v1/sessions");
    gateway.request(&Request::post("/api/v1/auth/logout").bearer(&alice.access_token));
    let plain = "Bearer realm=\"portcullis\"";
    for (what, response) in [
        ("nothing", gateway.request(&list())),
        ("a cookie", gateway.request(&list().cookie(&alice.cookie))),
        (
            "a session token",
            gateway.request(
                &list().header("Authorization", &format!("Session {}", alice.session_token)),
            ),
        ),
        ("a password", login(&gateway, "not the password")),
        (
            "a refresh token",
            gateway.request(
                &Request::post("/api/v1/auth/refresh").json(&json!({ "refresh_token": "x" })),
            ),
        ),
    ] {
        assert_eq!(response.status, 401, "{what}");
        assert_eq!(response.all("www-authenticate"), [plain], "{what}");
    }
    let response = gateway.request(&list().bearer(&alice.access_token));
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
}

#[test]
fn every_invalid_parameter_is_named() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let wrong = |response: &Response| -> Vec<String> {
        response.assert_refused(400, "VALIDATION_FAILED");
        let fields = response.json()["error"]["fields"].clone();
        fields.as_object().unwrap().keys().cloned().collect()
    };
    let query = "?cursor=nonsense&limit=0&status=asleep";
    let own = Request::get(&format!("/api/v1/sessions{query}")).bearer(&alice.access_token);
    assert_eq!(wrong(&gateway.request(&own)), ["cursor", "limit", "status"]);
    let every = gateway.admin(Request::get(&format!("/admin/sessions{query}&ip=here")));
    assert_eq!(wrong(&every), ["cursor", "ip", "limit", "status"]);
    let users = gateway.admin(Request::get("/admin/users?cursor=nonsense&limit=x"));
    assert_eq!(wrong(&users), ["cursor", "limit"]);
    let body = json!({ "email": "nobody", "username": "a b" });
    let register = gateway.request(&Request::post("/api/v1/auth/register").json(&body));
    assert_eq!(wrong(&register), ["email", "password", "username"]);
}

#[test]
fn readiness_reports_store_connections() {
    let redis = Redis::start();
    let config = Config::new(Upstream::start().address).store(&redis.url());
    let gateway = Gateway::start(config);
    let ready = Request::get("/ready")
        .send(gateway.admin)
        .assert_ok()
        .json();
    let store = &ready["store"];
    assert!(store["write_ms"].is_f64() && store["read_ms"].is_f64());
    let (up, of) = (&store["links"]["up"], &store["links"]["of"]);
    assert!(of.as_u64().unwrap() >= 2, "{ready}");
    assert_eq!(up, of);
    let cursor = gateway.admin(Request::get("/admin/sessions?cursor=nonsense"));
    cursor.assert_refused(400, "VALIDATION_FAILED");
}
