//! State that a fleet shares besides sessions: cut-offs, profiles, open connections, the clean-up.

use std::time::Duration;

use portcullis::auth::session::{EndReason, OnSessionLimit};
use portcullis::limits::Algorithm;
use portcullis::routing::Requirements;
use portcullis::store::{CachedProfile, Query, Store, user_hash};

use crate::support::{IDLE, PREFIX, charge, engines, limit, list_query, query, session};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn cutoff_refuses_tokens_issued_before_it() {
    let (_server, stores) = engines().await;
    for store in stores {
        let anything = Requirements::default();
        let after = [charge(limit("l", Algorithm::SlidingLog, 9))];
        let requested = |person, issued_at| Query {
            cut_off_user: Some(user_hash(person)),
            issued_at,
            ..query(&[], &anything, &after)
        };
        let find = async |inquiry: Query<'_>| {
            let findings = store.decide(&inquiry, IDLE).await.unwrap();
            let spent = findings.decisions.len();
            (inquiry.is_cut_off(findings.cut_off), spent)
        };
        assert_eq!(find(requested("https://idp\0ann", None)).await, (false, 1));
        let before = store.now().await.unwrap() / 1000;
        store.cut_off("https://idp\0ann").await.unwrap();
        let cuts = store.cut_offs(&["https://idp\0ann", "ann"]).await.unwrap();
        let second = cuts[0].unwrap();
        assert!(second >= before && second <= store.now().await.unwrap() / 1000);
        assert_eq!(cuts[1], None);
        // Who is refused spends no limit of theirs.
        for (person, issued_at, expected) in [
            ("https://idp\0ann", Some(second), (true, 0)),
            ("https://idp\0ann", Some(second - 100), (true, 0)),
            ("https://idp\0ann", None, (true, 0)),
            ("https://idp\0ann", Some(second + 1), (false, 1)),
            ("ann", Some(second), (false, 1)),
        ] {
            let found = find(requested(person, issued_at)).await;
            assert_eq!(found, expected, "{person:?} {issued_at:?}");
        }
    }
}

async fn profile_lease(store: &Store, user: &str) -> portcullis::store::ProfileLease {
    match store.profile(user).await.unwrap() {
        CachedProfile::Miss(lease) => lease,
        CachedProfile::Hit(json) => panic!("{json}"),
    }
}

#[tokio::test]
async fn stale_profile_read_is_not_cached() {
    let (_server, stores) = engines().await;
    for store in stores {
        let early = profile_lease(&store, "ann").await;
        store.put_profile("ann", &early, "1", LONG).await.unwrap();
        assert_eq!(
            store.profile("ann").await,
            Ok(CachedProfile::Hit("1".to_owned()))
        );
        assert!(matches!(
            store.profile("ben").await,
            Ok(CachedProfile::Miss(_))
        ));
        // A lease is good for one put.
        store.put_profile("ann", &early, "2", LONG).await.unwrap();
        assert_eq!(
            store.profile("ann").await,
            Ok(CachedProfile::Hit("1".to_owned()))
        );

        store.invalidate_profile("ann").await.unwrap();
        let old = profile_lease(&store, "ann").await;
        store.invalidate_profile("ann").await.unwrap();
        store.put_profile("ann", &old, "old", LONG).await.unwrap();
        let new = profile_lease(&store, "ann").await;
        assert_ne!(old, new);
        store.put_profile("ann", &old, "old", LONG).await.unwrap();
        // Of those who miss at once each may put, and one does.
        assert_eq!(profile_lease(&store, "ann").await, new);
        store.put_profile("ann", &new, "new", LONG).await.unwrap();
        assert_eq!(
            store.profile("ann").await,
            Ok(CachedProfile::Hit("new".to_owned()))
        );
    }
}

#[tokio::test]
async fn profile_is_cached_until_its_ttl() {
    let (_server, stores) = engines().await;
    for store in stores {
        let lease = profile_lease(&store, "ann").await;
        let short = Duration::from_millis(20);
        store.put_profile("ann", &lease, "{}", short).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(matches!(
            store.profile("ann").await,
            Ok(CachedProfile::Miss(_))
        ));
    }
}

