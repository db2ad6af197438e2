//! `revocation_replicas`: a confirmed revocation is on the replicas.

use std::time::{Duration, Instant};

use portcullis::auth::session::{EndReason, OnSessionLimit, Session};
use portcullis::settings::{Engine, RedisAddress, Topology};
use portcullis::store::{CreateOutcome, Store, StoreError};

use crate::nodes;
use crate::servers::Process;
use crate::support::{self, IDLE, address, metrics, node, session};

/// Of this a fifth is left once the replicas have not confirmed: time enough on a busy machine to say so.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a `WAIT` keeps its connection.
const ROUND_TRIP: Duration = Duration::from_millis(50);

struct Pair {
    master: Process,
    replica: Process,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start() -> Pair {
        let folder = tempfile::tempdir().unwrap();
        let (master, replica) = Process::serving_with_replica(folder.path());
        Pair {
            master,
            replica,
            _folder: folder,
        }
    }

    async fn store(&self) -> Store {
        open_store(address(self.master.port), 1, "test:".to_owned()).await
    }
}

async fn open_store(address: RedisAddress, replicas: u32, prefix: String) -> Store {
    let mut settings = support::settings(Engine::Redis(address), prefix, TIMEOUT);
    settings.revocation_replicas = replicas;
    let store = Store::open(&settings, metrics()).connect();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    // The connection that waits for replicas is another one. Two replicas no server of these tests has.
    let deadline = Instant::now() + Duration::from_secs(5);
    while replicas == 1 && store.blacklist("first", TIMEOUT).await.is_err() {
        assert!(Instant::now() < deadline, "no replica confirms anything");
    }
    store
}

async fn sign_in(store: &Store, user: &str) -> Session {
    let session = session(user, store.now().await.unwrap());
    let created = store.create_session(&session, None, 9, OnSessionLimit::EvictOldest, IDLE);
    assert!(matches!(created.await, Ok(CreateOutcome::Created { .. })));
    session
}

/// Each way to revoke, tried on what it can be tried on again.
async fn revoke_everything(
    store: &Store,
    one: &Session,
    user: &str,
) -> [Result<(), StoreError>; 4] {
    [
        store.revoke(one.id, EndReason::Admin, IDLE).await.map(drop),
        store
            .revoke_user(user, None, EndReason::Admin, IDLE)
            .await
            .map(drop),
        store.blacklist("jti", Duration::from_secs(60)).await,
        store.cut_off("ann").await,
    ]
}

#[tokio::test]
async fn revocation_completes_when_the_replica_confirms() {
    let pair = Pair::start();
    let store = pair.store().await;
    let (one, ann) = (sign_in(&store, "bob").await, sign_in(&store, "ann").await);
    let done = revoke_everything(&store, &one, "ann").await;
    assert_eq!(done, [Ok(()); 4]);
    // The master dies this moment.
    pair.replica.command(&["REPLICAOF", "NO", "ONE"]);
    let after = open_store(address(pair.replica.port), 0, "test:".to_owned()).await;
    for id in [one.id, ann.id] {
        let entry = after.session(id).await.unwrap().unwrap();
        assert!(entry.session.ended.is_some());
    }
    assert_eq!(after.are_blacklisted(&["jti"]).await.unwrap(), [true]);
    assert!(after.cut_offs(&["ann"]).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn unconfirmed_revocation_fails_but_applies_locally() {
    let pair = Pair::start();
    let store = pair.store().await;
    let (one, ann) = (sign_in(&store, "bob").await, sign_in(&store, "ann").await);
    pair.replica.signal("STOP");
    // Again and again: what has happened already is no more sure than before.
    for _ in 0..2 {
        // Within the timeout, or it would be the error.
        let outcomes = revoke_everything(&store, &one, "ann").await;
        assert_eq!(outcomes, [Err(StoreError::Unreplicated); 4]);
        for id in [one.id, ann.id] {
            assert!(store.near_cache().end_refusal(id).is_some());
            let entry = store.session(id).await.unwrap().unwrap();
            assert!(entry.session.ended.is_some());
        }
        assert!(store.near_cache().is_revoked("jti"));
    }
    pair.replica.signal("CONT");
    pair.master.command(&["SET", "again", "1"]);
    pair.master.await_replicas(1);
    assert_eq!(revoke_everything(&store, &one, "ann").await, [Ok(()); 4]);
}

#[tokio::test]
async fn sign_in_fails_if_eviction_is_unconfirmed() {
    let pair = Pair::start();
    let store = pair.store().await;
    let first = sign_in(&store, "ann").await;
    pair.replica.signal("STOP");
    // No session has to be evicted, so no caller waits.
    let other = session("bob", store.now().await.unwrap());
    let created = store.create_session(&other, None, 1, OnSessionLimit::EvictOldest, IDLE);
    assert!(created.await.is_ok());
    let second = session("ann", first.created_at + 1);
    let created = store.create_session(&second, None, 1, OnSessionLimit::EvictOldest, IDLE);
    assert_eq!(created.await, Err(StoreError::Unreplicated));
    assert!(store.near_cache().end_refusal(first.id).is_some());
    let entry = store.session(second.id).await.unwrap().unwrap();
    assert!(entry.session.ended.is_some(), "nobody has its token");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_operations_do_not_wait_for_replicas() {
    let pair = Pair::start();
    let store = pair.store().await;
    let one = sign_in(&store, "ann").await;
    pair.replica.signal("STOP");
    let revoking = tokio::spawn({
        let store = store.clone();
        async move {
            for _ in 0..2 {
                let outcome = store.revoke(one.id, EndReason::Admin, IDLE).await;
                assert_eq!(outcome, Err(StoreError::Unreplicated));
            }
        }
    });
    let mut times = Vec::new();
    while !revoking.is_finished() {
        let began = Instant::now();
        store.now().await.unwrap();
        times.push(began.elapsed());
    }
    revoking.await.unwrap();
    // On the connection that waits, each would take a round.
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < ROUND_TRIP / 2, "{median:?} of {}", times.len());
}

#[tokio::test]
async fn every_involved_master_waits_for_its_replica() {
    let nodes = nodes::shared();
    let seeds = nodes.ports().into_iter().map(node).collect();
    let cluster = RedisAddress {
        topology: Topology::Cluster(seeds),
        ..address(0)
    };
    let prefix = format!("test[{}]:", rand::random::<u64>());
    for (replicas, expected) in [(1, Ok(())), (2, Err(StoreError::Unreplicated))] {
        let store = open_store(cluster.clone(), replicas, prefix.clone()).await;
        let one = sign_in(&store, "bob").await;
        for _ in 0..5 {
            // In different slots.
            sign_in(&store, "ann").await;
        }
        let done = revoke_everything(&store, &one, "ann").await;
        assert_eq!(done, [expected; 4]);
    }
}
