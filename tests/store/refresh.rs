//! Refresh tokens: both engines rotate by the same rules.

use std::time::Duration;

use portcullis::auth::session::{EndReason, Millis, OnLimit, SessionId};
use portcullis::store::{Grant, Reuse, Rotation, Store, Turnover};

use crate::support::{IDLE, engines, session};

async fn signed_in(store: &Store, ttl: Millis) -> (SessionId, Millis) {
    let now = store.now().await.unwrap();
    let written = session("ann", now);
    let grant = Grant {
        hash: [1; 32],
        until: now + ttl,
    };
    let created = store.create_session(&written, Some(grant), 5, OnLimit::EvictOldest, IDLE);
    created.await.unwrap();
    (written.id, now)
}

fn turnover(from: u8, to: u8, grace: Duration) -> Turnover {
    Turnover {
        presented: [from; 32],
        ours: from < 100,
        successor: [to; 32],
        grace,
        ttl: Duration::from_secs(60),
        address: [192, 0, 2, 7].into(),
    }
}

/// Presents token `from`, whose successor is `to`. Numbers from 100 up bear no mark of ours.
async fn present(store: &Store, id: SessionId, from: u8, to: u8, grace: Duration) -> Rotation {
    let turnover = turnover(from, to, grace);
    let turned = store.rotate_refresh(id, &turnover, IDLE).await.unwrap();
    turned.rotation
}

#[tokio::test]
async fn tokens_rotate_and_replay_for_the_grace_time() {
    let (_server, stores) = engines().await;
    let grace = Duration::from_secs(60);
    for store in stores {
        let (id, _) = signed_in(&store, 60_000).await;
        assert_eq!(store.holds_refresh(id, [1; 32]).await, Ok(true));
        let story = [
            (200, 201, Rotation::Unknown),
            (1, 2, Rotation::Rotated),
            (1, 2, Rotation::Replayed),
            (2, 3, Rotation::Rotated),
            (1, 2, Rotation::Replayed),
            (2, 3, Rotation::Replayed),
            (2, 9, Rotation::Unknown),
            (3, 4, Rotation::Rotated),
            // One that was never rotated within the grace time, but is ours: an old one.
            (50, 51, Rotation::Reused(Reuse::Ancestor)),
            (4, 5, Rotation::Reused(Reuse::Unknown)),
            (3, 4, Rotation::Reused(Reuse::Predecessor)),
            (200, 201, Rotation::Unknown),
        ];
        for (step, (from, to, expected)) in story.into_iter().enumerate() {
            let found = present(&store, id, from, to, grace).await;
            assert_eq!(found, expected, "step {step}");
        }
        assert_eq!(store.holds_refresh(id, [1; 32]).await, Ok(false));
        store.revoke(id, EndReason::Admin, IDLE).await.unwrap();
        assert_eq!(present(&store, id, 4, 5, grace).await, Rotation::Gone);
        let nobody = SessionId([9; 32]);
        assert_eq!(present(&store, nobody, 1, 2, grace).await, Rotation::Gone);
        assert_eq!(
            present(&store, nobody, 200, 2, grace).await,
            Rotation::Unknown
        );
    }
}

#[tokio::test]
async fn who_refreshes_without_end_is_remembered_no_further_than_need_be() {
    let (_server, stores) = engines().await;
    let grace = Duration::from_secs(60);
    for store in stores {
        let (id, _) = signed_in(&store, 60_000).await;
        for from in 1..=80 {
            assert_eq!(
                present(&store, id, from, from + 1, grace).await,
                Rotation::Rotated
            );
        }
        assert_eq!(present(&store, id, 17, 18, grace).await, Rotation::Replayed);
        let old = present(&store, id, 16, 17, grace).await;
        assert_eq!(old, Rotation::Reused(Reuse::Ancestor));
    }
}

#[tokio::test]
async fn after_the_grace_time_it_is_reuse_and_after_its_time_expired() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, _) = signed_in(&store, 60_000).await;
        let none = Duration::ZERO;
        assert_eq!(present(&store, id, 1, 2, none).await, Rotation::Rotated);
        let reused = present(&store, id, 1, 2, none).await;
        assert_eq!(reused, Rotation::Reused(Reuse::Predecessor));
        let (id, _) = signed_in(&store, 0).await;
        assert_eq!(present(&store, id, 1, 2, none).await, Rotation::Expired);
    }
}

#[tokio::test]
async fn a_refresh_is_a_use_and_tells_the_session() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, now) = signed_in(&store, 60_000).await;
        let grace = Duration::from_secs(60);
        for count in [1, 2] {
            let turned = store.rotate_refresh(id, &turnover(1, 2, grace), IDLE).await;
            let turned = turned.unwrap();
            let entry = turned.entry.unwrap();
            assert!(turned.now >= now && entry.activity.last_access == turned.now);
            assert_eq!(entry.activity.request_count, count);
            let from = turnover(1, 2, grace).address;
            assert_eq!(entry.activity.ip_addresses, [from]);
            assert_eq!(store.session(id).await.unwrap(), Some(entry));
        }
        // One that is refused is none.
        let turned = store
            .rotate_refresh(id, &turnover(200, 201, grace), IDLE)
            .await;
        assert_eq!(turned.unwrap().entry.unwrap().activity.request_count, 2);
    }
}

#[tokio::test]
async fn an_idle_session_is_not_refreshed() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, _) = signed_in(&store, 60_000).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let idle = Some(Duration::from_millis(1));
        let turnover = turnover(1, 2, Duration::ZERO);
        let turned = store.rotate_refresh(id, &turnover, idle).await.unwrap();
        assert_eq!(turned.rotation, Rotation::Gone);
        assert_eq!(store.holds_refresh(id, [1; 32]).await, Ok(true));
    }
}

#[tokio::test]
async fn a_session_from_elsewhere_takes_the_first_token_of_ours() {
    let (_server, stores) = engines().await;
    for store in stores {
        let one = session("ann", store.now().await.unwrap());
        let created = store.create_session(&one, None, 5, OnLimit::Reject, IDLE);
        created.await.unwrap();
        let grace = Duration::from_secs(60);
        for (from, to, expected) in [
            (200, 201, Rotation::Unknown),
            (7, 8, Rotation::Rotated),
            (7, 8, Rotation::Replayed),
            (8, 9, Rotation::Rotated),
            (6, 7, Rotation::Reused(Reuse::Ancestor)),
        ] {
            assert_eq!(
                present(&store, one.id, from, to, grace).await,
                expected,
                "{from}"
            );
        }
    }
}

#[tokio::test]
async fn of_many_at_once_one_rotates() {
    let (_server, stores) = engines().await;
    for store in stores {
        let (id, _) = signed_in(&store, 60_000).await;
        let grace = Duration::from_secs(60);
        let calls = (0..400).map(|_| present(&store, id, 1, 2, grace));
        let found = futures_util::future::join_all(calls).await;
        let count = |wanted| found.iter().filter(|rotation| **rotation == wanted).count();
        assert_eq!(
            (count(Rotation::Rotated), count(Rotation::Replayed)),
            (1, 399)
        );
    }
}
