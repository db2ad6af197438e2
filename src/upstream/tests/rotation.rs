//! Rotation and selection of servers.

use std::collections::HashMap;

use super::*;
use crate::settings::HashKey;

/// Counts how often each server is chosen, with no request in flight.
fn counts(upstream: &Upstream, choices: usize) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    for _ in 0..choices {
        let chosen = upstream.choose(None, &[]).unwrap();
        *counts.entry(chosen.server()).or_default() += 1;
    }
    counts
}

/// Gives the first server a second address.
fn add_second_address(orders: &Upstream) {
    let server = orders.state.servers.first().unwrap();
    let connection = server.connection.as_ref().unwrap();
    let addresses = ["10.1.0.1:80", "10.1.0.2:80"].map(|address| address.parse().unwrap());
    let addresses = addresses.map(|address| Address::new(SocketAddress::Tcp(address), connection));
    server.set_addresses(addresses.into_iter().collect());
}

fn eject(upstream: &Upstream, server: usize) {
    let others: Vec<usize> = (0..upstream.settings().servers.len())
        .filter(|index| *index != server)
        .collect();
    for _ in 0..5 {
        let chosen = upstream.choose(None, &others).unwrap();
        assert_eq!(chosen.server(), server);
        chosen.report(AttemptOutcome::ConnectFailed);
    }
}

fn is_ejected(upstreams: &Upstreams, server: usize) -> bool {
    let description = upstreams.describe();
    let server = description.pointer(&format!("/0/servers/{server}"));
    !server.unwrap().get("ejected_until").unwrap().is_null()
}

#[tokio::test]
async fn round_robin_honors_weights_exactly() {
    let orders = start(upstream(
        unreachable_servers(&[1, 2, 7]),
        Balance::RoundRobin,
    ))
    .await;
    assert_eq!(
        counts(&orders, 1000),
        HashMap::from([(0, 100), (1, 200), (2, 700)])
    );
}

#[tokio::test]
async fn random_honors_weights_approximately() {
    let orders = start(upstream(unreachable_servers(&[1, 3]), Balance::Random)).await;
    let heavy = counts(&orders, 4000).get(&1).copied().unwrap_or_default();
    assert!((2700..3300).contains(&heavy), "{heavy}");
}

#[tokio::test]
async fn least_requests_weighs_requests_in_flight() {
    let orders = start(upstream(
        unreachable_servers(&[1, 3]),
        Balance::LeastRequests,
    ))
    .await;
    let held: Vec<ChosenServer> = (0..8).map(|_| orders.choose(None, &[]).unwrap()).collect();
    let light = held.iter().filter(|chosen| chosen.server() == 0).count();
    assert_eq!(light, 2);
    drop(held);
    let one = orders.choose(None, &[1]).unwrap();
    let next = orders.choose(None, &[]).unwrap();
    assert_eq!((one.server(), next.server()), (0, 1));
}

#[tokio::test]
async fn consistent_hash_moves_only_keys_of_removed_server() {
    let balance = Balance::ConsistentHash(HashKey::Ip);
    let orders = start(upstream(unreachable_servers(&[1, 1, 1]), balance)).await;
    let server_of = |key: u32| {
        let chosen = orders.choose(Some(&key.to_be_bytes()), &[]).unwrap();
        chosen.server()
    };
    let before: Vec<usize> = (0..1000).map(server_of).collect();
    assert_eq!(
        (0..1000).map(server_of).collect::<Vec<_>>(),
        before,
        "stable"
    );
    for server in 0..3 {
        let share = before.iter().filter(|chosen| **chosen == server).count();
        assert!((200..500).contains(&share), "{server} has {share}");
    }
    eject(&orders, 1);
    let mut moved = 0;
    for (key, was) in (0..).zip(before) {
        let now = server_of(key);
        if was == 1 {
            assert_ne!(now, 1);
            moved += 1;
        } else {
            assert_eq!(now, was, "key {key} had no reason to move");
        }
    }
    assert!(moved > 0);
}

#[tokio::test]
async fn tried_servers_are_not_chosen_again() {
    for balance in [
        Balance::RoundRobin,
        Balance::LeastRequests,
        Balance::Random,
        Balance::ConsistentHash(HashKey::User),
    ] {
        let orders = start(upstream(unreachable_servers(&[1, 100, 1]), balance)).await;
        for _ in 0..50 {
            assert_eq!(orders.choose(Some(b"key"), &[0, 1]).unwrap().server(), 2);
        }
        assert!(orders.choose(Some(b"key"), &[0, 1, 2]).is_none());
    }
}

#[tokio::test]
async fn retry_prefers_another_server_then_another_address() {
    let orders = start(upstream(
        unreachable_servers(&[1, 1]),
        Balance::LeastRequests,
    ))
    .await;
    add_second_address(&orders);
    let first = orders.choose(None, &[1]).unwrap();
    assert_eq!(orders.choose(None, &[0]).unwrap().server(), 1);
    let second = orders.choose(None, &[0, 1]).unwrap();
    assert_eq!(second.server(), 0);
    assert_ne!(second.address().socket(), first.address().socket());
    assert!(orders.choose(None, &[0, 1, 0]).is_none());
}

