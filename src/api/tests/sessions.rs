//! A user's own sessions.

use http::StatusCode;
use serde_json::json;

use super::*;

async fn bearer(response: &TestResponse) -> String {
    format!("Bearer {}", response.text("/access_token"))
}

#[tokio::test]
async fn sessions_are_listed_in_pages_newest_first() {
    let gateway = gateway().await;
    let mut ids = vec![gateway.register().await.text("/session/id")];
    let mut last = None;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let response = gateway.login(EMAIL, PASSWORD).await;
        ids.insert(0, response.text("/session/id"));
        last = Some(bearer(&response).await);
    }
    let last = last.unwrap();
    let headers = [("authorization", last.as_str())];
    let first = gateway.call("GET", "/sessions?limit=2", &headers, "").await;
    assert_eq!(first.at("/count"), 3);
    assert_eq!(first.text("/sessions/0/id"), *ids.first().unwrap());
    assert_eq!(first.at("/sessions/0/current"), true);
    assert_eq!(first.at("/sessions/1/current"), false);
    let next = format!("/sessions?limit=2&cursor={}", first.text("/next_cursor"));
    let second = gateway.call("GET", &next, &headers, "").await;
    assert_eq!(second.text("/sessions/0/id"), *ids.last().unwrap());
    assert!(second.at("/sessions/1").is_null() && second.at("/next_cursor").is_null());
    let bad = gateway
        .call("GET", "/sessions?status=on", &headers, "")
        .await;
    assert_eq!(bad.code(), "VALIDATION_FAILED");
}

#[tokio::test]
async fn sessions_of_other_users_are_not_found() {
    let gateway = gateway().await;
    let ann = gateway.register().await;
    let body = json!({"email": "bob@example.com", "password": PASSWORD});
    let bob = gateway.post("/auth/register", &body).await;
    let credential = bearer(&bob).await;
    let headers = [("authorization", credential.as_str())];
    let path = format!("/sessions/{}", ann.text("/session/id"));
    for method in ["GET", "DELETE"] {
        let response = gateway.call(method, &path, &headers, "").await;
        assert_eq!(response.code(), "NOT_FOUND");
        let response = gateway
            .call(method, "/sessions/nonsense", &headers, "")
            .await;
        assert_eq!(response.code(), "NOT_FOUND");
        assert_eq!(
            gateway.call(method, &path, &[], "").await.code(),
            "UNAUTHENTICATED"
        );
    }
    assert!(gateway.is_session_active(&ann.text("/session/id")).await);
    let own = gateway.call("GET", "/sessions/current", &headers, "").await;
    assert_eq!(own.text("/id"), bob.text("/session/id"));
}

#[tokio::test]
async fn ended_sessions_stay_listed_as_revoked() {
    let gateway = gateway().await;
    let first = gateway.register().await;
    let second = gateway.login(EMAIL, PASSWORD).await;
    let third = gateway.login(EMAIL, PASSWORD).await;
    let credential = bearer(&third).await;
    let headers = [("authorization", credential.as_str())];
    let path = format!("/sessions/{}", first.text("/session/id"));
    for _ in 0..2 {
        let response = gateway.call("DELETE", &path, &headers, "").await;
        assert_eq!(response.status, StatusCode::NO_CONTENT);
    }
    assert!(!gateway.is_session_active(&first.text("/session/id")).await);
    assert!(gateway.is_session_active(&second.text("/session/id")).await);
    let response = gateway.call("DELETE", "/sessions", &headers, "").await;
    assert_eq!(response.at("/revoked"), 1);
    assert!(!gateway.is_session_active(&second.text("/session/id")).await);
    assert!(gateway.is_session_active(&third.text("/session/id")).await);
    let revoked = gateway
        .call("GET", "/sessions?status=revoked", &headers, "")
        .await;
    assert_eq!(revoked.at("/count"), 2);
    assert_eq!(revoked.at("/sessions/0/status"), "revoked");
    assert_eq!(gateway.count_events("revoked").await, 2);
}

#[tokio::test]
async fn cookie_changes_require_same_origin() {
    let gateway = gateway().await;
    let cookie = gateway.register().await.cookie();
    let other = gateway.login(EMAIL, PASSWORD).await.text("/session/id");
    let path = format!("/sessions/{other}");
    for refused in [
        ("x", "y"),
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let headers = [("cookie", cookie.as_str()), refused];
        for path in [path.as_str(), "/sessions"] {
            let response = gateway.call("DELETE", path, &headers, "").await;
            assert_eq!(response.code(), "CSRF_REJECTED", "{refused:?} {path}");
        }
    }
    assert!(gateway.is_session_active(&other).await);
    let headers = [
        ("cookie", cookie.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    let response = gateway.call("DELETE", &path, &headers, "").await;
    assert_eq!(response.status, StatusCode::NO_CONTENT);
    let read = gateway
        .call("GET", "/sessions", &[("cookie", cookie.as_str())], "")
        .await;
    assert_eq!(read.status, StatusCode::OK);
}

#[tokio::test]
async fn cookie_of_ended_session_is_cleared() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let cookie = signed_in.cookie();
    let id = SessionId::parse(&signed_in.text("/session/id")).unwrap();
    let reason = crate::auth::session::EndReason::Admin;
    gateway.state.store.revoke(id, reason, None).await.unwrap();
    let response = gateway
        .call("GET", "/sessions", &[("cookie", cookie.as_str())], "")
        .await;
    assert_eq!(response.code(), "SESSION_REVOKED");
    assert!(response.rejection.unwrap().clear_cookie);
    let credential = bearer(&signed_in).await;
    let headers = [("authorization", credential.as_str())];
    let response = gateway.call("GET", "/sessions", &headers, "").await;
    assert!(!response.rejection.unwrap().clear_cookie);
}
