//! Avatars of users, the identifier of a sign-in, and rehashed passwords.

use portcullis::database::{Avatar, AvatarInfo, Database, DeviceSighting, NewUser};

use crate::support::databases;

async fn create_ann(database: &Database) -> String {
    let new = NewUser {
        email: "ann@example.com".to_owned(),
        username: None,
        name: None,
        password_hash: Some("old".to_owned()),
        roles: Vec::new(),
        scopes: Vec::new(),
        disabled: false,
    };
    database.create_user(new, 1).await.unwrap().unwrap().id
}

fn avatar(bytes: &[u8], updated_at: u64) -> Avatar {
    Avatar {
        info: AvatarInfo {
            media_type: "image/png".to_owned(),
            updated_at,
        },
        bytes: bytes.to_vec(),
    }
}

#[tokio::test]
async fn avatar_is_stored_replaced_and_removed() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = create_ann(&database).await;
        assert_eq!(database.avatar(&ann).await.unwrap(), None);
        let all: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        for picture in [avatar(&all, 5), avatar(b"\0small", 6)] {
            assert!(database.put_avatar(&ann, &picture).await.unwrap());
            let kept = database.avatar(&ann).await.unwrap().unwrap();
            assert!(kept == picture);
            let about = database.avatar_info(&ann).await.unwrap();
            assert_eq!(about, Some(picture.info));
        }
        assert!(database.delete_avatar(&ann).await.unwrap());
        assert!(!database.delete_avatar(&ann).await.unwrap());
        assert_eq!(database.avatar_info(&ann).await.unwrap(), None);
        let missing = database.put_avatar("nobody", &avatar(b"x", 7)).await;
        assert!(!missing.unwrap());
    }
}

#[tokio::test]
async fn device_is_new_only_once() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = create_ann(&database).await;
        for (device, expected) in [
            ("a", DeviceSighting::First),
            ("a", DeviceSighting::Known),
            ("b", DeviceSighting::New),
            ("b", DeviceSighting::Known),
            ("a", DeviceSighting::Known),
        ] {
            let found = database.record_device(&ann, device, 1).await;
            assert_eq!(found.unwrap(), expected, "{device}");
        }
        // The oldest are forgotten beyond fifty.
        for number in 0..50 {
            let device = format!("c{number}");
            let found = database.record_device(&ann, &device, 10 + number).await;
            assert_eq!(found.unwrap(), DeviceSighting::New);
        }
        let found = database.record_device(&ann, "a", 100).await;
        assert_eq!(found.unwrap(), DeviceSighting::New);
    }
}

#[tokio::test]
async fn password_hash_is_replaced_by_compare_and_swap() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = create_ann(&database).await;
        let before = database.user(&ann).await.unwrap().unwrap();
        let replace = |old, new, at| database.replace_password_hash(&ann, old, new, at);
        assert!(replace("old", "new", None).await.unwrap());
        assert!(!replace("old", "other", Some(1)).await.unwrap());
        let user = database.user(&ann).await.unwrap().unwrap();
        assert_eq!(user.password_hash.as_deref(), Some("new"));
        assert_eq!(user.updated_at, before.updated_at);
        assert!(
            replace("new", "newer", Some(before.updated_at + 1))
                .await
                .unwrap()
        );
        let user = database.user(&ann).await.unwrap().unwrap();
        assert_eq!(user.updated_at, before.updated_at + 1);
    }
}
