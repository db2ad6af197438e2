//! Profiles: what users can read and change of themselves, over the wire.

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::{ADMIN_TOKEN, Config};
use crate::support::gateway::{Gateway, PASSWORD, SignedIn};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

const CURRENT: &str = "/api/v1/sessions/current";
const AVATAR: &str = "/api/v1/profile/avatar";

fn gateway() -> Gateway {
    Gateway::start(Config::new(Upstream::start().address))
}

fn picture(bytes: usize) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.resize(bytes - 12, 0);
    png.extend(b"\0\0\0\0IEND\xaeB`\x82");
    png
}

fn put(target: &str, user: &SignedIn) -> Request {
    Request::new("PUT", target).bearer(&user.access_token)
}

#[test]
fn cached_profile_reflects_every_change() {
    let redis = Redis::start();
    let config = Config::new(Upstream::start().address).store(&redis.url());
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    let show = || {
        let request = Request::get("/api/v1/profile").bearer(&alice.access_token);
        gateway.request(&request).assert_ok().data()
    };
    let first = show();
    assert_eq!(first, show());
    let hits = gateway.metric("portcullis_cache_total", &["\"profiles\"", "\"hit\""]);
    assert_eq!(hits as u64, 1);
    gateway
        .request(&put("/api/v1/profile", &alice).json(&json!({ "name": "Alice" })))
        .assert_ok();
    assert_eq!(show()["name"], "Alice");
    let path = format!("/admin/users/{}", alice.user);
    let patch = Request::new("PATCH", &path).json(&json!({ "roles": ["admin"] }));
    gateway.admin(patch).assert_ok();
    assert_eq!(show()["roles"], json!(["admin"]));
    let kept = redis.command(&["KEYS", "*profile*"]);
    assert!(!kept.is_empty(), "{kept:?}");
    let text = format!("{}{}", show(), first);
    assert!(!text.contains("argon2") && !text.contains(&alice.session_token));
}

#[test]
fn avatar_size_is_limited_to_one_mebibyte() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let give = |bytes: &[u8]| {
        let request = put(AVATAR, &alice).header("Content-Type", "image/png");
        gateway.request(&request.body(bytes))
    };
    let whole = picture(1 << 20);
    give(&whole).assert_ok();
    let shown = gateway.request(&Request::get(AVATAR).bearer(&alice.access_token));
    assert_eq!(shown.assert_ok().header("content-type"), Some("image/png"));
    assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(shown.body, whole);
    let head = gateway.request(&Request::new("HEAD", AVATAR).bearer(&alice.access_token));
    assert_eq!(head.assert_ok().header("content-length"), Some("1048576"));
    give(&picture((1 << 20) + 1)).assert_refused(413, "BODY_TOO_LARGE");
    give(b"<script>alert(1)</script>").assert_refused(400, "VALIDATION_FAILED");
    let bob = gateway.register("bob@example.com");
    let none = gateway.request(&Request::get(AVATAR).bearer(&bob.access_token));
    none.assert_refused(404, "NOT_FOUND");
}

#[test]
fn unauthenticated_avatar_upload_is_not_read() {
    let gateway = gateway();
    // Only the head is sent: a response that waited for the body would not arrive.
    let mut client = Client::connect(gateway.public);
    client.send(format!(
        "PUT {AVATAR} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n\
         Content-Length: 1000000\r\n\r\n"
    ));
    client
        .read_response()
        .assert_refused(401, "UNAUTHENTICATED");
}

