//! Registration and sign-in.

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::auth::session::OnSessionLimit;
use crate::settings::Reloadable;

#[tokio::test]
async fn registration_signs_the_user_in() {
    let gateway = gateway().await;
    let headers = [("x-device-name", "Ann's phone"), ("user-agent", "test/1")];
    let body = json!({
        "email": "Ann@Example.com", "password": PASSWORD, "name": "Ann", "session_token": true,
        "roles": ["admin"], "is_admin": true,
    });
    let response = gateway
        .call("POST", "/auth/signup", &headers, &body.to_string())
        .await;
    assert_eq!(response.status, StatusCode::CREATED);
    assert_eq!(response.text("/user/email"), EMAIL);
    assert_eq!(response.at("/user/roles"), &json!([]));
    assert_eq!(response.at("/session/device/name"), "Ann's phone");
    assert_eq!(response.at("/session/user_agent"), "test/1");
    assert_eq!(response.at("/session/current"), true);
    assert_eq!(response.at("/token_type"), "Bearer");
    assert_eq!(response.at("/expires_in"), 900);
    let id = response.text("/session/id");
    assert_eq!(response.headers.get("x-session-id").unwrap(), id.as_str());
    let token = response.text("/session_token");
    assert_eq!(response.cookie(), format!("__Host-portcullis={token}"));
    assert_eq!(
        claims(&response.text("/access_token")).session,
        SessionId::parse(&id)
    );
    assert!(gateway.is_session_active(&id).await);
    assert_eq!(gateway.metrics.sessions_created.get(), 1);
    let again = gateway.post("/auth/register", &body).await;
    assert_eq!(again.code(), "USER_EXISTS");
}

#[tokio::test]
async fn registration_can_be_closed() {
    let gateway = gateway_with(|settings| settings.identity.registration_open = false).await;
    let body = json!({"email": EMAIL, "password": PASSWORD});
    let response = gateway.post("/auth/register", &body).await;
    assert_eq!(response.code(), "REGISTRATION_CLOSED");
}

#[tokio::test]
async fn every_invalid_field_is_reported() {
    let gateway = gateway().await;
    let body = json!({"email": "ann", "password": "short", "username": "a@b"});
    let refused = gateway
        .post("/auth/register", &body)
        .await
        .rejection
        .unwrap();
    let names: Vec<&str> = refused
        .fields()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["email", "username", "password"]);
    let half = json!({"email": "ann", "username": 7, "session_token": "yes"});
    let refused = gateway
        .post("/auth/register", &half)
        .await
        .rejection
        .unwrap();
    let mut names: Vec<&str> = refused
        .fields()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["email", "password", "session_token", "username"]);
    let missing = gateway
        .post("/auth/login", &json!({}))
        .await
        .rejection
        .unwrap();
    let names: Vec<&str> = missing
        .fields()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["email", "password"]);
}

#[tokio::test]
async fn bodies_must_be_json_and_small() {
    let gateway = gateway().await;
    let text = [("content-type", "text/plain")];
    let response = gateway.call("POST", "/auth/login", &text, "").await;
    assert_eq!(response.code(), "UNSUPPORTED_MEDIA_TYPE");
    let large = json!({"email": "x".repeat(70_000)});
    assert_eq!(
        gateway.post("/auth/login", &large).await.code(),
        "BODY_TOO_LARGE"
    );
    let long = json!({"email": EMAIL, "password": "x".repeat(1025)});
    assert_eq!(
        gateway.post("/auth/login", &long).await.code(),
        "VALIDATION_FAILED"
    );
}

