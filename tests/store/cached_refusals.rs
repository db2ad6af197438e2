//! Cached refusals: repeated without a request to the store.

use std::time::{Duration, Instant};

use portcullis::auth::session::SessionId;
use portcullis::limits::{Algorithm, Charge, Decision, Limit, LimitDefinition};
use portcullis::routing::Requirements;
use portcullis::store::{Query, Store};

use crate::server::Server;
use crate::support::{IDLE, charge, eventually, limit, query, redis};

const TIMEOUT: Duration = Duration::from_secs(5);

/// With windows of this length.
fn each_algorithm(window: Duration) -> [Charge; 3] {
    let named = |name, algorithm| {
        charge(LimitDefinition {
            window,
            ..limit(name, algorithm, 2)
        })
    };
    [
        named("window", Algorithm::SlidingWindow),
        named("log", Algorithm::SlidingLog),
        named("bucket", Algorithm::TokenBucket { burst: 2 }),
    ]
}

async fn charge_once(store: &Store, charge: &Charge) -> Decision {
    let decisions = store.charge(std::slice::from_ref(charge)).await.unwrap();
    decisions[0].clone()
}

/// Spends until the limit refuses.
async fn exhaust(store: &Store, charge: &Charge) -> Decision {
    loop {
        let decision = charge_once(store, charge).await;
        if !decision.allowed {
            return decision;
        }
    }
}

#[tokio::test]
async fn exhausted_caller_costs_one_query_per_second() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    for charge in &each_algorithm(Duration::from_secs(1000)) {
        let refused = exhaust(&store, charge).await;
        let (before, began) = (server.scripts().await, Instant::now());
        let mut waits = vec![refused.retry_after];
        for _ in 0..500 {
            let decision = charge_once(&store, charge).await;
            assert_eq!((decision.allowed, decision.remaining), (false, 0));
            assert!(decision.reset_after <= refused.reset_after);
            waits.push(decision.retry_after);
        }
        assert!(waits.is_sorted_by(|a, b| a >= b), "it counts down");
        let requested = server.scripts().await - before;
        let seconds = began.elapsed().as_secs();
        assert!(requested <= 1 + seconds, "{requested} times in {seconds} s");
    }
}

#[tokio::test]
async fn cached_refusal_expires_on_time() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    for charge in &each_algorithm(Duration::from_millis(600)) {
        let refused = exhaust(&store, charge).await;
        let (said_at, output) = (Instant::now(), refused.retry_after);
        loop {
            let requested = said_at.elapsed();
            if charge_once(&store, charge).await.allowed {
                break;
            }
            // The store rounds up to a millisecond.
            assert!(
                requested < output + Duration::from_millis(100),
                "{requested:?}, {output:?}"
            );
        }
        let took = said_at.elapsed();
        assert!(
            took + Duration::from_millis(2) >= output,
            "{took:?}, {output:?}"
        );
    }
}

#[tokio::test]
async fn reset_elsewhere_is_noticed_within_a_second() {
    let server = Server::start();
    let (store, other) = (redis(&server, TIMEOUT).await, redis(&server, TIMEOUT).await);
    for charge in &each_algorithm(Duration::from_secs(1000)) {
        exhaust(&store, charge).await;
        assert!(other.reset_limit(charge).await.unwrap());
        let reset_at = Instant::now();
        eventually("it admits", async || {
            let requested = reset_at.elapsed();
            let admits = charge_once(&store, charge).await.allowed;
            assert!(
                admits || requested < Duration::from_millis(1300),
                "{requested:?}"
            );
            admits
        })
        .await;
        // Its own resets it knows at once.
        exhaust(&store, charge).await;
        store.reset_limit(charge).await.unwrap();
        assert!(charge_once(&store, charge).await.allowed);
    }
}

#[tokio::test]
async fn changed_limit_is_queried_again() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    for old in &each_algorithm(Duration::from_secs(1000)) {
        exhaust(&store, old).await;
        let mut limit = LimitDefinition::clone(&old.limit);
        limit.limit += 1;
        if let Algorithm::TokenBucket { burst } = &mut limit.algorithm {
            *burst += 1;
        }
        let new = Charge {
            limit: Limit::new(limit).into(),
            ..old.clone()
        };
        assert!(charge_once(&store, &new).await.allowed);
    }
}

#[tokio::test]
async fn refused_request_leaves_other_limits_unchanged() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let [few, _, _] = each_algorithm(Duration::from_secs(1000));
    let many = charge(limit("many", Algorithm::SlidingWindow, 100));
    let both = [few.clone(), many.clone()];
    for _ in 0..2 {
        assert!(
            store
                .charge(&both)
                .await
                .unwrap()
                .iter()
                .all(|it| it.allowed)
        );
    }
    let requested = store.charge(&both).await.unwrap();
    let before = server.scripts().await;
    let reported = store.charge(&both).await.unwrap();
    assert_eq!(server.scripts().await, before);
    for (reported, requested) in reported.iter().zip(&requested) {
        assert_eq!(reported.limit.name, requested.limit.name);
        assert_eq!(reported.allowed, requested.allowed);
        assert_eq!(reported.remaining, requested.remaining);
    }
    assert_eq!(
        charge_once(&store, &many).await.remaining,
        97,
        "nothing was spent"
    );
}

#[tokio::test]
async fn cached_decisions_are_reported_only_while_valid() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let [_, short, _] = each_algorithm(Duration::from_millis(300));
    let few = charge(limit("few", Algorithm::SlidingLog, 1));
    exhaust(&store, &short).await;
    eventually("it is whole again", async || {
        store.peek_limit(&short).await.unwrap().remaining == 2
    })
    .await;
    exhaust(&store, &few).await;
    let reported = store.charge(&[few, short]).await.unwrap();
    assert!(!reported[0].allowed && reported[1].allowed);
    assert_eq!(reported[1].remaining, 2);
}

#[tokio::test]
async fn refusal_without_identity_precedes_session_lookup() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let [few, _, _] = each_algorithm(Duration::from_secs(1000));
    exhaust(&store, &few).await;
    let (before, require) = (server.scripts().await, Requirements::default());
    for byte in 0..100 {
        let requested = Query {
            session: Some(SessionId([byte; 32])),
            ..query(std::slice::from_ref(&few), &require, &[])
        };
        let findings = store.decide(&requested, IDLE).await.unwrap();
        assert!(!findings.decisions[0].allowed);
    }
    assert!(server.scripts().await <= before + 1);
}
