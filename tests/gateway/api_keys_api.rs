//! The endpoints by which users create, change, rotate and revoke keys of their own.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::commands::{ANN, for_each_store_with};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::issuer::Issuer;
use crate::support::key_calls::{
    ADMIN_KEYS, KEYS, NewKey, admin_create, call, create, ids, self_service,
};
use crate::support::provider::Provider;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait::eventually;

fn gateway() -> Gateway {
    Gateway::start(self_service(Config::new(Upstream::start().address)))
}

/// Gives a user a role and a scope.
fn grant(gateway: &Gateway, user: &SignedIn) {
    let rights = json!({ "roles": ["member"], "scopes": ["orders:read", "orders:write"] });
    let patch = Request::new("PATCH", &format!("/admin/users/{}", user.user));
    gateway.admin(patch.json(&rights)).assert_ok();
}

fn patch(path: &str, body: &Value) -> Request {
    Request::new("PATCH", path).json(body)
}

#[test]
fn key_is_created_listed_changed_rotated_and_revoked() {
    for_each_store_with(self_service, |gateway| {
        let ann = gateway.register(ANN);
        grant(gateway, &ann);
        let body = json!({
            "name": "laptop", "roles": ["member"], "scopes": ["orders:read"],
            "expires_at": "2127-01-01T01:00:00+01:00", "allowed_ips": ["192.0.2.7", "2001:db8::/32"],
        });
        let key = create(gateway, &ann, &body);
        let created_at = key.described["created_at"].clone();
        assert!(created_at.is_string());
        let expected = json!({
            "id": key.id, "name": "laptop", "owner": ann.user, "scopes": ["orders:read"],
            "roles": ["member"], "allowed_ips": ["192.0.2.7/32", "2001:db8::/32"],
            "status": "active", "created_at": created_at,
            "expires_at": "2127-01-01T00:00:00.000Z", "last_used_at": null, "last_used_ip": null,
            "request_count": 0,
        });
        assert_eq!(key.described, expected);
        let path = key.path(KEYS);
        assert_eq!(call(gateway, &ann, Request::get(&path)).data(), expected);
        let list = call(gateway, &ann, Request::get(KEYS)).data();
        let page = json!({ "api_keys": [expected], "count": 1, "next_cursor": null });
        assert_eq!(list, page);

        let change =
            json!({ "name": "old laptop", "scopes": ["orders:write"], "expires_at": null });
        let changed = call(gateway, &ann, patch(&path, &change)).data();
        let mut after = expected.clone();
        after["name"] = json!("old laptop");
        after["scopes"] = json!(["orders:write"]);
        after["expires_at"] = Value::Null;
        assert_eq!(changed, after);

        let rotate = format!("{path}/rotate");
        let rotated = call(gateway, &ann, Request::post(&rotate));
        let rotated = NewKey::of(&rotated, 200);
        assert_eq!((&rotated.id, &rotated.described), (&key.id, &after));
        assert_ne!(rotated.secret, key.secret);
        let grace = Request::post(&rotate).json(&json!({ "grace": "7d" }));
        assert_ne!(
            NewKey::of(&call(gateway, &ann, grace), 200).secret,
            rotated.secret
        );

        revoke_for_good(gateway, &ann, &path);
    });
}

/// Revokes a user's only key, which then can only be shown.
fn revoke_for_good(gateway: &Gateway, ann: &SignedIn, path: &str) {
    for _ in 0..2 {
        let deleted = call(gateway, ann, Request::delete(path));
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    }
    let shown = call(gateway, ann, Request::get(path)).data();
    assert_eq!(shown["status"], "revoked");
    for request in [
        patch(path, &json!({ "name": "a" })),
        Request::post(&format!("{path}/rotate")),
    ] {
        call(gateway, ann, request).assert_refused(404, "NOT_FOUND");
    }
    for (status, count) in [
        ("", 0),
        ("?status=expired", 0),
        ("?status=revoked", 1),
        ("?status=all", 1),
    ] {
        let list = call(gateway, ann, Request::get(&format!("{KEYS}{status}"))).data();
        assert_eq!(
            (ids(&list).len(), &list["count"]),
            (count, &json!(count)),
            "{status}"
        );
    }
}

