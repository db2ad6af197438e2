//! Endpoint paths, and properties that all responses share.

use http::StatusCode;

use super::*;
use crate::routing::endpoints::{ENDPOINTS, EndpointKind};

#[tokio::test]
async fn unknown_paths_and_methods_are_rejected() {
    let gateway = gateway().await;
    assert_eq!(
        gateway.call("GET", "/orders", &[], "").await.code(),
        "NOT_FOUND"
    );
    let cases = [
        ("GET", "/auth/login", "POST"),
        ("GET", "/auth/logout", "POST"),
        ("PUT", "/auth/refresh", "POST"),
        ("POST", "/sessions", "GET,HEAD,DELETE"),
        ("POST", "/sessions/current", "GET,HEAD,DELETE,PATCH"),
        ("DELETE", "/profile", "GET,HEAD,PUT"),
        ("DELETE", "/health", "GET,HEAD"),
    ];
    for (method, path, allow) in cases {
        let response = gateway.call(method, path, &[], "").await;
        assert_eq!(response.code(), "METHOD_NOT_ALLOWED", "{method} {path}");
        assert_eq!(
            response.headers.get("allow").unwrap(),
            allow,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn health_and_keys_are_public_and_uncached() {
    let gateway = gateway().await;
    let health = gateway.call("GET", "/health", &[], "").await;
    assert_eq!(
        health.body,
        serde_json::json!({"success": true, "data": {"status": "OK"}})
    );
    let keys = gateway.call("GET", "/jwks.json", &[], "").await;
    assert_eq!(keys.body, serde_json::json!({"keys": []}));
    for response in [
        health,
        keys,
        gateway.call("GET", "/sessions", &[], "").await,
    ] {
        assert_eq!(response.headers.get("cache-control").unwrap(), "no-store");
    }
}

#[tokio::test]
async fn allowed_origins_pass_cors() {
    let gateway = gateway().await;
    let allowed = ("origin", "https://app.example");
    let preflight = [allowed, ("access-control-request-method", "POST")];
    let response = gateway.call("OPTIONS", "/auth/login", &preflight, "").await;
    assert_eq!(response.status, StatusCode::NO_CONTENT);
    assert_eq!(
        response.headers.get("access-control-allow-origin").unwrap(),
        allowed.1
    );
    let response = gateway.call("GET", "/health", &[allowed], "").await;
    assert_eq!(
        response
            .headers
            .get("access-control-allow-credentials")
            .unwrap(),
        "true"
    );
    let other = [
        ("origin", "https://evil.example"),
        ("access-control-request-method", "POST"),
    ];
    let response = gateway.call("OPTIONS", "/auth/login", &other, "").await;
    assert_eq!(response.code(), "METHOD_NOT_ALLOWED");
    assert!(
        response
            .headers
            .get("access-control-allow-origin")
            .is_none()
    );
    assert_eq!(response.headers.get("vary").unwrap(), "Origin");
}

/// Asserts that an operation has its parts, and names the status of a call without a credential.
fn assert_described(what: &str, operation: &Value, status: StatusCode) {
    assert!(operation.get("summary").is_some(), "{what}");
    let responses = operation.get("responses").unwrap().as_object().unwrap();
    // A sign-in at a provider succeeds by a redirect.
    let is_success = |code: &String| code.starts_with(['2', '3']);
    assert!(responses.keys().any(is_success), "{what}");
    for code in ["400", "503"] {
        assert!(responses.contains_key(code), "{what} {code}");
    }
    let open = operation.pointer("/security/0") == Some(&serde_json::json!({}));
    assert!(open || responses.contains_key("401"), "{what}");
    let body = operation.get("requestBody").is_some();
    assert_eq!(responses.contains_key("415"), body, "{what}");
    let code = status.as_u16().to_string();
    assert!(responses.contains_key(&code), "{what} {code}");
    assert_eq!(code == "401", !open, "{what}");
}

#[tokio::test]
async fn description_covers_every_endpoint_and_response() {
    let gateway = gateway().await;
    let response = gateway.call("GET", "/openapi.json", &[], "").await;
    assert_eq!(response.status, StatusCode::OK);
    let description = response.body;
    let at = |pointer: &str| description.pointer(pointer).unwrap_or(&Value::Null);
    assert_eq!(at("/servers/0/url"), "/api/v1");
    assert_eq!(
        at("/components/securitySchemes/cookie/name"),
        "__Host-portcullis"
    );
    let paths = at("/paths").as_object().unwrap();
    let (mut ids, mut described) = (Vec::new(), Vec::new());
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            described.push((path.clone(), method.to_uppercase()));
            ids.push(operation.pointer("/operationId").unwrap().as_str().unwrap());
            let called = path.replace("{id}", "x");
            let called = gateway.call(&method.to_uppercase(), &called, &[], "").await;
            assert_described(&format!("{method} {path}"), operation, called.status);
        }
    }
    let offered = reloadable().api.unwrap().offered;
    let mut expected: Vec<_> = ENDPOINTS
        .iter()
        .filter(|endpoint| offered.includes(endpoint.kind) && endpoint.kind != EndpointKind::Page)
        .flat_map(|endpoint| {
            let methods = endpoint.methods.iter();
            methods.map(|(method, _)| (endpoint.path.to_owned(), method.to_string()))
        })
        .collect();
    expected.sort();
    described.sort();
    assert_eq!(described, expected);
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
    let text = description.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(!at(pointer).is_null(), "{pointer}");
    }
}
