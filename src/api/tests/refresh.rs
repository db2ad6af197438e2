//! Refresh tokens.

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::settings::Reloadable;

async fn refresh(gateway: &TestGateway, token: &str) -> TestResponse {
    let body = json!({"refresh_token": token});
    gateway.post("/auth/refresh", &body).await
}

fn grace(seconds: u64) -> impl FnOnce(&mut Reloadable) {
    move |settings| {
        let tokens = Arc::get_mut(&mut settings.tokens).unwrap();
        tokens.refresh_grace = Duration::from_secs(seconds);
    }
}

#[tokio::test]
async fn refresh_returns_new_tokens_of_the_session() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let token = signed_in.text("/refresh_token");
    assert!(token.starts_with(&signed_in.text("/session/id")));
    let response = refresh(&gateway, &token).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.text("/session/id"), signed_in.text("/session/id"));
    assert_eq!(response.text("/user/username"), "Ann");
    assert_ne!(
        response.text("/access_token"),
        signed_in.text("/access_token")
    );
    assert_ne!(response.text("/refresh_token"), token);
    assert!(response.headers.get("set-cookie").is_none());
    let next = refresh(&gateway, &response.text("/refresh_token")).await;
    assert_eq!(next.status, StatusCode::OK);
}

#[tokio::test]
async fn parallel_refreshes_get_the_same_successor() {
    let gateway = gateway().await;
    let token = gateway.register().await.text("/refresh_token");
    let calls = futures_util::future::join_all((0..50).map(|_| refresh(&gateway, &token)));
    let mut successors: Vec<String> = calls
        .await
        .iter()
        .map(|response| response.text("/refresh_token"))
        .collect();
    successors.dedup();
    assert_eq!(successors.len(), 1);
    let last = successors.pop().unwrap();
    assert_eq!(refresh(&gateway, &last).await.status, StatusCode::OK);
    assert_eq!(gateway.count_events("refresh_reused").await, 0);
}

#[tokio::test]
async fn reuse_after_the_grace_time_ends_the_session() {
    let gateway = gateway_with(grace(0)).await;
    let signed_in = gateway.register().await;
    let old = signed_in.text("/refresh_token");
    let new = refresh(&gateway, &old).await.text("/refresh_token");
    assert_eq!(refresh(&gateway, &old).await.code(), "REFRESH_TOKEN_REUSED");
    assert!(
        !gateway
            .is_session_active(&signed_in.text("/session/id"))
            .await
    );
    assert_eq!(refresh(&gateway, &new).await.code(), "SESSION_REVOKED");
    assert_eq!(gateway.count_events("refresh_reused").await, 1);
}

#[tokio::test]
async fn unknown_refresh_token_is_invalid_and_ends_nothing() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let id = signed_in.text("/session/id");
    let forged = format!("{id}.{}", "A".repeat(43));
    let access = signed_in.text("/access_token");
    for bad in ["", "x", &id, &forged, &access] {
        assert_eq!(
            refresh(&gateway, bad).await.code(),
            "TOKEN_INVALID",
            "{bad}"
        );
    }
    assert!(gateway.is_session_active(&id).await);
    let token = signed_in.text("/refresh_token");
    assert_eq!(refresh(&gateway, &token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn refresh_token_ends_with_ttl_session_or_user() {
    let short = |settings: &mut Reloadable| {
        Arc::get_mut(&mut settings.tokens).unwrap().refresh_ttl = Duration::from_millis(1);
    };
    let gateway = gateway_with(short).await;
    let token = gateway.register().await.text("/refresh_token");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(refresh(&gateway, &token).await.code(), "TOKEN_EXPIRED");

    let gateway = super::gateway().await;
    let signed_in = gateway.register().await;
    let token = signed_in.text("/refresh_token");
    let body = json!({"refresh_token": token});
    let out = gateway.post("/auth/logout", &body).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(
        !gateway
            .is_session_active(&signed_in.text("/session/id"))
            .await
    );
    assert_eq!(refresh(&gateway, &token).await.code(), "SESSION_REVOKED");

    let signed_in = gateway.login(EMAIL, PASSWORD).await;
    let patch = crate::identity::UserPatch {
        disabled: Some(true),
        ..Default::default()
    };
    let id = signed_in.text("/user/id");
    gateway
        .state
        .accounts
        .change_user(&id, patch, PASSWORDS)
        .await
        .unwrap();
    let token = signed_in.text("/refresh_token");
    assert_eq!(refresh(&gateway, &token).await.code(), "SESSION_REVOKED");
}

#[tokio::test]
async fn forged_refresh_token_does_not_sign_out() {
    let gateway = gateway().await;
    let id = gateway.register().await.text("/session/id");
    let body = json!({"refresh_token": format!("{id}.{}", "A".repeat(43))});
    let out = gateway.post("/auth/logout", &body).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(gateway.is_session_active(&id).await);
}
