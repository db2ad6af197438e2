//! The list of all users' sessions.

use std::collections::HashSet;

use portcullis::auth::session::{EndReason, OnSessionLimit, Session, SessionId, SessionStatus};
use portcullis::store::{SessionListQuery, SessionUse, Store};

use crate::support::{IDLE, PREFIX, engines, list_query, session};

async fn create_sessions(store: &Store, users: u64, each: u64) -> Vec<Session> {
    let now = store.now().await.unwrap();
    let mut made = Vec::new();
    for n in 0..users * each {
        let one = session(&format!("user-{}", n % users), now - n);
        let created = store
            .create_session(&one, None, 9, OnSessionLimit::Reject, IDLE)
            .await;
        created.unwrap();
        made.push(one);
    }
    made
}

/// All pages joined up, and how many they were.
async fn list_all(store: &Store, wanted: SessionListQuery<'_>) -> (Vec<SessionId>, usize) {
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = store.all_sessions(SessionListQuery {
            cursor: cursor.as_deref(),
            ..wanted
        });
        let page = page.await.unwrap();
        assert!(page.entries.len() <= wanted.limit);
        assert_eq!(page.total, page.entries.len());
        let ages = page.entries.iter().map(|e| e.session.created_at);
        assert!(ages.rev().is_sorted());
        seen.extend(page.entries.iter().map(|e| e.session.id));
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_none() {
            return (seen, pages);
        }
    }
}

#[tokio::test]
async fn every_session_is_on_exactly_one_page() {
    let (_server, stores) = engines().await;
    for store in stores {
        assert_eq!(
            list_all(&store, list_query(None, 10, None)).await,
            (vec![], 1)
        );
        let made = create_sessions(&store, 60, 3).await;
        let expected: HashSet<_> = made.iter().map(|one| one.id).collect();
        for limit in [1, 7, 100, 1000] {
            let (seen, pages) = list_all(&store, list_query(None, limit, None)).await;
            assert_eq!(seen.len(), 180, "{limit}");
            assert_eq!(seen.into_iter().collect::<HashSet<_>>(), expected);
            assert!(pages >= 180_usize.div_ceil(limit) && pages <= 180 / limit + 5);
        }
        let (seen, _) = list_all(&store, list_query(None, 50, Some("nonsense"))).await;
        assert_eq!(seen.len(), 180);
    }
}

#[tokio::test]
async fn listing_filters_by_status_and_address() {
    let (_server, stores) = engines().await;
    for store in stores {
        let made = create_sessions(&store, 10, 2).await;
        for one in &made[..3] {
            assert!(store.revoke(one.id, EndReason::Admin, IDLE).await.unwrap());
        }
        let used = SessionUse {
            session: made[4].id,
            last_access: made[4].created_at,
            requests: 1,
            address: [192, 0, 2, 1].into(),
        };
        store.record_uses(&[used]).await.unwrap();
        for (status, many) in [
            (Some(SessionStatus::Active), 17),
            (Some(SessionStatus::Revoked), 3),
            (Some(SessionStatus::Expired), 0),
        ] {
            assert_eq!(
                list_all(&store, list_query(status, 4, None)).await.0.len(),
                many
            );
        }
        let from = |ip: &str| SessionListQuery {
            address: Some(ip.parse().unwrap()),
            ..list_query(None, 4, None)
        };
        assert_eq!(list_all(&store, from("192.0.2.1")).await.0, [made[4].id]);
        assert_eq!(list_all(&store, from("2001:db8::1")).await.0.len(), 20);
        assert_eq!(list_all(&store, from("192.0.2.2")).await.0.len(), 0);
        let of_one = store
            .sessions_of("user-4", from("192.0.2.1"))
            .await
            .unwrap();
        assert_eq!((of_one.total, of_one.entries.len()), (1, 1));
    }
}

#[tokio::test]
async fn page_scans_a_bounded_number_of_keys() {
    let (server, [memory, redis, _]) = engines().await;
    let mut client = server.client().await;
    let script = "for n = 1, 20000 do redis.call('SET', ARGV[1] .. n, 1, 'EX', 60) end";
    let filling = redis::Script::new(script);
    let mut call = filling.prepare_invoke();
    call.arg(format!("{PREFIX}other:"));
    call.invoke_async::<()>(&mut client).await.unwrap();
    create_sessions(&redis, 20, 1).await;
    let (seen, pages) = list_all(&redis, list_query(None, 100, None)).await;
    assert_eq!(seen.len(), 20);
    assert!((3..12).contains(&pages), "{pages}");

    create_sessions(&memory, 500, 9).await;
    let (seen, pages) =
        list_all(&memory, list_query(Some(SessionStatus::Revoked), 100, None)).await;
    assert_eq!((seen.len(), pages), (0, 3));
}