#[tokio::test]
async fn open_connections_are_summed_across_gateways() {
    let (server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let made = [session("ann", now), session("ann", now + 1)];
        for one in &made {
            let created = store.create_session(one, None, 5, OnSessionLimit::Reject, IDLE);
            created.await.unwrap();
        }
        let [first, second] = [made[0].id, made[1].id];
        let open = async || {
            let of_user = store
                .sessions_of("ann", list_query(None, 9, None))
                .await
                .unwrap();
            let all = store.all_sessions(list_query(None, 9, None)).await.unwrap();
            let listed = of_user
                .entries
                .iter()
                .map(|entry| entry.activity.live_connections);
            let listed: Vec<u64> = listed.rev().collect();
            let mut all_entries: Vec<_> = all.entries.iter().collect();
            all_entries.sort_by_key(|entry| entry.session.created_at);
            let counts = all_entries.iter().map(|it| it.activity.live_connections);
            assert_eq!(counts.collect::<Vec<_>>(), listed);
            let one = store.session(first).await.unwrap().unwrap();
            assert_eq!(one.activity.live_connections, listed[0]);
            let touched = store.touch(first, IDLE).await.unwrap().unwrap();
            assert_eq!(touched.activity.live_connections, listed[0]);
            listed
        };
        assert_eq!(open().await, [0, 0]);
        store
            .report_open_connections("a", &[(first, 2), (second, 1)])
            .await
            .unwrap();
        store
            .report_open_connections("b", &[(first, 3)])
            .await
            .unwrap();
        assert_eq!(open().await, [5, 1]);
        store
            .report_open_connections("a", &[(first, 1), (second, 0)])
            .await
            .unwrap();
        assert_eq!(open().await, [4, 0]);
        store
            .report_open_connections("a", &[(first, 0)])
            .await
            .unwrap();
        store
            .report_open_connections("b", &[(first, 0)])
            .await
            .unwrap();
        assert_eq!(open().await, [0, 0]);
    }
    let mut client = server.client().await;
    let mut keys = redis::cmd("KEYS");
    let keys: Vec<String> = keys.arg("*live:*").query_async(&mut client).await.unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn counts_of_a_dead_gateway_expire() {
    let (server, [_, redis, _]) = engines().await;
    let mut client = server.client().await;
    let now = redis.now().await.unwrap();
    let one = session("ben", now);
    let created = redis.create_session(&one, None, 5, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
    redis
        .report_open_connections("c", &[(one.id, 7)])
        .await
        .unwrap();
    let key = format!("{PREFIX}live:{{{}}}", one.id);
    let mut reading = redis::cmd("HGET");
    let reading = reading.arg(&key).arg("c").query_async(&mut client);
    let report: String = reading.await.unwrap();
    let until: u64 = report.split_once(' ').unwrap().1.parse().unwrap();
    assert!((now + 30_000..now + 35_000).contains(&until), "{report}");
    let stale = format!("7 {}", now - 1);
    let mut spoiling = redis::cmd("HSET");
    spoiling.arg(&key).arg("c").arg(stale);
    spoiling.exec_async(&mut client).await.unwrap();
    let entry = redis.session(one.id).await.unwrap().unwrap();
    assert_eq!(entry.activity.live_connections, 0);
}

#[tokio::test]
async fn clean_up_runs_on_one_gateway_at_a_time() {
    let (server, [_, redis, _]) = engines().await;
    let mut client = server.client().await;
    let now = redis.now().await.unwrap();
    let one = session("ann", now);
    let created = redis.create_session(&one, None, 5, OnSessionLimit::Reject, IDLE);
    created.await.unwrap();
    redis.revoke(one.id, EndReason::Admin, IDLE).await.unwrap();
    redis
        .report_open_connections("a", &[(one.id, 7)])
        .await
        .unwrap();
    // Entries that are expired or malformed, beside one that is still valid.
    let index: Vec<String> = redis::cmd("KEYS")
        .arg("*user:*")
        .query_async(&mut client)
        .await
        .unwrap();
    let live: Vec<String> = redis::cmd("KEYS")
        .arg("*live:*")
        .query_async(&mut client)
        .await
        .unwrap();
    let mut spoiling = redis::pipe();
    let old = [&[1; 6][..], &[1; 6], &[0; 6]].concat();
    spoiling
        .cmd("HSET")
        .arg(&index[0])
        .arg(&[1; 32][..])
        .arg(old);
    spoiling.cmd("HSET").arg(&index[0]).arg("?").arg("?");
    spoiling.cmd("HSET").arg(&live[0]).arg("b").arg("3 1");
    spoiling.exec_async(&mut client).await.unwrap();

    let turn = redis.begin_clean_up(LONG).await.unwrap().unwrap();
    assert_eq!(redis.begin_clean_up(LONG).await.unwrap(), None);
    assert_eq!(redis.begin_clean_up(Duration::ZERO).await.unwrap(), None);
    redis.clean_up(&turn, &mut Vec::new()).await.unwrap();
    redis.end_clean_up(turn).await.unwrap();
    // It was done a moment ago; only who insists has a turn.
    assert_eq!(redis.begin_clean_up(LONG).await.unwrap(), None);
    let left = async |key: &str, client: &mut redis::aio::MultiplexedConnection| {
        let mut count = redis::cmd("HLEN");
        count.arg(key).query_async::<u64>(client).await.unwrap()
    };
    assert_eq!(left(&index[0], &mut client).await, 1);
    assert_eq!(left(&live[0], &mut client).await, 1);
    let turn = redis.begin_clean_up(Duration::ZERO).await.unwrap().unwrap();
    // Who has lost the turn stops.
    redis::cmd("DEL")
        .arg(format!("{PREFIX}cleaning"))
        .exec_async(&mut client)
        .await
        .unwrap();
    let other = redis.begin_clean_up(Duration::ZERO).await.unwrap().unwrap();
    assert!(redis.clean_up(&turn, &mut Vec::new()).await.is_err());
    redis.end_clean_up(turn).await.unwrap();
    assert!(redis.clean_up(&other, &mut Vec::new()).await.is_ok());
}
