//! Provider tokens of sessions.

use std::time::Duration;

use portcullis::auth::provider_tokens::{MAX_SEALED_BYTES, PutTokensOutcome, SealedTokens};
use portcullis::auth::session::{EndReason, OnSessionLimit, Session};
use portcullis::store::{DroppedTokens, ReplacedTokens, Store, StoreError};

use crate::provider_sessions::provider_session;
use crate::support::{IDLE, engines};

fn tokens(version: u64, sealed: &[u8]) -> SealedTokens {
    SealedTokens {
        version,
        sealed: sealed.into(),
    }
}

async fn sign_in(store: &Store, user: &str, max: u32) -> Session {
    let one = provider_session(user, Some("one"), store.now().await.unwrap());
    let created = store.create_session(&one, None, max, OnSessionLimit::EvictOldest, IDLE);
    created.await.unwrap();
    one
}

#[tokio::test]
async fn tokens_are_replaced_only_if_unchanged_since_read() {
    let (_server, stores) = engines().await;
    for store in stores {
        let id = sign_in(&store, "ann", 5).await.id;
        let put = async |version, sealed, replaced| {
            let tokens = tokens(version, sealed);
            store
                .put_provider_tokens(id, &tokens, replaced)
                .await
                .unwrap()
        };
        assert_eq!(store.provider_tokens(id).await.unwrap(), None);
        let first = put(1, b"a\0\xff", ReplacedTokens::Version(0)).await;
        assert_eq!(first, PutTokensOutcome::Written);
        let read = store.provider_tokens(id).await.unwrap();
        assert_eq!(read, Some(tokens(1, b"a\0\xff")));
        for (version, replaced, expected) in [
            // Another gateway read what it replaces before.
            (1, ReplacedTokens::Version(0), PutTokensOutcome::Changed),
            (3, ReplacedTokens::Version(2), PutTokensOutcome::Changed),
            (2, ReplacedTokens::Version(1), PutTokensOutcome::Written),
            (2, ReplacedTokens::Older, PutTokensOutcome::Changed),
            (5, ReplacedTokens::Older, PutTokensOutcome::Written),
        ] {
            assert_eq!(put(version, b"b", replaced).await, expected, "{version}");
        }
        let read = store.provider_tokens(id).await.unwrap();
        assert_eq!(read, Some(tokens(5, b"b")));
        let long = tokens(6, &vec![0; MAX_SEALED_BYTES + 1]);
        let refused = store.put_provider_tokens(id, &long, ReplacedTokens::Older);
        assert_eq!(refused.await, Err(StoreError::Refused));
    }
}

#[tokio::test]
async fn tokens_end_with_their_session_and_are_reported() {
    let (_server, stores) = engines().await;
    for store in stores {
        let mut dropped = store.dropped_provider_tokens();
        let kept = tokens(1, b"sealed");
        let put = async |id| {
            let replaced = ReplacedTokens::Version(0);
            store
                .put_provider_tokens(id, &kept, replaced)
                .await
                .unwrap()
        };
        let ended = sign_in(&store, "ann", 5).await.id;
        put(ended).await;
        store.revoke(ended, EndReason::SignOut, IDLE).await.unwrap();
        let evicted = sign_in(&store, "bob", 1).await.id;
        put(evicted).await;
        sign_in(&store, "bob", 1).await;
        let everywhere = sign_in(&store, "eve", 5).await.id;
        put(everywhere).await;
        let reason = EndReason::SignOutEverywhere;
        store.revoke_user("eve", None, reason, IDLE).await.unwrap();
        for session in [ended, evicted, everywhere] {
            assert_eq!(store.provider_tokens(session).await.unwrap(), None);
            let expected = DroppedTokens {
                session,
                tokens: kept.clone(),
            };
            assert_eq!(dropped.try_recv().unwrap(), expected);
            assert_eq!(put(session).await, PutTokensOutcome::Gone);
        }
        assert!(dropped.try_recv().is_err());
        let unknown = provider_session("ann", None, 2_000).id;
        assert_eq!(put(unknown).await, PutTokensOutcome::Gone);
    }
}

#[tokio::test]
async fn tokens_of_an_expired_session_are_reported_by_the_clean_up() {
    let (_server, stores) = engines().await;
    for store in stores {
        let mut dropped = store.dropped_provider_tokens();
        let now = store.now().await.unwrap();
        let expiring = Session {
            expires_at: now + 300,
            ..provider_session("ann", Some("one"), now)
        };
        let created = store.create_session(&expiring, None, 5, OnSessionLimit::Reject, IDLE);
        created.await.unwrap();
        let alive = sign_in(&store, "ann", 5).await.id;
        let kept = tokens(1, b"sealed");
        for id in [expiring.id, alive] {
            let put = store.put_provider_tokens(id, &kept, ReplacedTokens::Version(0));
            assert_eq!(put.await.unwrap(), PutTokensOutcome::Written);
        }
        while store.now().await.unwrap() < expiring.expires_at {
            tokio::task::yield_now().await;
        }
        for is_first in [true, false] {
            let lease = store.begin_clean_up(Duration::ZERO).await.unwrap().unwrap();
            store.clean_up(&lease, &mut Vec::new()).await.unwrap();
            store.end_clean_up(lease).await.unwrap();
            let expected = DroppedTokens {
                session: expiring.id,
                tokens: kept.clone(),
            };
            let reported = dropped.try_recv().ok();
            assert_eq!(reported, is_first.then_some(expected));
        }
        assert_eq!(store.provider_tokens(expiring.id).await.unwrap(), None);
        assert_eq!(store.provider_tokens(alive).await.unwrap(), Some(kept));
    }
}
