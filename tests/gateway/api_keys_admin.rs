//! The endpoints by which operators create, change, rotate and revoke the keys of all owners.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::commands::{ANN, for_each_store_with};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::key_calls::{
    ADMIN_KEYS, KEYS, NewKey, admin_create, call, create, ids, self_service,
};
use crate::support::upstream::Upstream;

fn gateway() -> Gateway {
    Gateway::start(self_service(Config::new(Upstream::start().address)))
}

fn patch(path: &str, body: &Value) -> Request {
    Request::new("PATCH", path).json(body)
}

#[test]
fn keys_of_users_and_services_are_managed() {
    for_each_store_with(self_service, |gateway| {
        let ann = gateway.register(ANN);
        let service = json!({
            "service": "billing", "name": "nightly", "roles": ["job"], "scopes": ["orders:read"],
            "allowed_ips": ["10.0.0.0/8"],
        });
        let nightly = admin_create(gateway, &service);
        assert_eq!(nightly.described["owner"], "service:billing");
        assert_eq!(nightly.described["roles"], json!(["job"]));
        // A key may wait for a role that its user does not have yet.
        let body = json!({ "user": ann.user, "name": "of Ann", "roles": ["admin"] });
        let of_ann = admin_create(gateway, &body);
        assert_eq!(of_ann.described["owner"], ann.user);
        let own = create(gateway, &ann, &json!({ "name": "her own" }));
        let listed = |query: &str| {
            let list = gateway
                .admin(Request::get(&format!("{ADMIN_KEYS}?{query}")))
                .data();
            let mut ids: Vec<String> = ids(&list).iter().map(ToString::to_string).collect();
            assert_eq!(list["count"], ids.len());
            ids.sort();
            ids
        };
        let sorted = |keys: &[&NewKey]| {
            let mut ids: Vec<String> = keys.iter().map(|key| key.id.clone()).collect();
            ids.sort();
            ids
        };
        assert_eq!(listed(""), sorted(&[&nightly, &of_ann, &own]));
        assert_eq!(listed("owner=service:billing"), sorted(&[&nightly]));
        let of = format!("owner={}", ann.user);
        assert_eq!(listed(&of), sorted(&[&of_ann, &own]));
        assert_eq!(listed("owner=service:other"), sorted(&[]));

        let path = nightly.path(ADMIN_KEYS);
        let change = json!({ "name": "weekly", "roles": [], "allowed_ips": [] });
        let changed = gateway.admin(patch(&path, &change)).data();
        let mut after = nightly.described.clone();
        after["name"] = json!("weekly");
        (after["roles"], after["allowed_ips"]) = (json!([]), json!([]));
        assert_eq!(changed, after);
        assert_eq!(gateway.admin(Request::get(&path)).data(), after);
        let rotate = Request::post(&format!("{path}/rotate")).json(&json!({ "grace": "1h" }));
        let rotated = NewKey::of(&gateway.admin(rotate), 200);
        assert_eq!((&rotated.id, &rotated.described), (&nightly.id, &after));
        assert_ne!(rotated.secret, nightly.secret);

        for revoked in [1, 0] {
            let deleted = gateway.admin(Request::delete(&path)).data();
            assert_eq!(deleted, json!({ "revoked": revoked }));
        }
        let waiting = Request::delete(&format!("{}?wait=fleet", own.path(ADMIN_KEYS)));
        let deleted = gateway.admin(waiting).data();
        assert_eq!(deleted["revoked"], 1);
        assert!(deleted.as_object().unwrap().len() > 1, "{deleted}");
        let shown = call(gateway, &ann, Request::get(&own.path(KEYS))).data();
        assert_eq!(shown["status"], "revoked");
        assert_eq!(listed("status=revoked"), sorted(&[&nightly, &own]));
        assert_eq!(listed("status=all"), sorted(&[&nightly, &of_ann, &own]));
    });
}

