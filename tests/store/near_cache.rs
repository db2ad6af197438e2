//! Near cache: correct while it receives invalidations, bypassed when it may be stale.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use portcullis::auth::session::{EndReason, OnSessionLimit, Session, SessionId};
use portcullis::limits::Algorithm;
use portcullis::routing::Requirements;
use portcullis::settings::Engine;
use portcullis::store::{
    Query, QueryResult, Revocation, SessionLookup, SessionUse, Store, user_hash,
};
use portcullis::telemetry::metrics::Metrics;
use redis::aio::MultiplexedConnection;

use crate::server::Server;
use crate::support::{
    IDLE, PREFIX, address, charge, identity, limit, log, metrics, open, query, session, within,
    write_identity,
};

/// The second that is promised, and what a busy machine adds.
const PROPAGATION_DEADLINE: Duration = Duration::from_secs(2);
/// Not what these tests are about, but for those that stop the server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One gateway's store.
struct Gateway {
    store: Store,
    metrics: Arc<Metrics>,
}

impl Gateway {
    async fn start(server: &Server) -> Gateway {
        let metrics = metrics();
        let engine = Engine::Redis(address(server.port));
        let store = open(engine, TIMEOUT, Arc::clone(&metrics)).connect();
        tokio::spawn(store.clone().follow_changes(|_| false));
        assert!(store.wait_until_up(Duration::from_secs(5)).await);
        let gateway = Gateway { store, metrics };
        gateway.await_fresh(true).await;
        gateway
    }

    async fn await_fresh(&self, wanted: bool) {
        within(
            Duration::from_secs(5),
            "the replica is sure, or is not",
            async || self.store.near_cache().is_fresh() == wanted,
        )
        .await;
    }

    async fn sign_in(&self, user: &str) -> Session {
        let session = session(user, self.store.now().await.unwrap());
        let created = self
            .store
            .create_session(&session, None, 9, OnSessionLimit::Reject, IDLE);
        created.await.unwrap();
        session
    }

    async fn find(&self, id: SessionId) -> SessionLookup {
        self.decide(Some(id), None).await.session
    }

    async fn decide(&self, session: Option<SessionId>, key: Option<&str>) -> QueryResult {
        let anything = Requirements::default();
        let requested = Query {
            session,
            blacklist_key: key,
            cached: session.and_then(|id| self.store.near_cache().session(id)),
            ..query(&[], &anything, &[])
        };
        self.store.decide(&requested, IDLE).await.unwrap()
    }

    /// How many decisions were asked of the server.
    fn queries(&self) -> u64 {
        let labels = ["decide"];
        let duration = &self.metrics.store_operation_duration;
        duration.with_label_values(&labels).count()
    }