#[test]
fn keys_are_listed_by_page_newest_first() {
    let gateway = gateway();
    let ann = gateway.register(ANN);
    let keys: Vec<NewKey> = (0..3)
        .map(|number| create(&gateway, &ann, &json!({ "name": format!("key {number}") })))
        .collect();
    let page = |query: &str| call(&gateway, &ann, Request::get(&format!("{KEYS}?{query}")));
    let mut listed = Vec::new();
    let mut cursor = String::new();
    for number in 0..3 {
        let page = page(&format!("limit=1&cursor={cursor}")).data();
        assert_eq!(page["count"], 3);
        listed.extend(ids(&page).iter().map(ToString::to_string));
        let next = page["next_cursor"].as_str();
        assert_eq!(next.is_some(), number < 2);
        cursor = next.unwrap_or_default().to_owned();
    }
    listed.reverse();
    let mut created: Vec<String> = keys.iter().map(|key| key.id.clone()).collect();
    // Those of one millisecond are in the order of their IDs.
    created.sort();
    listed.sort();
    assert_eq!(listed, created);
    for (query, field) in [
        ("limit=0", "limit"),
        ("status=old", "status"),
        ("cursor=x", "cursor"),
    ] {
        let refused = page(query);
        refused.assert_refused(400, "VALIDATION_FAILED");
        assert!(
            refused.json()["error"]["fields"][field].is_string(),
            "{query}"
        );
    }
}

#[test]
fn key_of_another_owner_is_not_found() {
    for_each_store_with(self_service, |gateway| {
        let (ann, bob) = (gateway.register(ANN), gateway.register("bob@example.com"));
        let of_bob = create(gateway, &bob, &json!({ "name": "of Bob" }));
        let of_service = admin_create(gateway, &json!({ "service": "billing", "name": "nightly" }));
        let unknown = format!("{KEYS}/{}", "0".repeat(16));
        for path in [
            of_bob.path(KEYS),
            of_service.path(KEYS),
            unknown,
            format!("{KEYS}/{}", of_bob.secret),
        ] {
            for request in [
                Request::get(&path),
                patch(&path, &json!({ "name": "mine" })),
                Request::delete(&path),
                Request::post(&format!("{path}/rotate")),
            ] {
                call(gateway, &ann, request).assert_refused(404, "NOT_FOUND");
            }
        }
        let list = call(gateway, &ann, Request::get(&format!("{KEYS}?status=all"))).data();
        assert_eq!(list["count"], 0);
        let shown = call(gateway, &bob, Request::get(&of_bob.path(KEYS))).data();
        assert_eq!(shown, of_bob.described);
    });
}

#[test]
fn session_is_required() {
    let upstream = Upstream::start();
    let issuer = Issuer::new();
    let config = self_service(issuer.trusted_in(Config::new(upstream.address)));
    let gateway = Gateway::start(config);
    let ann = gateway.register(ANN);
    let key = create(&gateway, &ann, &json!({ "name": "laptop" }));
    let path = key.path(KEYS);
    let calls = || {
        [
            Request::get(KEYS),
            Request::post(KEYS).json(&json!({ "name": "a" })),
            Request::get(&path),
            patch(&path, &json!({ "name": "a" })),
            Request::post(&format!("{path}/rotate")),
            Request::delete(&path),
        ]
    };
    for request in calls() {
        gateway
            .request(&request)
            .assert_refused(401, "UNAUTHENTICATED");
    }
    for request in calls() {
        let request = request.header("Authorization", &issuer.bearer(&ann.user, "1"));
        gateway.request(&request).assert_refused(403, "FORBIDDEN");
    }
    // A key creates, shows and ends no keys, not even itself.
    for request in calls() {
        gateway
            .request(&request.bearer(&key.secret))
            .assert_refused(403, "FORBIDDEN");
    }
    // A token of a session stands for it.
    let bearer = Request::get(&path).bearer(&ann.access_token);
    assert_eq!(gateway.request(&bearer).data(), key.described);
}

