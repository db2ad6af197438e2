//! Sign-out.

use std::sync::Arc;

use http::StatusCode;

use super::super::Caller;
use super::*;

#[tokio::test]
async fn sign_out_ends_session_and_revokes_token() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let (id, token) = (
        signed_in.text("/session/id"),
        signed_in.text("/access_token"),
    );
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    for _ in 0..2 {
        let response = gateway.call("POST", "/auth/logout", &headers, "").await;
        assert_eq!(response.status, StatusCode::NO_CONTENT);
        assert!(response.info.clear_cookie);
    }
    assert!(!gateway.is_session_active(&id).await);
    let key = claims(&token).blacklist_key;
    assert_eq!(
        gateway.state.store.are_blacklisted(&[&key]).await,
        Ok(vec![true])
    );
    assert_eq!(gateway.count_events("sign_out").await, 1);
    let ended = gateway
        .metrics
        .sessions_ended
        .with_label_values(&["sign_out"]);
    assert_eq!(ended.get(), 1);
    let anonymous = gateway.call("POST", "/auth/signout", &[], "").await;
    assert_eq!(anonymous.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn sign_out_with_two_cookies_clears_them() {
    let gateway = gateway().await;
    let mut request = Request::post("/auth/logout").body(Body::empty()).unwrap();
    let extensions = request.extensions_mut();
    extensions.insert(Arc::clone(&gateway.snapshot));
    extensions.insert(Caller(Err(Refusal::AmbiguousCredentials.into())));
    extensions.insert(Client {
        ip: "192.0.2.1".parse().unwrap(),
        https: false,
        host: HOST.to_owned(),
    });
    let response = read_response(gateway.router.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(response.code(), "AMBIGUOUS_CREDENTIALS");
    assert!(response.rejection.unwrap().clear_cookie);
}

#[tokio::test]
async fn cookie_and_expired_token_can_sign_out() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let cookie = signed_in.cookie();
    let headers = [("cookie", cookie.as_str()), ORIGIN];
    let response = gateway.call("POST", "/auth/logout", &headers, "").await;
    assert_eq!(response.status, StatusCode::NO_CONTENT);
    assert!(
        !gateway
            .is_session_active(&signed_in.text("/session/id"))
            .await
    );

    let signed_in = gateway.login(EMAIL, PASSWORD).await;
    let mut request = Request::post("/auth/logout").body(Body::empty()).unwrap();
    let expired = claims(&signed_in.text("/access_token"));
    let extensions = request.extensions_mut();
    extensions.insert(Caller(Err(Rejection {
        lapsed_claims: Some(Arc::new(expired)),
        ..Refusal::TokenExpired.into()
    })));
    extensions.insert(Arc::clone(&gateway.snapshot));
    extensions.insert(Client {
        ip: "192.0.2.1".parse().unwrap(),
        https: false,
        host: HOST.to_owned(),
    });
    let response = read_response(gateway.router.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(response.status, StatusCode::NO_CONTENT);
    assert!(
        !gateway
            .is_session_active(&signed_in.text("/session/id"))
            .await
    );
}
