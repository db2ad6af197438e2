//! Races between user changes and requests in progress.

use secrecy::SecretString;

use super::*;
use crate::auth::session::Device;
use crate::identity::{AccountError, ClientInfo, PasswordChange, User, UserPatch};
use crate::sessions::identity_of;

const ADMINS: &str = "the operator chose this";

async fn ann(gateway: &TestGateway) -> User {
    let id = gateway.register().await.text("/user/id");
    let found = gateway.state.accounts.user(&id).await;
    found.unwrap().unwrap()
}

async fn change(gateway: &TestGateway, user: &User, patch: UserPatch) -> User {
    let changed = gateway
        .state
        .accounts
        .change_user(&user.id, patch, PASSWORDS)
        .await;
    changed.unwrap()
}

fn is_refused(outcome: &AccountError, refusal: Refusal) -> bool {
    matches!(outcome, AccountError::Rejected(found) if found.refusal == refusal)
}

#[tokio::test]
async fn stale_password_change_does_not_overwrite_admins() {
    let gateway = gateway().await;
    let before = ann(&gateway).await;
    let patch = UserPatch {
        password: Some(ADMINS.to_owned().into()),
        ..UserPatch::default()
    };
    change(&gateway, &before, patch).await;
    // The request has read the user by now.
    let typed = |text: &str| SecretString::from(text.to_owned());
    let request = PasswordChange {
        current: typed(PASSWORD),
        new: typed("staple the battery"),
    };
    let settings = &gateway.snapshot.settings;
    let session_and_ip = (None, "192.0.2.1".parse().unwrap());
    let accounts = &gateway.state.accounts;
    let mut limits = Vec::new();
    let changed = accounts.change_password(settings, before, &request, session_and_ip, &mut limits);
    let refused = changed.await.unwrap_err();
    assert!(is_refused(&refused, Refusal::InvalidCredentials));
    assert_eq!(gateway.login(EMAIL, ADMINS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn user_disabled_during_sign_in_is_rejected() {
    let gateway = gateway().await;
    let before = ann(&gateway).await;
    let patch = UserPatch {
        disabled: Some(true),
        ..UserPatch::default()
    };
    change(&gateway, &before, patch).await;
    let client_info = ClientInfo {
        ip: "192.0.2.1".parse().unwrap(),
        user_agent: String::new(),
        device: Device::default(),
    };
    let settings = &gateway.snapshot.settings;
    let accounts = &gateway.state.accounts;
    let signed_in = accounts
        .sign_in_without_password(settings, before, &client_info)
        .await;
    assert!(signed_in.is_err_and(|error| is_refused(&error, Refusal::InvalidCredentials)));
    assert_eq!(gateway.count_events("revoked").await, 2);
}

#[tokio::test]
async fn last_database_change_wins() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let id = signed_in.text("/user/id");
    let accounts = &gateway.state.accounts;
    let before = accounts.user(&id).await.unwrap().unwrap();
    let patch = UserPatch {
        roles: Some(vec!["reader".to_owned()]),
        ..UserPatch::default()
    };
    change(&gateway, &before, patch).await;
    // The earlier change reaches the sessions late.
    let session = SessionId::parse(&signed_in.text("/session/id")).unwrap();
    let store = &gateway.state.store;
    let ids = [session];
    let late = store.set_identity(&ids, identity_of(&before));
    late.await.unwrap();
    let entry = store.session(session).await.unwrap();
    assert_eq!(*entry.unwrap().session.roles, ["reader"]);
}
