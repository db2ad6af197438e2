//! Refresh tokens: both engines rotate by the same rules.

use std::time::Duration;

use portcullis::auth::session::{EndReason, Millis, OnSessionLimit, SessionId};
use portcullis::store::{InitialRefreshToken, RefreshRotation, Reuse, RotationOutcome, Store};

use crate::support::{IDLE, engines, session};

async fn sign_in(store: &Store, ttl: Millis) -> (SessionId, Millis) {
    let now = store.now().await.unwrap();
    let written = session("ann", now);
    let grant = InitialRefreshToken {
        hash: [1; 32],
        until: now + ttl,
    };
    let created = store.create_session(&written, Some(grant), 5, OnSessionLimit::EvictOldest, IDLE);
    created.await.unwrap();
    (written.id, now)
}

fn rotation_request(from: u8, to: u8, grace: Duration) -> RefreshRotation {
    RefreshRotation {
        presented: [from; 32],
        is_authentic: from < 100,
        successor: [to; 32],
        grace,
        ttl: Duration::from_secs(60),
        address: [192, 0, 2, 7].into(),
    }
}

/// Presents token `from`, whose successor is `to`. Numbers from 100 up bear no mark of ours.
async fn rotate(
    store: &Store,
    id: SessionId,
    from: u8,
    to: u8,
    grace: Duration,
) -> RotationOutcome {
    let turnover = rotation_request(from, to, grace);
    let turned = store.rotate_refresh(id, &turnover, IDLE).await.unwrap();
    turned.outcome
}

#[tokio::test]
async fn tokens_rotate_and_replay_for_the_grace_time() {
    let (_server, stores) = engines().await;
    let grace = Duration::from_secs(60);
    for store in stores {
        let (id, _) = sign_in(&store, 60_000).await;
        assert_eq!(store.is_current_refresh_token(id, [1; 32]).await, Ok(true));
        let story = [
            (200, 201, RotationOutcome::Unknown),
            (1, 2, RotationOutcome::Rotated),
            (1, 2, RotationOutcome::Replayed),
            (2, 3, RotationOutcome::Rotated),
            (1, 2, RotationOutcome::Replayed),
            (2, 3, RotationOutcome::Replayed),
            (2, 9, RotationOutcome::Unknown),
            (3, 4, RotationOutcome::Rotated),
            // One that was never rotated within the grace time, but is ours: an old one.
            (50, 51, RotationOutcome::Reused(Reuse::Ancestor)),
            (4, 5, RotationOutcome::Reused(Reuse::Unknown)),
            (3, 4, RotationOutcome::Reused(Reuse::Predecessor)),
            (200, 201, RotationOutcome::Unknown),
        ];
        for (step, (from, to, expected)) in story.into_iter().enumerate() {
            let found = rotate(&store, id, from, to, grace).await;
            assert_eq!(found, expected, "step {step}");
        }
        assert_eq!(store.is_current_refresh_token(id, [1; 32]).await, Ok(false));
        store.revoke(id, EndReason::Admin, IDLE).await.unwrap();
        assert_eq!(
            rotate(&store, id, 4, 5, grace).await,
            RotationOutcome::SessionEnded
        );
        let missing = SessionId([9; 32]);
        assert_eq!(
            rotate(&store, missing, 1, 2, grace).await,
            RotationOutcome::SessionEnded
        );
        assert_eq!(
            rotate(&store, missing, 200, 2, grace).await,
            RotationOutcome::Unknown
        );
    }
}

#[tokio::test]
async fn refresh_history_is_bounded() {
    let (_server, stores) = engines().await;
    let grace = Duration::from_secs(60);
    for store in stores {
        let (id, _) = sign_in(&store, 60_000).await;
        for from in 1..=80 {
            assert_eq!(
                rotate(&store, id, from, from + 1, grace).await,
                RotationOutcome::Rotated
            );
        }
        assert_eq!(
            rotate(&store, id, 17, 18, grace).await,
            RotationOutcome::Replayed
        );
        let old = rotate(&store, id, 16, 17, grace).await;
        assert_eq!(old, RotationOutcome::Reused(Reuse::Ancestor));
    }
}

#[tokio::test]
async fn reuse_after_grace_and_expiry_after_ttl() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, _) = sign_in(&store, 60_000).await;
        let none = Duration::ZERO;
        assert_eq!(
            rotate(&store, id, 1, 2, none).await,
            RotationOutcome::Rotated
        );
        let reused = rotate(&store, id, 1, 2, none).await;
        assert_eq!(reused, RotationOutcome::Reused(Reuse::Predecessor));
        let (id, _) = sign_in(&store, 0).await;
        assert_eq!(
            rotate(&store, id, 1, 2, none).await,
            RotationOutcome::Expired
        );
    }
}

#[tokio::test]
async fn refresh_counts_as_use_and_returns_the_session() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, now) = sign_in(&store, 60_000).await;
        let grace = Duration::from_secs(60);
        for count in [1, 2] {
            let turned = store
                .rotate_refresh(id, &rotation_request(1, 2, grace), IDLE)
                .await;
            let turned = turned.unwrap();
            let entry = turned.entry.unwrap();
            assert!(turned.now >= now && entry.activity.last_access == turned.now);
            assert_eq!(entry.activity.request_count, count);
            let from = rotation_request(1, 2, grace).address;
            assert_eq!(entry.activity.ip_addresses, [from]);
            assert_eq!(store.session(id).await.unwrap(), Some(entry));
        }
        // One that is refused is none.
        let turned = store
            .rotate_refresh(id, &rotation_request(200, 201, grace), IDLE)
            .await;
        assert_eq!(turned.unwrap().entry.unwrap().activity.request_count, 2);
    }
}

#[tokio::test]
async fn idle_session_is_not_refreshed() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, _) = sign_in(&store, 60_000).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let idle = Some(Duration::from_millis(1));
        let turnover = rotation_request(1, 2, Duration::ZERO);
        let turned = store.rotate_refresh(id, &turnover, idle).await.unwrap();
        assert_eq!(turned.outcome, RotationOutcome::SessionEnded);
        assert_eq!(store.is_current_refresh_token(id, [1; 32]).await, Ok(true));
    }
}

#[tokio::test]
async fn foreign_session_accepts_its_first_refresh_token() {
    let (_server, stores) = engines().await;
    for store in stores {
        let one = session("ann", store.now().await.unwrap());
        let created = store.create_session(&one, None, 5, OnSessionLimit::Reject, IDLE);
        created.await.unwrap();
        let grace = Duration::from_secs(60);
        for (from, to, expected) in [
            (200, 201, RotationOutcome::Unknown),
            (7, 8, RotationOutcome::Rotated),
            (7, 8, RotationOutcome::Replayed),
            (8, 9, RotationOutcome::Rotated),
            (6, 7, RotationOutcome::Reused(Reuse::Ancestor)),
        ] {
            assert_eq!(
                rotate(&store, one.id, from, to, grace).await,
                expected,
                "{from}"
            );
        }
    }
}

#[tokio::test]
async fn concurrent_refreshes_rotate_once() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, _) = sign_in(&store, 60_000).await;
        let grace = Duration::from_secs(60);
        let calls = (0..400).map(|_| rotate(&store, id, 1, 2, grace));
        let found = futures_util::future::join_all(calls).await;
        let count = |wanted| found.iter().filter(|rotation| **rotation == wanted).count();
        assert_eq!(
            (
                count(RotationOutcome::Rotated),
                count(RotationOutcome::Replayed)
            ),
            (1, 399)
        );
    }
}
