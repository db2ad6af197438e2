//! Leased limits against a real Redis: what they admit, what they cost, and what is returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use portcullis::limits::{Algorithm, Charge, Counter, Limit, LimitDefinition};
use portcullis::routing::Requirements;
use portcullis::store::Store;

use crate::nodes;
use crate::server::Server;
use crate::support::{IDLE, charge, cluster, eventually, limit, log, query, redis};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A limit with a window so wide that no part of it ends during a test.
fn leased(name: &str, algorithm: Algorithm, most: u64) -> Charge {
    leased_within(name, algorithm, most, Duration::from_secs(100_000))
}

fn leased_within(name: &str, algorithm: Algorithm, most: u64, window: Duration) -> Charge {
    charge(LimitDefinition {
        window,
        leased: true,
        ..limit(name, algorithm, most)
    })
}

fn each_algorithm(most: u64) -> [Charge; 3] {
    [
        leased("window", Algorithm::SlidingWindow, most),
        leased("log", Algorithm::SlidingLog, most),
        leased("bucket", Algorithm::TokenBucket { burst: most }, most),
    ]
}

async fn admits(store: &Store, charge: &Charge) -> bool {
    let decisions = store.charge(std::slice::from_ref(charge)).await.unwrap();
    decisions[0].allowed
}

async fn spend(store: &Store, charge: &Charge, times: u64) {
    for _ in 0..times {
        assert!(admits(store, charge).await);
    }
}

/// Spends from a limit of 1,000 until permits are held besides; tells how many were used. Whether some
/// are held at a moment is a matter of chance.
async fn spend_until_units_are_held(store: &Store, charge: &Charge) -> u64 {
    let mut used = 50;
    spend(store, charge, used).await;
    while 1000 - remaining_units(store, charge).await == used {
        assert!(used < 400, "nothing is ever held");
        spend(store, charge, 1).await;
        used += 1;
    }
    used
}

async fn remaining_units(store: &Store, charge: &Charge) -> u64 {
    store.peek_limit(charge).await.unwrap().remaining
}

