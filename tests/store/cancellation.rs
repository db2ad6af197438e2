//! Callers that give up: the connection is shared, and no caller may receive another's response.

use std::sync::Arc;
use std::time::Duration;

use portcullis::auth::session::{OnSessionLimit, Session};
use portcullis::routing::Requirements;
use portcullis::store::{Query, SessionLookup};

use crate::server::Server;
use crate::support::{IDLE, engines, query, redis, session};

#[tokio::test(flavor = "multi_thread")]
async fn replies_match_requests_despite_cancellation() {
    let server = Server::start();
    let store = redis(&server, Duration::from_secs(10)).await;
    let now = store.now().await.unwrap();
    let mut sessions = Vec::new();
    for n in 0..40 {
        let one = session(&format!("user-{n}"), now);
        store
            .create_session(&one, None, 5, OnSessionLimit::Reject, IDLE)
            .await
            .unwrap();
        sessions.push(one);
    }
    let sessions = Arc::new(sessions);
    let tasks: Vec<_> = (0..40)
        .map(|n: usize| {
            let (store, sessions) = (store.clone(), Arc::clone(&sessions));
            tokio::spawn(async move {
                let mut received = 0;
                for round in 0..500 {
                    let one = &sessions[(n + round) % sessions.len()];
                    let require = Requirements::default();
                    let requested = Query {
                        session: Some(one.id),
                        ..query(&[], &require, &[])
                    };
                    let patience = Duration::from_micros(rand::random_range(0..4000));
                    let Ok(found) =
                        tokio::time::timeout(patience, store.decide(&requested, IDLE)).await
                    else {
                        continue;
                    };
                    assert_eq!(
                        found.unwrap().session,
                        SessionLookup::Active(Arc::new(one.clone()), one.created_at)
                    );
                    received += 1;
                }
                received
            })
        })
        .collect();
    let mut received = 0;
    for task in tasks {
        received += task.await.unwrap();
    }
    assert!(
        received > 100 && received < 20_000,
        "{received} of 20000 were answered"
    );
}

/// A sign-in takes several steps. Wherever it is interrupted, no session stays alive that the
/// user's index does not count.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_sign_in_respects_the_session_limit() {
    const MAX_SESSIONS: usize = 3;
    let (_server, stores) = engines().await;
    for store in stores {
        let begun = store.now().await.unwrap();
        let (mut made, mut broken_off) = (Vec::new(), 0);
        let create = async |one: &Session| {
            let most = u32::try_from(MAX_SESSIONS).unwrap();
            store
                .create_session(one, None, most, OnSessionLimit::EvictOldest, IDLE)
                .await
        };
        for n in 0..300 {
            let one = session("ann", begun + n);
            let patience = Duration::from_micros(rand::random_range(0..1500));
            let outcome = tokio::time::timeout(patience, create(&one)).await;
            broken_off += usize::from(outcome.is_err());
            made.push(one.id);
        }
        // One that is not given up mends what was left.
        let last = session("ann", begun + 1000);
        create(&last).await.unwrap();
        made.push(last.id);
        let mut alive = 0;
        for id in made {
            let entry = store.session(id).await.unwrap();
            alive += usize::from(entry.is_some_and(|entry| entry.session.ended.is_none()));
        }
        assert!(
            alive <= MAX_SESSIONS,
            "{alive} with {broken_off} broken off"
        );
    }
}