#[test]
fn owner_patches_and_extends_a_session() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let change = |body: &Value| {
        let request = Request::new("PATCH", CURRENT).bearer(&alice.access_token);
        gateway.request(&request.json(body))
    };
    let body = json!({ "data": { "theme": "dark" }, "device": { "name": "laptop" } });
    let changed = change(&body).assert_ok().data();
    assert_eq!(changed["data"], json!({ "theme": "dark" }));
    assert_eq!(changed["device"]["name"], "laptop");
    let fixed = change(&json!({ "expires_at": "2099-01-01T00:00:00Z", "user_id": "x" }));
    fixed.assert_refused(400, "VALIDATION_FAILED");
    let fields = fixed.json()["error"]["fields"].clone();
    assert_eq!(fields.as_object().unwrap().len(), 2, "{fields}");
    let extend = Request::post(&format!("{CURRENT}/extend")).bearer(&alice.access_token);
    let extended = gateway.request(&extend).assert_ok().data();
    assert!(extended["expires_at"].as_str() >= changed["expires_at"].as_str());
    assert_eq!(extended["data"], json!({ "theme": "dark" }));
    let by_cookie = Request::post(&format!("{CURRENT}/extend")).cookie(&alice.cookie);
    gateway
        .request(&by_cookie)
        .assert_refused(403, "CSRF_REJECTED");
    gateway.request(&by_cookie.same_origin()).assert_ok();
}

#[test]
fn password_change_ends_other_sessions() {
    let gateway = gateway();
    let elsewhere = gateway.register("alice@example.com");
    let here = gateway.login("alice@example.com");
    let body = json!({ "current_password": PASSWORD, "new_password": "staple the battery" });
    let request = put("/api/v1/profile/password", &here).json(&body);
    let changed = gateway.request(&request);
    assert_eq!(changed.status, 204, "{}", changed.text());
    assert!(changed.numeric_header("x-ratelimit-remaining") > 0);
    assert!(gateway.accepts(&here) && !gateway.accepts(&elsewhere));
    let old = gateway.request(&Request::get("/private/a").bearer(&elsewhere.access_token));
    old.assert_refused(401, "SESSION_REVOKED");
    gateway
        .request(&Request::get("/private/a").bearer(&here.access_token))
        .assert_ok();
    assert!(gateway.try_login("alice@example.com").is_none());
}

#[test]
fn signing_out_everywhere_ends_every_session() {
    let gateway = gateway();
    let first = gateway.register("alice@example.com");
    let second = gateway.login("alice@example.com");
    let bob = gateway.register("bob@example.com");
    let request = Request::post("/api/v1/auth/logout-all").bearer(&second.access_token);
    assert_eq!(gateway.request(&request).assert_ok().data()["revoked"], 2);
    assert!(!gateway.accepts(&first) && !gateway.accepts(&second));
    assert!(gateway.accepts(&bob));
}

#[test]
fn hostile_bodies_get_documented_responses() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [(&str, &str, u16); 9] = [
        ("application/json", "", 400),
        ("application/json", "[]", 400),
        ("application/json", r#"{"a":1,"a":1}"#, 400),
        ("application/json", r#"{"name":"\ud800"}"#, 400),
        ("application/json", r#"{"name":1e999}"#, 400),
        ("application/json", r#"{"name":"a\u0000"#, 400),
        ("application/json", "{\"name\":\"a\0\"}", 400),
        ("application/json", &deep, 413),
        ("text/plain", "{}", 415),
    ];
    for (method, path) in [
        ("POST", "/api/v1/auth/login"),
        ("POST", "/api/v1/auth/register"),
        ("POST", "/api/v1/auth/refresh"),
        ("PUT", "/api/v1/profile"),
        ("PUT", "/api/v1/profile/password"),
        ("PATCH", CURRENT),
    ] {
        for (kind, body, status) in bodies {
            let request = Request::new(method, path)
                .bearer(&alice.access_token)
                .header("Content-Type", kind)
                .body(body);
            let response = gateway.request(&request);
            let shown: String = body.chars().take(40).collect();
            assert_eq!(response.status, status, "{method} {path} {kind} {shown}");
        }
    }
    assert!(gateway.accepts(&alice));
}

#[test]
fn events_are_streamed_as_they_happen() {
    let gateway = gateway();
    gateway.register("alice@example.com");
    let mut client = Client::connect(gateway.admin);
    client.send(format!(
        "GET /admin/events?follow=true&event=sign_in HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    ));
    let head = client.read_head().unwrap();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let second = gateway.login("alice@example.com");
    let reported = client.read_until(&second.session);
    assert!(
        reported.contains("id: ") && reported.contains("\"event\":\"sign_in\""),
        "{reported}"
    );
    assert!(
        !reported.contains("registered"),
        "only what was asked for: {reported}"
    );
}
