//! Results of `decide` and `charge`, and the units that they spend.

use std::sync::Arc;
use std::time::Duration;

use portcullis::auth::session::{EndReason, OnSessionLimit, Session};
use portcullis::limits::{Algorithm, Charge, LimitDefinition};
use portcullis::routing::Requirements;
use portcullis::store::{Query, QueryResult, SessionIdentity, SessionLookup, Store};

use crate::support::{
    IDLE, charge, engines, identity, limit, log, open, query, redis, session, write_identity,
};

async fn remaining_units(store: &Store, charge: &Charge) -> u64 {
    store.peek_limit(charge).await.unwrap().remaining
}

async fn decide(store: &Store, inquiry: &Query<'_>) -> (QueryResult, Vec<(bool, u64)>) {
    let findings = store.decide(inquiry, IDLE).await.unwrap();
    let decisions = findings.decisions.iter();
    let verdicts = decisions.map(|d| (d.allowed, d.remaining)).collect();
    (findings, verdicts)
}

#[tokio::test]
async fn unchanged_record_is_not_sent_again() {
    let (_server, engines) = engines().await;
    for store in engines {
        let now = store.now().await.unwrap();
        let mut session = session("known", now);
        store
            .create_session(&session, None, 5, OnSessionLimit::EvictOldest, IDLE)
            .await
            .unwrap();
        let require = Requirements::default();
        let seen = Arc::new(session.clone());
        let request = async |seen: &Arc<Session>| {
            let requested = Query {
                session: Some(seen.id),
                cached: Some(Arc::clone(seen)),
                ..query(&[], &require, &[])
            };
            store.decide(&requested, IDLE).await.unwrap().session
        };
        let SessionLookup::Active(found, _) = request(&seen).await else {
            panic!("not active")
        };
        assert!(Arc::ptr_eq(&found, &seen));
        let roles = ["editor".to_owned()];
        let identity = SessionIdentity {
            email: &session.email,
            ..identity(1, &roles)
        };
        write_identity(&store, "known", identity).await;
        session = Session {
            name: None,
            roles: roles.into(),
            scopes: [].into(),
            revision: 1,
            ..session
        };
        let SessionLookup::Active(found, _) = request(&seen).await else {
            panic!("not active")
        };
        assert_eq!(*found, session);
        store
            .revoke(session.id, EndReason::SignOut, IDLE)
            .await
            .unwrap();
        assert!(matches!(request(&found).await, SessionLookup::Revoked(_)));
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of stages")]
async fn each_stage_spends_its_limits() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let session = session("ann", now);
        store
            .create_session(&session, None, 5, OnSessionLimit::EvictOldest, IDLE)
            .await
            .unwrap();
        let (before, after) = ([log("before", 4)], [log("after", 1)]);
        let anything = Requirements::default();
        let base = || Query {
            session: Some(session.id),
            blacklist_key: Some("jti"),
            ..query(&before, &anything, &after)
        };

        let (found, verdicts) = decide(&store, &base()).await;
        assert_eq!(
            found.session,
            SessionLookup::Active(Arc::new(session.clone()), now)
        );
        assert_eq!(verdicts, [(true, 3), (true, 0)]);

        // A limit with identity refuses: nothing is spent, not even the limit before.
        let (_, verdicts) = decide(&store, &base()).await;
        assert_eq!(verdicts, [(true, 3), (false, 0)]);
        assert_eq!(remaining_units(&store, &before[0]).await, 3);
        store.reset_limit(&after[0]).await.unwrap();

        // Requirements not met: the limit before is spent, the other is not looked at.
        let roles = Requirements {
            roles: vec!["root".into(), "owner".into()],
            scopes: vec![],
            ..Requirements::default()
        };
        let scopes = Requirements {
            roles: vec![],
            scopes: vec!["read".into(), "write".into()],
            ..Requirements::default()
        };
        let met = Requirements {
            roles: vec!["root".into(), "a\nb%".into()],
            scopes: vec!["read".into()],
            ..Requirements::default()
        };
        let (_, verdicts) = decide(
            &store,
            &Query {
                require: &roles,
                ..base()
            },
        )
        .await;
        assert_eq!(verdicts, [(true, 2)]);
        let (_, verdicts) = decide(
            &store,
            &Query {
                require: &scopes,
                ..base()
            },
        )
        .await;
        assert_eq!(verdicts, [(true, 1)]);
        let (_, verdicts) = decide(
            &store,
            &Query {
                require: &met,
                ..base()
            },
        )
        .await;
        assert_eq!(verdicts, [(true, 0), (true, 0)]);

        // The limit before refuses: nothing else is looked at.
        let (found, verdicts) = decide(&store, &base()).await;
        assert_eq!(found.session, SessionLookup::NotQueried);
        assert_eq!(verdicts, [(false, 0)]);

        // Blacklisted, revoked, missing: the limit before is spent.
        store.reset_limit(&before[0]).await.unwrap();
        store.reset_limit(&after[0]).await.unwrap();
        store
            .blacklist("jti", Duration::from_secs(60))
            .await
            .unwrap();
        let (found, verdicts) = decide(&store, &base()).await;
        assert!(found.blacklisted);
        assert_eq!(verdicts, [(true, 3)]);
        assert!(store.unblacklist("jti").await.unwrap());
        assert!(
            store
                .revoke(session.id, EndReason::SignOut, IDLE)
                .await
                .unwrap()
        );
        let (found, verdicts) = decide(&store, &base()).await;
        let SessionLookup::Revoked(revoked) = found.session else {
            panic!("{found:?}")
        };
        assert_eq!(revoked.ended.unwrap().reason, EndReason::SignOut);
        assert_eq!(verdicts, [(true, 2)]);
        let other = crate::support::session("bob", now);
        let (found, verdicts) = decide(
            &store,
            &Query {
                session: Some(other.id),
                ..base()
            },
        )
        .await;
        assert_eq!(found.session, SessionLookup::Missing);
        assert_eq!(verdicts, [(true, 1)]);
        assert_eq!(remaining_units(&store, &after[0]).await, 1);
    }
}

