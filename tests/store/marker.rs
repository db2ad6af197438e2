//! The marker by which a loss of data is detected, and the data that is restored afterwards.

use std::time::Duration;

use portcullis::settings::{Engine, RedisAddress, Topology};
use portcullis::store::{CacheKey, MarkerState, Revocation, Store, user_hash};

use crate::nodes::Nodes;
use crate::support::{address, engines, metrics, node, open_with_prefix};

async fn complete_marker(store: &Store) -> Option<(String, u64)> {
    match store.marker_state().await.unwrap() {
        MarkerState::Complete(marker) => Some((marker.id, marker.global_cut_off)),
        MarkerState::Absent | MarkerState::Partial(_) => None,
    }
}

#[tokio::test]
async fn marker_is_created_once() {
    let (_server, stores) = engines().await;
    for store in stores {
        assert_eq!(store.marker_state().await.unwrap(), MarkerState::Absent);
        // Gateways that start at once agree.
        let (one, two) = tokio::join!(store.write_marker(0), store.write_marker(0));
        assert_eq!(one.unwrap().id, two.unwrap().id);
        let (id, refused) = complete_marker(&store).await.unwrap();
        assert_eq!(refused, 0);
        for (second, expected) in [(7, 7), (3, 7), (9, 9)] {
            let marker = store.write_marker(second).await.unwrap();
            assert_eq!(
                (marker.id.as_str(), marker.global_cut_off),
                (id.as_str(), expected)
            );
            assert_eq!(complete_marker(&store).await, Some((id.clone(), expected)));
        }
        store.extend_marker().await.unwrap();
    }
}

#[tokio::test]
async fn invalid_marker_is_replaced() {
    let (server, [_, redis, _]) = engines().await;
    let mut client = server.client().await;
    for (command, value) in [("SET", "nonsense"), ("SET", "xyz 1"), ("RPUSH", "a")] {
        let key = format!("{}marker", redis.key_prefix());
        let _: () = redis::cmd("DEL")
            .arg(&key)
            .query_async(&mut client)
            .await
            .unwrap();
        let mut breaking = redis::cmd(command);
        let _: i64 = breaking
            .arg(&key)
            .arg(value)
            .query_async(&mut client)
            .await
            .unwrap_or(0);
        assert_eq!(
            redis.marker_state().await.unwrap(),
            MarkerState::Absent,
            "{value}"
        );
        redis.write_marker(4).await.unwrap();
        assert_eq!(complete_marker(&redis).await.unwrap().1, 4);
    }
}

#[tokio::test]
async fn restored_revocations_are_enforced_and_not_shortened() {
    let (_server, stores) = engines().await;
    let hour = Duration::from_secs(3600);
    for store in stores {
        let now = store.now().await.unwrap();
        store.blacklist("longer", 2 * hour).await.unwrap();
        store.cut_off("later").await.unwrap();
        let later = store.cut_offs(&["later"]).await.unwrap()[0];
        let token = |key: &str| (Revocation::Token(key.to_owned()), now + 3_600_000);
        let person = |name: &str| {
            (
                Revocation::IssuedBefore(user_hash(name), 7),
                now + 3_600_000,
            )
        };
        let lost = [
            token("lost"),
            token("longer"),
            person("lost"),
            person("later"),
        ];
        store.restore_revocations(&lost, now).await.unwrap();
        let left = store
            .blacklist_ttls(&["lost", "longer", "none"])
            .await
            .unwrap();
        let lost = left["lost"].unwrap();
        assert!(lost <= hour && lost > hour / 2);
        assert!(left["longer"].unwrap() > hour);
        assert_eq!(left["none"], None);
        let seconds = store.cut_offs(&["lost", "later"]).await.unwrap();
        assert_eq!(seconds, [Some(7), later]);
        if !store.is_in_process() {
            let standing = store.list_revocations().await.unwrap();
            assert_eq!(standing.len(), 4, "{standing:?}");
            assert!(standing.contains(&CacheKey::Token("lost".to_owned())));
        }
    }
}

#[tokio::test]
async fn empty_master_loses_its_part_of_the_marker() {
    // Longer than a restart takes: its replica does not take over.
    let mut nodes = Nodes::start("60000");
    let cluster = RedisAddress {
        topology: Topology::Cluster(nodes.ports().into_iter().map(node).collect()),
        ..address(0)
    };
    let timeout = Duration::from_secs(2);
    let store =
        open_with_prefix(Engine::Redis(cluster), "p:".to_owned(), timeout, metrics()).connect();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    let made = store.write_marker(0).await.unwrap();
    for key in ["p:blacklist:a", "p:blacklist:b", "p:blacklist:c"] {
        let (_, place) = nodes.owner(key);
        let before = store.reconnects();
        nodes.empty(place);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let found = loop {
            if store.reconnects() > before
                && let Ok(found) = store.marker_state().await
            {
                break found;
            }
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(found, MarkerState::Partial(made.clone()));
        assert_eq!(store.write_marker(0).await.unwrap(), made);
        assert_eq!(complete_marker(&store).await, Some((made.id.clone(), 0)));
    }
}
