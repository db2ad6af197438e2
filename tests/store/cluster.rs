//! A cluster: limits on different nodes, slots that move, a master that dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis::auth::session::{EndReason, OnSessionLimit, Session};
use portcullis::limits::{Algorithm, Charge};
use portcullis::routing::Requirements;
use portcullis::settings::{Engine, RedisAddress, Topology};
use portcullis::store::{Query, ServerCheck, SessionLookup, Severity, Store, StoreError, inspect};

use crate::nodes::{self, Nodes};
use crate::support::{
    IDLE, address, charge, cluster, eventually, limit, log, metrics, node, open_with_prefix, query,
    session, settings,
};

/// What is quick on an idle machine, on a busy one.
const PROPAGATION_DEADLINE: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

async fn sign_in(store: &Store, user: &str) -> Session {
    let one = session(user, store.now().await.unwrap());
    let created = store.create_session(&one, None, 5, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
    one
}

fn key_of(store_prefix: &str, one: &Session) -> String {
    format!("{store_prefix}session:{{{}}}", one.id)
}

/// A store whose keys are known.
async fn start_with_prefix(nodes: &Nodes, prefix: &str, timeout: Duration) -> Store {
    let seeds = nodes.ports().into_iter().map(node).collect();
    let address = RedisAddress {
        topology: Topology::Cluster(seeds),
        ..address(0)
    };
    let engine = Engine::Redis(address);
    let store = open_with_prefix(engine, prefix.to_owned(), timeout, metrics()).connect();
    assert!(store.wait_until_up(TIMEOUT).await);
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_on_different_slots_admit_the_strictest() {
    let store = cluster(nodes::shared(), TIMEOUT).await;
    let anything = Arc::new(Requirements::default());
    let alone = [log("alone", 1)];
    let found = store.decide(&query(&[], &anything, &alone), IDLE).await;
    assert!(found.unwrap().now > 0, "the time is told whatever is asked");
    for strict in [Algorithm::SlidingLog, Algorithm::SlidingWindow] {
        let name = format!("strict-{strict:?}");
        let before = Arc::new([log(&format!("wide-{strict:?}"), 1000)]);
        let after = Arc::new([
            charge(limit(&name, strict, 7)),
            log(&format!("x{name}"), 500),
        ]);
        let pending = (0..60).map(|_| {
            let (store, anything) = (store.clone(), Arc::clone(&anything));
            let (before, after) = (Arc::clone(&before), Arc::clone(&after));
            tokio::spawn(async move {
                let requested = query(&before[..], &anything, &after[..]);
                let found = store.decide(&requested, IDLE).await.unwrap();
                found.decisions.iter().all(|decision| decision.allowed)
            })
        });
        let mut admitted = 0;
        for response in pending.collect::<Vec<_>>() {
            admitted += u64::from(response.await.unwrap());
        }
        assert!((1..=7).contains(&admitted), "{strict:?}: {admitted}");
        // A refused caller has spent nothing of the other limits.
        let left = async |charge: &Charge| store.peek_limit(charge).await.unwrap().remaining;
        eventually("it is given back", async || {
            left(&before[0]).await == 1000 - admitted && left(&after[1]).await == 500 - admitted
        })
        .await;
        assert_eq!(left(&after[0]).await, 7 - admitted);
    }
}

#[tokio::test]
async fn role_limits_are_checked_after_session_lookup() {
    let store = cluster(nodes::shared(), TIMEOUT).await;
    let one = sign_in(&store, "ann").await;
    let anything = Requirements::default();
    let by_role = |name: &str, roles: &[&str], except: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut limit = limit(name, Algorithm::SlidingLog, 9);
        limit.roles = owned(roles);
        limit.except_roles = owned(except);
        charge(limit)
    };
    let after = [
        by_role("for-admins", &["admin"], &[]),
        by_role("for-editors", &["editor"], &[]),
        log("for-all", 9),
        by_role("not-for-admins", &[], &["admin"]),
    ];
    let mut seen = None;
    for round in 1..=3 {
        let requested = Query {
            session: Some(one.id),
            cached: seen.clone(),
            ..query(&[], &anything, &after)
        };
        let found = store.decide(&requested, IDLE).await.unwrap();
        let names = found.decisions.iter().map(|decision| &*decision.limit.name);
        assert_eq!(names.collect::<Vec<_>>(), ["for-admins", "for-all"]);
        let left = found.decisions.iter().map(|decision| decision.remaining);
        assert_eq!(left.collect::<Vec<_>>(), [9 - round, 9 - round]);
        let SessionLookup::Active(session, _) = found.session else {
            panic!("{:?}", found.session);
        };
        // What this gateway knew may be out of date: then the limits of before are given back.
        let mut other = (*session).clone();
        other.roles = ["editor".to_owned()].into();
        other.revision = other.revision.wrapping_sub(u64::from(round == 2));
        seen = (round == 2).then(|| Arc::new(other));
    }
    for limit in [&after[1], &after[3]] {
        eventually("it is given back", async || {
            store.peek_limit(limit).await.unwrap().remaining == 9
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_migration_under_load_is_invisible() {
    let nodes = nodes::shared();
    let prefix = format!("moving{}:", rand::random::<u64>());
    let store = start_with_prefix(nodes, &prefix, TIMEOUT).await;
    let one = sign_in(&store, "ann").await;
    let (stop, requested) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (store, stop, requested) =
                (store.clone(), Arc::clone(&stop), Arc::clone(&requested));
            let id = one.id;
            tokio::spawn(async move {
                let (anything, charges) = (Requirements::default(), [log("l", 100_000_000)]);
                while !stop.load(Ordering::SeqCst) {
                    let pending = Query {
                        session: Some(id),
                        ..query(&charges, &anything, &[])
                    };
                    let found = store.decide(&pending, IDLE).await.unwrap();
                    assert!(
                        matches!(found.session, SessionLookup::Active(..)),
                        "{found:?}"
                    );
                    assert!(store.touch(id, IDLE).await.unwrap().is_some());
                    requested.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let key = key_of(&prefix, &one);
    let moving = tokio::task::spawn_blocking(move || {
        let (slot, home) = nodes.owner(&key);
        let away = (home + 1) % 3;
        let both = [(home, away), (away, home)];
        for (from, to) in both {
            nodes.move_slot(&slot, from, to);
            assert_eq!(nodes.owner(&key).1, to);
        }
    });
    moving.await.unwrap();
    let before = requested.load(Ordering::SeqCst);
    assert!(before > 0);
    eventually("it goes on", async || {
        requested.load(Ordering::SeqCst) > before + 50
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn invalidations_arrive_from_every_master() {
    let prefix = format!("heard{}:", rand::random::<u64>());
    let one = start_with_prefix(nodes::shared(), &prefix, TIMEOUT).await;
    let other = start_with_prefix(nodes::shared(), &prefix, TIMEOUT).await;
    tokio::spawn(other.clone().follow_changes(|_| false));
    eventually("it hears", async || other.near_cache().is_fresh()).await;
    let anything = Requirements::default();
    let find = async |id| {
        let requested = Query {
            session: Some(id),
            cached: other.near_cache().session(id),
            ..query(&[], &anything, &[])
        };
        other.decide(&requested, IDLE).await.unwrap().session
    };
    for n in 0..24 {
        let made = sign_in(&one, &format!("user-{n}")).await;
        assert!(matches!(find(made.id).await, SessionLookup::Active(..)));
        assert!(
            other.near_cache().session(made.id).is_some(),
            "it is remembered"
        );
        one.revoke(made.id, EndReason::Admin, IDLE).await.unwrap();
        let started = Instant::now();
        while !matches!(find(made.id).await, SessionLookup::Revoked(_)) {
            assert!(started.elapsed() < PROPAGATION_DEADLINE);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Queries a session until the store responds; it is never reported as gone, and no query waits
/// long.
async fn await_recovery(store: &Store, one: &Session, timeout: Duration) {
    let mut failed = 0;
    let back = eventually("another is the master", async || {
        let requested = Instant::now();
        let response = store.session(one.id).await;
        assert!(requested.elapsed() < timeout + PROPAGATION_DEADLINE);
        let received = response.is_ok();
        match response {
            Ok(Some(found)) => assert_eq!(found.session.id, one.id),
            Ok(None) => panic!("it is gone"),
            Err(error) => {
                assert!(matches!(
                    error,
                    StoreError::Unreachable | StoreError::Timeout
                ));
                failed += 1;
            }
        }
        failed > 0 && received
    })
    .await;
    assert!(back < Duration::from_secs(12), "{back:?}");
    eventually("everything is up", async || store.is_up()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_and_dead_masters_are_survived() {
    let starting = tokio::task::spawn_blocking(|| Nodes::start("1500"));
    let mut nodes = starting.await.unwrap();
    let timeout = Duration::from_millis(100);
    let store = start_with_prefix(&nodes, "p:", timeout).await;
    let one = sign_in(&store, "ann").await;
    let key = key_of("p:", &one);
    let (_, hung) = nodes.owner(&key);
    nodes.servers[hung].await_replicas(1);
    tokio::spawn(store.clone().follow_changes(|_| false));
    eventually("it hears", async || store.near_cache().is_fresh()).await;
    nodes.servers[hung].signal("STOP");
    let stopped = Instant::now();
    loop {
        let since = stopped.elapsed();
        if !store.near_cache().is_fresh() {
            break;
        }
        assert!(since < Duration::from_secs(1), "it does not hear");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    await_recovery(&store, &one, timeout).await;
    eventually("it hears again", async || store.near_cache().is_fresh()).await;
    nodes.servers[hung].signal("CONT");
    eventually("it follows the new master", async || {
        let reported = nodes.servers[hung].command(&["INFO", "replication"]);
        reported.contains("role:slave") && reported.contains("master_link_status:up")
    })
    .await;
    sign_in(&store, "ben").await;

    let (_, dead) = nodes.owner(&key);
    assert_ne!(dead, hung);
    nodes.servers[dead].await_replicas(1);
    nodes.servers[dead].kill();
    await_recovery(&store, &one, timeout).await;
    sign_in(&store, "cid").await;
    // A client that starts now tries the dead server first among its seeds.
    let mut seeds = nodes.ports();
    seeds.rotate_left(dead);
    let address = RedisAddress {
        topology: Topology::Cluster(seeds.into_iter().map(node).collect()),
        ..address(0)
    };
    let engine = Engine::Redis(address);
    let later = open_with_prefix(engine, "p:".to_owned(), timeout, metrics()).connect();
    assert!(later.wait_until_up(TIMEOUT).await);
    assert!(later.session(one.id).await.unwrap().is_some());
}

#[tokio::test]
async fn standalone_server_is_rejected_as_cluster() {
    let server = crate::server::Server::start();
    let address = RedisAddress {
        topology: Topology::Cluster(vec![node(server.port)]),
        ..address(0)
    };
    let (log_lines, _guard) = crate::captured_logs::CapturedLogs::start();
    let store =
        open_with_prefix(Engine::Redis(address), "p:".to_owned(), TIMEOUT, metrics()).connect();
    eventually("it is told", async || {
        log_lines.text().contains("cannot use the store")
    })
    .await;
    assert!(!store.is_up());
    assert_eq!(store.now().await, Err(StoreError::Unreachable));
}

#[tokio::test]
async fn every_master_is_checked() {
    let nodes = nodes::shared();
    let look = async |topology| {
        let address = RedisAddress {
            topology,
            ..address(0)
        };
        inspect(&settings(Engine::Redis(address), "p:".to_owned(), TIMEOUT)).await
    };
    let found = look(Topology::Cluster(vec![node(nodes.ports()[5])])).await;
    assert_eq!(found.len(), 3, "{found:?}");
    let cached = |what: &str| what.starts_with("Redis ") || what.starts_with("Valkey ");
    let fine = |finding: &ServerCheck| finding.severity == Severity::Ok && cached(&finding.message);
    assert!(found.iter().all(fine), "{found:?}");
    let found = look(Topology::Standalone(node(nodes.ports()[0]))).await;
    let reported = &found[0].message;
    assert!(
        reported.contains("must begin with redis+cluster"),
        "{found:?}"
    );
    assert_eq!(found[0].severity, Severity::Error);
}