#[tokio::test]
async fn session_expires_by_idleness_and_by_age() {
    let (_server, stores) = engines().await;
    for store in stores {
        let now = store.now().await.unwrap();
        let anything = Requirements::default();
        let mut old = session("ann", now - 1_000_000);
        store
            .create_session(&old, None, 5, OnSessionLimit::EvictOldest, IDLE)
            .await
            .unwrap();
        let request = |last_access| Query {
            session: Some(old.id),
            last_access,
            ..query(&[], &anything, &[])
        };
        for (cached, idle, active) in [
            (0, Some(900), false),
            (0, Some(1_200), true),
            (0, None, true),
            (now - 100_000, Some(900), true),
        ] {
            let idle = idle.map(Duration::from_secs);
            let found = store.decide(&request(cached), idle).await.unwrap().session;
            assert_eq!(
                matches!(found, SessionLookup::Active(..)),
                active,
                "{cached} {idle:?}"
            );
            assert!(active || matches!(found, SessionLookup::Expired(_)));
        }
        old = session("bob", now - 3_600_001);
        store
            .create_session(&old, None, 5, OnSessionLimit::EvictOldest, IDLE)
            .await
            .unwrap();
        let requested = Query {
            session: Some(old.id),
            ..query(&[], &anything, &[])
        };
        let found = store.decide(&requested, None).await.unwrap().session;
        assert!(matches!(found, SessionLookup::Expired(_)), "{found:?}");
        assert!(
            !store
                .revoke(old.id, EndReason::SignOut, IDLE)
                .await
                .unwrap()
        );
    }
}

