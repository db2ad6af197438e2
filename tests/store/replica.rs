//! What a gateway knows without asking: right while it hears, silent when it cannot be sure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use portcullis::auth::session::{EndReason, OnLimit, Session, SessionId};
use portcullis::routing::Require;
use portcullis::settings::Engine;
use portcullis::store::{Findings, Found, Inquiry, Revocation, Store, Use, person_hash};
use portcullis::telemetry::metrics::Metrics;
use redis::aio::MultiplexedConnection;

use crate::server::Server;
use crate::support::{
    IDLE, PREFIX, address, identify, identity, inquiry, log, metrics, open, session, within,
};

/// The second that is promised, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(2);
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
        let store = open(engine, TIMEOUT, Arc::clone(&metrics)).link();
        tokio::spawn(store.clone().follow(|_| false));
        assert!(store.wait_until_up(Duration::from_secs(5)).await);
        let gateway = Gateway { store, metrics };
        gateway.is_sure(true).await;
        gateway
    }

    async fn is_sure(&self, wanted: bool) {
        within(
            Duration::from_secs(5),
            "the replica is sure, or is not",
            async || self.store.replica().is_sure() == wanted,
        )
        .await;
    }

    async fn sign_in(&self, user: &str) -> Session {
        let session = session(user, self.store.now().await.unwrap());
        let created = self
            .store
            .create_session(&session, None, 9, OnLimit::Reject, IDLE);
        created.await.unwrap();
        session
    }

    async fn find(&self, id: SessionId) -> Found {
        self.decide(Some(id), None).await.session
    }

    async fn decide(&self, session: Option<SessionId>, key: Option<&str>) -> Findings {
        let anything = Require::default();
        let asked = Inquiry {
            session,
            blacklist_key: key,
            known: session.and_then(|id| self.store.replica().session(id)),
            ..inquiry(&[], &anything, &[])
        };
        self.store.decide(&asked, IDLE).await.unwrap()
    }

    /// How many decisions were asked of the server.
    fn asked(&self) -> u64 {
        let labels = ["decide"];
        let duration = &self.metrics.store_operation_duration;
        duration.with_label_values(&labels).get_sample_count()
    }

    async fn finds_revoked(&self, id: SessionId) {
        let start = Instant::now();
        while !matches!(self.find(id).await, Found::Revoked(_)) {
            assert!(start.elapsed() < SOON, "still alive");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn two() -> (Server, MultiplexedConnection, Gateway, Gateway) {
    let server = Server::start();
    let client = server.client().await;
    let one = Gateway::start(&server).await;
    let other = Gateway::start(&server).await;
    (server, client, one, other)
}

#[tokio::test]
async fn a_known_session_and_token_cost_no_question_and_use_does_not_change_that() {
    let (_server, _client, one, other) = two().await;
    let ann = one.sign_in("ann").await;
    let first = other.decide(Some(ann.id), Some("jti-1")).await;
    assert!(matches!(first.session, Found::Active(..)));
    assert!(!first.blacklisted);
    let asked = other.asked();
    for n in 0..20 {
        let used = Use {
            session: ann.id,
            last_access: ann.created_at + n,
            requests: 1,
            address: [192, 0, 2, 1].into(),
        };
        one.store.record_uses(&[used]).await.unwrap();
        let again = other.decide(Some(ann.id), Some("jti-1")).await;
        assert!(matches!(again.session, Found::Active(..)));
        assert!(!again.blacklisted);
    }
    assert_eq!(other.asked(), asked);
    // One that never was is known not to be.
    let nobody = SessionId([9; 32]);
    assert_eq!(other.find(nobody).await, Found::Missing);
    assert_eq!(other.find(nobody).await, Found::Missing);
    assert_eq!(other.asked(), asked + 1);
}

#[tokio::test]
async fn limits_are_asked_even_where_the_session_is_known_and_by_its_roles() {
    let (_server, _client, one, _) = two().await;
    let ann = one.sign_in("ann").await;
    one.find(ann.id).await;
    let anything = Require::default();
    let mut exempt = (*log("exempt", 1).limit).clone();
    exempt.except_roles = vec!["admin".to_owned()];
    let limits = [log("l", 2), crate::support::charge(exempt)];
    let ask = async |require: &Require| {
        let asked = Inquiry {
            session: Some(ann.id),
            ..inquiry(&[], require, &limits)
        };
        let findings = one.store.decide(&asked, IDLE).await.unwrap();
        let told: Vec<_> = findings
            .decisions
            .iter()
            .map(|decision| (decision.limit.name.to_string(), decision.allowed))
            .collect();
        told
    };
    let owner = Require {
        roles: vec!["owner".to_owned()],
        ..Require::default()
    };
    assert_eq!(ask(&owner).await, []);
    assert_eq!(ask(&anything).await, [("l".to_owned(), true)]);
    assert_eq!(ask(&anything).await, [("l".to_owned(), true)]);
    assert_eq!(ask(&anything).await, [("l".to_owned(), false)]);
}

#[tokio::test]
async fn a_token_that_is_only_ever_refused_by_a_limit_is_asked_about_once() {
    let (_server, _client, one, _) = two().await;
    let ann = one.sign_in("ann").await;
    let anything = Require::default();
    let mut spent = (*log("spent", 1).limit).clone();
    spent.leased = true;
    let limits = [crate::support::charge(spent)];
    let refused = async |key: &str, person: &str| {
        let asked = Inquiry {
            session: Some(ann.id),
            known: one.store.replica().session(ann.id),
            blacklist_key: Some(key),
            cut_off_of: Some(person_hash(person)),
            ..inquiry(&[], &anything, &limits)
        };
        let findings = one.store.decide(&asked, IDLE).await.unwrap();
        findings.decisions.iter().any(|decision| decision.refuses())
    };
    assert!(!refused("jti-1", "ann").await);
    for (key, person) in [("jti-1", "ann"), ("jti-2", "bob")] {
        refused(key, person).await;
        let asked = one.asked();
        for _ in 0..20 {
            assert!(refused(key, person).await);
        }
        assert_eq!(one.asked(), asked, "{key} {person}");
    }
    let ten = Duration::from_secs(10);
    one.store.blacklist("jti-2", ten).await.unwrap();
    assert!(one.decide(Some(ann.id), Some("jti-2")).await.blacklisted);
}

#[tokio::test]
async fn what_others_revoke_is_known_at_once_and_announced() {
    let (_server, mut client, one, other) = two().await;
    let (ann, bob) = (one.sign_in("ann").await, one.sign_in("bob").await);
    for id in [ann.id, bob.id] {
        assert!(matches!(other.find(id).await, Found::Active(..)));
    }
    let mut heard = other.store.subscribe();
    let ended = one.store.revoke(ann.id, EndReason::Admin, IDLE).await;
    assert!(ended.unwrap());
    // The gateway that did it knows it by then.
    assert!(matches!(one.find(ann.id).await, Found::Revoked(_)));
    other.finds_revoked(ann.id).await;
    let announced = tokio::time::timeout(SOON, heard.recv()).await;
    assert_eq!(announced.unwrap().unwrap(), Revocation::Session(ann.id));
    assert!(matches!(other.find(bob.id).await, Found::Active(..)));

    // A program that is no gateway.
    assert!(!other.decide(None, Some("jti-1")).await.blacklisted);
    let mut setting = redis::cmd("SET");
    setting.arg(format!("{PREFIX}blacklist:jti-1")).arg(1);
    setting.arg("EX").arg(60);
    setting.exec_async(&mut client).await.unwrap();
    let announced = tokio::time::timeout(SOON, heard.recv()).await;
    let token = Revocation::Token("jti-1".to_owned());
    assert_eq!(announced.unwrap().unwrap(), token);
    assert!(other.decide(None, Some("jti-1")).await.blacklisted);
    assert!(one.store.unblacklist("jti-1").await.unwrap());
    assert!(!one.decide(None, Some("jti-1")).await.blacklisted);

    one.store.cut_off("idp\0ann").await.unwrap();
    let announced = tokio::time::timeout(SOON, heard.recv()).await;
    let Revocation::Person(person, _) = announced.unwrap().unwrap() else {
        panic!("not a person's");
    };
    assert_eq!(person, person_hash("idp\0ann"));
}

#[tokio::test]
async fn a_change_of_roles_is_in_force_here_at_once_and_soon_elsewhere() {
    let (_server, _client, one, other) = two().await;
    let ann = one.sign_in("ann").await;
    let holds = |found: Found, role: &str| match found {
        Found::Active(session, _) => *session.roles == [role],
        other => panic!("{other:?}"),
    };
    for n in 0..200 {
        let role = format!("role-{n}");
        let asking = other.find(ann.id);
        let roles = std::slice::from_ref(&role);
        let changing = identify(&one.store, "ann", identity(n + 1, roles));
        // What is asked while it changes may be overtaken by the news.
        tokio::join!(asking, changing);
        assert!(holds(one.find(ann.id).await, &role), "{n}");
        let start = Instant::now();
        while !holds(other.find(ann.id).await, &role) {
            assert!(start.elapsed() < SOON, "{n}");
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    }
}

#[tokio::test]
async fn a_flushed_store_is_asked_again() {
    let (_server, mut client, one, other) = two().await;
    let ann = one.sign_in("ann").await;
    assert!(matches!(other.find(ann.id).await, Found::Active(..)));
    redis::cmd("FLUSHALL")
        .exec_async(&mut client)
        .await
        .unwrap();
    let start = Instant::now();
    while other.find(ann.id).await != Found::Missing {
        assert!(start.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn who_cannot_be_sure_asks_the_store_within_a_second() {
    let (server, _client, one, _) = two().await;
    let ann = one.sign_in("ann").await;
    assert!(matches!(one.find(ann.id).await, Found::Active(..)));
    server.signal("STOP");
    let start = Instant::now();
    let anything = Require::default();
    let asked = Inquiry {
        session: Some(ann.id),
        ..inquiry(&[], &anything, &[])
    };
    loop {
        // By when it is asked: how long the machine takes to run this is not the question.
        let since = start.elapsed();
        if one.store.decide(&asked, IDLE).await.is_err() {
            break;
        }
        assert!(since < Duration::from_secs(1), "it still answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("CONT");
    one.is_sure(true).await;
    assert!(one.store.wait_until_up(Duration::from_secs(5)).await);
    // What was known before the gap is asked for again.
    let before = one.asked();
    assert!(matches!(one.find(ann.id).await, Found::Active(..)));
    assert_eq!(one.asked(), before + 1);
}

#[tokio::test]
async fn a_restarted_store_is_listened_to_again() {
    let (server, _client, one, _) = two().await;
    let ann = one.sign_in("ann").await;
    assert!(matches!(one.find(ann.id).await, Found::Active(..)));
    let port = server.kill();
    one.is_sure(false).await;
    let _server = Server::start_on(port, &[]);
    one.is_sure(true).await;
    let anything = Require::default();
    let asked = Inquiry {
        session: Some(ann.id),
        ..inquiry(&[], &anything, &[])
    };
    let start = Instant::now();
    let found = loop {
        // The link for questions is another connection.
        match one.store.decide(&asked, IDLE).await {
            Ok(findings) => break findings.session,
            Err(_) => assert!(start.elapsed() < SOON),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(found, Found::Missing);
}

#[tokio::test]
async fn a_session_that_is_idle_by_what_is_known_here_is_asked_for() {
    let (_server, _client, one, other) = two().await;
    let now = one.store.now().await.unwrap();
    let old = Session {
        created_at: now - 500_000,
        ..session("ann", now)
    };
    let created = one
        .store
        .create_session(&old, None, 9, OnLimit::Reject, IDLE);
    created.await.unwrap();
    assert!(matches!(other.find(old.id).await, Found::Active(..)));
    let used = Use {
        session: old.id,
        last_access: now,
        requests: 1,
        address: [192, 0, 2, 1].into(),
    };
    one.store.record_uses(&[used]).await.unwrap();
    // With a shorter timeout it is over, as far as is known here; the store knows of the use.
    let idle = Some(Duration::from_secs(400));
    let anything = Require::default();
    let asked = Inquiry {
        session: Some(old.id),
        ..inquiry(&[], &anything, &[])
    };
    for _ in 0..2 {
        let found = other.store.decide(&asked, idle).await.unwrap().session;
        assert!(matches!(found, Found::Active(_, last) if last == now));
    }
}

/// What is known is asked about again from time to time, and nobody waits for that who comes meanwhile.
#[tokio::test]
async fn who_comes_again_and_again_never_waits_for_the_store() {
    let server = Server::start();
    let gateway = Gateway::start(&server).await;
    let ann = gateway.sign_in("ann").await;
    let look = async || gateway.decide(Some(ann.id), Some("token")).await;
    look().await;
    let before = gateway.asked();
    // Longer than anything is sure without being asked again.
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        let found = look().now_or_never().expect("it waits for the store");
        assert!(matches!(found.session, Found::Active(..)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = gateway.asked() - before;
    assert!((1..=2).contains(&asked), "asked {asked} times");
}
