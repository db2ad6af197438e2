//! Who requests are is asked together with whoever else asks at the same moment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use portcullis::auth::session::{EndReason, OnLimit, Session, SessionId};
use portcullis::routing::Require;
use portcullis::store::{Findings, Found, Inquiry, Store, person_hash};

use crate::server::Server;
use crate::support::{IDLE, PREFIX, redis, session};

const PATIENCE: Duration = Duration::from_secs(5);

async fn created(store: &Store, user: &str) -> Session {
    let session = session(user, store.now().await.unwrap());
    let created = store.create_session(&session, None, 5, OnLimit::Reject, IDLE);
    created.await.unwrap();
    session
}

async fn decided(store: &Store, inquiry: Inquiry<'_>) -> Findings {
    store.decide(&inquiry, IDLE).await.unwrap()
}

fn of_session(id: SessionId, require: &Require) -> Inquiry<'_> {
    Inquiry {
        session: Some(id),
        ..Inquiry::nothing(require)
    }
}

#[tokio::test]
async fn many_who_ask_at_once_cost_few_scripts_and_each_has_its_own_answer() {
    let server = Server::start();
    let (store, require) = (redis(&server, PATIENCE).await, Require::default());
    let mut alive = Vec::new();
    for number in 0..90 {
        alive.push(created(&store, &format!("user-{number}")).await);
    }
    let before = server.scripts().await;
    let asking = alive.iter().enumerate().map(|(number, session)| {
        let known = (number % 2 == 0).then(|| Arc::new(session.clone()));
        let inquiry = Inquiry {
            known,
            ..of_session(session.id, &require)
        };
        decided(&store, inquiry)
    });
    for (session, findings) in alive.iter().zip(join_all(asking).await) {
        let found = Found::Active(Arc::new(session.clone()), session.created_at);
        assert_eq!(findings.session, found);
    }
    assert_eq!(server.scripts().await - before, 3, "90 in scripts of 32");
}

#[tokio::test]
async fn what_is_wrong_with_one_is_nothing_to_the_others() {
    let server = Server::start();
    let (store, require) = (redis(&server, PATIENCE).await, Require::default());
    let [good, revoked, spoilt, wrong] = [
        created(&store, "good").await,
        created(&store, "revoked").await,
        created(&store, "spoilt").await,
        created(&store, "wrong").await,
    ];
    let ended = store.revoke(revoked.id, EndReason::Admin, IDLE).await;
    assert!(ended.unwrap());
    store.blacklist("jti", PATIENCE).await.unwrap();
    store.cut_off("person").await.unwrap();
    let key = |id: SessionId| format!("{PREFIX}session:{{{}}}", id.hex(&mut [0; 64]));
    let mut client = server.client().await;
    let set = |key: String| redis::cmd("SET").arg(key).arg("spoilt").to_owned();
    set(key(spoilt.id)).exec_async(&mut client).await.unwrap();
    let mut wrong_type = redis::pipe();
    wrong_type.del(key(wrong.id)).lpush(key(wrong.id), 1);
    wrong_type.exec_async(&mut client).await.unwrap();
    let token = |key, person, id| Inquiry {
        session: id,
        blacklist_key: Some(key),
        cut_off_of: Some(person_hash(person)),
        issued_at: Some(1),
        ..Inquiry::nothing(&require)
    };
    let of = |id| decided(&store, of_session(id, &require));
    let asking = [
        of(spoilt.id),
        of(session("nobody", 0).id),
        of(wrong.id),
        of(revoked.id),
        decided(&store, token("jti", "nobody", None)),
        decided(&store, token("another", "person", None)),
        decided(&store, token("another", "nobody", Some(good.id))),
    ];
    let before = server.scripts().await;
    let answers: [Findings; 7] = join_all(asking).await.try_into().unwrap();
    assert_eq!(server.scripts().await - before, 1);
    let [spoilt, nobody, wrong, ended, listed, cut, all] = answers;
    for missing in [spoilt, nobody, wrong] {
        assert_eq!(missing.session, Found::Missing);
    }
    assert!(matches!(ended.session, Found::Revoked(it) if it.id == revoked.id));
    assert_eq!((listed.blacklisted, listed.cut_off), (true, None));
    assert!(!cut.blacklisted && cut.cut_off.is_some());
    assert_eq!((all.blacklisted, all.cut_off), (false, None));
    let found = Found::Active(Arc::new(good.clone()), good.created_at);
    assert_eq!(all.session, found);
}

#[tokio::test]
async fn whoever_came_first_may_leave() {
    let server = Server::start();
    let (store, require) = (redis(&server, PATIENCE).await, Require::default());
    let session = created(&store, "ann").await;
    let mut first = Box::pin(decided(&store, of_session(session.id, &require)));
    let mut second = Box::pin(decided(&store, of_session(session.id, &require)));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    assert!(matches!(second.await.session, Found::Active(..)));
}
