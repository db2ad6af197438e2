//! What comes in between: changes of a user that are made while another story about them runs.

use secrecy::SecretString;

use super::*;
use crate::accounts::{Failure, PasswordChange, UserPatch, Visitor};
use crate::auth::session::Device;
use crate::directory::User;
use crate::sessions::durable::identity_of;

const ADMINS: &str = "the operator chose this";

async fn ann(gateway: &Gateway) -> User {
    let id = gateway.register().await.text("/user/id");
    let found = gateway.desk.accounts.directory().user(&id).await;
    found.unwrap().unwrap()
}

async fn change(gateway: &Gateway, user: &User, patch: UserPatch) -> User {
    let changed = gateway
        .desk
        .accounts
        .change_user(&user.id, patch, PASSWORDS)
        .await;
    changed.unwrap()
}

fn is_refused(outcome: &Failure, refusal: Refusal) -> bool {
    matches!(outcome, Failure::Refused(found) if *found == refusal)
}

#[tokio::test]
async fn a_password_that_an_operator_sets_is_not_overwritten_by_who_knew_the_one_before() {
    let gateway = gateway().await;
    let before = ann(&gateway).await;
    let patch = UserPatch {
        password: Some(ADMINS.to_owned().into()),
        ..UserPatch::default()
    };
    change(&gateway, &before, patch).await;
    // The request had read the user by then.
    let typed = |text: &str| SecretString::from(text.to_owned());
    let asked = PasswordChange {
        current: typed(PASSWORD),
        new: typed("staple the battery"),
    };
    let live = gateway.desk.live.load_full();
    let asking = (None, "192.0.2.1".parse().unwrap());
    let accounts = &gateway.desk.accounts;
    let mut limits = Vec::new();
    let changed = accounts.change_password(&live, before, &asked, asking, &mut limits);
    let refused = changed.await.unwrap_err();
    assert!(is_refused(&refused, Refusal::InvalidCredentials));
    assert_eq!(gateway.login(EMAIL, ADMINS).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nobody_is_signed_in_who_was_disabled_meanwhile() {
    let gateway = gateway().await;
    let before = ann(&gateway).await;
    let patch = UserPatch {
        disabled: Some(true),
        ..UserPatch::default()
    };
    change(&gateway, &before, patch).await;
    let visitor = Visitor {
        ip: "192.0.2.1".parse().unwrap(),
        user_agent: String::new(),
        device: Device::default(),
    };
    let live = gateway.desk.live.load_full();
    let accounts = &gateway.desk.accounts;
    let signed_in = accounts.sign_in_unasked(&live, before, &visitor).await;
    assert!(signed_in.is_err_and(|error| is_refused(&error, Refusal::InvalidCredentials)));
    assert_eq!(gateway.events("revoked").await, 2);
}

#[tokio::test]
async fn of_two_changes_the_last_one_in_the_database_is_in_force() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let id = signed_in.text("/user/id");
    let accounts = &gateway.desk.accounts;
    let before = accounts.directory().user(&id).await.unwrap().unwrap();
    let patch = UserPatch {
        roles: Some(vec!["reader".to_owned()]),
        ..UserPatch::default()
    };
    change(&gateway, &before, patch).await;
    // The change before it comes to the sessions late.
    let session = SessionId::parse(&signed_in.text("/session/id")).unwrap();
    let store = &gateway.desk.store;
    let ids = [session];
    let late = store.set_identity(&ids, identity_of(&before));
    late.await.unwrap();
    let entry = store.session(session).await.unwrap();
    assert_eq!(*entry.unwrap().session.roles, ["reader"]);
}