    async fn await_revoked(&self, id: SessionId) {
        let start = Instant::now();
        while !matches!(self.find(id).await, SessionLookup::Revoked(_)) {
            assert!(start.elapsed() < PROPAGATION_DEADLINE, "still alive");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn start_two() -> (Server, MultiplexedConnection, Gateway, Gateway) {
    let server = Server::start();
    let client = server.client().await;
    let one = Gateway::start(&server).await;
    let other = Gateway::start(&server).await;
    (server, client, one, other)
}

#[tokio::test]
async fn cached_session_and_token_cost_no_query() {
    let (_server, _client, one, other) = start_two().await;
    let ann = one.sign_in("ann").await;
    let first = other.decide(Some(ann.id), Some("jti-1")).await;
    assert!(matches!(first.session, SessionLookup::Active(..)));
    assert!(!first.blacklisted);
    let requested = other.queries();
    for n in 0..20 {
        let used = SessionUse {
            session: ann.id,
            last_access: ann.created_at + n,
            requests: 1,
            address: [192, 0, 2, 1].into(),
        };
        one.store.record_uses(&[used]).await.unwrap();
        let again = other.decide(Some(ann.id), Some("jti-1")).await;
        assert!(matches!(again.session, SessionLookup::Active(..)));
        assert!(!again.blacklisted);
    }
    assert_eq!(other.queries(), requested);
    // One that never was is known not to be.
    let missing = SessionId([9; 32]);
    assert_eq!(other.find(missing).await, SessionLookup::Missing);
    assert_eq!(other.find(missing).await, SessionLookup::Missing);
    assert_eq!(other.queries(), requested + 1);
}

#[tokio::test]
async fn cached_session_still_checks_role_limits() {
    let (_server, _client, one, _) = start_two().await;
    let ann = one.sign_in("ann").await;
    one.find(ann.id).await;
    let anything = Requirements::default();
    let mut exempt = limit("exempt", Algorithm::SlidingLog, 1);
    exempt.except_roles = vec!["admin".to_owned()];
    let limits = [log("l", 2), charge(exempt)];
    let request = async |require: &Requirements| {
        let requested = Query {
            session: Some(ann.id),
            ..query(&[], require, &limits)
        };
        let findings = one.store.decide(&requested, IDLE).await.unwrap();
        let reported: Vec<_> = findings
            .decisions
            .iter()
            .map(|decision| (decision.limit.name.to_string(), decision.allowed))
            .collect();
        reported
    };
    let owner = Requirements {
        roles: vec!["owner".to_owned()],
        ..Requirements::default()
    };
    assert_eq!(request(&owner).await, []);
    assert_eq!(request(&anything).await, [("l".to_owned(), true)]);
    assert_eq!(request(&anything).await, [("l".to_owned(), true)]);
    assert_eq!(request(&anything).await, [("l".to_owned(), false)]);
}

#[tokio::test]
async fn limited_token_is_looked_up_once() {
    let (_server, _client, one, _) = start_two().await;
    let ann = one.sign_in("ann").await;
    let anything = Requirements::default();
    let mut spent = limit("spent", Algorithm::SlidingLog, 1);
    spent.leased = true;
    let limits = [charge(spent)];
    let refused = async |key: &str, person: &str| {
        let requested = Query {
            session: Some(ann.id),
            cached: one.store.near_cache().session(ann.id),
            blacklist_key: Some(key),
            cut_off_user: Some(user_hash(person)),
            ..query(&[], &anything, &limits)
        };
        let findings = one.store.decide(&requested, IDLE).await.unwrap();
        findings.decisions.iter().any(|decision| decision.refuses())
    };
    assert!(!refused("jti-1", "ann").await);
    for (key, person) in [("jti-1", "ann"), ("jti-2", "bob")] {
        refused(key, person).await;
        let requested = one.queries();
        for _ in 0..20 {
            assert!(refused(key, person).await);
        }
        assert_eq!(one.queries(), requested, "{key} {person}");
    }
    let ten = Duration::from_secs(10);
    one.store.blacklist("jti-2", ten).await.unwrap();
    assert!(one.decide(Some(ann.id), Some("jti-2")).await.blacklisted);
}

#[tokio::test]
async fn remote_revocation_invalidates_immediately() {
    let (_server, mut client, one, other) = start_two().await;
    let (ann, bob) = (one.sign_in("ann").await, one.sign_in("bob").await);
    for id in [ann.id, bob.id] {
        assert!(matches!(other.find(id).await, SessionLookup::Active(..)));
    }
    let mut heard = other.store.subscribe();
    let ended = one.store.revoke(ann.id, EndReason::Admin, IDLE).await;
    assert!(ended.unwrap());
    // The gateway that did it knows it by then.
    assert!(matches!(one.find(ann.id).await, SessionLookup::Revoked(_)));
    other.await_revoked(ann.id).await;
    let announced = tokio::time::timeout(PROPAGATION_DEADLINE, heard.recv()).await;
    assert_eq!(announced.unwrap().unwrap(), Revocation::Session(ann.id));
    assert!(matches!(
        other.find(bob.id).await,
        SessionLookup::Active(..)
    ));

    // A program that is no gateway.
    assert!(!other.decide(None, Some("jti-1")).await.blacklisted);
    let mut setting = redis::cmd("SET");
    setting.arg(format!("{PREFIX}blacklist:jti-1")).arg(1);
    setting.arg("EX").arg(60);
    setting.exec_async(&mut client).await.unwrap();
    let announced = tokio::time::timeout(PROPAGATION_DEADLINE, heard.recv()).await;
    let token = Revocation::Token("jti-1".to_owned());
    assert_eq!(announced.unwrap().unwrap(), token);
    assert!(other.decide(None, Some("jti-1")).await.blacklisted);
    assert!(one.store.unblacklist("jti-1").await.unwrap());
    assert!(!one.decide(None, Some("jti-1")).await.blacklisted);

    one.store.cut_off("idp\0ann").await.unwrap();
    let announced = tokio::time::timeout(PROPAGATION_DEADLINE, heard.recv()).await;
    let Revocation::IssuedBefore(person, _) = announced.unwrap().unwrap() else {
        panic!("not a person's");
    };
    assert_eq!(person, user_hash("idp\0ann"));
}

#[tokio::test]
async fn role_change_applies_locally_and_propagates() {
    let (_server, _client, one, other) = start_two().await;
    let ann = one.sign_in("ann").await;
    let holds = |found: SessionLookup, role: &str| match found {
        SessionLookup::Active(session, _) => *session.roles == [role],
        other => panic!("{other:?}"),
    };
    for n in 0..200 {
        let role = format!("role-{n}");
        let pending = other.find(ann.id);
        let roles = std::slice::from_ref(&role);
        let changing = write_identity(&one.store, "ann", identity(n + 1, roles));
        // What is asked while it changes may be overtaken by the news.
        tokio::join!(pending, changing);
        assert!(holds(one.find(ann.id).await, &role), "{n}");
        let start = Instant::now();
        while !holds(other.find(ann.id).await, &role) {
            assert!(start.elapsed() < PROPAGATION_DEADLINE, "{n}");
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    }
}

#[tokio::test]
async fn flush_invalidates_the_cache() {
    let (_server, mut client, one, other) = start_two().await;
    let ann = one.sign_in("ann").await;
    assert!(matches!(
        other.find(ann.id).await,
        SessionLookup::Active(..)
    ));
    redis::cmd("FLUSHALL")
        .exec_async(&mut client)
        .await
        .unwrap();
    let start = Instant::now();
    while other.find(ann.id).await != SessionLookup::Missing {
        assert!(start.elapsed() < PROPAGATION_DEADLINE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn unconfirmed_cache_queries_the_store_within_a_second() {
    let (server, _client, one, _) = start_two().await;
    let ann = one.sign_in("ann").await;
    assert!(matches!(one.find(ann.id).await, SessionLookup::Active(..)));
    server.signal("STOP");
    let start = Instant::now();
    let anything = Requirements::default();
    let requested = Query {
        session: Some(ann.id),
        ..query(&[], &anything, &[])
    };
    loop {
        // By when it is asked: how long the machine takes to run this is not the question.
        let since = start.elapsed();
        if one.store.decide(&requested, IDLE).await.is_err() {
            break;
        }
        assert!(since < Duration::from_secs(1), "it still answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("CONT");
    one.await_fresh(true).await;
    assert!(one.store.wait_until_up(Duration::from_secs(5)).await);
    // What was known before the gap is asked for again.
    let before = one.queries();
    assert!(matches!(one.find(ann.id).await, SessionLookup::Active(..)));
    assert_eq!(one.queries(), before + 1);
}

#[tokio::test]
async fn tracking_resumes_after_store_restart() {
    let (server, _client, one, _) = start_two().await;
    let ann = one.sign_in("ann").await;
    assert!(matches!(one.find(ann.id).await, SessionLookup::Active(..)));
    let port = server.kill();
    one.await_fresh(false).await;
    let _server = Server::start_on(port, &[]);
    one.await_fresh(true).await;
    let anything = Requirements::default();
    let requested = Query {
        session: Some(ann.id),
        ..query(&[], &anything, &[])
    };
    let start = Instant::now();
    let found = loop {
        // The link for questions is another connection.
        match one.store.decide(&requested, IDLE).await {
            Ok(findings) => break findings.session,
            Err(_) => assert!(start.elapsed() < PROPAGATION_DEADLINE),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(found, SessionLookup::Missing);
}

#[tokio::test]
async fn locally_idle_session_is_looked_up() {
    let (_server, _client, one, other) = start_two().await;
    let now = one.store.now().await.unwrap();
    let old = Session {
        created_at: now - 500_000,
        ..session("ann", now)
    };
    let created = one
        .store
        .create_session(&old, None, 9, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
    assert!(matches!(
        other.find(old.id).await,
        SessionLookup::Active(..)
    ));
    let used = SessionUse {
        session: old.id,
        last_access: now,
        requests: 1,
        address: [192, 0, 2, 1].into(),
    };
    one.store.record_uses(&[used]).await.unwrap();
    // With a shorter timeout it is over, as far as is known here; the store knows of the use.
    let idle = Some(Duration::from_secs(400));
    let anything = Requirements::default();
    let requested = Query {
        session: Some(old.id),
        ..query(&[], &anything, &[])
    };
    for _ in 0..2 {
        let found = other.store.decide(&requested, idle).await.unwrap().session;
        assert!(matches!(found, SessionLookup::Active(_, last) if last == now));
    }
}

/// Cached sessions are refreshed ahead of expiry, and no concurrent look-up waits for it.
#[tokio::test]
async fn active_sessions_are_refreshed_ahead() {
    let server = Server::start();
    let gateway = Gateway::start(&server).await;
    let ann = gateway.sign_in("ann").await;
    let look = async || gateway.decide(Some(ann.id), Some("token")).await;
    look().await;
    let before = gateway.queries();
    // Longer than anything is sure without being asked again.
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        let found = look().now_or_never().expect("it waits for the store");
        assert!(matches!(found.session, SessionLookup::Active(..)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let requested = gateway.queries() - before;
    assert!((1..=2).contains(&requested), "asked {requested} times");
}
