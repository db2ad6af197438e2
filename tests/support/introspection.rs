//! Calls of `POST introspect`, as a backend makes them.

use serde_json::{Value, json};

use super::client::Request;
use super::gateway::Gateway;
use super::key_calls::admin_create;

pub const INTROSPECT: &str = "/api/v1/introspect";
pub const SCOPE: &str = "portcullis:introspect";

/// Creates a key of a service that may introspect.
pub fn create_key(gateway: &Gateway) -> String {
    let body = json!({ "service": "billing", "name": "backend", "scopes": [SCOPE] });
    admin_create(gateway, &body).secret
}

/// A call about a token, without a credential.
pub fn call(token: &str) -> Request {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    let form = form.append_pair("token", token).finish();
    Request::post(INTROSPECT)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
}

/// What a backend with this key learns about a token.
#[track_caller]
pub fn introspect(gateway: &Gateway, key: &str, token: &str) -> Value {
    let response = gateway.request(&call(token).bearer(key));
    response.assert_ok();
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    if response.json()["active"] == false {
        assert_eq!(response.text(), r#"{"active":false}"#);
    }
    response.json()
}
