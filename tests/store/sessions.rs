//! Sessions, their lists and ends, and the blacklist.

use std::collections::HashSet;
use std::time::Duration;

use portcullis::auth::session::{EndReason, OnSessionLimit, SessionId, SessionStatus};
use portcullis::store::{
    CreateOutcome, Revocation, SessionIdentity, SessionListQuery, SessionUse, Store,
};

use crate::server::Server;
use crate::support::{IDLE, PREFIX, engines, list_query, log, session, write_identity};

async fn active_sessions(store: &Store, user: &str) -> Vec<SessionId> {
    let page = store.sessions_of(user, list_query(Some(SessionStatus::Active), 1000, None));
    page.await
        .unwrap()
        .entries
        .iter()
        .map(|e| e.session.id)
        .collect()
}

#[tokio::test]
async fn written_session_reads_back() {
    let (_server, stores) = engines().await;
    for store in stores {
        let written = session("ann", store.now().await.unwrap());
        let created = store
            .create_session(&written, None, 5, OnSessionLimit::Reject, IDLE)
            .await
            .unwrap();
        assert_eq!(created, CreateOutcome::Created { evicted: vec![] });
        assert_eq!(
            store.session(written.id).await.unwrap().unwrap().session,
            written
        );
        let mut changed = written.clone();
        changed.email = "new@example.com".into();
        changed.name = None;
        changed.roles = [].into();
        changed.scopes = ["a".into(), "b".into()].into();
        changed.revision = 1;
        let identity = SessionIdentity {
            version: 2,
            email: &changed.email,
            name: None,
            roles: &[],
            scopes: &changed.scopes,
        };
        write_identity(&store, "ann", identity).await;
        assert_eq!(
            store.session(written.id).await.unwrap().unwrap().session,
            changed
        );
        // What was read of the user before that arrives late.
        let email = "old@example.com";
        let earlier = SessionIdentity {
            version: 1,
            email,
            ..identity
        };
        write_identity(&store, "ann", earlier).await;
        assert_eq!(
            store.session(written.id).await.unwrap().unwrap().session,
            changed
        );
        assert_eq!(store.session(session("x", 0).id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn sign_in_below_the_limit_reads_no_other_session() {
    let server = Server::start();
    let store = crate::support::redis(&server, Duration::from_secs(5)).await;
    let now = store.now().await.unwrap();
    for n in 0..20 {
        store
            .create_session(
                &session("ann", now + n),
                None,
                1000,
                OnSessionLimit::Reject,
                IDLE,
            )
            .await
            .unwrap();
    }
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let reported: String = info.query_async(&mut server.client().await).await.unwrap();
    assert!(
        reported.contains("cmdstat_hset:") && !reported.contains("cmdstat_hgetall:"),
        "{reported}"
    );
}

#[tokio::test]
async fn session_limit_evicts_oldest_or_rejects_newest() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let made: Vec<_> = (0..4).map(|n| session("ann", now - 100 + n)).collect();
        for one in &made[..3] {
            store
                .create_session(one, None, 3, OnSessionLimit::Reject, IDLE)
                .await
                .unwrap();
        }
        let outcome = store
            .create_session(&made[3], None, 3, OnSessionLimit::Reject, IDLE)
            .await
            .unwrap();
        assert_eq!(outcome, CreateOutcome::LimitReached);
        let outcome = store
            .create_session(&made[3], None, 3, OnSessionLimit::EvictOldest, IDLE)
            .await
            .unwrap();
        assert_eq!(
            outcome,
            CreateOutcome::Created {
                evicted: vec![made[0].id]
            }
        );
        assert_eq!(
            active_sessions(&store, "ann").await,
            [made[3].id, made[2].id, made[1].id]
        );
        let first = store.session(made[0].id).await.unwrap().unwrap().session;
        assert_eq!(first.ended.unwrap().reason, EndReason::Evicted);
        assert!(
            store
                .revoke(made[1].id, EndReason::SignOut, IDLE)
                .await
                .unwrap()
        );
        let one_more = session("ann", now);
        let outcome = store
            .create_session(&one_more, None, 3, OnSessionLimit::Reject, IDLE)
            .await
            .unwrap();
        assert_eq!(outcome, CreateOutcome::Created { evicted: vec![] });
    }
}

#[tokio::test]
async fn idle_sessions_end_and_free_their_slot() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        // The oldest is in use; the two after it have been idle for longer than is allowed.
        let made: Vec<_> = [900_000, 800_000, 700_000, 0]
            .map(|age| session("ann", now - age))
            .into();
        for one in &made {
            let created = store.create_session(one, None, 4, OnSessionLimit::Reject, None);
            assert_eq!(
                created.await.unwrap(),
                CreateOutcome::Created { evicted: vec![] }
            );
        }
        let used = |id| SessionUse {
            session: id,
            last_access: now,
            requests: 1,
            address: [10, 0, 0, 1].into(),
        };
        store.record_uses(&[used(made[0].id)]).await.unwrap();
        assert!(
            !store
                .revoke(made[1].id, EndReason::Admin, IDLE)
                .await
                .unwrap()
        );
        let newer = [session("ann", now + 1), session("ann", now + 2)];
        for one in &newer {
            let created = store.create_session(one, None, 4, OnSessionLimit::Reject, IDLE);
            assert_eq!(
                created.await.unwrap(),
                CreateOutcome::Created { evicted: vec![] }
            );
        }
        let full = session("ann", now + 3);
        let rejected = store
            .create_session(&full, None, 4, OnSessionLimit::Reject, IDLE)
            .await;
        assert_eq!(rejected.unwrap(), CreateOutcome::LimitReached);
        // A use that is reported late revives no session, nor does a longer timeout.
        let late = [used(made[1].id), used(made[2].id)];
        store.record_uses(&late).await.unwrap();
        let expired = |idle| SessionListQuery {
            idle,
            ..list_query(Some(SessionStatus::Expired), 9, None)
        };
        for idle in [IDLE, None] {
            let page = store.sessions_of("ann", expired(idle)).await.unwrap();
            let ids: Vec<_> = page.entries.iter().map(|e| e.session.id).collect();
            assert_eq!(ids, [made[2].id, made[1].id], "{idle:?}");
        }
        let ended = store.revoke_user("ann", None, EndReason::Admin, IDLE);
        let ended: HashSet<_> = ended.await.unwrap().into_iter().collect();
        let alive = [&made[0], &made[3], &newer[0], &newer[1]];
        assert_eq!(ended, alive.map(|one| one.id).into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_are_evicted_before_the_oldest() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let idle: Vec<_> = (0..4).map(|n| session("ann", now - 900_000 + n)).collect();
        for one in &idle {
            let created = store.create_session(one, None, 5, OnSessionLimit::Reject, None);
            created.await.unwrap();
        }
        let tasks: Vec<_> = (0..30)
            .map(|_| {
                let (store, one) = (store.clone(), session("ann", now));
                let limit = OnSessionLimit::EvictOldest;
                tokio::spawn(async move { store.create_session(&one, None, 5, limit, IDLE).await })
            })
            .collect();
        for task in tasks {
            let CreateOutcome::Created { evicted } = task.await.unwrap().unwrap() else {
                panic!("rejected")
            };
            assert!(idle.iter().all(|one| !evicted.contains(&one.id)));
        }
        assert_eq!(active_sessions(&store, "ann").await.len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sign_ins_respect_the_session_limit() {
    let (_server, stores) = engines().await;
    for store in stores {
        for on_limit in [OnSessionLimit::EvictOldest, OnSessionLimit::Reject] {
            let now = store.now().await.unwrap();
            let user = format!("racer-{on_limit:?}");
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let (store, session) = (store.clone(), session(&user, now));
                    tokio::spawn(async move {
                        store
                            .create_session(&session, None, 5, on_limit, IDLE)
                            .await
                    })
                })
                .collect();
            let mut evicted = 0;
            for task in tasks {
                if let CreateOutcome::Created { evicted: some } = task.await.unwrap().unwrap() {
                    evicted += some.len();
                }
            }
            let alive = active_sessions(&store, &user).await;
            assert_eq!(alive.len(), 5, "{on_limit:?}");
            let revoked = list_query(Some(SessionStatus::Revoked), 1000, None);
            let revoked = store.sessions_of(&user, revoked).await.unwrap().total;
            match on_limit {
                // A session that was selected before it was written is not counted as evicted: it
                // is written as ended.
                OnSessionLimit::EvictOldest => assert!(revoked == 45 && evicted <= 45, "{revoked}"),
                OnSessionLimit::Reject => assert_eq!((revoked, evicted), (0, 0)),
            }
        }
    }
}

#[tokio::test]
async fn session_end_is_reported_once() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let mut heard = store.subscribe();
        let made: Vec<_> = (0..3).map(|n| session("ann", now + n)).collect();
        for one in &made {
            store
                .create_session(one, None, 5, OnSessionLimit::Reject, IDLE)
                .await
                .unwrap();
        }
        assert!(
            store
                .revoke(made[0].id, EndReason::Terminated, IDLE)
                .await
                .unwrap()
        );
        assert!(
            !store
                .revoke(made[0].id, EndReason::SignOut, IDLE)
                .await
                .unwrap()
        );
        assert!(
            !store
                .revoke(session("x", 0).id, EndReason::SignOut, IDLE)
                .await
                .unwrap()
        );
        let ended = store.revoke_user("ann", Some(made[2].id), EndReason::PasswordChanged, IDLE);
        assert_eq!(ended.await.unwrap(), [made[1].id]);
        store
            .blacklist("jti", Duration::from_secs(1))
            .await
            .unwrap();
        assert_eq!(active_sessions(&store, "ann").await, [made[2].id]);
        let first = store.session(made[0].id).await.unwrap().unwrap().session;
        assert_eq!(first.ended.unwrap().reason, EndReason::Terminated);
        let missing = session("x", 0).id;
        let ids = [made[0].id, missing, made[2].id];
        assert_eq!(
            store.ended_among(&ids, IDLE).await.unwrap(),
            [made[0].id, missing]
        );
        for expected in [
            Revocation::Session(made[0].id),
            Revocation::Session(made[1].id),
            Revocation::Token("jti".into()),
        ] {
            assert_eq!(heard.try_recv().unwrap(), expected);
        }
        assert!(heard.try_recv().is_err());
    }
}

