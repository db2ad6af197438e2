//! The journal of events.

use std::sync::Arc;
use std::time::Duration;

use portcullis::auth::session::EndReason;
use portcullis::events::{Event, EventKind, Events};
use portcullis::settings::Engine;
use portcullis::store::{Position, Store};

use crate::server::Server;
use crate::support::{PREFIX, address, engines, metrics, open, redis};

async fn fill(store: &Store, many: usize) -> Events {
    let events = Events::new(store.clone());
    for n in 0..many {
        let kind = if n % 2 == 0 {
            EventKind::SignIn
        } else {
            EventKind::SignOut
        };
        events.record(Event::new(kind).user(&n.to_string()));
    }
    store.flush_journal().await.unwrap();
    events
}

/// The users of some events.
fn users(events: &[portcullis::events::RecordedEvent]) -> Vec<usize> {
    let user = |recorded: &portcullis::events::RecordedEvent| {
        let user = recorded.event.get("user_id").unwrap().as_str().unwrap();
        user.parse().unwrap()
    };
    events.iter().map(user).collect()
}

#[tokio::test]
async fn events_are_paged_backwards_and_followed_forwards() {
    let (_server, stores) = engines().await;
    for store in stores {
        let events = fill(&store, 1200).await;
        let first = events.page(None, None, 3).await.unwrap();
        assert_eq!(users(&first.events), [1199, 1198, 1197]);
        let second = events
            .page(None, first.next_cursor.as_deref(), 2)
            .await
            .unwrap();
        assert_eq!(users(&second.events), [1196, 1195]);
        let outs = events.page(Some("sign_out"), None, 2).await.unwrap();
        assert_eq!(users(&outs.events), [1199, 1197]);
        let all = events.page(Some("sign_in"), None, 5000).await.unwrap();
        assert_eq!((all.events.len(), all.next_cursor), (600, None));
        let none = events.page(Some("revoked"), None, 5).await.unwrap();
        assert_eq!((none.events.len(), none.next_cursor), (0, None));

        let mut position = Position::after(&second.events[1].id);
        let after = events.after(&mut position, 3).await.unwrap();
        assert_eq!(users(&after), [1196, 1197, 1198]);
        let after = events.after(&mut position, 3).await.unwrap();
        assert_eq!(users(&after), [1199]);
        assert_eq!(events.after(&mut position, 3).await.unwrap(), []);
        let mut end = events.end().await.unwrap();
        assert_eq!(events.after(&mut end, 3).await.unwrap(), []);
        let oldest = events.after(&mut Position::after("0-0"), 2).await.unwrap();
        assert_eq!(users(&oldest), [0, 1]);
    }
}

#[tokio::test]
async fn event_json_is_flat_and_omits_unknown_fields() {
    let (_server, stores) = engines().await;
    for store in stores {
        let events = Events::new(store.clone());
        events.record(
            Event::new(EventKind::Revoked)
                .user("u")
                .reason(EndReason::Admin.as_str()),
        );
        store.flush_journal().await.unwrap();
        let recorded = events.page(None, None, 1).await.unwrap().events.remove(0);
        let mut value = serde_json::to_value(recorded).unwrap();
        let members = value.as_object_mut().unwrap();
        let time = members.remove("time").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'));
        assert!(
            members
                .remove("id")
                .unwrap()
                .as_str()
                .unwrap()
                .contains('-')
        );
        let expected = serde_json::json!({"event": "revoked", "user_id": "u", "reason": "admin"});
        assert_eq!(value, expected);
    }
}

#[tokio::test]
async fn oldest_events_are_dropped() {
    let (server, stores) = engines().await;
    for store in stores {
        fill(&store, 9_000).await;
        let events = fill(&store, 9_000).await;
        let oldest = events.after(&mut Position::after("0-0"), 1).await.unwrap();
        assert!(users(&oldest)[0] > 0);
        let kept = events.page(None, None, 20_000).await.unwrap().events.len();
        assert!((10_000..=10_300).contains(&kept), "{kept}");
    }
    let mut client = server.client().await;
    let mut question = redis::cmd("TTL");
    let ttl: i64 = question
        .arg(format!("{PREFIX}events"))
        .query_async(&mut client)
        .await
        .unwrap();
    assert!(ttl > 0);
}

/// All kinds together are one list, whichever way it is read.
async fn assert_one_list(events: &Events, many: usize) {
    let mut paged = Vec::new();
    let mut cursor = None;
    loop {
        let page = events.page(None, cursor.as_deref(), 701).await.unwrap();
        paged.extend(page.events);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let mut followed = Vec::new();
    let mut position = Position::after("0-0");
    loop {
        let more = events.after(&mut position, 701).await.unwrap();
        if more.is_empty() {
            break;
        }
        followed.extend(more);
    }
    assert_eq!(paged.len(), many);
    followed.reverse();
    assert_eq!(paged, followed);
}

#[tokio::test]
async fn bulk_events_are_coalesced() {
    let (_server, stores) = engines().await;
    for store in stores {
        let events = Events::new(store.clone());
        events.record(Event::new(EventKind::SignIn).user("7"));
        for n in 0..12_000_u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + n % 30).into();
            events.record(Event::new(EventKind::CsrfRejected).ip(address));
        }
        store.flush_journal().await.unwrap();
        events.flush();
        // More than the journal keeps of it, past what coalesces it.
        for n in 0..12_000 {
            store.append_journal(
                "sign_in_failed",
                format!("{{\"event\":\"sign_in_failed\",\"n\":{n}}}"),
            );
            if n % 500 == 0 {
                store.flush_journal().await.unwrap();
            }
        }
        store.flush_journal().await.unwrap();
        let page = events.page(Some("sign_in"), None, 5).await.unwrap();
        assert_eq!(users(&page.events), [7]);
        let page = events
            .page(Some("csrf_rejected"), None, 5000)
            .await
            .unwrap();
        let count = |event: &portcullis::events::RecordedEvent| {
            event
                .event
                .get("count")
                .map_or(1, |count| count.as_u64().unwrap())
        };
        assert_eq!(page.events.len(), 60);
        assert_eq!(page.events.iter().map(count).sum::<u64>(), 12_000);
        assert!(
            page.events
                .iter()
                .all(|event| event.event.contains_key("client_ip"))
        );
        let failed = events
            .page(Some("sign_in_failed"), None, 20_000)
            .await
            .unwrap();
        assert!(
            (2_000..=2_300).contains(&failed.events.len()),
            "{}",
            failed.events.len()
        );
        assert_one_list(&events, failed.events.len() + 61).await;
    }
}