#[tokio::test]
async fn role_limits_apply_and_shadow_limits_never_refuse() {
    let (_server, stores) = engines().await;
    for store in stores {
        let session = session("ann", store.now().await.unwrap());
        store
            .create_session(&session, None, 5, OnSessionLimit::EvictOldest, IDLE)
            .await
            .unwrap();
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let log = |name| limit(name, Algorithm::SlidingLog, 1);
        let after = [
            charge(LimitDefinition {
                roles: names(&["guest"]),
                ..log("guests")
            }),
            charge(LimitDefinition {
                roles: names(&["x", "a\nb%"]),
                shadow: true,
                ..log("odd")
            }),
            charge(LimitDefinition {
                except_roles: names(&["admin"]),
                ..log("but-admins")
            }),
            charge(LimitDefinition {
                limit: 9,
                ..log("all")
            }),
        ];
        let anything = Requirements::default();
        let requested = Query {
            session: Some(session.id),
            ..query(&[], &anything, &after)
        };
        for (shadow_allowed, left) in [(true, 8), (false, 7)] {
            let (found, verdicts) = decide(&store, &requested).await;
            let bound: Vec<_> = found.decisions.iter().map(|d| &*d.limit.name).collect();
            assert_eq!(bound, ["odd", "all"]);
            assert_eq!(verdicts, [(shadow_allowed, 0), (true, left)]);
        }
    }
}

#[tokio::test]
async fn all_algorithms_charge_refund_and_report_reset() {
    let (_server, stores) = engines().await;
    for store in stores {
        for algorithm in [
            Algorithm::SlidingWindow,
            Algorithm::SlidingLog,
            Algorithm::TokenBucket { burst: 2 },
        ] {
            let charges = [charge(limit("three", algorithm, 2)), log("roomy", 100)];
            for left in [1, 0] {
                let decisions = store.charge(&charges).await.unwrap();
                assert!(decisions[0].allowed);
                assert_eq!(decisions[0].remaining, left);
            }
            let roomy = remaining_units(&store, &charges[1]).await;
            let refused = &store.charge(&charges).await.unwrap()[0];
            assert!(!refused.allowed && !refused.degraded, "{algorithm:?}");
            assert!(
                refused.retry_after > Duration::from_secs(1),
                "{algorithm:?}"
            );
            assert!(refused.retry_after <= Duration::from_secs(1200));
            assert_eq!(
                remaining_units(&store, &charges[1]).await,
                roomy,
                "all or nothing"
            );
            store.refund(&charges).await.unwrap();
            assert_eq!(
                remaining_units(&store, &charges[0]).await,
                1,
                "{algorithm:?}"
            );
            assert!(store.reset_limit(&charges[0]).await.unwrap());
            assert_eq!(
                remaining_units(&store, &charges[0]).await,
                2,
                "{algorithm:?}"
            );
        }
        let local = store.charge_locally(&[log("local", 1)]);
        assert!(local[0].allowed && local[0].degraded);
        assert!(!store.charge_locally(&[log("local", 1)])[0].allowed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_admit_exactly_the_limit() {
    let server = crate::server::Server::start();
    let patience = Duration::from_secs(10);
    let links = [
        redis(&server, patience).await,
        redis(&server, patience).await,
        redis(&server, patience).await,
    ];
    for algorithm in [
        Algorithm::SlidingWindow,
        Algorithm::SlidingLog,
        Algorithm::TokenBucket { burst: 100 },
    ] {
        // Slow enough not to drain meanwhile.
        let limit = LimitDefinition {
            window: Duration::from_secs(100_000),
            ..limit("shared", algorithm, 100)
        };
        let charge = charge(limit);
        let tasks: Vec<_> = (0..300)
            .map(|n| {
                let (store, charge) = (links[n % 3].clone(), charge.clone());
                tokio::spawn(async move { store.charge(&[charge]).await.unwrap()[0].allowed })
            })
            .collect();
        let mut admitted = 0;
        for task in tasks {
            admitted += usize::from(task.await.unwrap());
        }
        assert_eq!(admitted, 100, "{algorithm:?}");
    }
}

#[tokio::test]
async fn empty_query_needs_no_server() {
    let missing = crate::support::address(1);
    let engine = portcullis::settings::Engine::Redis(missing);
    let store = open(engine, Duration::from_secs(1), crate::support::metrics()).connect();
    let anything = Requirements::default();
    let findings = store
        .decide(&query(&[], &anything, &[]), IDLE)
        .await
        .unwrap();
    assert_eq!(findings.session, SessionLookup::NotQueried);
}
