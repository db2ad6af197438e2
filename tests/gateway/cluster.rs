//! A cluster as the store, as clients of the gateway see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::nodes;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// A gateway, and what its keys begin with.
fn gateway(limit: u64) -> (Gateway, String) {
    let hosts = nodes::shared().ports().into_iter();
    let hosts: Vec<String> = hosts.map(|port| format!("127.0.0.1:{port}")).collect();
    let prefix = format!("gateway{}:", rand::random::<u64>());
    let window =
        json!({ "algorithm": "sliding_window", "limit": limit, "window": "10m", "key": "user" });
    let config = Config::new(Upstream::start().address)
        .store(&format!("redis+cluster://{}", hosts.join(",")))
        .set("/store/key_prefix", json!(prefix))
        // Other tests load the machine.
        .set("/store/timeout", json!("2s"))
        .limit("l", window);
    (Gateway::start(config), prefix)
}

fn statuses(public: SocketAddr, user: &SignedIn, stop: &AtomicBool) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    while !stop.load(Ordering::SeqCst) {
        let cookie = Request::get("/private/a").cookie(&user.cookie);
        let bearer = Request::get("/private/a").bearer(&user.access_token);
        for request in [cookie, bearer] {
            *statuses.entry(request.send(public).status).or_default() += 1;
        }
    }
    statuses
}

#[test]
fn sessions_and_limits_work_on_a_cluster() {
    let (gateway, _) = gateway(5);
    let alice = gateway.register("alice@example.com");
    let again = gateway.login("alice@example.com");
    let send = |user: &SignedIn| gateway.request(&Request::get("/private/a").cookie(&user.cookie));
    for n in 0..5 {
        let user = if n % 2 == 0 { &alice } else { &again };
        assert_eq!(send(user).status, 200);
    }
    send(&alice).assert_refused(429, "RATE_LIMITED");
    let listed = gateway.admin(Request::get("/admin/sessions")).json();
    assert_eq!(listed["data"]["count"], 2, "{listed}");
    let refresh = json!({ "refresh_token": again.refresh_token });
    let refreshed = gateway.request(&Request::post("/api/v1/auth/refresh").json(&refresh));
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    let logout = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    assert_eq!(gateway.request(&logout).status, 204);
    send(&alice).assert_refused(401, "SESSION_REVOKED");
    assert_eq!(gateway.admin(Request::get("/ready")).status, 200);
}

#[test]
fn slot_migration_under_load_fails_no_request() {
    let (gateway, prefix) = gateway(100_000_000);
    let alice = Arc::new(gateway.register("alice@example.com"));
    let stop = Arc::new(AtomicBool::new(false));
    let client = || {
        let (alice, stop, public) = (Arc::clone(&alice), Arc::clone(&stop), gateway.public);
        std::thread::spawn(move || statuses(public, &alice, &stop))
    };
    let clients = [client(), client()];
    let key = format!("{prefix}session:{{{}}}", alice.session);
    let (slot, home) = nodes::shared().owner(&key);
    let away = (home + 1) % 3;
    for (from, to) in [(home, away), (away, home)] {
        nodes::shared().move_slot(&slot, from, to);
    }
    let start = Instant::now();
    gateway.login("alice@example.com");
    eprintln!("signed in {:?} after the move", start.elapsed());
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let statuses = client.join().unwrap();
        assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    }
    // A revocation is received from whichever server has the session now.
    let path = format!("/admin/sessions/{}", alice.session);
    assert_eq!(gateway.admin(Request::delete(&path)).status, 200);
    eventually("the session is over", || {
        (!gateway.accepts(&alice)).then_some(())
    });
}
