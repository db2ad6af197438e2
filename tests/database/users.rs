//! Users and the devices from which they signed in.

use portcullis::database::{Error, NewUser, User, UserUpdate, UserUpdateOutcome};

use crate::support::databases;

fn new_user(email: &str, username: Option<&str>) -> NewUser {
    NewUser {
        email: email.to_owned(),
        username: username.map(str::to_owned),
        name: Some("Ann".to_owned()),
        password_hash: Some("$argon2id$x".to_owned()),
        roles: vec!["admin".to_owned()],
        scopes: Vec::new(),
        disabled: false,
    }
}

#[tokio::test]
async fn user_is_found_by_email_and_username() {
    for fixture in databases() {
        let database = fixture.open().await;
        let user = database
            .create_user(new_user("ann@example.com", Some("Ann")), 7)
            .await
            .unwrap()
            .unwrap();
        let by_id = database.user(&user.id).await.unwrap();
        assert_eq!(by_id.as_ref(), Some(&user));
        assert_eq!(
            by_id,
            database.user_by_email("ann@example.com").await.unwrap()
        );
        assert_eq!(by_id, database.user_by_username("aNN").await.unwrap());
        assert_eq!(None, database.user_by_username("bob").await.unwrap());
    }
}

#[tokio::test]
async fn emails_and_usernames_are_unique_ignoring_case() {
    for fixture in databases() {
        let database = fixture.open().await;
        database
            .create_user(new_user("a@x.y", Some("Ann")), 1)
            .await
            .unwrap()
            .unwrap();
        assert!(
            database
                .create_user(new_user("a@x.y", None), 2)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            database
                .create_user(new_user("b@x.y", Some("ANN")), 2)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            database
                .create_user(new_user("b@x.y", None), 2)
                .await
                .unwrap()
                .is_some()
        );
        assert!(
            database
                .create_user(new_user("c@x.y", None), 2)
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn update_changes_only_the_named_fields() {
    for fixture in databases() {
        let database = fixture.open().await;
        let user = database
            .create_user(new_user("a@x.y", None), 1)
            .await
            .unwrap()
            .unwrap();
        let change = UserUpdate {
            roles: Some(vec!["b".to_owned()]),
            disabled: Some(true),
            ..UserUpdate::default()
        };
        let changed = changed_user(database.update_user(&user.id, change, 9).await);
        let expected = User {
            roles: vec!["b".to_owned()],
            disabled: true,
            updated_at: 9,
            ..user.clone()
        };
        assert_eq!(changed, expected);
        let change = UserUpdate {
            name: Some(None),
            password_hash: Some("new".to_owned()),
            ..UserUpdate::default()
        };
        let changed = changed_user(database.update_user(&user.id, change, 10).await);
        assert_eq!(
            (changed.name, changed.password_hash.as_deref()),
            (None, Some("new"))
        );
        assert!(changed.disabled);
        let missing = database
            .update_user("nobody", UserUpdate::default(), 1)
            .await;
        assert!(matches!(missing, Ok(UserUpdateOutcome::NotFound)));
    }
}

fn changed_user(outcome: Result<UserUpdateOutcome, Error>) -> User {
    match outcome {
        Ok(UserUpdateOutcome::Changed(user)) => user,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn email_change_fails_if_taken() {
    for fixture in databases() {
        let database = fixture.open().await;
        let user = database
            .create_user(new_user("a@x.y", None), 1)
            .await
            .unwrap()
            .unwrap();
        database
            .create_user(new_user("b@x.y", None), 1)
            .await
            .unwrap()
            .unwrap();
        let email = |email: &str| UserUpdate {
            email: Some(email.to_owned()),
            ..UserUpdate::default()
        };
        let taken = database.update_user(&user.id, email("b@x.y"), 2).await;
        assert!(
            matches!(taken, Ok(UserUpdateOutcome::EmailTaken)),
            "{taken:?}"
        );
        let user = changed_user(database.update_user(&user.id, email("c@x.y"), 3).await);
        assert_eq!(user.email, "c@x.y");
        assert!(database.user_by_email("a@x.y").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn deleting_a_user_removes_all_references() {
    for fixture in databases() {
        let database = fixture.open().await;
        let user = database
            .create_user(new_user("a@x.y", None), 1)
            .await
            .unwrap()
            .unwrap();
        database
            .record_address(&user.id, "192.0.2.1", 1)
            .await
            .unwrap();
        database.delete_user(&user.id, 9).await.unwrap();
        assert!(database.user(&user.id).await.unwrap().is_none());
        assert!(!database.has_address(&user.id, "192.0.2.1").await.unwrap());
        database.delete_user(&user.id, 9).await.unwrap();
        database
            .create_user(new_user("a@x.y", None), 2)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn user_pages_are_complete_and_newest_first() {
    for fixture in databases() {
        let database = fixture.open().await;
        for number in 0..7_u64 {
            // Pairs share a time: the id decides between them.
            database
                .create_user(new_user(&format!("u{number}@x.y"), None), number / 2)
                .await
                .unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = database.list_users(3, after).await.unwrap();
            assert_eq!(page.total, 7);
            seen.extend(page.users);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 7);
        assert!(seen.is_sorted_by(|a, b| (a.created_at, &a.id) > (b.created_at, &b.id)));
    }
}

#[tokio::test]
async fn only_newest_addresses_are_kept_per_user() {
    for fixture in databases() {
        let database = fixture.open().await;
        let user = database
            .create_user(new_user("a@x.y", None), 1)
            .await
            .unwrap()
            .unwrap();
        for number in 0..60_u64 {
            let address = format!("192.0.2.{number}");
            database
                .record_address(&user.id, &address, number)
                .await
                .unwrap();
        }
        assert!(database.has_address(&user.id, "192.0.2.59").await.unwrap());
        assert!(!database.has_address(&user.id, "192.0.2.9").await.unwrap());
        assert!(!database.has_address("other", "192.0.2.59").await.unwrap());
    }
}

#[tokio::test]
async fn damaged_row_is_reported_by_name() {
    for fixture in databases() {
        let database = fixture.open().await;
        let user = database
            .create_user(new_user("a@x.y", None), 1)
            .await
            .unwrap()
            .unwrap();
        fixture.sql("UPDATE users SET roles = 'no json'").await;
        let error = database.user(&user.id).await.unwrap_err();
        assert!(matches!(error, Error::UnreadableUser(id) if id == user.id));
    }
}
