//! Who may call `POST introspect`, in which form, and what is recorded of a call.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::api_keys::with_another_secret;
use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::http2::Http2;
use crate::support::introspection::{INTROSPECT, SCOPE, call, create_key, introspect};
use crate::support::key_calls::{ADMIN_KEYS, NewKey, admin_create};
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

const FORM: &str = "application/x-www-form-urlencoded";

fn start() -> Gateway {
    let config = Config::new(Upstream::start().address);
    Gateway::start(config.set("/api_keys", json!({})))
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// A user with the scope, whose tokens a backend asks about.
fn register(gateway: &Gateway) -> SignedIn {
    let ann = gateway.register("ann@example.com");
    let path = format!("/admin/users/{}", ann.user);
    let rights = json!({ "scopes": [SCOPE] });
    let changed = gateway.admin(Request::new("PATCH", &path).json(&rights));
    changed.assert_ok();
    ann
}

/// A refusal that says nothing of the token.
#[track_caller]
fn assert_refused(response: &Response, code: &str) {
    response.assert_refused(401, code);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(!response.text().contains("active"), "{}", response.text());
}

#[test]
fn only_a_key_with_the_scope_learns_anything() {
    let gateway = start();
    let key = create_key(&gateway);
    let with = |scope: &str, addresses: &[&str]| {
        let body = json!({
            "service": "other", "name": "other", "scopes": [scope], "allowed_ips": addresses,
        });
        admin_create(&gateway, &body).secret
    };
    let without = with("orders:read", &[]);
    let elsewhere = with(SCOPE, &["192.0.2.1"]);
    let wrong = with_another_secret(&key);
    let ann = register(&gateway);
    let send = |authorization: &str| {
        let request = call(&ann.access_token).header("Authorization", authorization);
        gateway.request(&request)
    };
    for good in [
        basic(&format!("any:{key}")),
        basic(&format!(":{key}")),
        format!("Bearer {key}"),
        format!("bearer {key}"),
    ] {
        assert_eq!(send(&good).assert_ok().json()["active"], true, "{good}");
    }
    for bad in [
        format!("Bearer {without}"),
        format!("Bearer {elsewhere}"),
        basic(&format!("any:{without}")),
        // The scope of a user is not that of a key.
        format!("Bearer {}", ann.access_token),
        format!("Session {}", ann.session_token),
        basic(&format!("any:{}", ann.access_token)),
        basic(&format!("{key}:")),
        basic(&key),
        "Basic !".to_owned(),
        key.clone(),
    ] {
        assert_refused(&send(&bad), "UNAUTHENTICATED");
    }
    for bad in [
        format!("Bearer {wrong}"),
        basic(&format!("any:{wrong}")),
        format!("Bearer {key}x"),
    ] {
        assert_refused(&send(&bad), "TOKEN_INVALID");
    }
}

#[test]
fn key_is_read_from_authorization_alone() {
    let gateway = start();
    let key = create_key(&gateway);
    let ann = register(&gateway);
    let token = &ann.access_token;
    for request in [
        call(token),
        call(token).cookie(&ann.cookie).same_origin(),
        call(token).bearer(&key).bearer(&key),
        call(token).header("X-API-Key", &key),
        call("").body(format!("token={token}&client_id=any&client_secret={key}")),
        // The key comes first, whatever the body is.
        Request::post(INTROSPECT),
    ] {
        assert_refused(&gateway.request(&request), "UNAUTHENTICATED");
    }
    // Neither cookies nor other sites matter.
    let foreign = call(token)
        .bearer(&key)
        .cookie(&ann.cookie)
        .header("Origin", "https://evil.example")
        .header("Sec-Fetch-Site", "cross-site");
    let foreign = gateway.request(&foreign);
    assert_eq!(foreign.assert_ok().json()["active"], true);
    assert_eq!(foreign.header("set-cookie"), None);
    assert_eq!(foreign.header("access-control-allow-origin"), None);
}

#[test]
fn token_must_be_given_once_in_a_form() {
    let gateway = start();
    let key = create_key(&gateway);
    let form = |body: &str| gateway.request(&call("").bearer(&key).body(body));
    for bad in [
        "",
        "token=",
        "tokens=a",
        "Token=a",
        "token=a&token=a",
        "token_type_hint=access_token",
    ] {
        let refused = form(bad);
        refused.assert_refused(400, "VALIDATION_FAILED");
        assert_eq!(refused.header("cache-control"), Some("no-store"));
    }
    for good in [
        "token=a&token_type_hint=refresh_token",
        "x=1&x=2&token=a",
        "token=%zz",
    ] {
        let response = form(good);
        assert_eq!(response.assert_ok().text(), r#"{"active":false}"#, "{good}");
    }
    let too_large = form(&format!("token={}", "a".repeat(65 * 1024)));
    too_large.assert_refused(413, "BODY_TOO_LARGE");
    let send = |request: Request| gateway.request(&request.bearer(&key));
    let post = || Request::post(INTROSPECT);
    let latin = format!("{FORM}; charset=latin1");
    for request in [
        post().json(&json!({ "token": "a" })),
        post().body("token=a"),
        post().header("Content-Type", &latin).body("token=a"),
    ] {
        send(request).assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let in_query = Request::post(&format!("{INTROSPECT}?token=a"));
    let in_query = in_query.header("Content-Type", FORM).body("");
    send(in_query).assert_refused(400, "VALIDATION_FAILED");
    for method in ["GET", "PUT", "DELETE"] {
        let refused = send(Request::new(method, INTROSPECT));
        refused.assert_refused(405, "METHOD_NOT_ALLOWED");
        assert_eq!(refused.header("allow"), Some("POST"));
    }
}

#[test]
fn endpoint_exists_with_api_keys() {
    let described = |gateway: &Gateway| {
        let described = gateway.get("/api/v1/openapi.json").json();
        described["paths"].get("/introspect").cloned()
    };
    let without = Gateway::start(Config::new(Upstream::start().address));
    let refused = without.request(&call("a"));
    refused.assert_refused(404, "ROUTE_NOT_FOUND");
    assert_eq!(described(&without), None);
    let operation = &described(&start()).unwrap()["post"];
    assert_eq!(
        operation["security"],
        json!([{ "bearer": [] }, { "basic": [] }])
    );
}

#[test]
fn http2_clients_introspect_too() {
    let gateway = start();
    let key = create_key(&gateway);
    let ann = gateway.register("ann@example.com");
    let client = Http2::connect(gateway.public);
    let send = |authorization: &str, token: &str| {
        let headers = [("authorization", authorization), ("content-type", FORM)];
        let body = format!("token={token}");
        let mut stream = client
            .open("POST", INTROSPECT, &headers, body.as_bytes())
            .unwrap();
        (stream.status, stream.text())
    };
    for authorization in [format!("Bearer {key}"), basic(&format!("any:{key}"))] {
        let (status, text) = send(&authorization, &ann.access_token);
        assert_eq!(status, 200, "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap()["sub"],
            json!(ann.user)
        );
        let (status, text) = send(&authorization, &ann.refresh_token);
        assert_eq!((status, &*text), (200, r#"{"active":false}"#));
    }
    let (status, text) = send(&format!("Bearer {}", ann.access_token), &ann.access_token);
    assert_eq!(status, 401);
    assert!(!text.contains("active"), "{text}");
}

#[test]
fn introspection_is_a_use_of_the_callers_key_alone() {
    let gateway = start();
    let caller = json!({ "service": "billing", "name": "backend", "scopes": [SCOPE] });
    let caller = admin_create(&gateway, &caller);
    let subject = admin_create(&gateway, &json!({ "service": "nightly", "name": "job" }));
    let ann = gateway.register("ann@example.com");
    let session = || {
        let path = format!("/admin/sessions/{}", ann.session);
        let mut session = gateway.admin(Request::get(&path)).data();
        // It goes up by itself.
        session.as_object_mut().unwrap().remove("duration_seconds");
        session
    };
    let uses = |key: &NewKey| {
        let key = gateway.admin(Request::get(&key.path(ADMIN_KEYS))).data();
        key["request_count"].as_u64().unwrap()
    };
    let before = session();
    for token in [&ann.access_token, &ann.session_token, &subject.secret] {
        assert_eq!(introspect(&gateway, &caller.secret, token)["active"], true);
    }
    // The use of a session or a key is written some time after the request.
    let request = Request::get("/private/a").bearer(&caller.secret);
    gateway.request(&request).assert_ok();
    eventually("the uses of the caller's key are written", || {
        (uses(&caller) == 4).then_some(())
    });
    assert_eq!(uses(&subject), 0);
    assert_eq!(session(), before);
    // The line is about the caller, and names no token.
    let lines = gateway.events().into_iter();
    let lines: Vec<_> = lines.filter(|line| line["path"] == INTROSPECT).collect();
    assert_eq!(lines.len(), 3);
    for line in lines {
        assert_eq!(
            (&line["status"], &line["credential"]),
            (&json!(200), &json!("api_key"))
        );
        assert_eq!(line["user_id"], "service:billing");
        assert_eq!(line["api_key_id"], json!(caller.id));
        assert_eq!(line.get("session_id"), None);
    }
    let lacking = gateway.request(&call("a").bearer(&subject.secret));
    lacking.assert_refused(401, "UNAUTHENTICATED");
    let line = || {
        gateway
            .events()
            .into_iter()
            .find(|line| line["scope"] == SCOPE)
    };
    let line = eventually("the refusal is logged", line);
    assert_eq!(line["api_key_id"], json!(subject.id));
}
