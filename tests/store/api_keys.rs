//! Records of API keys: stored under a lease, invalidated everywhere, and never taken for sessions.

use std::sync::Arc;
use std::time::Duration;

use portcullis::auth::api_key::{ApiKeyGrant, ApiKeyId, ApiKeySecrets, ApiKeyState, SecretHash};
use portcullis::auth::session::{Session, SessionId};
use portcullis::routing::Requirements;
use portcullis::settings::Engine;
use portcullis::store::{Query, SessionListQuery, SessionLookup, Store};

use crate::server::Server;
use crate::support::{address, engines, log, metrics, open, query, session, within};

fn record(id: ApiKeyId) -> Session {
    let grant = ApiKeyGrant {
        state: ApiKeyState::InForce,
        secrets: ApiKeySecrets::new(SecretHash([1; 32])).rotate(SecretHash([2; 32]), 5, 6),
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
        expires_at: None,
    };
    Session {
        id: SessionId::of_api_key(id),
        user: "service:billing".to_owned(),
        api_key: Some(Arc::new(grant)),
        expires_at: (1 << 48) - 1,
        ..session("billing", 1_000)
    }
}

async fn find(store: &Store, id: ApiKeyId) -> SessionLookup {
    let anything = Requirements::default();
    let requested = Query {
        session: Some(SessionId::of_api_key(id)),
        ..query(&[], &anything, &[])
    };
    store.decide(&requested, None).await.unwrap().session
}

async fn put(store: &Store, record: &Session) {
    let id = record.id.api_key().unwrap();
    let lease = store.lease_api_key(id).await.unwrap().unwrap();
    let found = SessionLookup::Active(Arc::new(record.clone()), 0);
    store.put_api_key(&lease, record, &found).await.unwrap();
}

fn is_record(lookup: &SessionLookup, record: &Session) -> bool {
    matches!(lookup, SessionLookup::Active(found, _) if **found == *record)
}

#[tokio::test]
async fn record_is_found_as_it_was_stored() {
    let (_server, stores) = engines().await;
    for store in stores {
        let id = ApiKeyId::random();
        assert_eq!(find(&store, id).await, SessionLookup::Missing);
        let record = record(id);
        put(&store, &record).await;
        let found = find(&store, id).await;
        assert!(is_record(&found, &record), "{found:?}");
        // It is stored: no other gateway needs to.
        assert!(store.lease_api_key(id).await.unwrap().is_none());
        let looked_up = store.look_up_api_keys(&[id]).await.unwrap();
        assert!(is_record(&looked_up[0].1, &record));
        store
            .extend_api_keys(&[id, ApiKeyId::random()])
            .await
            .unwrap();
        // Limits are charged with it, as with a session.
        let (one, anything) = ([log("each", 1)], Requirements::default());
        for allowed in [true, false] {
            let requested = Query {
                session: Some(record.id),
                ..query(&[], &anything, &one)
            };
            let decided = store.decide(&requested, None).await.unwrap();
            assert_eq!(decided.decisions[0].allowed, allowed);
        }
    }
}

#[tokio::test]
async fn change_beats_a_concurrent_fill() {
    let (_server, stores) = engines().await;
    for store in stores {
        let id = ApiKeyId::random();
        let before = record(id);
        let found = SessionLookup::Active(Arc::new(before.clone()), 0);
        let lease = store.lease_api_key(id).await.unwrap().unwrap();
        store.invalidate_api_keys(&[id]).await.unwrap();
        store.put_api_key(&lease, &before, &found).await.unwrap();
        assert_eq!(find(&store, id).await, SessionLookup::Missing);
        let cached = store.near_cache().session(before.id);
        assert_eq!(cached, None, "what an outage would serve");
        // A lease from before is void also once there is another one.
        let next = store.lease_api_key(id).await.unwrap().unwrap();
        store.put_api_key(&lease, &before, &found).await.unwrap();
        assert_eq!(find(&store, id).await, SessionLookup::Missing);
        store.put_api_key(&next, &before, &found).await.unwrap();
        assert!(is_record(&find(&store, id).await, &before));
        store.invalidate_api_keys(&[id]).await.unwrap();
        assert_eq!(find(&store, id).await, SessionLookup::Missing);
    }
}

#[tokio::test]
async fn key_is_no_session() {
    let (_server, stores) = engines().await;
    for store in stores {
        let record = record(ApiKeyId::random());
        put(&store, &record).await;
        let everything = SessionListQuery {
            status: None,
            address: None,
            limit: 100,
            cursor: None,
            idle: None,
        };
        let all = store.all_sessions(everything).await.unwrap();
        assert!(
            all.entries
                .iter()
                .all(|entry| entry.session.api_key.is_none())
        );
        let of_user = store.sessions_of(&record.user, everything).await.unwrap();
        assert!(of_user.entries.is_empty());
        let text = record.id.to_string();
        assert_eq!(SessionId::parse(&text), None);
        let ended = store.revoke_user(
            &record.user,
            None,
            portcullis::auth::session::EndReason::Admin,
            None,
        );
        assert_eq!(ended.await.unwrap(), []);
        let id = record.id.api_key().unwrap();
        assert!(is_record(&find(&store, id).await, &record));
    }
}

async fn gateway(server: &Server) -> Store {
    let engine = Engine::Redis(address(server.port));
    let store = open(engine, Duration::from_secs(2), metrics()).connect();
    tokio::spawn(store.clone().follow_changes(|_| false));
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    let fresh = async || store.near_cache().is_fresh();
    within(Duration::from_secs(5), "the cache is confirmed", fresh).await;
    store
}

#[tokio::test]
async fn change_reaches_the_caches_of_other_gateways() {
    let server = Server::start();
    let (one, other) = (gateway(&server).await, gateway(&server).await);
    let record = record(ApiKeyId::random());
    let id = record.id.api_key().unwrap();
    put(&one, &record).await;
    assert!(is_record(&find(&other, id).await, &record));
    assert!(other.near_cache().session(record.id).is_some());
    one.invalidate_api_keys(&[id]).await.unwrap();
    let is_gone = async || other.near_cache().session(record.id).is_none();
    within(Duration::from_secs(2), "the record is dropped", is_gone).await;
    assert_eq!(find(&other, id).await, SessionLookup::Missing);
}

#[tokio::test]
async fn record_in_use_is_kept() {
    let server = Server::start();
    let store = gateway(&server).await;
    let record = record(ApiKeyId::random());
    let id = record.id.api_key().unwrap();
    put(&store, &record).await;
    let mut client = server.client().await;
    let key = format!("{}api-key:{{{id}}}", crate::support::PREFIX);
    let ttl = async |client: &mut redis::aio::MultiplexedConnection| -> i64 {
        let mut command = redis::cmd("PTTL");
        command.arg(&key).query_async(client).await.unwrap()
    };
    let day = 24 * 60 * 60 * 1000;
    let fresh = ttl(&mut client).await;
    assert!((day - 60_000..=day).contains(&fresh), "{fresh}");
    for (set, extended) in [(day / 2 + 60_000, false), (day / 2 - 60_000, true)] {
        let mut command = redis::cmd("PEXPIRE");
        let set = command.arg(&key).arg(set);
        let _: i64 = set.query_async(&mut client).await.unwrap();
        store.extend_api_keys(&[id]).await.unwrap();
        let left = ttl(&mut client).await;
        assert_eq!(left > day / 2 + 60_000, extended, "{left}");
    }
}
