//! Identity headers, under the names that a route's upstream expects.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::echo::Echo;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::http2::Http2;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

/// Every name that one of the routes below uses, or that is off.
const NAMES: [&str; 11] = [
    "X-User-Id",
    "X-Forwarded-User",
    "Remote-User",
    "X-User-Email",
    "X-Mail",
    "X-Username",
    "X-Name",
    "X-User-Roles",
    "X-Scopes",
    "X-Session-ID",
    "X-Forwarded-Email",
];

fn config(upstream: &Upstream) -> Config {
    Config::new(upstream.address)
        .set(
            "/identity_headers",
            json!({
                "user": ["X-User-Id", "X-Forwarded-User", "Remote-User"],
                "username": "X-Username",
                "name": "X-Name",
                "scopes": "X-Scopes",
                "session": null,
            }),
        )
        .route(json!({
            "name": "own", "match": { "prefix": "/own" }, "upstream": "echo",
            "identity_headers": {
                "user": null, "email": ["X-Mail", "X-Forwarded-Email"], "name": null,
                "session": "X-Session-ID",
            },
        }))
}

/// What the upstream got under each of the names.
fn seen_identity(echo: &Echo) -> Value {
    let found = NAMES.iter().filter_map(|name| {
        let values = echo.all(name);
        (!values.is_empty()).then(|| ((*name).to_owned(), json!(values.join("|"))))
    });
    Value::Object(found.collect())
}

/// Registers a user with all that an upstream can learn; the session token and the ID.
fn register_ann(gateway: &Gateway) -> (String, String, String) {
    let body = json!({
        "email": "ann@example.com", "username": "Ann", "name": "Ann Ål, \u{1f511}",
        "password": PASSWORD, "session_token": true,
    });
    let response = gateway.request(&Request::post("/api/v1/auth/register").json(&body));
    assert_eq!(response.status, 201, "{}", response.text());
    let text = |pointer: &str| {
        let data = response.data();
        data.pointer(pointer).unwrap().as_str().unwrap().to_owned()
    };
    let id = text("/user/id");
    let rights = json!({ "roles": ["admin", "a b"], "scopes": ["read", "write"] });
    let patch = Request::new("PATCH", &format!("/admin/users/{id}")).json(&rights);
    gateway.admin(patch).assert_ok();
    (text("/session_token"), id, text("/session/id"))
}

fn assert_identity_names(gateway: &Gateway) {
    let (token, id, session) = register_ann(gateway);
    let credential = format!("Session {token}");
    let wanted = json!({
        "X-User-Id": id, "X-Forwarded-User": id, "Remote-User": id,
        "X-User-Email": "ann@example.com", "X-Username": "Ann",
        "X-Name": "Ann%20%C3%85l,%20%F0%9F%94%91",
        "X-User-Roles": "admin,a%20b", "X-Scopes": "read,write",
    });
    let own = json!({
        "X-Mail": "ann@example.com", "X-Forwarded-Email": "ann@example.com",
        "X-Username": "Ann", "X-User-Roles": "admin,a%20b", "X-Scopes": "read,write",
        "X-Session-ID": session,
    });
    let http2 = Http2::connect(gateway.public);
    for (path, wanted) in [
        ("/private/a", &wanted),
        ("/own/a", &own),
        ("/public/a", &json!({})),
    ] {
        let mut request = Request::get(path).header("Authorization", &credential);
        let mut fields = vec![("authorization".to_owned(), credential.clone())];
        for name in NAMES {
            request = request.header(name, "forged");
            fields.push((name.to_ascii_lowercase(), "forged".to_owned()));
        }
        assert_eq!(
            seen_identity(&gateway.request(&request).echo()),
            *wanted,
            "{path}"
        );
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (status, text) = http2.request("GET", path, &fields);
        assert_eq!(status, 200, "{text}");
        let echo = Echo(serde_json::from_str(&text).unwrap());
        assert_eq!(seen_identity(&echo), *wanted, "{path} over HTTP/2");
    }
    // A new display name leaves the username alone.
    let rename = Request::new("PATCH", &format!("/admin/users/{id}"));
    gateway
        .admin(rename.json(&json!({ "name": null })))
        .assert_ok();
    let request = Request::get("/private/a").header("Authorization", &credential);
    let echo = gateway.request(&request).echo();
    assert_eq!(echo.header("x-username").as_deref(), Some("Ann"));
    assert_eq!(echo.header("x-name"), None);
}

#[test]
fn route_renames_identity_headers() {
    let upstream = Upstream::start();
    assert_identity_names(&Gateway::start(config(&upstream)));
}

#[test]
fn identity_names_are_in_the_shared_record() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let shared = config(&upstream).store(&redis.url());
    let trusting = shared.set("/listeners/0/trusted_proxies", json!(["127.0.0.1/32"]));
    // Nor does a proxy that is trusted to name the client name its user.
    assert_identity_names(&Gateway::start(trusting));
}

#[test]
fn stripped_prefix_is_forwarded() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .route(json!({
            "name": "shop", "match": { "prefix": "/shop/v1" }, "auth": "none",
            "strip_prefix": true, "upstream": "echo",
        }))
        .route(json!({
            "name": "whole", "match": { "prefix": "/whole" }, "auth": "none", "upstream": "echo",
        }));
    let mut gateway = Gateway::start(config);
    let send = |gateway: &Gateway, target: &str, claimed: Option<&str>| {
        let mut request = Request::get(target);
        let mut fields = Vec::new();
        if let Some(claimed) = claimed {
            request = request.header("X-Forwarded-Prefix", claimed);
            fields.push(("x-forwarded-prefix", claimed));
        }
        let echo = gateway.request(&request).echo();
        let (_, text) = Http2::connect(gateway.public).request("GET", target, &fields);
        let other = Echo(serde_json::from_str(&text).unwrap());
        assert_eq!(
            echo.all("x-forwarded-prefix"),
            other.all("x-forwarded-prefix")
        );
        (echo.target().to_owned(), echo.header("x-forwarded-prefix"))
    };
    let prefix = |text: &str| Some(text.to_owned());
    for claimed in [None, Some("/forged")] {
        for (target, left) in [
            ("/shop/v1/a?b=c", "/a?b=c"),
            ("/shop/v1", "/"),
            ("/shop/v1/", "/"),
        ] {
            let (seen, reported) = send(&gateway, target, claimed);
            assert_eq!(
                (seen.as_str(), reported),
                (left, prefix("/shop/v1")),
                "{target}"
            );
        }
        let (_, reported) = send(&gateway, "/whole/a", claimed);
        assert_eq!(reported, None);
    }
    gateway.reload("applied", |config| {
        config.put("/listeners/0/trusted_proxies", json!(["127.0.0.1/32"]));
    });
    let (_, reported) = send(&gateway, "/shop/v1/a", Some("/outer/"));
    assert_eq!(reported, prefix("/outer/shop/v1"));
    let (_, reported) = send(&gateway, "/whole/a", Some("/outer"));
    assert_eq!(reported, prefix("/outer"));
}