#[tokio::test(start_paused = true)]
async fn refusing_address_is_avoided_for_a_minute() {
    let orders = start(upstream(unreachable_servers(&[1]), Balance::RoundRobin)).await;
    add_second_address(&orders);
    let choose = || orders.choose(None, &[]).unwrap();
    let used = || choose().address().socket().to_string();
    let refusing = choose();
    let refused = refusing.address().socket().to_string();
    refusing.report(AttemptOutcome::ConnectFailed);
    assert!((0..10).all(|_| used() != refused));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!((0..2).any(|_| used() == refused));
    choose().report(AttemptOutcome::ConnectFailed);
    choose().report(AttemptOutcome::ConnectFailed);
    assert!(
        (0..2).any(|_| used() == refused),
        "when all refuse, all are tried"
    );
    refusing.report(AttemptOutcome::Success);
    assert!((0..10).all(|_| used() == refused));
}

#[tokio::test(start_paused = true)]
async fn consecutive_failures_eject_a_server_temporarily() {
    let settings = [upstream(unreachable_servers(&[1, 1]), Balance::RoundRobin)];
    let upstreams = build(&settings, None).await;
    let orders = upstreams.get(0).unwrap();
    eject(orders, 0);
    assert!(is_ejected(&upstreams, 0));
    assert_eq!(counts(orders, 10), HashMap::from([(1, 10)]));
    tokio::time::sleep(Duration::from_millis(4900)).await;
    assert_eq!(counts(orders, 10), HashMap::from([(1, 10)]));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!is_ejected(&upstreams, 0));
    assert_eq!(counts(orders, 10), HashMap::from([(0, 5), (1, 5)]));
    // On probation: the next failure is enough, and it stays out for longer.
    orders
        .choose(None, &[1])
        .unwrap()
        .report(AttemptOutcome::Timeout);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(counts(orders, 10), HashMap::from([(1, 10)]));
}

#[tokio::test]
async fn success_between_failures_prevents_ejection() {
    let settings = [upstream(unreachable_servers(&[1, 1]), Balance::RoundRobin)];
    let upstreams = build(&settings, None).await;
    let orders = upstreams.get(0).unwrap();
    for _ in 0..10 {
        let chosen = orders.choose(None, &[1]).unwrap();
        for _ in 0..4 {
            chosen.report(AttemptOutcome::ProtocolError);
        }
        chosen.report(AttemptOutcome::Success);
    }
    assert!(!is_ejected(&upstreams, 0));
}

#[tokio::test]
async fn ejection_never_removes_the_last_servers() {
    let orders = start(upstream(unreachable_servers(&[1, 1]), Balance::RoundRobin)).await;
    eject(&orders, 0);
    eject(&orders, 1);
    assert_eq!(counts(&orders, 10), HashMap::from([(0, 5), (1, 5)]));
    let chosen = orders.choose(None, &[1]).unwrap();
    chosen.report(AttemptOutcome::Success);
    assert_eq!(
        counts(&orders, 10),
        HashMap::from([(0, 10)]),
        "0 responded, 1 did not"
    );
}

#[tokio::test]
async fn reload_keeps_unchanged_upstreams_and_stops_removed_ones() {
    let kept = upstream(unreachable_servers(&[1, 1]), Balance::RoundRobin);
    let mut changed = checked(unreachable_servers(&[1]));
    changed.name = "other".into();
    let before = build(&[kept.clone(), changed.clone()], None).await;
    eject(before.get(0).unwrap(), 0);
    let in_flight = before.get(0).unwrap().choose(None, &[]).unwrap();
    changed.retries = 0;
    let after = build(&[changed, kept], Some(&before)).await;
    let (old, new) = (before.get(0).unwrap(), after.get(1).unwrap());
    assert!(Arc::ptr_eq(old, new));
    assert!(!Arc::ptr_eq(before.get(1).unwrap(), after.get(0).unwrap()));
    let description = after.describe();
    let server = |n: usize| description.pointer(&format!("/1/servers/{n}")).unwrap();
    assert_eq!(server(0).get("healthy").unwrap(), false);
    assert_eq!(server(1).get("in_flight").unwrap(), 1);
    drop(in_flight);
    let removed = Arc::downgrade(&before.get(1).unwrap().state);
    drop(before);
    // Aborted tasks drop their shared state at their next poll.
    let ended = async {
        while removed.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(5), ended)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn metrics_follow_the_rotation_and_end_with_the_server() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let series = |server: &str| {
        let text = metrics.render().unwrap();
        let labels =
            format!("portcullis_upstream_healthy{{server=\"{server}\",upstream=\"orders\"}} ");
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(labels.as_str()).map(str::to_owned))
    };
    let two = [Arc::new(upstream(
        unreachable_servers(&[1, 1]),
        Balance::RoundRobin,
    ))];
    let first = Upstreams::build(&two, None, &no_probe(), &metrics, Handle::current()).await;
    assert_eq!(series("http://10.0.0.0:80").as_deref(), Some("1"));
    eject(first.get(0).unwrap(), 0);
    assert_eq!(series("http://10.0.0.0:80").as_deref(), Some("0"));
    let one = [Arc::new(upstream(
        unreachable_servers(&[1]),
        Balance::RoundRobin,
    ))];
    let _second =
        Upstreams::build(&one, Some(&first), &no_probe(), &metrics, Handle::current()).await;
    assert_eq!(series("http://10.0.0.0:80").as_deref(), Some("1"));
    assert_eq!(series("http://10.0.0.1:80"), None);
}