#[test]
fn change_by_cookie_comes_from_the_same_origin() {
    let gateway = gateway();
    let ann = gateway.register(ANN);
    let body = json!({ "name": "laptop" });
    let create = || Request::post(KEYS).json(&body).cookie(&ann.cookie);
    for request in [
        create(),
        create().header("Sec-Fetch-Site", "cross-site"),
        create().header("Origin", "https://evil.example"),
    ] {
        gateway
            .request(&request)
            .assert_refused(403, "CSRF_REJECTED");
    }
    let list = gateway.request(&Request::get(KEYS).cookie(&ann.cookie));
    assert_eq!(list.data()["count"], 0);
    let key = NewKey::of(&gateway.request(&create().same_origin()), 201);
    for request in [
        patch(&key.path(KEYS), &json!({ "name": "a" })),
        Request::post(&format!("{}/rotate", key.path(KEYS))),
        Request::delete(&key.path(KEYS)),
    ] {
        let response = gateway.request(&request.cookie(&ann.cookie));
        response.assert_refused(403, "CSRF_REJECTED");
    }
}

#[test]
fn more_than_the_user_has_is_forbidden() {
    for_each_store_with(self_service, |gateway| {
        let ann = gateway.register(ANN);
        grant(gateway, &ann);
        let key = create(
            gateway,
            &ann,
            &json!({ "name": "laptop", "roles": ["member"] }),
        );
        for rights in [
            json!({ "roles": ["admin"] }),
            json!({ "roles": ["member", "admin"] }),
            json!({ "scopes": ["orders:delete"] }),
            json!({ "roles": ["member"], "scopes": ["orders:read", "portcullis:introspect"] }),
        ] {
            let mut body = rights.clone();
            body["name"] = json!("more");
            let created = call(gateway, &ann, Request::post(KEYS).json(&body));
            created.assert_refused(403, "FORBIDDEN");
            let changed = call(gateway, &ann, patch(&key.path(KEYS), &rights));
            changed.assert_refused(403, "FORBIDDEN");
        }
        let list = call(gateway, &ann, Request::get(KEYS)).data();
        assert_eq!(list["api_keys"], json!([key.described]));
        // Those that the user has lost cannot be requested, and an unrelated change is possible.
        let path = format!("/admin/users/{}", ann.user);
        gateway
            .admin(patch(&path, &json!({ "roles": [] })))
            .assert_ok();
        let again = call(
            gateway,
            &ann,
            patch(&key.path(KEYS), &json!({ "roles": ["member"] })),
        );
        again.assert_refused(403, "FORBIDDEN");
        call(
            gateway,
            &ann,
            patch(&key.path(KEYS), &json!({ "name": "a" })),
        )
        .assert_ok();
    });
}

