//! Users and where they signed in from.

use portcullis::directory::{Change, ChangeOutcome, Error, NewUser, User};

use crate::support::homes;

fn new(email: &str, username: Option<&str>) -> NewUser {
    NewUser {
        email: email.to_owned(),
        username: username.map(str::to_owned),
        name: Some("Ann".to_owned()),
        password_hash: "$argon2id$x".to_owned(),
        roles: vec!["admin".to_owned()],
        scopes: Vec::new(),
        disabled: false,
    }
}

#[tokio::test]
async fn a_user_is_found_by_each_name() {
    for home in homes() {
        let directory = home.open().await;
        let user = directory
            .add(new("ann@example.com", Some("Ann")), 7)
            .await
            .unwrap()
            .unwrap();
        let by_id = directory.user(&user.id).await.unwrap();
        assert_eq!(by_id.as_ref(), Some(&user));
        assert_eq!(
            by_id,
            directory.user_by_email("ann@example.com").await.unwrap()
        );
        assert_eq!(by_id, directory.user_by_username("aNN").await.unwrap());
        assert_eq!(None, directory.user_by_username("bob").await.unwrap());
    }
}

#[tokio::test]
async fn emails_and_usernames_are_taken_once_whatever_their_case() {
    for home in homes() {
        let directory = home.open().await;
        directory
            .add(new("a@x.y", Some("Ann")), 1)
            .await
            .unwrap()
            .unwrap();
        assert!(
            directory
                .add(new("a@x.y", None), 2)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            directory
                .add(new("b@x.y", Some("ANN")), 2)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            directory
                .add(new("b@x.y", None), 2)
                .await
                .unwrap()
                .is_some()
        );
        assert!(
            directory
                .add(new("c@x.y", None), 2)
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn a_change_touches_only_what_it_names() {
    for home in homes() {
        let directory = home.open().await;
        let user = directory.add(new("a@x.y", None), 1).await.unwrap().unwrap();
        let change = Change {
            roles: Some(vec!["b".to_owned()]),
            disabled: Some(true),
            ..Change::default()
        };
        let changed = user_of(directory.change(&user.id, change, 9).await);
        let expected = User {
            roles: vec!["b".to_owned()],
            disabled: true,
            updated_at: 9,
            ..user.clone()
        };
        assert_eq!(changed, expected);
        let change = Change {
            name: Some(None),
            password_hash: Some("new".to_owned()),
            ..Change::default()
        };
        let changed = user_of(directory.change(&user.id, change, 10).await);
        assert_eq!(
            (changed.name, changed.password_hash.as_str()),
            (None, "new")
        );
        assert!(changed.disabled);
        let missing = directory.change("nobody", Change::default(), 1).await;
        assert!(matches!(missing, Ok(ChangeOutcome::NotFound)));
    }
}

fn user_of(outcome: Result<ChangeOutcome, Error>) -> User {
    match outcome {
        Ok(ChangeOutcome::Changed(user)) => user,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_email_is_changed_unless_another_user_has_it() {
    for home in homes() {
        let directory = home.open().await;
        let user = directory.add(new("a@x.y", None), 1).await.unwrap().unwrap();
        directory.add(new("b@x.y", None), 1).await.unwrap().unwrap();
        let email = |email: &str| Change {
            email: Some(email.to_owned()),
            ..Change::default()
        };
        let taken = directory.change(&user.id, email("b@x.y"), 2).await;
        assert!(matches!(taken, Ok(ChangeOutcome::EmailTaken)), "{taken:?}");
        let user = user_of(directory.change(&user.id, email("c@x.y"), 3).await);
        assert_eq!(user.email, "c@x.y");
        assert!(directory.user_by_email("a@x.y").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_user_is_removed_with_all_that_refers_to_them() {
    for home in homes() {
        let directory = home.open().await;
        let user = directory.add(new("a@x.y", None), 1).await.unwrap().unwrap();
        directory
            .remember_address(&user.id, "192.0.2.1", 1)
            .await
            .unwrap();
        directory.remove(&user.id).await.unwrap();
        assert!(directory.user(&user.id).await.unwrap().is_none());
        assert!(
            !directory
                .knows_address(&user.id, "192.0.2.1")
                .await
                .unwrap()
        );
        directory.remove(&user.id).await.unwrap();
        directory.add(new("a@x.y", None), 2).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn pages_hold_every_user_once_newest_first() {
    for home in homes() {
        let directory = home.open().await;
        for number in 0..7_u64 {
            // Pairs share a time: the id decides between them.
            directory
                .add(new(&format!("u{number}@x.y"), None), number / 2)
                .await
                .unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = directory.users(3, after).await.unwrap();
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
async fn addresses_are_remembered_by_user_and_only_the_newest() {
    for home in homes() {
        let directory = home.open().await;
        let user = directory.add(new("a@x.y", None), 1).await.unwrap().unwrap();
        for number in 0..60_u64 {
            let address = format!("192.0.2.{number}");
            directory
                .remember_address(&user.id, &address, number)
                .await
                .unwrap();
        }
        assert!(
            directory
                .knows_address(&user.id, "192.0.2.59")
                .await
                .unwrap()
        );
        assert!(
            !directory
                .knows_address(&user.id, "192.0.2.9")
                .await
                .unwrap()
        );
        assert!(
            !directory
                .knows_address("other", "192.0.2.59")
                .await
                .unwrap()
        );
    }
}

#[tokio::test]
async fn a_damaged_row_is_named() {
    for home in homes() {
        let directory = home.open().await;
        let user = directory.add(new("a@x.y", None), 1).await.unwrap().unwrap();
        home.sql("UPDATE users SET roles = 'no json'").await;
        let error = directory.user(&user.id).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(id) if id == user.id));
    }
}
