//! Session look-ups that arrive together are batched.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use portcullis::auth::session::{EndReason, OnSessionLimit, Session, SessionId};
use portcullis::routing::Requirements;
use portcullis::store::{Query, QueryResult, SessionLookup, Store, user_hash};

use crate::server::Server;
use crate::support::{IDLE, PREFIX, redis, session};

const TIMEOUT: Duration = Duration::from_secs(5);

async fn create_session(store: &Store, user: &str) -> Session {
    let session = session(user, store.now().await.unwrap());
    let created = store.create_session(&session, None, 5, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
    session
}

async fn decide(store: &Store, inquiry: Query<'_>) -> QueryResult {
    store.decide(&inquiry, IDLE).await.unwrap()
}

fn session_query(id: SessionId, require: &Requirements) -> Query<'_> {
    Query {
        session: Some(id),
        ..Query::empty(require)
    }
}

#[tokio::test]
async fn concurrent_lookups_are_batched() {
    let server = Server::start();
    let (store, require) = (redis(&server, TIMEOUT).await, Requirements::default());
    let mut alive = Vec::new();
    for number in 0..90 {
        alive.push(create_session(&store, &format!("user-{number}")).await);
    }
    let before = server.scripts().await;
    let pending = alive.iter().enumerate().map(|(number, session)| {
        let seen = (number % 2 == 0).then(|| Arc::new(session.clone()));
        let inquiry = Query {
            cached: seen,
            ..session_query(session.id, &require)
        };
        decide(&store, inquiry)
    });
    for (session, findings) in alive.iter().zip(join_all(pending).await) {
        let found = SessionLookup::Active(Arc::new(session.clone()), session.created_at);
        assert_eq!(findings.session, found);
    }
    assert_eq!(server.scripts().await - before, 3, "90 in scripts of 32");
}

#[tokio::test]
async fn failed_lookup_does_not_affect_its_batch() {
    let server = Server::start();
    let (store, require) = (redis(&server, TIMEOUT).await, Requirements::default());
    let [good, revoked, spoilt, wrong] = [
        create_session(&store, "good").await,
        create_session(&store, "revoked").await,
        create_session(&store, "spoilt").await,
        create_session(&store, "wrong").await,
    ];
    let ended = store.revoke(revoked.id, EndReason::Admin, IDLE).await;
    assert!(ended.unwrap());
    store.blacklist("jti", TIMEOUT).await.unwrap();
    store.cut_off("person").await.unwrap();
    let key = |id: SessionId| format!("{PREFIX}session:{{{}}}", id.write_hex(&mut [0; 64]));
    let mut client = server.client().await;
    let set = |key: String| redis::cmd("SET").arg(key).arg("spoilt").to_owned();
    set(key(spoilt.id)).exec_async(&mut client).await.unwrap();
    let mut wrong_type = redis::pipe();
    wrong_type.del(key(wrong.id)).lpush(key(wrong.id), 1);
    wrong_type.exec_async(&mut client).await.unwrap();
    let token = |key, person, id| Query {
        session: id,
        blacklist_key: Some(key),
        cut_off_user: Some(user_hash(person)),
        issued_at: Some(1),
        ..Query::empty(&require)
    };
    let of = |id| decide(&store, session_query(id, &require));
    let pending = [
        of(spoilt.id),
        of(session("nobody", 0).id),
        of(wrong.id),
        of(revoked.id),
        decide(&store, token("jti", "nobody", None)),
        decide(&store, token("another", "person", None)),
        decide(&store, token("another", "nobody", Some(good.id))),
    ];
    let before = server.scripts().await;
    let responses: [QueryResult; 7] = join_all(pending).await.try_into().unwrap();
    assert_eq!(server.scripts().await - before, 1);
    let [spoilt, absent, wrong, ended, listed, cut, all] = responses;
    for missing in [spoilt, absent, wrong] {
        assert_eq!(missing.session, SessionLookup::Missing);
    }
    assert!(matches!(ended.session, SessionLookup::Revoked(it) if it.id == revoked.id));
    assert_eq!((listed.blacklisted, listed.cut_off), (true, None));
    assert!(!cut.blacklisted && cut.cut_off.is_some());
    assert_eq!((all.blacklisted, all.cut_off), (false, None));
    let found = SessionLookup::Active(Arc::new(good.clone()), good.created_at);
    assert_eq!(all.session, found);
}

#[tokio::test]
async fn first_caller_may_cancel() {
    let server = Server::start();
    let (store, require) = (redis(&server, TIMEOUT).await, Requirements::default());
    let session = create_session(&store, "ann").await;
    let mut first = Box::pin(decide(&store, session_query(session.id, &require)));
    let mut second = Box::pin(decide(&store, session_query(session.id, &require)));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    assert!(matches!(second.await.session, SessionLookup::Active(..)));
}
