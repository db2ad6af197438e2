//! API keys of users and services.

use portcullis::auth::api_key::{
    ApiKey, ApiKeyId, ApiKeyOwner, ApiKeySecrets, ApiKeyStatus, SecretHash,
};
use portcullis::database::{
    ApiKeyInsertion, ApiKeyQuery, ApiKeyQuota, ApiKeyUpdate, ApiKeyUpdateOutcome, ApiKeyUse,
    Database, NewUser, StoredApiKey, User,
};

use crate::support::databases;

const NO_LIMIT: u32 = u32::MAX;

/// At most this many active keys.
fn quota(active: u32) -> ApiKeyQuota {
    ApiKeyQuota {
        active,
        ended: 1_000,
        kept_since: 0,
    }
}

fn service(name: &str) -> ApiKeyOwner {
    ApiKeyOwner::service(name).unwrap()
}

fn key(owner: ApiKeyOwner, created_at: u64) -> StoredApiKey {
    StoredApiKey {
        key: ApiKey {
            id: ApiKeyId::random(),
            owner,
            name: "CI".to_owned(),
            roles: vec!["robot".to_owned()],
            scopes: vec!["orders:read".to_owned()],
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            created_at,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            last_used_ip: None,
            request_count: 0,
        },
        secrets: ApiKeySecrets::new(SecretHash([1; 32])),
    }
}

async fn insert(database: &Database, key: &StoredApiKey) -> ApiKeyInsertion {
    database.insert_api_key(key, quota(NO_LIMIT)).await.unwrap()
}

async fn update(
    database: &Database,
    id: ApiKeyId,
    change: &ApiKeyUpdate,
    now: u64,
) -> ApiKeyUpdateOutcome {
    let updated = database.update_api_key(id, change, NO_LIMIT, now);
    updated.await.unwrap()
}

async fn user(database: &Database, email: &str) -> User {
    let new = NewUser {
        email: email.to_owned(),
        username: None,
        name: None,
        password_hash: None,
        roles: Vec::new(),
        scopes: Vec::new(),
        disabled: false,
    };
    database.create_user(new, 1).await.unwrap().unwrap()
}

