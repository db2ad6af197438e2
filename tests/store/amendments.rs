//! Changes that the holder of a session makes to it.

use std::time::Duration;

use portcullis::auth::session::{EndReason, OnSessionLimit, Session};
use portcullis::routing::Requirements;
use portcullis::store::{AmendOutcome, Amendment, MAX_DATA_BYTES, Query, SessionLookup, Store};
use serde_json::{Value, json};

use crate::support::{IDLE, engines, query, session};

fn data(members: &Value) -> Amendment {
    Amendment {
        data: Some(members.as_object().unwrap().clone()),
        ..Amendment::default()
    }
}

async fn sign_in(store: &Store, age: u64) -> Session {
    let one = session("ann", store.now().await.unwrap() - age);
    let created = store.create_session(&one, None, 5, OnSessionLimit::EvictOldest, None);
    created.await.unwrap();
    one
}

#[tokio::test]
async fn data_is_merged_and_the_device_renamed() {
    let (_server, stores) = engines().await;
    for store in stores {
        let one = sign_in(&store, 0).await;
        let steps = [
            (
                data(&json!({"a": 1, "b": {"c": 2}})),
                r#"{"a":1,"b":{"c":2}}"#,
            ),
            (
                data(&json!({"a": null, "d": "é"})),
                r#"{"b":{"c":2},"d":"é"}"#,
            ),
            (Amendment::default(), r#"{"b":{"c":2},"d":"é"}"#),
        ];
        for (amendment, expected) in steps {
            let amended = store.amend_session(one.id, &amendment, IDLE).await;
            let Ok(AmendOutcome::Amended(entry)) = amended else {
                panic!("{amended:?}")
            };
            assert_eq!(&*entry.session.data, expected);
            assert_eq!(store.session(one.id).await.unwrap(), Some(entry));
        }
        let renaming = Amendment {
            device_name: Some("Ann's phone".to_owned()),
            data: None,
        };
        store.amend_session(one.id, &renaming, IDLE).await.unwrap();
        let after = store.session(one.id).await.unwrap().unwrap().session;
        assert_eq!(after.device.name.as_deref(), Some("Ann's phone"));
        assert_eq!(after.device.kind, one.device.kind);
        assert_eq!(
            (after.name, after.roles),
            (one.name.clone(), one.roles.clone())
        );
        // A gateway that has the record from before is given the new one.
        let anything = Requirements::default();
        let requested = Query {
            session: Some(one.id),
            cached: Some(one.clone().into()),
            ..query(&[], &anything, &[])
        };
        let found = store.decide(&requested, IDLE).await.unwrap().session;
        let SessionLookup::Active(record, _) = found else {
            panic!("{found:?}")
        };
        assert_eq!(record.device.name.as_deref(), Some("Ann's phone"));
    }
}

#[tokio::test]
async fn too_much_data_changes_nothing() {
    let (_server, stores) = engines().await;
    for store in stores {
        let one = sign_in(&store, 0).await;
        store
            .amend_session(one.id, &data(&json!({"a": "x"})), IDLE)
            .await
            .unwrap();
        let long = Amendment {
            device_name: Some("another".to_owned()),
            ..data(&json!({"b": "x".repeat(MAX_DATA_BYTES)}))
        };
        let refused = store.amend_session(one.id, &long, IDLE).await;
        assert_eq!(refused, Ok(AmendOutcome::DataTooLong));
        let after = store.session(one.id).await.unwrap().unwrap().session;
        assert_eq!((&*after.data, after.device.name), (r#"{"a":"x"}"#, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_amendments_are_all_applied() {
    let (_server, stores) = engines().await;
    for store in stores {
        let one = sign_in(&store, 0).await;
        let amend = |n: usize| {
            let (store, id) = (store.clone(), one.id);
            let amendment = data(&json!({format!("m{n}"): n}));
            tokio::spawn(async move { store.amend_session(id, &amendment, IDLE).await })
        };
        for task in (0..20).map(amend).collect::<Vec<_>>() {
            assert!(matches!(task.await.unwrap(), Ok(AmendOutcome::Amended(_))));
        }
        let after = store.session(one.id).await.unwrap().unwrap().session;
        let members: Value = serde_json::from_str(&after.data).unwrap();
        assert_eq!(members.as_object().unwrap().len(), 20, "{members}");
        assert_eq!(after.revision, 20);
    }
}

#[tokio::test]
async fn ended_session_cannot_be_revived() {
    let (_server, stores) = engines().await;
    for store in stores {
        let ended = sign_in(&store, 0).await;
        store
            .revoke(ended.id, EndReason::Admin, IDLE)
            .await
            .unwrap();
        let idle = sign_in(&store, 700_000).await;
        for id in [ended.id, idle.id, session("x", 0).id] {
            let before = store.session(id).await.unwrap();
            let amendment = data(&json!({"a": 1}));
            assert_eq!(
                store.amend_session(id, &amendment, IDLE).await,
                Ok(AmendOutcome::Gone)
            );
            assert_eq!(store.touch(id, IDLE).await, Ok(None));
            assert_eq!(store.session(id).await.unwrap(), before);
        }
        // Written once more, it stays as it is.
        let again = store.create_session(&ended, None, 5, OnSessionLimit::EvictOldest, IDLE);
        again.await.unwrap();
        let kept = store.session(ended.id).await.unwrap().unwrap().session;
        assert_eq!(kept.ended.unwrap().reason, EndReason::Admin);
    }
}

#[tokio::test]
async fn touch_moves_only_the_idle_expiry() {
    let (_server, stores) = engines().await;
    for store in stores {
        let one = sign_in(&store, 500_000).await;
        let before = store.now().await.unwrap();
        let entry = store.touch(one.id, IDLE).await.unwrap().unwrap();
        let last = entry.activity.last_access;
        assert!(last >= before);
        assert_eq!(entry.session, one);
        assert_eq!(entry.session.idle_expiry(last, IDLE), last + 600_000);
        let long = Some(Duration::from_secs(86_400));
        assert_eq!(entry.session.idle_expiry(last, long), one.expires_at);
        assert_eq!(store.session(one.id).await.unwrap(), Some(entry));
    }
}
