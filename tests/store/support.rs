//! Stores under test, and their test data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::auth::session::{Device, Millis, Session, SessionStatus, SessionToken};
use portcullis::limits::{Algorithm, Charge, Counter, KeyPart, Limit, LimitDefinition, OnOutage};
use portcullis::routing::Requirements;
use portcullis::settings::{self, Engine, RedisAddress, RedisNode, SessionsOnOutage, Topology};
use portcullis::store::{Query, SessionIdentity, SessionListQuery, Store};
use portcullis::telemetry::metrics::Metrics;

use crate::nodes::{self, Nodes};
use crate::server::Server;

pub(crate) const PREFIX: &str = "test[1]:";
pub(crate) const IDLE: Option<Duration> = Some(Duration::from_secs(600));

pub(crate) fn open(engine: Engine, timeout: Duration, metrics: Arc<Metrics>) -> Store {
    open_with_prefix(engine, PREFIX.to_owned(), timeout, metrics)
}

pub(crate) fn open_with_prefix(
    engine: Engine,
    key_prefix: String,
    timeout: Duration,
    metrics: Arc<Metrics>,
) -> Store {
    Store::open(&settings(engine, key_prefix, timeout), metrics)
}

pub(crate) fn settings(engine: Engine, key_prefix: String, timeout: Duration) -> settings::Store {
    settings::Store {
        engine,
        key_prefix,
        timeout,
        revocation_replicas: 0,
        sessions_on_outage: SessionsOnOutage::Deny,
        cached_for: Duration::from_secs(60),
        limits_on_outage: OnOutage::Local,
    }
}

pub(crate) fn address(port: u16) -> RedisAddress {
    RedisAddress {
        topology: Topology::Standalone(node(port)),
        database: 0,
        username: None,
        password: None,
        tls: None,
    }
}

pub(crate) fn node(port: u16) -> RedisNode {
    RedisNode {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

pub(crate) async fn redis(server: &Server, timeout: Duration) -> Store {
    let store = open(Engine::Redis(address(server.port)), timeout, metrics()).connect();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    store
}

/// A cluster that others use too: the keys begin differently each time.
pub(crate) async fn cluster(nodes: &Nodes, timeout: Duration) -> Store {
    let prefix = format!("test[{}]:", rand::random::<u64>());
    let store = open_with_prefix(cluster_engine(nodes), prefix, timeout, metrics()).connect();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    store
}

pub(crate) fn cluster_engine(nodes: &Nodes) -> Engine {
    let seeds = nodes.ports().into_iter().map(node).collect();
    Engine::Redis(RedisAddress {
        topology: Topology::Cluster(seeds),
        ..address(0)
    })
}

/// The engines, Redis alone and as a cluster, with the server that must outlive the second.
pub(crate) async fn engines() -> (Server, [Store; 3]) {
    let server = Server::start();
    let patience = Duration::from_secs(5);
    let memory = open(Engine::Memory, patience, metrics()).connect();
    let redis = redis(&server, patience).await;
    (
        server,
        [memory, redis, cluster(nodes::shared(), patience).await],
    )
}

pub(crate) fn session(user: &str, now: Millis) -> Session {
    Session {
        id: SessionToken::random().id(),
        user: user.to_owned(),
        email: format!("{user}@example.com"),
        username: Some(user.into()),
        name: Some("Ann Ålström".to_owned()),
        roles: ["admin".to_owned(), "a\nb%".to_owned()].into(),
        scopes: ["read".to_owned()].into(),
        created_at: now,
        expires_at: now + 3_600_000,
        ip: "2001:db8::1".parse().unwrap(),
        user_agent: "test".into(),
        device: Device {
            kind: Some("laptop".into()),
            name: None,
        },
        ended: None,
        data: portcullis::auth::session::no_data(),
        revision: 0,
        provider: None,
        api_key: None,
    }
}

pub(crate) fn limit(name: &str, algorithm: Algorithm, limit: u64) -> LimitDefinition {
    LimitDefinition {
        name: name.into(),
        algorithm,
        limit,
        window: Duration::from_secs(600),
        key: vec![KeyPart::User],
        roles: vec![],
        except_roles: vec![],
        on_outage: OnOutage::Local,
        shadow: false,
        leased: false,
    }
}

pub(crate) fn charge(limit: LimitDefinition) -> Charge {
    let counter = Counter::of(&limit.name, [(1, b"somebody".as_slice())]);
    Charge {
        limit: Arc::new(Limit::new(limit)),
        counter,
    }
}

pub(crate) fn log(name: &str, most: u64) -> Charge {
    charge(limit(name, Algorithm::SlidingLog, most))
}

pub(crate) fn query<'a>(
    before: &'a [Charge],
    require: &'a Requirements,
    after: &'a [Charge],
) -> Query<'a> {
    Query {
        charges_before_auth: before,
        charges_after_auth: after,
        ..Query::empty(require)
    }
}

/// Writes who their user is to all of a user's live sessions.
pub(crate) async fn write_identity(store: &Store, user: &str, identity: SessionIdentity<'_>) {
    let ids = store.unended_sessions(user).await.unwrap();
    store.set_identity(&ids, identity).await.unwrap();
}

/// Who a user is, with a single role or none.
pub(crate) fn identity(version: u64, roles: &[String]) -> SessionIdentity<'_> {
    SessionIdentity {
        version,
        email: "e",
        name: None,
        roles,
        scopes: &[],
    }
}

/// Waits until something holds; tells how long that took.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) -> Duration {
    within(Duration::from_secs(20), what, holds).await
}

/// As [`eventually`], with a deadline that is part of the promise under test.
pub(crate) async fn within(
    deadline: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) -> Duration {
    let started = Instant::now();
    while !holds().await {
        assert!(
            started.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

pub(crate) fn list_query(
    status: Option<SessionStatus>,
    limit: usize,
    cursor: Option<&str>,
) -> SessionListQuery<'_> {
    SessionListQuery {
        status,
        address: None,
        idle: IDLE,
        limit,
        cursor,
    }
}