#[tokio::test]
async fn key_is_read_as_it_was_written() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = user(&database, "ann@example.com").await;
        let mut of_user = key(ApiKeyOwner::User(ann.id), 7);
        of_user.key.expires_at = Some(99);
        of_user.secrets = of_user.secrets.rotate(SecretHash([2; 32]), 5, 6);
        for key in [of_user, key(service("billing"), 7)] {
            assert_eq!(insert(&database, &key).await, ApiKeyInsertion::Inserted);
            assert_eq!(database.api_key(key.key.id).await.unwrap(), Some(key));
        }
        let unknown = database.api_key(ApiKeyId::random()).await.unwrap();
        assert_eq!(unknown, None);
        let orphan = key(ApiKeyOwner::User("nobody".to_owned()), 7);
        assert_eq!(insert(&database, &orphan).await, ApiKeyInsertion::NoOwner);
        assert_eq!(database.api_key(orphan.key.id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn concurrent_creations_do_not_exceed_the_limit() {
    for fixture in databases() {
        let database = fixture.open().await;
        let attempts = (0..12).map(|_| {
            let database = database.clone();
            tokio::spawn(async move {
                let key = key(service("billing"), 50);
                database.insert_api_key(&key, quota(3)).await.unwrap()
            })
        });
        let attempts: Vec<_> = attempts.collect();
        let mut inserted = 0;
        for attempt in attempts {
            match attempt.await.unwrap() {
                ApiKeyInsertion::Inserted => inserted += 1,
                outcome => assert_eq!(outcome, ApiKeyInsertion::LimitReached),
            }
        }
        assert_eq!(inserted, 3);
        // Neither expired nor revoked keys count, nor those of others.
        let mut expiring = key(service("other"), 50);
        expiring.key.expires_at = Some(60);
        let limited = |key: StoredApiKey| {
            let database = &database;
            async move { database.insert_api_key(&key, quota(1)).await.unwrap() }
        };
        assert_eq!(limited(expiring).await, ApiKeyInsertion::Inserted);
        let late = key(service("other"), 59);
        assert_eq!(limited(late).await, ApiKeyInsertion::LimitReached);
        let later = key(service("other"), 60);
        assert_eq!(limited(later.clone()).await, ApiKeyInsertion::Inserted);
        let revoked = database.revoke_api_key(later.key.id, 61).await.unwrap();
        assert_eq!(revoked, Some(true));
        let next = key(service("other"), 62);
        assert_eq!(limited(next).await, ApiKeyInsertion::Inserted);
    }
}

#[tokio::test]
async fn keys_are_listed_by_owner_and_state() {
    for fixture in databases() {
        let database = fixture.open().await;
        let mut all = Vec::new();
        for number in 0..7 {
            let owner = service(if number < 5 { "billing" } else { "other" });
            let mut key = key(owner, 10 + number / 2);
            if number == 1 {
                key.key.expires_at = Some(20);
            }
            assert_eq!(insert(&database, &key).await, ApiKeyInsertion::Inserted);
            all.push(key.key);
        }
        database.revoke_api_key(all[2].id, 15).await.unwrap();
        let count = async |owner: Option<&str>, status| {
            let query = ApiKeyQuery {
                owner: owner.map(service),
                status,
                limit: 100,
                after: None,
            };
            let page = database.list_api_keys(&query, 20).await.unwrap();
            assert_eq!(page.next, None);
            assert_eq!(page.total, page.keys.len() as u64);
            page.total
        };
        for (owner, status, expected) in [
            (None, None, 7),
            (Some("billing"), None, 5),
            (Some("none"), None, 0),
            (None, Some(ApiKeyStatus::Active), 5),
            (Some("billing"), Some(ApiKeyStatus::Active), 3),
            (Some("billing"), Some(ApiKeyStatus::Expired), 1),
            (Some("billing"), Some(ApiKeyStatus::Revoked), 1),
            (Some("other"), Some(ApiKeyStatus::Revoked), 0),
        ] {
            assert_eq!(count(owner, status).await, expected, "{owner:?} {status:?}");
        }
        assert_eq!(database.count_active_api_keys(20).await.unwrap(), 5);
        // Page by page, newest first, each once.
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let query = ApiKeyQuery {
                limit: 2,
                after,
                ..ApiKeyQuery::default()
            };
            let page = database.list_api_keys(&query, 20).await.unwrap();
            assert_eq!(page.total, 7);
            seen.extend(page.keys.into_iter().map(|key| (key.created_at, key.id)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut expected: Vec<_> = all.iter().map(|key| (key.created_at, key.id)).collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn key_that_is_revoked_after_its_expiry_is_listed_as_it_is_shown() {
    for fixture in databases() {
        let database = fixture.open().await;
        let mut both = key(service("billing"), 10);
        both.key.expires_at = Some(15);
        insert(&database, &both).await;
        database.revoke_api_key(both.key.id, 16).await.unwrap();
        for status in ApiKeyStatus::ALL {
            let query = ApiKeyQuery {
                status: Some(status),
                limit: 100,
                ..ApiKeyQuery::default()
            };
            let page = database.list_api_keys(&query, 20).await.unwrap();
            let shown = page.keys.iter().map(|key| key.status(20));
            let expected = (status == ApiKeyStatus::Revoked).then_some(status);
            assert!(shown.eq(expected), "{status:?}");
        }
    }
}

#[tokio::test]
async fn changes_apply_to_keys_that_are_not_revoked() {
    for fixture in databases() {
        let database = fixture.open().await;
        let key = key(service("billing"), 10);
        insert(&database, &key).await;
        let id = key.key.id;
        let change = ApiKeyUpdate {
            name: Some("deploy".to_owned()),
            expires_at: Some(Some(100)),
            ..ApiKeyUpdate::default()
        };
        let updated = ApiKeyUpdateOutcome::Updated;
        assert_eq!(update(&database, id, &change, 20).await, updated);
        let change = ApiKeyUpdate {
            roles: Some(Vec::new()),
            scopes: Some(vec!["a".to_owned()]),
            allowed_ips: Some(Vec::new()),
            ..ApiKeyUpdate::default()
        };
        assert_eq!(update(&database, id, &change, 21).await, updated);
        let changed = database.api_key(id).await.unwrap().unwrap().key;
        let expected = ApiKey {
            name: "deploy".to_owned(),
            expires_at: Some(100),
            roles: Vec::new(),
            scopes: vec!["a".to_owned()],
            allowed_ips: Vec::new(),
            ..key.key
        };
        assert_eq!(changed, expected);
        let never = ApiKeyUpdate {
            expires_at: Some(None),
            ..ApiKeyUpdate::default()
        };
        assert_eq!(update(&database, id, &never, 22).await, updated);
        let changed = database.api_key(id).await.unwrap().unwrap().key;
        assert_eq!(changed.expires_at, None);
        assert_eq!(database.revoke_api_key(id, 30).await.unwrap(), Some(true));
        assert_eq!(database.revoke_api_key(id, 40).await.unwrap(), Some(false));
        let revoked = database.api_key(id).await.unwrap().unwrap().key;
        assert_eq!(revoked.revoked_at, Some(30));
        let not_found = ApiKeyUpdateOutcome::NotFound;
        assert_eq!(update(&database, id, &never, 50).await, not_found);
        let hash = SecretHash([3; 32]);
        assert!(!database.rotate_api_key(id, hash, 0, 50).await.unwrap());
        let unknown = ApiKeyId::random();
        assert_eq!(update(&database, unknown, &never, 50).await, not_found);
        assert!(!database.rotate_api_key(unknown, hash, 0, 50).await.unwrap());
        assert_eq!(database.revoke_api_key(unknown, 50).await.unwrap(), None);
    }
}

#[tokio::test]
async fn expired_key_counts_again_once_it_is_renewed() {
    for fixture in databases() {
        let database = fixture.open().await;
        let mut expired = key(service("billing"), 10);
        expired.key.expires_at = Some(20);
        let other = key(service("billing"), 20);
        insert(&database, &expired).await;
        insert(&database, &other).await;
        let renew = |until| ApiKeyUpdate {
            expires_at: Some(until),
            ..ApiKeyUpdate::default()
        };
        let id = expired.key.id;
        let limited = async |change: ApiKeyUpdate, now| {
            let updated = database.update_api_key(id, &change, 1, now);
            updated.await.unwrap()
        };
        let refused = ApiKeyUpdateOutcome::LimitReached;
        for until in [None, Some(100)] {
            assert_eq!(limited(renew(until), 30).await, refused);
        }
        let unchanged = database.api_key(id).await.unwrap().unwrap();
        assert_eq!(unchanged, expired);
        // What does not make it active is possible, and so is all else while it is.
        let updated = ApiKeyUpdateOutcome::Updated;
        let renamed = ApiKeyUpdate {
            name: Some("old".to_owned()),
            ..ApiKeyUpdate::default()
        };
        assert_eq!(limited(renamed, 30).await, updated);
        assert_eq!(limited(renew(Some(90)), 19).await, updated);
        assert_eq!(limited(renew(Some(20)), 19).await, updated);
        database.revoke_api_key(other.key.id, 30).await.unwrap();
        assert_eq!(limited(renew(None), 30).await, updated);
        assert_eq!(database.count_active_api_keys(30).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn ended_keys_of_an_owner_are_bounded() {
    for fixture in databases() {
        let database = fixture.open().await;
        let limited = async |key: &StoredApiKey, kept_since| {
            let quota = ApiKeyQuota {
                active: 1,
                ended: 3,
                kept_since,
            };
            database.insert_api_key(key, quota).await.unwrap()
        };
        // Two are revoked, and one expires; they have changed at 20, 11 and 22.
        let mut keys: Vec<_> = (10..13).map(|at| key(service("billing"), at)).collect();
        keys[1].key.expires_at = Some(12);
        let ended: Vec<ApiKeyId> = keys.iter().map(|key| key.key.id).collect();
        for (key, revoked_at) in keys.iter().zip([Some(20), None, Some(22)]) {
            assert_eq!(limited(key, 0).await, ApiKeyInsertion::Inserted);
            if let Some(at) = revoked_at {
                database.revoke_api_key(key.key.id, at).await.unwrap();
            }
        }
        // None of them may be deleted yet.
        let new = key(service("billing"), 30);
        assert_eq!(limited(&new, 11).await, ApiKeyInsertion::LimitReached);
        assert_eq!(database.api_key(new.key.id).await.unwrap(), None);
        // The one that ended first is, once it may be; those of others stay.
        let other = key(service("other"), 1);
        insert(&database, &other).await;
        database.revoke_api_key(other.key.id, 2).await.unwrap();
        assert_eq!(limited(&new, 12).await, ApiKeyInsertion::Inserted);
        let exists = async |id| database.api_key(id).await.unwrap().is_some();
        assert!(!exists(ended[1]).await);
        for id in [ended[0], ended[2], new.key.id, other.key.id] {
            assert!(exists(id).await);
        }
    }
}

#[tokio::test]
async fn concurrent_rotations_lose_no_secret() {
    for fixture in databases() {
        let database = fixture.open().await;
        let mut key = key(service("billing"), 10);
        key.key.expires_at = Some(100);
        insert(&database, &key).await;
        let id = key.key.id;
        let rotations = (2..6).map(|number| {
            let database = database.clone();
            let hash = SecretHash([number; 32]);
            tokio::spawn(async move { database.rotate_api_key(id, hash, 50, 20).await.unwrap() })
        });
        let rotations: Vec<_> = rotations.collect();
        for rotation in rotations {
            assert!(rotation.await.unwrap());
        }
        let secrets = database.api_key(id).await.unwrap().unwrap().secrets;
        let mut hashes: Vec<u8> = secrets.replaced.iter().map(|one| one.hash.0[0]).collect();
        hashes.push(secrets.hash.0[0]);
        hashes.sort_unstable();
        assert_eq!(hashes, [1, 2, 3, 4, 5]);
        assert!(secrets.replaced.iter().all(|one| one.until == 70));
        // An expired key has no use for another secret.
        let hash = SecretHash([9; 32]);
        assert!(!database.rotate_api_key(id, hash, 0, 100).await.unwrap());
    }
}

#[tokio::test]
async fn deleted_user_leaves_revoked_keys() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = user(&database, "ann@example.com").await;
        let bob = user(&database, "bob@example.com").await;
        let of = |user: &User| key(ApiKeyOwner::User(user.id.clone()), 10);
        let (hers, his) = (of(&ann), of(&bob));
        insert(&database, &hers).await;
        insert(&database, &his).await;
        database.delete_user(&ann.id, 50).await.unwrap();
        let hers = database.api_key(hers.key.id).await.unwrap().unwrap();
        assert_eq!(hers.key.revoked_at, Some(50));
        let his = database.api_key(his.key.id).await.unwrap().unwrap();
        assert_eq!(his.key.revoked_at, None);
        let owner = ApiKeyOwner::User(ann.id);
        assert_eq!(
            insert(&database, &key(owner, 60)).await,
            ApiKeyInsertion::NoOwner
        );
    }
}

#[tokio::test]
async fn changed_keys_are_found() {
    for fixture in databases() {
        let database = fixture.open().await;
        let ann = user(&database, "ann@example.com").await;
        let hers = key(ApiKeyOwner::User(ann.id.clone()), 10);
        let other = key(service("billing"), 10);
        insert(&database, &hers).await;
        insert(&database, &other).await;
        let changed = async |since| {
            let mut ids = database.api_keys_changed_since(since, None).await.unwrap();
            ids.sort_unstable();
            ids
        };
        let mut both = vec![hers.key.id, other.key.id];
        both.sort_unstable();
        assert_eq!(changed(10).await, both);
        assert_eq!(changed(11).await, []);
        database.revoke_api_key(other.key.id, 20).await.unwrap();
        assert_eq!(changed(20).await, [other.key.id]);
        let roles = portcullis::database::UserUpdate {
            roles: Some(vec!["admin".to_owned()]),
            ..Default::default()
        };
        database.update_user(&ann.id, roles, 30).await.unwrap();
        assert_eq!(changed(21).await, [hers.key.id]);
        let first = both.first().copied();
        let after = database.api_keys_changed_since(0, first).await.unwrap();
        assert_eq!(after, [both[1]]);
        let owner = ApiKeyOwner::User(ann.id);
        let of_owner = database.api_keys_of(&owner, None).await.unwrap();
        assert_eq!(of_owner, [hers.key.id]);
        let rest = database
            .api_keys_of(&owner, Some(hers.key.id))
            .await
            .unwrap();
        assert_eq!(rest, []);
        let of_service = database.api_keys_of(&other.key.owner, None).await.unwrap();
        assert_eq!(of_service, []);
    }
}

#[tokio::test]
async fn uses_of_several_gateways_add_up() {
    for fixture in databases() {
        let database = fixture.open().await;
        let key = key(service("billing"), 10);
        insert(&database, &key).await;
        let used = |last_used_at, address: &str, requests| ApiKeyUse {
            id: key.key.id,
            last_used_at,
            address: address.parse().unwrap(),
            requests,
        };
        let unknown = ApiKeyUse {
            id: ApiKeyId::random(),
            ..used(1, "10.0.0.1", 1)
        };
        let uses = [used(50, "::ffff:10.0.0.1", 3), unknown];
        database.record_api_key_uses(&uses).await.unwrap();
        let earlier = [used(40, "10.0.0.2", 4)];
        database.record_api_key_uses(&earlier).await.unwrap();
        let read = database.api_key(key.key.id).await.unwrap().unwrap().key;
        let shown = (read.last_used_at, read.last_used_ip, read.request_count);
        assert_eq!(shown, (Some(50), Some("10.0.0.1".parse().unwrap()), 7));
        // A use is no change.
        assert_eq!(database.api_keys_changed_since(11, None).await.unwrap(), []);
    }
}

#[tokio::test]
async fn ended_keys_are_deleted_in_the_end() {
    for fixture in databases() {
        let database = fixture.open().await;
        let mut keys: Vec<_> = (0..3).map(|_| key(service("billing"), 10)).collect();
        keys[1].key.expires_at = Some(20);
        for key in &keys {
            insert(&database, key).await;
        }
        database.revoke_api_key(keys[2].key.id, 30).await.unwrap();
        assert_eq!(database.delete_ended_api_keys(20).await.unwrap(), 0);
        assert_eq!(database.delete_ended_api_keys(21).await.unwrap(), 1);
        assert_eq!(database.delete_ended_api_keys(31).await.unwrap(), 1);
        assert_eq!(
            database.delete_ended_api_keys(u64::MAX / 2).await.unwrap(),
            0
        );
        assert!(database.api_key(keys[0].key.id).await.unwrap().is_some());
    }
}
