//! Revocations, as rows.
#![expect(clippy::indexing_slicing, reason = "tests")]

use portcullis::auth::session::Millis;
use portcullis::directory::{Directory, KeptMarker, KeptRevocation, Revoked};

use crate::support::homes;

fn token(key: &str, made_at: Millis, until: Millis) -> KeptRevocation {
    KeptRevocation {
        revoked: Revoked::Token(key.to_owned()),
        made_at,
        until,
    }
}

fn person(second: u64, made_at: Millis) -> KeptRevocation {
    KeptRevocation {
        revoked: Revoked::Person([7; 16], second),
        made_at,
        until: 100_000,
    }
}

async fn since(directory: &Directory, since: Millis, now: Millis) -> Vec<KeptRevocation> {
    directory.revocations_since(since, None, now).await.unwrap()
}

#[tokio::test]
async fn revocations_are_kept_as_far_as_they_reached_furthest() {
    for home in homes() {
        let directory = home.open().await;
        for kept in [
            token("a", 1_000, 9_000),
            token("a", 2_000, 5_000),
            person(7, 1_000),
            person(3, 2_000),
        ] {
            directory.keep_revocation(&kept, false).await.unwrap();
        }
        let kept = since(&directory, 0, 0).await;
        assert_eq!(kept, [person(7, 2_000), token("a", 2_000, 9_000)]);
        assert_eq!(since(&directory, 2_001, 0).await, []);
        assert_eq!(since(&directory, 0, 9_000).await, [person(7, 2_000)]);
        let after = directory.revocations_since(0, Some(&kept[0].revoked), 0);
        assert_eq!(after.await.unwrap(), kept[1..]);
        let asked = [
            Revoked::Token("a".to_owned()),
            Revoked::Token("b\"'%;--".to_owned()),
            Revoked::Person([7; 16], 7),
            Revoked::Person([7; 16], 8),
            Revoked::Person([8; 16], 1),
        ];
        let unkept = directory.unkept_among(&asked).await.unwrap();
        assert_eq!(
            unkept,
            [asked[1].clone(), asked[3].clone(), asked[4].clone()]
        );
        let told = directory.refuses("a", Some([7; 16])).await.unwrap();
        assert_eq!(told, (true, Some(7)));
        let told = directory.refuses("b", Some([8; 16])).await.unwrap();
        assert_eq!(told, (false, None));
        directory.drop_revocation("a").await.unwrap();
        assert_eq!(directory.trim_revocations(99_999).await.unwrap(), 0);
        assert_eq!(directory.trim_revocations(100_001).await.unwrap(), 1);
        assert_eq!(since(&directory, 0, 0).await, []);
    }
}

#[tokio::test]
async fn what_the_store_was_not_told_stays_to_be_told() {
    for home in homes() {
        let directory = home.open().await;
        let (told, untold) = (token("told", 1, 9), token("untold", 2, 9));
        directory.keep_revocation(&told, false).await.unwrap();
        directory.keep_revocation(&untold, true).await.unwrap();
        // Hearing of it is not telling.
        directory.keep_revocation(&untold, false).await.unwrap();
        let waiting = directory.untold_revocations().await.unwrap();
        assert_eq!(waiting, [untold]);
        directory.revocations_told(&waiting).await.unwrap();
        assert_eq!(directory.untold_revocations().await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_store_is_known_by_its_prefix() {
    for home in homes() {
        let directory = home.open().await;
        assert_eq!(directory.store_marker("p:").await.unwrap(), None);
        for (marker, complete) in [("a", true), ("b", false)] {
            let kept = KeptMarker {
                marker: marker.to_owned(),
                complete,
            };
            directory.keep_store_marker("p:", &kept).await.unwrap();
            assert_eq!(directory.store_marker("p:").await.unwrap(), Some(kept));
        }
        assert_eq!(directory.store_marker("q:").await.unwrap(), None);
    }
}