#[test]
fn number_of_active_keys_is_bounded() {
    let limited = |config| self_service(config).set("/api_keys/max_per_owner", json!(3));
    for_each_store_with(limited, |gateway| {
        let ann = gateway.register(ANN);
        let create = || {
            call(
                gateway,
                &ann,
                Request::post(KEYS).json(&json!({ "name": "a" })),
            )
        };
        let responses: Vec<Response> = thread::scope(|scope| {
            let calls: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let created = responses.iter().filter(|response| response.status == 201);
        assert_eq!(created.count(), 3);
        for response in responses.iter().filter(|response| response.status != 201) {
            response.assert_refused(409, "KEY_LIMIT_REACHED");
        }
        let list = call(gateway, &ann, Request::get(KEYS)).data();
        assert_eq!(list["count"], 3);
        // Others have as many, and a revoked key makes room.
        let bob = gateway.register("bob@example.com");
        let of_bob = call(
            gateway,
            &bob,
            Request::post(KEYS).json(&json!({ "name": "a" })),
        );
        assert_eq!(of_bob.status, 201);
        let revoked = format!("{KEYS}/{}", ids(&list)[0]);
        assert_eq!(call(gateway, &ann, Request::delete(&revoked)).status, 204);
        assert_eq!(create().status, 201);
        create().assert_refused(409, "KEY_LIMIT_REACHED");
    });
}

#[test]
fn expired_key_is_renewed_within_the_number() {
    let limited = |config| self_service(config).set("/api_keys/max_per_owner", json!(1));
    for_each_store_with(limited, |gateway| {
        let ann = gateway.register(ANN);
        let soon = std::time::SystemTime::now() + Duration::from_secs(1);
        let body = json!({ "name": "a", "expires_at": humantime::format_rfc3339_millis(soon).to_string() });
        let expired = create(gateway, &ann, &body);
        let show = || call(gateway, &ann, Request::get(&expired.path(KEYS))).data();
        eventually("the key expires", || {
            (show()["status"] == "expired").then_some(())
        });
        let other = create(gateway, &ann, &json!({ "name": "b" }));
        for request in [
            patch(&expired.path(KEYS), &json!({ "expires_at": null })),
            patch(
                &expired.path(KEYS),
                &json!({ "expires_at": "2127-01-01T00:00:00Z" }),
            ),
        ] {
            call(gateway, &ann, request).assert_refused(409, "KEY_LIMIT_REACHED");
        }
        let by_operator = patch(&expired.path(ADMIN_KEYS), &json!({ "expires_at": null }));
        gateway
            .admin(by_operator.clone())
            .assert_refused(409, "KEY_LIMIT_REACHED");
        assert_eq!(show()["status"], "expired");
        let revoked = call(gateway, &ann, Request::delete(&other.path(KEYS)));
        assert_eq!(revoked.status, 204);
        assert_eq!(gateway.admin(by_operator).data()["status"], "active");
    });
}

#[test]
fn changes_of_keys_are_events() {
    for_each_store_with(self_service, |gateway| {
        let ann = gateway.register(ANN);
        let own = create(gateway, &ann, &json!({ "name": "laptop" }));
        let rotate = Request::post(&format!("{}/rotate", own.path(KEYS)));
        call(gateway, &ann, rotate).assert_ok();
        for _ in 0..2 {
            let revoke = Request::delete(&own.path(KEYS));
            assert_eq!(call(gateway, &ann, revoke).status, 204);
        }
        let service = json!({ "service": "billing", "name": "nightly" });
        let of_service = admin_create(gateway, &service);
        let path = of_service.path(ADMIN_KEYS);
        gateway
            .admin(Request::post(&format!("{path}/rotate")))
            .assert_ok();
        gateway.admin(Request::delete(&path)).assert_ok();
        let kinds = ["api_key_created", "api_key_rotated", "api_key_revoked"];
        let listed = eventually("the events are in the journal", || {
            let listed = gateway.admin(Request::get("/admin/events?limit=100"));
            let listed = listed.data()["events"].as_array().unwrap().clone();
            let of_keys = listed.into_iter().rev();
            let of_keys = of_keys.filter(|event| event["api_key_id"].is_string());
            let of_keys: Vec<Value> = of_keys.collect();
            (of_keys.len() >= 6).then_some(of_keys)
        });
        assert_eq!(listed.len(), 6, "{listed:?}");
        let (owner, operator) = (json!("127.0.0.1"), Value::Null);
        let expected = kinds
            .iter()
            .map(|kind| (kind, &own, json!(ann.user), &owner))
            .chain(
                kinds
                    .iter()
                    .map(|kind| (kind, &of_service, json!("service:billing"), &operator)),
            );
        for (event, (kind, key, user, address)) in listed.iter().zip(expected) {
            assert_eq!(event["event"], **kind, "{event}");
            assert_eq!(event["api_key_id"], key.id, "{event}");
            assert_eq!(event["user_id"], user, "{event}");
            assert_eq!(event["client_ip"], *address, "{event}");
            assert!(event["request_id"].is_string(), "{event}");
        }
    });
}

/// A body, and the fields that are wrong in it.
fn invalid_bodies() -> Vec<(Value, &'static [&'static str])> {
    vec![
        (json!({ "name": "" }), &["name"]),
        (json!({ "name": "  " }), &["name"]),
        (json!({ "name": 7 }), &["name"]),
        (json!({ "name": "a\u{7}" }), &["name"]),
        (json!({ "name": "a".repeat(201) }), &["name"]),
        (json!({ "name": "a", "roles": "admin" }), &["roles"]),
        (json!({ "name": "a", "roles": ["a,b"] }), &["roles"]),
        (json!({ "name": "a", "scopes": [7] }), &["scopes"]),
        (json!({ "name": "a", "scopes": ["a b"] }), &["scopes"]),
        (
            json!({ "name": "a", "allowed_ips": "::1" }),
            &["allowed_ips"],
        ),
        (
            json!({ "name": "a", "allowed_ips": ["localhost"] }),
            &["allowed_ips"],
        ),
        (
            json!({ "name": "a", "allowed_ips": ["192.0.2.0/33"] }),
            &["allowed_ips"],
        ),
        (
            json!({ "name": "a", "allowed_ips": vec!["::1"; 65] }),
            &["allowed_ips"],
        ),
        (json!({ "name": "a", "expires_at": 1 }), &["expires_at"]),
        (
            json!({ "name": "a", "expires_at": "tomorrow" }),
            &["expires_at"],
        ),
        (
            json!({ "name": "a", "expires_at": "2127-01-01" }),
            &["expires_at"],
        ),
        (
            json!({ "name": "a", "expires_at": "2001-01-01T00:00:00Z" }),
            &["expires_at"],
        ),
        (
            json!({ "name": "", "roles": 7, "scopes": 7 }),
            &["name", "roles", "scopes"],
        ),
    ]
}

#[track_caller]
fn assert_invalid(response: &Response, fields: &[&str], body: &Value) {
    response.assert_refused(400, "VALIDATION_FAILED");
    let error = response.json()["error"]["fields"].clone();
    let found: Vec<&str> = error
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(found, fields, "{body}");
}

#[test]
fn invalid_fields_are_named() {
    let gateway = gateway();
    let ann = gateway.register(ANN);
    let key = create(&gateway, &ann, &json!({ "name": "laptop" }));
    for (body, fields) in invalid_bodies() {
        let created = call(&gateway, &ann, Request::post(KEYS).json(&body));
        assert_invalid(&created, fields, &body);
        let changed = call(&gateway, &ann, patch(&key.path(KEYS), &body));
        assert_invalid(&changed, fields, &body);
    }
    let empty = json!({});
    let created = call(&gateway, &ann, Request::post(KEYS).json(&empty));
    assert_invalid(&created, &["name"], &empty);
    call(&gateway, &ann, patch(&key.path(KEYS), &empty)).assert_ok();
    for fixed in [
        "id",
        "owner",
        "key",
        "status",
        "created_at",
        "request_count",
        "service",
    ] {
        let body = json!({ fixed: key.described[fixed] });
        let changed = call(&gateway, &ann, patch(&key.path(KEYS), &body));
        assert_invalid(&changed, &[fixed], &body);
    }
    for grace in [
        json!("8d"),
        json!("-1s"),
        json!("soon"),
        json!(""),
        json!([]),
    ] {
        let body = json!({ "grace": grace });
        let rotate = Request::post(&format!("{}/rotate", key.path(KEYS))).json(&body);
        assert_invalid(&call(&gateway, &ann, rotate), &["grace"], &body);
    }
    // An owner cannot be chosen, and unknown members are ignored.
    let body =
        json!({ "name": "a", "user": "someone", "service": "billing", "owner": "x", "y": 1 });
    assert_eq!(create(&gateway, &ann, &body).described["owner"], ann.user);
    let text = Request::post(KEYS)
        .header("Content-Type", "text/plain")
        .body("{}");
    call(&gateway, &ann, text).assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
}

#[test]
fn every_key_expires_where_a_lifetime_is_configured() {
    let config = self_service(Config::new(Upstream::start().address));
    let gateway = Gateway::start(config.set("/api_keys/max_ttl", json!("90d")));
    let ann = gateway.register(ANN);
    let key = create(&gateway, &ann, &json!({ "name": "a" }));
    assert!(key.described["expires_at"].is_string());
    let body = json!({ "name": "a", "expires_at": "2127-01-01T00:00:00Z" });
    for request in [
        Request::post(KEYS).json(&body),
        patch(&key.path(KEYS), &body),
    ] {
        assert_invalid(&call(&gateway, &ann, request), &["expires_at"], &body);
    }
    let without = patch(&key.path(KEYS), &json!({ "expires_at": null }));
    assert!(call(&gateway, &ann, without).data()["expires_at"].is_string());
}

#[test]
fn endpoints_exist_with_self_service_alone() {
    let upstream = Upstream::start();
    let catch_all = json!({ "name": "rest", "auth": "none", "upstream": "echo" });
    let config = Config::new(upstream.address).route(catch_all);
    let mut gateway = Gateway::start(config.set("/api_keys", json!({})));
    let ann = gateway.register(ANN);
    let list = || Request::get(KEYS);
    let description = |gateway: &Gateway| gateway.get("/api/v1/openapi.json").json();
    // Another path is routed as usual.
    assert_eq!(call(&gateway, &ann, list()).echo().target(), KEYS);
    assert!(description(&gateway)["paths"]["/api-keys"].is_null());
    gateway.reload("applied", |config| {
        config.put("/api_keys/self_service", json!(true));
    });
    assert_eq!(call(&gateway, &ann, list()).data()["count"], 0);
    assert!(description(&gateway)["paths"]["/api-keys"].is_object());
    gateway.admin(Request::get(ADMIN_KEYS)).assert_ok();
    gateway.reload("applied", |config| config.put("/api_keys", Value::Null));
    assert_eq!(call(&gateway, &ann, list()).echo().target(), KEYS);
    gateway
        .admin(Request::get(ADMIN_KEYS))
        .assert_refused(404, "NOT_FOUND");
}

/// Users of a provider who are in no table have no keys: nothing could say what they still may.
#[test]
fn user_of_a_provider_needs_a_row() {
    for (users, status) in [("external", 403), ("database", 201)] {
        let (provider, upstream) = (Provider::start(), Upstream::start());
        let mut config = self_service(provider.configure(Config::new(upstream.address)));
        config.put("/identity/providers/corp/users", json!(users));
        let gateway = Gateway::start(config);
        let mut visitor = Visitor::new();
        let visit = visitor.open(&provider.start_url(&gateway, "/private/a"));
        assert_eq!(visit.response.status, 200, "{visit:?}");
        let cookie = visitor.session_cookie().unwrap();
        let create = Request::post(KEYS).json(&json!({ "name": "a" }));
        let response = gateway.request(&create.cookie(&cookie).same_origin());
        assert_eq!(response.status, status, "{users}: {}", response.text());
        if status == 403 {
            response.assert_refused(403, "FORBIDDEN");
        }
    }
}

#[test]
fn secret_is_kept_nowhere() {
    let gateway = gateway();
    let ann = gateway.register(ANN);
    let key = create(&gateway, &ann, &json!({ "name": "laptop" }));
    let rotate = Request::post(&format!("{}/rotate", key.path(KEYS)));
    let rotated = NewKey::of(&call(&gateway, &ann, rotate), 200);
    gateway.wait_for_log("/rotate");
    let events = gateway.admin(Request::get("/admin/events")).text();
    let mut kept = gateway.logs() + &events;
    for file in std::fs::read_dir(gateway.config.folder()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        kept.push_str(&String::from_utf8_lossy(&bytes));
    }
    for secret in [key.secret, rotated.secret] {
        let random = secret.rsplit('_').next().unwrap();
        assert!(
            !kept.contains(random),
            "a secret is in the logs, the events or the database"
        );
    }
}