#[tokio::test]
async fn registrations_in_bulk_are_coalesced_and_displace_no_other_kind() {
    let (_server, stores) = engines().await;
    for store in stores {
        let events = Events::new(store.clone());
        events.record(Event::new(EventKind::Revoked).user("7"));
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        for n in 0..12_000 {
            let registered = Event::new(EventKind::Registered).ip(address);
            events.record(registered.user(&n.to_string()));
        }
        events.flush();
        store.flush_journal().await.unwrap();
        let page = events.page(Some("revoked"), None, 5).await.unwrap();
        assert_eq!(users(&page.events), [7]);
        let page = events.page(Some("registered"), None, 5).await.unwrap();
        let counts = page.events.iter().map(|it| it.event.get("count").cloned());
        assert_eq!(counts.collect::<Vec<_>>(), [Some(11_999.into()), None]);
        assert!(!page.events[0].event.contains_key("user_id"));
    }
}

#[tokio::test]
async fn events_are_buffered_during_outage_and_drops_counted() {
    let server = Server::start();
    let store = redis(&server, Duration::from_secs(5)).await;
    let port = server.kill();
    let metrics = metrics();
    let away = open(
        Engine::Redis(address(port)),
        Duration::from_millis(200),
        Arc::clone(&metrics),
    );
    let away = away.connect();
    drop(store);
    let events = Events::new(away.clone());
    for n in 0..10_500 {
        events.record(Event::new(EventKind::SignIn).user(&n.to_string()));
    }
    assert_eq!(metrics.events_lost.get(), 500);
    assert!(away.flush_journal().await.is_err());
    let keeping = tokio::spawn(away.clone().run_journal_writer());
    let _server = Server::start_on(port, &[]);
    let written = async {
        loop {
            if let Ok(page) = events.page(None, None, 1).await
                && page
                    .events
                    .first()
                    .is_some_and(|last| users(std::slice::from_ref(last)) == [9_999])
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written)
        .await
        .unwrap();
    assert_eq!(metrics.events_lost.get(), 500);
    keeping.abort();
}

#[tokio::test]
async fn a_follower_gets_what_the_millisecond_of_its_start_brings_later() {
    let (server, [_, redis, _]) = engines().await;
    let mut client = server.client().await;
    let events = Events::new(redis.clone());
    let of_one_kind = format!("{PREFIX}events:{{{PREFIX}events}}:csrf_rejected");
    let of_all_others = format!("{PREFIX}events");
    let mut add = async |key: &str, id: &str, kind: &str, user: usize| {
        let event = format!("{{\"event\":\"{kind}\",\"user_id\":\"{user}\"}}");
        let mut adding = redis::cmd("XADD");
        adding.arg(key).arg(id).arg("kind").arg(kind);
        adding.arg("event").arg(event);
        adding.exec_async(&mut client).await.unwrap();
    };
    add(&of_one_kind, "7-0", "csrf_rejected", 1).await;
    add(&of_one_kind, "7-1", "csrf_rejected", 2).await;
    let mut position = events.end().await.unwrap();
    add(&of_all_others, "7-0", "revoked", 3).await;
    let followed = events.after(&mut position, 5).await.unwrap();
    assert_eq!(users(&followed), [3]);
    add(&of_one_kind, "9-0", "csrf_rejected", 4).await;
    let followed = events.after(&mut position, 5).await.unwrap();
    assert_eq!(users(&followed), [4]);
    // The clock of another server, after a failover.
    add(&of_all_others, "8-0", "revoked", 5).await;
    let followed = events.after(&mut position, 5).await.unwrap();
    assert_eq!(users(&followed), [5]);
}

#[tokio::test]
async fn key_of_another_type_is_replaced() {
    let (server, [_, redis, _]) = engines().await;
    let mut client = server.client().await;
    let mut spoiling = redis::cmd("SET");
    spoiling.arg(format!("{PREFIX}events")).arg(1);
    spoiling.exec_async(&mut client).await.unwrap();
    let events = Events::new(redis.clone());
    assert_eq!(events.page(None, None, 5).await.unwrap().events, []);
    assert_eq!(events.end().await.unwrap(), Position::after("0-0"));
    let mut position = Position::after("0-0");
    assert_eq!(events.after(&mut position, 5).await.unwrap(), []);
    let events = fill(&redis, 2).await;
    assert_eq!(
        users(&events.page(None, None, 5).await.unwrap().events),
        [1, 0]
    );
}
