//! Keys of another type or with malformed content: counted, repaired, and never an obstacle.

use std::sync::Arc;
use std::time::Duration;

use portcullis::auth::session::{EndReason, OnSessionLimit, Session, SessionStatus};
use portcullis::limits::Algorithm;
use portcullis::routing::Requirements;
use portcullis::settings::Engine;
use portcullis::store::{Query, SessionLookup, Store};
use portcullis::telemetry::metrics::Metrics;
use redis::aio::MultiplexedConnection;

use crate::server::Server;
use crate::support::{
    IDLE, PREFIX, address, charge, identity, limit, list_query, metrics, open, query, session,
    write_identity,
};

struct CorruptStore {
    _server: Server,
    store: Store,
    metrics: Arc<Metrics>,
    client: MultiplexedConnection,
    /// One that is there.
    session: Session,
}

impl CorruptStore {
    async fn start() -> CorruptStore {
        let server = Server::start();
        let metrics = metrics();
        let engine = Engine::Redis(address(server.port));
        let store = open(engine, Duration::from_secs(5), Arc::clone(&metrics)).connect();
        assert!(store.wait_until_up(Duration::from_secs(5)).await);
        let session = session("ann", store.now().await.unwrap());
        let created = store
            .create_session(&session, None, 5, OnSessionLimit::Reject, IDLE)
            .await;
        created.unwrap();
        CorruptStore {
            client: server.client().await,
            _server: server,
            store,
            metrics,
            session,
        }
    }

    /// Runs a command beside the store: words between spaces.
    async fn run(&mut self, command: &str) {
        let mut words = command.split(' ');
        let mut spoiling = redis::cmd(words.next().unwrap());
        spoiling.arg(words.collect::<Vec<_>>());
        spoiling.exec_async(&mut self.client).await.unwrap();
    }

    async fn keys(&mut self, pattern: &str) -> Vec<String> {
        let mut command = redis::cmd("KEYS");
        let keys = command.arg(pattern).query_async(&mut self.client);
        keys.await.unwrap()
    }

    fn malformed(&self, operation: &str) -> u64 {
        let labels = [operation, "malformed"];
        self.metrics.store_errors.with_label_values(&labels).get()
    }
}

#[tokio::test]
async fn corrupt_session_counts_as_missing() {
    let mut spoilt = CorruptStore::start().await;
    let id = spoilt.session.id;
    let key = format!("{PREFIX}session:{{{id}}}");
    assert!(spoilt.keys("*").await.contains(&key));
    let anything = Requirements::default();
    let requested = Query {
        session: Some(id),
        ..query(&[], &anything, &[])
    };
    spoilt.run("LPUSH other 1").await;
    for (n, spoiling) in [
        // One text is said to be longer than it is.
        format!("SETRANGE {key} 24 z"),
        format!("SETRANGE {key} 0 X"),
        format!("SET {key} S"),
        format!("SET {key} 1"),
        format!("RENAME other {key}"),
    ]
    .iter()
    .enumerate()
    {
        spoilt.run(spoiling).await;
        let found = spoilt.store.decide(&requested, IDLE).await.unwrap().session;
        assert_eq!(found, SessionLookup::Missing, "{spoiling}");
        assert_eq!(spoilt.malformed("decide"), n as u64 + 1, "{spoiling}");
    }
    let store = &spoilt.store;
    assert_eq!(store.session(id).await.unwrap(), None);
    assert!(!store.revoke(id, EndReason::Admin, IDLE).await.unwrap());
    assert_eq!(store.ended_among(&[id], IDLE).await.unwrap(), [id]);
    write_identity(store, "ann", identity(1, &[])).await;
    let page = store
        .sessions_of("ann", list_query(None, 9, None))
        .await
        .unwrap();
    assert_eq!(page.total, 0);
}

#[tokio::test]
async fn corrupt_indexes_do_not_block_sign_in() {
    let mut spoilt = CorruptStore::start().await;
    for key in spoilt.keys("*user:*").await {
        spoilt.run(&format!("SET {key} 1")).await;
    }
    let store = &spoilt.store;
    let page = store
        .sessions_of("ann", list_query(None, 9, None))
        .await
        .unwrap();
    assert_eq!(page.total, 0);
    assert_eq!(spoilt.malformed("user_index"), 1);
    let other = session("ann", spoilt.session.created_at);
    store
        .create_session(&other, None, 5, OnSessionLimit::Reject, IDLE)
        .await
        .unwrap();
    let active = store.sessions_of("ann", list_query(Some(SessionStatus::Active), 9, None));
    assert_eq!(active.await.unwrap().total, 1);
}

#[tokio::test]
async fn corrupt_counters_start_fresh() {
    let mut spoilt = CorruptStore::start().await;
    let mut expected = 0;
    for algorithm in [
        Algorithm::SlidingWindow,
        Algorithm::SlidingLog,
        Algorithm::TokenBucket { burst: 3 },
    ] {
        let charges = [charge(limit("l", algorithm, 3))];
        spoilt.store.charge(&charges).await.unwrap();
        let key = spoilt.keys("*limit:*").await.remove(0);
        for spoiling in ["SADD", "SET", "RPUSH"] {
            spoilt.store.reset_limit(&charges[0]).await.unwrap();
            spoilt.run(&format!("{spoiling} {key} nonsense")).await;
            for left in [2, 1, 0] {
                let decided = &spoilt.store.charge(&charges).await.unwrap()[0];
                assert!(decided.allowed);
                assert_eq!(decided.remaining, left, "{algorithm:?} {spoiling}");
            }
            assert!(!spoilt.store.charge(&charges).await.unwrap()[0].allowed);
            expected += 1;
            assert_eq!(spoilt.malformed("decide"), expected);
        }
        spoilt.store.reset_limit(&charges[0]).await.unwrap();
    }
}
