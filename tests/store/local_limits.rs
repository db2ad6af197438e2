//! Limits while the store is away, and their reconciliation afterwards.

use std::sync::Arc;
use std::time::Duration;

use portcullis::limits::{Algorithm, Charge, Counter, Limit, LimitDefinition};
use portcullis::store::Store;

use crate::server::Server;
use crate::servers::until;
use crate::support::{charge, eventually, limit, log, redis};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Two gateways that know of each other.
async fn start_fleet(server: &Server) -> [Store; 2] {
    let gateways = [redis(server, TIMEOUT).await, redis(server, TIMEOUT).await];
    for (gateway, name) in gateways.iter().zip(["a", "b"]) {
        tokio::spawn(gateway.clone().announce_presence(name.into()));
    }
    eventually("they know of each other", async || {
        gateways.iter().all(|gateway| gateway.gateway_count() == 2)
    })
    .await;
    gateways
}

async fn spend(store: &Store, charge: &Charge, times: u64) {
    for _ in 0..times {
        let decisions = store.charge(std::slice::from_ref(charge)).await.unwrap();
        assert!(decisions[0].allowed);
    }
}

/// How many requests a gateway admits on its own.
fn drain_locally(store: &Store, charge: &Charge) -> u64 {
    let mut admitted = 0;
    while store.charge_locally(std::slice::from_ref(charge))[0].allowed {
        admitted += 1;
    }
    admitted
}

async fn remaining_units(store: &Store, charge: &Charge) -> Option<u64> {
    let decision = store.peek_limit(charge).await.ok()?;
    Some(decision.remaining)
}

fn each_algorithm() -> [Charge; 3] {
    let named = |name, algorithm| charge(limit(name, algorithm, 20));
    [
        named("window", Algorithm::SlidingWindow),
        named("log", Algorithm::SlidingLog),
        named("bucket", Algorithm::TokenBucket { burst: 20 }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn remaining_quota_is_shared_and_admissions_reconciled() {
    let server = Server::start();
    let [one, two] = start_fleet(&server).await;
    let charges = each_algorithm();
    for charge in &charges {
        spend(&one, charge, 6).await;
        spend(&two, charge, 4).await;
    }
    let port = server.kill();
    until("both have noticed", || !one.is_up() && !two.is_up());
    for charge in &charges {
        // Each uses the last reported number: 14 left, and 10.
        let standing = one.peek_locally(charge);
        assert!(standing.degraded);
        assert_eq!((standing.remaining, standing.limit.quota()), (7, 10));
        assert_eq!(
            one.charge_locally(std::slice::from_ref(charge))[0].remaining,
            6
        );
        assert_eq!(
            (drain_locally(&one, charge), drain_locally(&two, charge)),
            (6, 5)
        );
        let refused = &one.charge_locally(std::slice::from_ref(charge))[0];
        assert!(refused.retry_after > Duration::from_secs(1));
    }
    let _server = Server::start_on(port, &[]);
    for gateway in [&one, &two] {
        assert!(gateway.wait_until_up(TIMEOUT).await);
        gateway.report_admitted().await;
    }
    // It has come back empty: it has only what was reported to it.
    for charge in &charges {
        assert_eq!(
            remaining_units(&one, charge).await,
            Some(20 - 12),
            "{}",
            charge.limit.name
        );
        // No charge is held locally any more, and none is reported twice.
        assert_eq!(one.peek_locally(charge).remaining, 6);
    }
    one.report_admitted().await;
    assert_eq!(remaining_units(&one, &charges[0]).await, Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_limit_stays_exhausted_locally() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let charges = each_algorithm();
    for charge in &charges {
        spend(&store, charge, 20).await;
        assert_eq!(drain_locally(&store, charge), 0);
    }
    // A counter that was reset has everything again, also here.
    store.reset_limit(&charges[0]).await.unwrap();
    assert_eq!(drain_locally(&store, &charges[0]), 20);
    // What was used up in another window does not matter.
    let anew = charge(LimitDefinition {
        window: Duration::from_secs(601),
        ..LimitDefinition::clone(&charges[1].limit)
    });
    assert_eq!(drain_locally(&store, &anew), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn reconciliation_never_exceeds_the_limit() {
    let server = Server::start();
    let [one, two] = start_fleet(&server).await;
    for charge in &each_algorithm() {
        assert_eq!(drain_locally(&one, charge), 10);
        spend(&two, charge, 15).await;
    }
    one.report_admitted().await;
    for charge in &each_algorithm() {
        assert_eq!(remaining_units(&one, charge).await, Some(0));
    }
    // Every request has one limit at least, and one that refuses keeps the others whole.
    let charges = [log("tiny", 1), log("roomy", 1000)];
    let admitted = |charges: &[Charge]| {
        let decisions = one.charge_locally(charges);
        decisions.iter().all(|decision| decision.allowed)
    };
    assert!(admitted(&charges));
    assert!(!admitted(&charges));
    assert_eq!(one.peek_locally(&charges[1]).remaining, 499);
}

#[tokio::test(flavor = "multi_thread")]
async fn counter_flood_does_not_reset_spent_units() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let limit = Arc::new(Limit::new(limit("flood", Algorithm::SlidingWindow, 3)));
    let of = |user: u32| Charge {
        limit: Arc::clone(&limit),
        counter: Counter::of("flood", [(1, &user.to_be_bytes()[..])]),
    };
    assert_eq!(drain_locally(&store, &of(0)), 3);
    for user in 1..50_000 {
        assert!(store.charge_locally(&[of(user)])[0].allowed);
    }
    assert_eq!(drain_locally(&store, &of(0)), 0);
    assert_eq!(drain_locally(&store, &of(7)), 2);
    // Subjects without a counter of their own share one counter.
    assert_eq!(drain_locally(&store, &of(60_000)), 3);
    assert_eq!(drain_locally(&store, &of(60_001)), 0);
}
