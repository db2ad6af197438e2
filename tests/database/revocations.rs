//! Revocations, as rows.
#![expect(clippy::indexing_slicing, reason = "tests")]

use portcullis::auth::session::Millis;
use portcullis::database::{Database, LoggedRevocation, RevocationSubject, StoreMarker};

use crate::support::databases;

fn token(key: &str, made_at: Millis, until: Millis) -> LoggedRevocation {
    LoggedRevocation {
        subject: RevocationSubject::Token(key.to_owned()),
        made_at,
        until,
    }
}

fn issued_before(second: u64, made_at: Millis) -> LoggedRevocation {
    LoggedRevocation {
        subject: RevocationSubject::IssuedBefore([7; 16], second),
        made_at,
        until: 100_000,
    }
}

async fn revocations_since(
    database: &Database,
    since: Millis,
    now: Millis,
) -> Vec<LoggedRevocation> {
    database.revocations_since(since, None, now).await.unwrap()
}

#[tokio::test]
async fn revocations_keep_their_widest_reach() {
    for fixture in databases() {
        let database = fixture.open().await;
        for kept in [
            token("a", 1_000, 9_000),
            token("a", 2_000, 5_000),
            issued_before(7, 1_000),
            issued_before(3, 2_000),
        ] {
            database.upsert_revocation(&kept, false).await.unwrap();
        }
        let kept = revocations_since(&database, 0, 0).await;
        assert_eq!(kept, [issued_before(7, 2_000), token("a", 2_000, 9_000)]);
        assert_eq!(revocations_since(&database, 2_001, 0).await, []);
        assert_eq!(
            revocations_since(&database, 0, 9_000).await,
            [issued_before(7, 2_000)]
        );
        let after = database.revocations_since(0, Some(&kept[0].subject), 0);
        assert_eq!(after.await.unwrap(), kept[1..]);
        let requested = [
            RevocationSubject::Token("a".to_owned()),
            RevocationSubject::Token("b\"'%;--".to_owned()),
            RevocationSubject::IssuedBefore([7; 16], 7),
            RevocationSubject::IssuedBefore([7; 16], 8),
            RevocationSubject::IssuedBefore([8; 16], 1),
        ];
        let missing = database.missing_revocations(&requested).await.unwrap();
        assert_eq!(
            missing,
            [
                requested[1].clone(),
                requested[3].clone(),
                requested[4].clone()
            ]
        );
        let reported = database
            .look_up_revocations("a", Some([7; 16]))
            .await
            .unwrap();
        assert_eq!(reported, (true, Some(7)));
        let reported = database
            .look_up_revocations("b", Some([8; 16]))
            .await
            .unwrap();
        assert_eq!(reported, (false, None));
        database.delete_revocation("a").await.unwrap();
        assert_eq!(
            database.delete_expired_revocations(99_999).await.unwrap(),
            0
        );
        assert_eq!(
            database.delete_expired_revocations(100_001).await.unwrap(),
            1
        );
        assert_eq!(revocations_since(&database, 0, 0).await, []);
    }
}

#[tokio::test]
async fn unreplayed_revocations_stay_pending() {
    for fixture in databases() {
        let database = fixture.open().await;
        let (reported, pending) = (token("told", 1, 9), token("untold", 2, 9));
        database.upsert_revocation(&reported, false).await.unwrap();
        database.upsert_revocation(&pending, true).await.unwrap();
        // Hearing of it is not telling.
        database.upsert_revocation(&pending, false).await.unwrap();
        let waiting = database.pending_revocations().await.unwrap();
        assert_eq!(waiting, [pending]);
        database.mark_revocations_replayed(&waiting).await.unwrap();
        assert_eq!(database.pending_revocations().await.unwrap(), []);
    }
}

#[tokio::test]
async fn stores_are_distinguished_by_their_prefix() {
    for fixture in databases() {
        let database = fixture.open().await;
        assert_eq!(database.store_marker("p:").await.unwrap(), None);
        for (marker, complete) in [("a", true), ("b", false)] {
            let kept = StoreMarker {
                marker: marker.to_owned(),
                is_log_complete: complete,
            };
            database.upsert_store_marker("p:", &kept).await.unwrap();
            assert_eq!(database.store_marker("p:").await.unwrap(), Some(kept));
        }
        assert_eq!(database.store_marker("q:").await.unwrap(), None);
    }
}