#[tokio::test(flavor = "multi_thread")]
async fn single_gateway_admits_exactly_the_limit() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    for charge in &each_algorithm(2000) {
        let before = server.scripts().await;
        for n in 1..=2000 {
            let decisions = store.charge(std::slice::from_ref(charge)).await.unwrap();
            assert!(decisions[0].allowed, "{n}");
            assert_eq!(decisions[0].remaining, 2000 - n, "{}", charge.limit.name);
        }
        let requested = server.scripts().await - before;
        assert!(requested < 400, "{requested} scripts for 2000 requests");
        let refused = async || {
            let decisions = store.charge(std::slice::from_ref(charge)).await.unwrap();
            let decision = &decisions[0];
            assert!(!decision.allowed && !decision.degraded);
            assert_eq!(decision.remaining, 0);
            decision.retry_after
        };
        let first = refused().await;
        assert!(first > Duration::from_secs(1));
        // The decision is cached, and counts down.
        let before = server.scripts().await;
        for _ in 0..100 {
            assert!(refused().await < first);
        }
        assert_eq!(server.scripts().await, before);
        assert_eq!(remaining_units(&store, charge).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_grant_refuses_no_request() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    // As many workers have: their questions do not wait for each other.
    let workers: Vec<Store> = (0..4).map(|_| store.connect()).collect();
    for worker in &workers {
        assert!(worker.wait_until_up(TIMEOUT).await);
    }
    for round in 0..40 {
        let charge = leased(&format!("l{round}"), Algorithm::SlidingLog, 300);
        let (admitted, pending) = (AtomicU64::new(0), AtomicU64::new(0));
        let request = async |store: &Store| {
            loop {
                pending.fetch_add(1, Ordering::SeqCst);
                if !admits(store, &charge).await {
                    break;
                }
                admitted.fetch_add(1, Ordering::SeqCst);
                pending.fetch_sub(1, Ordering::SeqCst);
            }
            let others = pending.fetch_sub(1, Ordering::SeqCst) - 1;
            others + admitted.load(Ordering::SeqCst)
        };
        // A refused caller finds all units used, or leased to the concurrent callers.
        let used = join_all(workers.iter().cycle().take(16).map(request)).await;
        let least = used.iter().min();
        assert!(least.is_some_and(|used| *used >= 300), "{used:?}");
        assert_eq!(admitted.load(Ordering::SeqCst), 300);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn returned_units_make_the_fleet_exact() {
    let server = Server::start();
    let lone = redis(&server, TIMEOUT).await;
    let shared = cluster(nodes::shared(), TIMEOUT).await;
    let fleets = [
        [
            lone,
            redis(&server, TIMEOUT).await,
            redis(&server, TIMEOUT).await,
        ],
        // Handles on one gateway: a cluster's keys begin differently for each.
        [shared.connect(), shared.connect(), shared],
    ];
    for fleet in fleets {
        for store in &fleet {
            assert!(store.wait_until_up(TIMEOUT).await);
            tokio::spawn(store.clone().run_limit_reconciliation());
        }
        for charge in each_algorithm(900) {
            let admitted = Arc::new(AtomicU64::new(0));
            let tasks = fleet.clone().map(|store| {
                let (charge, admitted) = (charge.clone(), Arc::clone(&admitted));
                tokio::spawn(async move {
                    // Who finds nothing left tries again: the others' permits come back.
                    while admitted.load(Ordering::SeqCst) < 900 {
                        if admits(&store, &charge).await {
                            admitted.fetch_add(1, Ordering::SeqCst);
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                })
            });
            for task in tasks {
                let done = tokio::time::timeout(Duration::from_secs(30), task).await;
                done.expect("all of it is used").unwrap();
            }
            for store in &fleet {
                assert!(!admits(store, &charge).await, "{}", charge.limit.name);
            }
            assert_eq!(admitted.load(Ordering::SeqCst), 900);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overshoot_stays_within_the_bound() {
    let server = Server::start();
    let most = 60;
    let window = Duration::from_secs(1);
    let charge = leased_within("log", Algorithm::SlidingLog, most, window);
    let mut fleet = Vec::new();
    for name in ["a", "b", "c"] {
        let store = redis(&server, TIMEOUT).await;
        tokio::spawn(store.clone().run_limit_reconciliation());
        tokio::spawn(store.clone().announce_presence(name.into()));
        fleet.push(store);
    }
    eventually("they know of each other", async || {
        fleet.iter().all(|store| store.gateway_count() == 3)
    })
    .await;
    let mut tasks = Vec::new();
    for store in fleet {
        let charge = charge.clone();
        tasks.push(tokio::spawn(async move {
            let (mut admitted, started) = (Vec::new(), Instant::now());
            while started.elapsed() < Duration::from_millis(4500) {
                let requested = Instant::now();
                if admits(&store, &charge).await {
                    admitted.push((requested, Instant::now()));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            admitted
        }));
    }
    let mut admitted = Vec::new();
    for task in tasks {
        admitted.extend(task.await.unwrap());
    }
    admitted.sort();
    assert!(admitted.len() as u64 > 3 * most, "{}", admitted.len());
    let bound = (most + most / 2 + 3) as usize;
    // Each decision lies between its request and its response. The one that was requested last need
    // not be the last one decided.
    for some in admitted.windows(bound + 1) {
        let last = some.iter().map(|(_, response)| *response).max().unwrap();
        let widest = last - some[0].0;
        assert!(widest >= window, "{} within {widest:?}", bound + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_units_return_to_the_store() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let charges = each_algorithm(1000);
    let mut used = Vec::new();
    for charge in &charges {
        used.push(spend_until_units_are_held(&store, charge).await);
    }
    tokio::spawn(store.clone().run_limit_reconciliation());
    for (charge, used) in charges.iter().zip(&used) {
        let name = &charge.limit.name;
        eventually(name, async || {
            remaining_units(&store, charge).await == 1000 - used
        })
        .await;
    }
    // Also at the end, at once.
    let (charge, used) = (&charges[0], used[0] + 50);
    spend(&store, charge, 50).await;
    store.return_all_units().await;
    eventually("all is back", async || {
        remaining_units(&store, charge).await == 1000 - used
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn units_of_a_dead_gateway_expire() {
    let server = Server::start();
    let (dies, lives) = (redis(&server, TIMEOUT).await, redis(&server, TIMEOUT).await);
    let window = Duration::from_secs(3);
    let charge = leased_within("log", Algorithm::SlidingLog, 1000, window);
    spend_until_units_are_held(&dies, &charge).await;
    drop(dies);
    let started = Instant::now();
    eventually("it has left", async || {
        let since = started.elapsed();
        let is_whole = remaining_units(&lives, &charge).await == 1000;
        assert!(is_whole || since < window + Duration::from_secs(1));
        is_whole
    })
    .await;
}

#[tokio::test]
async fn grants_of_many_users_share_a_script() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let users: Vec<Charge> = (0..30_u8)
        .map(|user| Charge {
            counter: Counter::of("window", [(1, [user].as_slice())]),
            ..leased("window", Algorithm::SlidingWindow, 1000)
        })
        .collect();
    let all_spend = async || {
        let before = server.scripts().await;
        let spending = users.iter().map(|charge| admits(&store, charge));
        assert!(
            join_all(spending)
                .await
                .into_iter()
                .all(|admitted| admitted)
        );
        server.scripts().await - before
    };
    let mut requested = Vec::new();
    while requested.len() < 100 {
        requested.push(all_spend().await);
    }
    // At first each asks for itself; later what all ask for behind their backs is one question.
    assert_eq!(requested[0], 30);
    let later: u64 = requested[2..].iter().sum();
    assert!(later < 200, "{requested:?}");
    let used = requested.len() as u64;
    store.return_all_units().await;
    for charge in &users {
        assert_eq!(remaining_units(&store, charge).await, 1000 - used);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_and_leased_limits_are_decided_together() {
    let server = Server::start();
    let lone = redis(&server, TIMEOUT).await;
    for store in [lone, cluster(nodes::shared(), TIMEOUT).await] {
        let charges = [
            leased("leased", Algorithm::SlidingWindow, 1000),
            log("exact", 5),
            leased("other", Algorithm::SlidingLog, 1000),
        ];
        for n in 1..=5 {
            let decisions = store.charge(&charges).await.unwrap();
            let output = decisions.iter().map(|it| (&*it.limit.name, it.remaining));
            let expected = [("leased", 1000 - n), ("exact", 5 - n), ("other", 1000 - n)];
            assert_eq!(output.collect::<Vec<_>>(), expected);
        }
        for _ in 0..5 {
            let decisions = store.charge(&charges).await.unwrap();
            let allowed = decisions.iter().map(|it| it.allowed);
            assert_eq!(allowed.collect::<Vec<_>>(), [true, false, true]);
        }
        // A batch that is still on its way is not among what remains.
        eventually("nothing was spent", async || {
            let decisions = store.charge(&charges).await.unwrap();
            let remaining = decisions.iter().map(|it| it.remaining);
            remaining.eq([995, 0, 995])
        })
        .await;
        store.return_all_units().await;
        assert_eq!(remaining_units(&store, &charges[0]).await, 995);
        assert_eq!(remaining_units(&store, &charges[2]).await, 995);
        // A used-up shadow limit stays so, whichever limit refuses.
        let shadow = leased("shadow", Algorithm::SlidingLog, 1);
        let limit = LimitDefinition {
            shadow: true,
            ..LimitDefinition::clone(&shadow.limit)
        };
        let shadow = Charge {
            limit: Arc::new(Limit::new(limit)),
            ..shadow
        };
        let charges = [shadow, log("once", 2)];
        for expected in [[true, true], [false, true], [false, false], [false, false]] {
            let decisions = store.charge(&charges).await.unwrap();
            let allowed = decisions.iter().map(|it| it.allowed);
            assert_eq!(allowed.collect::<Vec<_>>(), expected);
        }
        // One that is leased refuses, and the exact one is spent of nothing.
        let charges = [leased("tiny", Algorithm::SlidingLog, 2), log("roomy", 9)];
        for n in 0..6 {
            let decisions = store.charge(&charges).await.unwrap();
            assert_eq!(decisions[0].allowed, n < 2);
            assert_eq!(decisions.len(), 2);
        }
        eventually("given back", async || {
            remaining_units(&store, &charges[1]).await == 7
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leased_limit_without_identity_is_decided_first() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let before = [leased("before", Algorithm::SlidingLog, 20)];
    let after = [
        leased("after", Algorithm::SlidingLog, 1000),
        leased("shadow", Algorithm::SlidingLog, 3),
    ];
    let [first, mut shadow] = after;
    shadow.limit = Arc::new(Limit::new(LimitDefinition {
        shadow: true,
        ..LimitDefinition::clone(&shadow.limit)
    }));
    let after = [first, shadow];
    let anything = Requirements::default();
    for n in 0..25 {
        let findings = store.decide(&query(&before, &anything, &after), IDLE).await;
        let decisions = findings.unwrap().decisions;
        let allowed: Vec<bool> = decisions.iter().map(|it| it.allowed).collect();
        if n < 20 {
            assert_eq!(allowed, [true, true, n < 3], "{n}");
            assert!(!decisions.iter().any(|it| it.refuses()));
        } else {
            assert_eq!(allowed, [false], "{n}");
        }
    }
    store.return_all_units().await;
    assert_eq!(remaining_units(&store, &after[0]).await, 980);
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_or_changed_limit_starts_fresh() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let charge = leased("log", Algorithm::SlidingLog, 30);
    spend(&store, &charge, 30).await;
    assert!(!admits(&store, &charge).await);
    store.reset_limit(&charge).await.unwrap();
    spend(&store, &charge, 30).await;
    assert!(!admits(&store, &charge).await);
    // As after a reload: a limit that is larger now is no longer refused.
    let mut larger = charge.clone();
    larger.limit = Arc::new(Limit::new(LimitDefinition {
        limit: 40,
        ..LimitDefinition::clone(&charge.limit)
    }));
    spend(&store, &larger, 10).await;
    assert!(!admits(&store, &larger).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_units_are_spent_during_outage() {
    let server = Server::start();
    let store = redis(&server, Duration::from_millis(200)).await;
    let charge = leased("log", Algorithm::SlidingLog, 10_000);
    spend(&store, &charge, 60).await;
    // One that asks for more may still be on its way.
    let (mut held, mut quiet) = (0, 0);
    eventually("it holds some, and asks for no more", async || {
        let before = std::mem::replace(&mut held, 9_940 - remaining_units(&store, &charge).await);
        quiet = if held == before { quiet + 1 } else { 0 };
        // What the store has granted may not have come yet.
        held > 5 && quiet > 10
    })
    .await;
    server.kill();
    let mut used = 0;
    while store.charge(std::slice::from_ref(&charge)).await.is_ok() {
        used += 1;
    }
    assert!(used > 0 && used <= held, "{used} of {held}");
    // Then as the limit's `on_outage` says; what Redis last said is not forgotten.
    let local = &store.charge_locally(std::slice::from_ref(&charge))[0];
    assert!(local.allowed && local.degraded);
    assert!(local.remaining < 10_000 - 60, "{}", local.remaining);
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_counter_requests_large_grants() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let charge = leased("busy", Algorithm::SlidingWindow, 10_000_000);
    spend(&store, &charge, 20_000).await;
    let requested = server.scripts().await;
    assert!(requested < 1000, "{requested} scripts for 20000 requests");
}