#[test]
fn owner_is_a_user_or_a_service() {
    for_each_store_with(self_service, refuse_other_owners);
}

fn refuse_other_owners(gateway: &Gateway) {
    let ann = gateway.register(ANN);
    for (owner, field) in [
        (json!({}), "user"),
        (json!({ "user": ann.user, "service": "billing" }), "user"),
        (
            json!({ "user": "00000000-0000-0000-0000-000000000000" }),
            "user",
        ),
        (json!({ "user": "ann" }), "user"),
        (json!({ "user": "service:billing" }), "user"),
        (json!({ "user": 7 }), "user"),
        (json!({ "user": "" }), "user"),
        (json!({ "user": "a\u{0}" }), "user"),
        (json!({ "user": "a".repeat(300) }), "user"),
        (json!({ "service": "" }), "service"),
        (json!({ "service": "Billing" }), "service"),
        (json!({ "service": "a b" }), "service"),
        (json!({ "service": "a".repeat(65) }), "service"),
    ] {
        let mut body = owner.clone();
        body["name"] = json!("a");
        let refused = gateway.admin(Request::post(ADMIN_KEYS).json(&body));
        refused.assert_refused(400, "VALIDATION_FAILED");
        let fields = refused.json()["error"]["fields"].clone();
        assert!(fields[field].is_string(), "{owner}: {fields}");
    }
    assert_eq!(gateway.admin(Request::get(ADMIN_KEYS)).data()["count"], 0);
    for query in [
        "owner=service:",
        "owner=service:A",
        "owner=%00",
        "owner=a%0Ab",
        "status=old",
        "limit=0",
        "cursor=x",
    ] {
        let refused = gateway.admin(Request::get(&format!("{ADMIN_KEYS}?{query}")));
        refused.assert_refused(400, "VALIDATION_FAILED");
    }
}

#[test]
fn unknown_key_is_not_found() {
    let gateway = gateway();
    for id in ["0000000000000000", "nonsense", "%20", "0000000000000000_"] {
        let path = format!("{ADMIN_KEYS}/{id}");
        for request in [
            Request::get(&path),
            patch(&path, &json!({ "name": "a" })),
            Request::delete(&path),
            Request::post(&format!("{path}/rotate")),
        ] {
            gateway.admin(request).assert_refused(404, "NOT_FOUND");
        }
    }
}

#[test]
fn services_have_as_many_keys_as_users() {
    let config = self_service(Config::new(Upstream::start().address));
    let gateway = Gateway::start(config.set("/api_keys/max_per_owner", json!(1)));
    let body = json!({ "service": "billing", "name": "a" });
    let key = admin_create(&gateway, &body);
    let refused = gateway.admin(Request::post(ADMIN_KEYS).json(&body));
    refused.assert_refused(409, "KEY_LIMIT_REACHED");
    admin_create(&gateway, &json!({ "service": "shipping", "name": "a" }));
    gateway
        .admin(Request::delete(&key.path(ADMIN_KEYS)))
        .assert_ok();
    admin_create(&gateway, &body);
}

#[test]
fn calls_need_the_admin_token() {
    let gateway = gateway();
    let key = admin_create(&gateway, &json!({ "service": "billing", "name": "a" }));
    let path = key.path(ADMIN_KEYS);
    for request in [
        Request::get(ADMIN_KEYS),
        Request::post(ADMIN_KEYS).json(&json!({ "service": "billing", "name": "a" })),
        Request::get(&path),
        Request::delete(&path),
        Request::post(&format!("{path}/rotate")),
    ] {
        for request in [request.clone(), request.clone().bearer(&key.secret)] {
            let status = request.send(gateway.admin).status;
            assert!([401, 403].contains(&status), "{status}");
        }
        let public = gateway.request(&request);
        public.assert_refused(404, "ROUTE_NOT_FOUND");
    }
    let list = gateway.admin(Request::get(ADMIN_KEYS)).data();
    assert_eq!(list["api_keys"], json!([key.described]));
}