#[tokio::test]
async fn at_most_fifty_ended_sessions_are_kept() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        for n in 0..60 {
            let one = session("ann", now + n);
            store
                .create_session(&one, None, 1, OnSessionLimit::EvictOldest, IDLE)
                .await
                .unwrap();
        }
        let list = |filter| store.sessions_of("ann", list_query(filter, 1000, None));
        assert_eq!(list(Some(SessionStatus::Revoked)).await.unwrap().total, 50);
        assert_eq!(list(None).await.unwrap().total, 51);
    }
}

#[tokio::test]
async fn pages_are_newest_first_and_contiguous() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        for n in 0..7 {
            // Two at a time were made in the same millisecond.
            let one = session("ann", now + n / 2);
            store
                .create_session(&one, None, 9, OnSessionLimit::Reject, IDLE)
                .await
                .unwrap();
        }
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.sessions_of("ann", list_query(None, 3, cursor.as_deref()));
            let page = page.await.unwrap();
            assert_eq!(page.total, 7);
            seen.extend(
                page.entries
                    .iter()
                    .map(|e| (e.session.created_at, e.session.id)),
            );
            pages += 1;
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages, 3);
        assert!(seen.is_sorted_by(|a, b| a > b));
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 7);
    }
}

#[tokio::test]
async fn usage_accumulates_and_creates_no_session() {
    let (_server, stores) = engines().await;
    for store in stores {
        let one = session("ann", store.now().await.unwrap());
        store
            .create_session(&one, None, 9, OnSessionLimit::Reject, IDLE)
            .await
            .unwrap();
        let used = |id, last_access, n: u8| SessionUse {
            session: id,
            last_access,
            requests: 2,
            address: [10, 0, 0, n].into(),
        };
        let missing = session("x", 0).id;
        let later = one.created_at + 5000;
        let mut uses = vec![used(missing, later, 1), used(one.id, later, 99)];
        uses.extend((0..200).map(|n| used(one.id, later - 1, n % 12)));
        store.record_uses(&uses).await.unwrap();
        let activity = store.session(one.id).await.unwrap().unwrap().activity;
        assert_eq!(activity.last_access, later);
        assert_eq!(activity.request_count, 402);
        let newest: Vec<std::net::IpAddr> = (0..10u8)
            .map(|n| (199 - n) % 12)
            .map(|n| [10, 0, 0, n].into())
            .collect();
        assert_eq!(activity.ip_addresses, newest);
        assert_eq!(store.session(missing).await.unwrap(), None);
    }
}