#[tokio::test]
async fn login_accepts_email_or_username_in_any_case() {
    let gateway = gateway().await;
    gateway.register().await;
    for login in ["ann@example.com", " ANN@example.com ", "ann", "ANN"] {
        let response = gateway.login(login, PASSWORD).await;
        assert_eq!(response.status, StatusCode::OK, "{login}");
        assert!(response.at("/session_token").is_null());
    }
    let body = json!({"username": "ann", "password": PASSWORD});
    assert_eq!(
        gateway.post("/auth/signin", &body).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn unknown_wrong_and_disabled_get_the_same_response() {
    let gateway = gateway().await;
    let id = gateway.register().await.text("/user/id");
    let wrong = gateway.login(EMAIL, "wrong password").await;
    let unknown = gateway.login("bob@example.com", "wrong password").await;
    let patch = crate::identity::UserPatch {
        disabled: Some(true),
        ..Default::default()
    };
    let accounts = &gateway.state.accounts;
    accounts.change_user(&id, patch, PASSWORDS).await.unwrap();
    let disabled = gateway.login(EMAIL, PASSWORD).await;
    for response in [&wrong, &unknown, &disabled] {
        assert_eq!(response.code(), "INVALID_CREDENTIALS");
        assert_eq!(response.headers, wrong.headers);
    }
    assert_eq!(gateway.count_events("sign_in_failed").await, 3);
}

#[tokio::test]
async fn failures_lock_the_account_for_one_address() {
    let gateway = gateway().await;
    gateway.register().await;
    let attacker = gateway.from("198.51.100.1");
    for spelling in [EMAIL, "ANN@EXAMPLE.COM", " ann@example.com"] {
        assert_eq!(
            attacker.login(spelling, "wrong").await.code(),
            "INVALID_CREDENTIALS"
        );
    }
    let limited = attacker.login(EMAIL, PASSWORD).await;
    assert_eq!(limited.code(), "RATE_LIMITED");
    let limits = limited.rejection.unwrap().decisions;
    let wait = limits.iter().map(|limit| limit.retry_after).max();
    assert!(wait.unwrap() > Duration::from_secs(1));
    assert_eq!(gateway.login(EMAIL, PASSWORD).await.status, StatusCode::OK);
    assert_eq!(
        attacker.login("bob@example.com", "x").await.code(),
        "INVALID_CREDENTIALS"
    );
}

#[tokio::test]
async fn known_addresses_survive_distributed_failures() {
    let gateway = gateway().await;
    gateway.register().await;
    let addresses: [&'static str; 10] = [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "198.51.100.4",
        "198.51.100.5",
        "198.51.100.6",
        "198.51.100.7",
        "198.51.100.8",
        "198.51.100.9",
        "198.51.100.10",
    ];
    for address in addresses {
        for _ in 0..3 {
            gateway.from(address).login(EMAIL, "wrong").await;
        }
    }
    let elsewhere = gateway.from("203.0.113.1");
    assert_eq!(
        elsewhere.login(EMAIL, PASSWORD).await.code(),
        "RATE_LIMITED"
    );
    assert_eq!(gateway.login(EMAIL, PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test]
async fn attempts_are_counted_regardless_of_outcome() {
    let limit = |settings: &mut Reloadable| settings.identity.attempts_per_address.limit = 3;
    let gateway = gateway_with(limit).await;
    gateway.register().await;
    gateway.login(EMAIL, PASSWORD).await;
    gateway.login("bob@example.com", "x").await;
    let response = gateway.login(EMAIL, PASSWORD).await;
    assert_eq!(response.code(), "RATE_LIMITED");
    assert_eq!(response.rejection.unwrap().decisions.len(), 1);
    let other = gateway.from("192.0.2.2");
    assert_eq!(other.login(EMAIL, PASSWORD).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_attempt_reports_limit_decisions() {
    let gateway = gateway().await;
    let standing = |limits: &[crate::limits::Decision]| -> Vec<(String, u64)> {
        let stands = |d: &crate::limits::Decision| (d.limit.name.to_string(), d.remaining);
        limits.iter().map(stands).collect()
    };
    let address = |left| ("sign-in-address".to_owned(), left);
    let account = |left| ("sign-in-account".to_owned(), left);
    let registered = gateway.register().await;
    assert_eq!(standing(&registered.info.limits), [address(99)]);
    let taken = gateway
        .post(
            "/auth/register",
            &json!({"email": EMAIL, "password": PASSWORD}),
        )
        .await;
    assert_eq!(standing(&taken.rejection.unwrap().decisions), [address(98)]);
    let right = gateway.login(EMAIL, PASSWORD).await;
    assert_eq!(standing(&right.info.limits), [address(97), account(3)]);
    for left in [2, 1, 0] {
        let wrong = gateway.login(EMAIL, "wrong").await;
        assert_eq!(wrong.code(), "INVALID_CREDENTIALS");
        let limits = wrong.rejection.unwrap().decisions;
        assert_eq!(standing(&limits).pop(), Some(account(left)));
    }
    let over = gateway.login(EMAIL, PASSWORD).await;
    assert_eq!(over.code(), "RATE_LIMITED");
    let limits = over.rejection.unwrap().decisions;
    assert!(limits.iter().any(crate::limits::Decision::refuses));
    let count = |outcome: &str| {
        let labels = ["sign-in-account", outcome];
        gateway.metrics.ratelimit.with_label_values(&labels).get()
    };
    assert_eq!((count("allowed"), count("limited")), (4, 1));
}

#[tokio::test]
async fn repeated_sign_in_ends_the_previous_session() {
    let gateway = gateway().await;
    let first = gateway.register().await;
    let cookie = first.cookie();
    let body = json!({"email": EMAIL, "password": PASSWORD}).to_string();
    let headers = [("cookie", cookie.as_str())];
    let second = gateway.call("POST", "/auth/login", &headers, &body).await;
    assert_eq!(second.status, StatusCode::OK);
    assert!(!gateway.is_session_active(&first.text("/session/id")).await);
    assert!(gateway.is_session_active(&second.text("/session/id")).await);
    // Another user's session is not touched, and a token chosen by the client is not adopted.
    let body = json!({"email": "bob@example.com", "password": PASSWORD}).to_string();
    let held = second.cookie();
    let headers = [("cookie", held.as_str())];
    let bob = gateway
        .call("POST", "/auth/register", &headers, &body)
        .await;
    assert!(gateway.is_session_active(&second.text("/session/id")).await);
    assert_ne!(bob.cookie(), held);
}

#[tokio::test]
async fn session_limit_evicts_or_rejects() {
    let gateway = gateway().await;
    let first = gateway.register().await.text("/session/id");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(gateway.login(EMAIL, PASSWORD).await.status, StatusCode::OK);
    }
    assert!(!gateway.is_session_active(&first).await);
    assert_eq!(gateway.count_events("evicted").await, 1);

    let strict = gateway_with(|settings| settings.sessions.on_limit = OnSessionLimit::Reject).await;
    strict.register().await;
    strict.login(EMAIL, PASSWORD).await;
    strict.login(EMAIL, PASSWORD).await;
    let response = strict.login(EMAIL, PASSWORD).await;
    assert_eq!(response.code(), "SESSION_LIMIT_REACHED");
}

#[tokio::test]
async fn cross_site_sign_in_and_sign_out_are_rejected() {
    let gateway = gateway().await;
    let cookie = gateway.register().await.cookie();
    let body = json!({"email": EMAIL, "password": PASSWORD}).to_string();
    let foreign = [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for header in foreign {
        for path in [
            "/auth/login",
            "/auth/register",
            "/auth/refresh",
            "/auth/logout",
        ] {
            let headers = [header, ("cookie", cookie.as_str())];
            let response = gateway.call("POST", path, &headers, &body).await;
            assert_eq!(response.code(), "CSRF_REJECTED", "{header:?} {path}");
        }
    }
    let silent = [("cookie", cookie.as_str())];
    let response = gateway.call("POST", "/auth/logout", &silent, "").await;
    assert_eq!(response.code(), "CSRF_REJECTED");
    let response = gateway.call("POST", "/auth/login", &[ORIGIN], &body).await;
    assert_eq!(response.status, StatusCode::OK);
}
