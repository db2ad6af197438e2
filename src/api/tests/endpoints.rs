//! Which paths are endpoints, and what all answers have in common.

use http::StatusCode;

use super::super::is_endpoint;
use super::*;

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
        let answer = gateway.call(method, path, &[], "").await;
        assert_eq!(answer.code(), "METHOD_NOT_ALLOWED", "{method} {path}");
        assert_eq!(
            answer.headers.get("allow").unwrap(),
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
    for answer in [
        health,
        keys,
        gateway.call("GET", "/sessions", &[], "").await,
    ] {
        assert_eq!(answer.headers.get("cache-control").unwrap(), "no-store");
    }
}

#[tokio::test]
async fn allowed_origins_pass_cors() {
    let gateway = gateway().await;
    let allowed = ("origin", "https://app.example");
    let preflight = [allowed, ("access-control-request-method", "POST")];
    let answer = gateway.call("OPTIONS", "/auth/login", &preflight, "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(
        answer.headers.get("access-control-allow-origin").unwrap(),
        allowed.1
    );
    let answer = gateway.call("GET", "/health", &[allowed], "").await;
    assert_eq!(
        answer
            .headers
            .get("access-control-allow-credentials")
            .unwrap(),
        "true"
    );
    let other = [
        ("origin", "https://evil.example"),
        ("access-control-request-method", "POST"),
    ];
    let answer = gateway.call("OPTIONS", "/auth/login", &other, "").await;
    assert_eq!(answer.code(), "METHOD_NOT_ALLOWED");
    assert!(answer.headers.get("access-control-allow-origin").is_none());
    assert_eq!(answer.headers.get("vary").unwrap(), "Origin");
}

#[test]
fn only_endpoints_shadow_routes() {
    for path in [
        "/auth/login",
        "/auth/signout",
        "/sessions",
        "/sessions/current",
        "/sessions/abc",
        "/health",
        "/jwks.json",
        "/openapi.json",
        "/profile",
        "/profile/password",
        "/auth/signup",
    ] {
        assert!(is_endpoint(path), "{path}");
    }
    for path in [
        "",
        "/",
        "/auth",
        "/auth/",
        "/auth/login/",
        "/auth/loginx",
        "/Auth/login",
        "/sessions/",
        "/sessions/current/other",
        "/profile/",
        "/profiles",
        "/orders",
    ] {
        assert!(!is_endpoint(path), "{path}");
    }
}

#[test]
fn protected_endpoints_need_a_caller() {
    let cases = [
        (http::Method::POST, "/auth/logout", true),
        (http::Method::POST, "/auth/login", false),
        (http::Method::POST, "/auth/refresh", false),
        (http::Method::GET, "/sessions", true),
        (http::Method::HEAD, "/sessions/x", true),
        (http::Method::DELETE, "/sessions/x", true),
        (http::Method::POST, "/auth/logout-all", true),
        (http::Method::GET, "/sessions/current", true),
        (http::Method::OPTIONS, "/sessions", false),
        (http::Method::PUT, "/profile", true),
        (http::Method::PUT, "/profile/password", true),
        (http::Method::GET, "/openapi.json", false),
        (http::Method::GET, "/health", false),
        (http::Method::GET, "/jwks.json", false),
    ];
    for (method, path, expected) in cases {
        assert_eq!(needs_caller(&method, path), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn description_covers_every_endpoint_and_response() {
    let gateway = gateway().await;
    let answer = gateway.call("GET", "/openapi.json", &[], "").await;
    assert_eq!(answer.status, StatusCode::OK);
    let description = answer.body;
    let at = |pointer: &str| description.pointer(pointer).unwrap_or(&Value::Null);
    assert_eq!(at("/servers/0/url"), "/api/v1");
    assert_eq!(
        at("/components/securitySchemes/cookie/name"),
        "__Host-portcullis"
    );
    let paths = at("/paths").as_object().unwrap();
    let mut ids = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let what = format!("{method} {path}");
            ids.push(operation.pointer("/operationId").unwrap().as_str().unwrap());
            assert!(operation.get("summary").is_some(), "{what}");
            let responses = operation.get("responses").unwrap().as_object().unwrap();
            assert!(responses.keys().any(|code| code.starts_with('2')), "{what}");
            for code in ["400", "503"] {
                assert!(responses.contains_key(code), "{what} {code}");
            }
            let open = operation.pointer("/security/0") == Some(&serde_json::json!({}));
            assert!(open || responses.contains_key("401"), "{what}");
            let body = operation.get("requestBody").is_some();
            assert_eq!(responses.contains_key("415"), body, "{what}");
            let called = path.replace("{id}", "x");
            let called = gateway.call(&method.to_uppercase(), &called, &[], "").await;
            let code = called.status.as_u16().to_string();
            assert!(responses.contains_key(&code), "{what} {code}");
            assert_eq!(code == "401", !open, "{what}");
        }
    }
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
