//! A session whose record changes repeatedly is alive for every gateway all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::auth::session::{OnSessionLimit, SessionId};
use portcullis::routing::Requirements;
use portcullis::settings::Engine;
use portcullis::store::{AmendOutcome, Amendment, Query, SessionIdentity, SessionLookup, Store};

use crate::nodes;
use crate::server::Server;
use crate::support::{
    IDLE, address, cluster_engine, eventually, identity, metrics, open, open_with_prefix, query,
    session, write_identity,
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Clients that change the record at the same time, and how often each does.
const WRITERS: u64 = 4;
const CHANGES: u64 = 60;

/// A gateway's store that is sure of what it hears.
async fn start_tracking(store: Store) -> Store {
    let store = store.connect();
    tokio::spawn(store.clone().follow_changes(|_| false));
    eventually("the cache may be used", async || {
        store.near_cache().is_fresh()
    })
    .await;
    store
}

async fn find(store: &Store, id: SessionId) -> SessionLookup {
    let anything = Requirements::default();
    let requested = Query {
        session: Some(id),
        cached: store.near_cache().session(id),
        ..query(&[], &anything, &[])
    };
    store.decide(&requested, IDLE).await.unwrap().session
}

/// Changes the name of the user's sessions, or one session's `data`.
async fn change(store: &Store, id: SessionId, n: u64) {
    if n.is_multiple_of(3) {
        let name = format!("Ann {n}");
        let identity = SessionIdentity {
            name: Some(&name),
            ..identity(n, &[])
        };
        write_identity(store, "ann", identity).await;
        return;
    }
    let amendment = Amendment {
        device_name: Some(format!("device {n}")),
        data: None,
    };
    let amended = store.amend_session(id, &amendment, IDLE).await.unwrap();
    assert!(matches!(amended, AmendOutcome::Amended(_)), "{amended:?}");
}

async fn assert_never_missing(gateways: [Store; 2]) {
    let ann = session("ann", gateways[0].now().await.unwrap());
    let created = gateways[0].create_session(&ann, None, 5, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let readers = [0, 1, 0, 1].map(|place: usize| {
        let (store, over): (Store, _) = (gateways[place].clone(), Arc::clone(&over));
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let found = find(&store, ann.id).await;
                assert!(matches!(found, SessionLookup::Active(..)), "{found:?}");
                let ended = store.ended_among(&[ann.id, ann.id], IDLE).await.unwrap();
                assert_eq!(ended, []);
                tokio::task::yield_now().await;
            }
        })
    });
    let writers = (0..WRITERS).map(|writer| {
        let store = gateways[(writer % 2) as usize].clone();
        tokio::spawn(async move {
            for n in 0..CHANGES {
                change(&store, ann.id, writer + n).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    let last = gateways[0].session(ann.id).await.unwrap().unwrap().session;
    for store in &gateways {
        eventually("the last change is known everywhere", async || {
            let SessionLookup::Active(found, _) = find(store, ann.id).await else {
                panic!("not found");
            };
            *found == last
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_record_stays_visible_in_one_redis() {
    let server = Server::start();
    let gateway = || open(Engine::Redis(address(server.port)), TIMEOUT, metrics());
    assert_never_missing([
        start_tracking(gateway()).await,
        start_tracking(gateway()).await,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_record_stays_visible_in_a_cluster() {
    let prefix = format!("test[{}]:", rand::random::<u64>());
    let engine = || cluster_engine(nodes::shared());
    let gateway = || open_with_prefix(engine(), prefix.clone(), TIMEOUT, metrics());
    assert_never_missing([
        start_tracking(gateway()).await,
        start_tracking(gateway()).await,
    ])
    .await;
}