#[tokio::test]
async fn blacklist_entries_expire_and_are_externally_writable() {
    let (server, stores) = engines().await;
    let mut other = server.client().await;
    let key = format!("{PREFIX}blacklist:theirs");
    redis::cmd("SET")
        .arg(key)
        .arg(1)
        .arg("EX")
        .arg(60)
        .exec_async(&mut other)
        .await
        .unwrap();
    assert_eq!(
        stores[1].are_blacklisted(&["theirs", "x"]).await.unwrap(),
        [true, false]
    );
    for store in stores {
        store
            .blacklist("long", Duration::from_secs(60))
            .await
            .unwrap();
        store
            .blacklist("short", Duration::from_millis(30))
            .await
            .unwrap();
        store.blacklist("over", Duration::ZERO).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let found = store
            .are_blacklisted(&["short", "long", "over"])
            .await
            .unwrap();
        assert_eq!(found, [false, true, false]);
        assert!(store.unblacklist("long").await.unwrap());
        assert!(!store.unblacklist("long").await.unwrap());
    }
}

#[tokio::test]
async fn clean_up_counts_sessions_and_keys_expire() {
    let (server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        assert_eq!(store.counts().await.unwrap(), None);
        for n in 0..3 {
            let one = session("ann", now + n);
            store
                .create_session(&one, None, 2, OnSessionLimit::EvictOldest, IDLE)
                .await
                .unwrap();
            let used = SessionUse {
                session: one.id,
                last_access: now,
                requests: 1,
                address: one.ip,
            };
            store.record_uses(&[used]).await.unwrap();
        }
        store
            .blacklist("jti", Duration::from_secs(9))
            .await
            .unwrap();
        store.charge(&[log("l", 3)]).await.unwrap();
        let probe = store.probe().await.unwrap();
        let soon = |took: Result<Duration, _>| took.is_ok_and(|it| it < Duration::from_secs(5));
        assert!(soon(probe.write) && soon(probe.read));
        let turn = store.begin_clean_up(Duration::ZERO).await.unwrap().unwrap();
        let counts = store.clean_up(&turn, &mut Vec::new()).await.unwrap();
        store.end_clean_up(turn).await.unwrap();
        assert_eq!((counts.active_sessions, counts.blacklisted_tokens), (2, 1));
        assert_eq!(store.counts().await.unwrap(), Some(counts));
    }
    let mut client = server.client().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut client)
        .await
        .unwrap();
    assert!(keys.len() > 6, "{keys:?}");
    for key in keys {
        let ttl: i64 = redis::cmd("PTTL")
            .arg(&key)
            .query_async(&mut client)
            .await
            .unwrap();
        assert!(ttl > 0, "{key} never dies");
        assert!(key.starts_with(PREFIX), "{key}");
    }
}

#[tokio::test]
async fn lost_index_is_rebuilt_by_clean_up() {
    let (server, stores) = engines().await;
    let redis = &stores[1];
    let one = session("ann", redis.now().await.unwrap());
    let created = redis
        .create_session(&one, None, 5, OnSessionLimit::Reject, IDLE)
        .await;
    created.unwrap();
    let mut client = server.client().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*user:*")
        .query_async(&mut client)
        .await
        .unwrap();
    let mut spoiling = redis::cmd("SET");
    spoiling.arg(&keys[0]).arg("nonsense");
    spoiling.exec_async(&mut client).await.unwrap();
    let ended = redis.revoke_user("ann", None, EndReason::Admin, IDLE).await;
    assert_eq!(ended.unwrap(), []);
    let turn = redis.begin_clean_up(Duration::ZERO).await.unwrap().unwrap();
    redis.clean_up(&turn, &mut Vec::new()).await.unwrap();
    let ended = redis.revoke_user("ann", None, EndReason::Admin, IDLE).await;
    assert_eq!(ended.unwrap(), [one.id]);
}
