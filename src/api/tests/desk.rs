//! Which paths are endpoints, and what all answers have in common.

use http::StatusCode;

use super::super::serves;
use super::*;

#[tokio::test]
async fn what_is_no_endpoint_and_what_is_no_method() {
    let gateway = gateway().await;
    assert_eq!(
        gateway.call("GET", "/profile", &[], "").await.code(),
        "NOT_FOUND"
    );
    let cases = [
        ("GET", "/auth/login", "POST"),
        ("GET", "/auth/logout", "POST"),
        ("PUT", "/auth/refresh", "POST"),
        ("POST", "/sessions", "GET,HEAD,DELETE"),
        ("POST", "/sessions/current", "GET,HEAD,DELETE"),
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
async fn health_and_keys_are_there_for_everybody_and_nothing_is_cached() {
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
async fn pages_of_allowed_origins_may_call() {
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
fn only_endpoints_are_taken_from_the_routes() {
    for path in [
        "/auth/login",
        "/auth/signout",
        "/sessions",
        "/sessions/current",
        "/sessions/abc",
        "/health",
        "/jwks.json",
    ] {
        assert!(serves(path), "{path}");
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
        "/sessions/current/extend",
        "/profile",
        "/orders",
    ] {
        assert!(!serves(path), "{path}");
    }
}

#[test]
fn callers_are_asked_for_where_it_matters() {
    let cases = [
        (http::Method::POST, "/auth/logout", true),
        (http::Method::POST, "/auth/login", false),
        (http::Method::POST, "/auth/refresh", false),
        (http::Method::GET, "/sessions", true),
        (http::Method::HEAD, "/sessions/x", true),
        (http::Method::DELETE, "/sessions/x", true),
        (http::Method::GET, "/health", false),
        (http::Method::GET, "/jwks.json", false),
    ];
    for (method, path, expected) in cases {
        assert_eq!(needs_caller(&method, path), expected, "{method} {path}");
    }
}
