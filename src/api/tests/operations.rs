//! The admin listener's limits, blacklist and events.

use http::StatusCode;
use serde_json::json;

use super::admin::admin_of;
use super::*;
use crate::limits::{Algorithm, KeyPart, Limit, LimitDefinition, OnOutage};

#[tokio::test]
async fn limits_are_listed_inspected_and_reset() {
    let per_user = Limit::new(LimitDefinition {
        name: "per-user".into(),
        algorithm: Algorithm::SlidingWindow,
        limit: 2,
        window: Duration::from_secs(60),
        key: vec![KeyPart::User],
        roles: Vec::new(),
        except_roles: Vec::new(),
        on_outage: OnOutage::Local,
        shadow: false,
        leased: false,
    });
    let gateway = gateway_with(|settings| settings.limits = vec![Arc::new(per_user)]).await;
    let admin = admin_of(&gateway);
    let id = gateway.register().await.text("/user/id");
    let listed = admin
        .call_as_operator("GET", "/admin/limits", &Value::Null)
        .await;
    assert_eq!(listed.at("/limits/0/name"), "per-user");
    assert_eq!(listed.at("/limits/1/name"), "sign-in-address");
    let whole = admin
        .call_as_operator("GET", "/admin/limits/per-user/u", &Value::Null)
        .await;
    assert_eq!(whole.at("/remaining"), 2);

    let attacker = gateway.from("198.51.100.1");
    for _ in 0..3 {
        attacker.login(EMAIL, "wrong").await;
    }
    let path = format!("/admin/limits/sign-in-account/{id},198.51.100.1");
    let full = admin.call_as_operator("GET", &path, &Value::Null).await;
    assert_eq!(
        (full.at("/allowed"), full.at("/remaining")),
        (&json!(false), &json!(0))
    );
    let reset = admin.call_as_operator("DELETE", &path, &Value::Null).await;
    assert_eq!(reset.status, StatusCode::NO_CONTENT);
    assert_eq!(attacker.login(EMAIL, PASSWORD).await.status, StatusCode::OK);
    for bad in ["sign-in-account/x", "sign-in-address/nowhere"] {
        let response = admin
            .call_as_operator("GET", &format!("/admin/limits/{bad}"), &Value::Null)
            .await;
        assert_eq!(response.code(), "VALIDATION_FAILED");
    }
    let unknown = admin
        .call_as_operator("GET", "/admin/limits/none/x", &Value::Null)
        .await;
    assert_eq!(unknown.code(), "NOT_FOUND");
}

#[tokio::test]
async fn tokens_are_blacklisted_and_removed() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    let token = gateway.register().await.text("/access_token");
    let response = admin
        .call_as_operator("POST", "/admin/blacklist", &json!({"token": token}))
        .await;
    let jti = claims(&token).blacklist_key;
    assert_eq!(response.text("/jti"), jti);
    assert!((900..910).contains(&response.at("/ttl").as_u64().unwrap()));
    let is_on = || async { gateway.state.store.are_blacklisted(&[&jti]).await.unwrap() };
    assert_eq!(is_on().await, [true]);
    let off = admin
        .call_as_operator("DELETE", &format!("/admin/blacklist/{jti}"), &Value::Null)
        .await;
    assert_eq!(off.status, StatusCode::NO_CONTENT);
    assert_eq!(is_on().await, [false]);
    for bad in [
        json!({}),
        json!({"jti": "a", "token": token}),
        json!({"jti": "a", "ttl": 0}),
    ] {
        let response = admin
            .call_as_operator("POST", "/admin/blacklist", &bad)
            .await;
        assert_eq!(response.code(), "VALIDATION_FAILED", "{bad}");
    }
}

#[tokio::test]
async fn events_are_paged_and_reload_errors_listed() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    gateway.register().await;
    let first = admin
        .call_as_operator("GET", "/admin/events?limit=1", &Value::Null)
        .await;
    assert_eq!(first.at("/events/0/event"), "sign_in");
    let next = format!("/admin/events?cursor={}", first.text("/next_cursor"));
    let second = admin.call_as_operator("GET", &next, &Value::Null).await;
    assert_eq!(second.at("/events/0/event"), "registered");
    assert!(second.at("/next_cursor").is_null());
    let refused = admin
        .call_as_operator("POST", "/admin/reload", &Value::Null)
        .await
        .rejection
        .unwrap();
    assert_eq!(refused.fields(), [("f:1:2".to_owned(), "wrong".to_owned())]);
}
