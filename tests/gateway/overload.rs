//! Workers that have more to do than they can: what takes long then is not the store.

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

/// As many as a process may have files open where nobody has changed it, less those of others.
const CLIENTS: usize = 800;
const WAVES: usize = 4;

#[test]
fn busy_workers_do_not_take_their_own_slowness_for_the_stores() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let config = Config::new(upstream.address)
        .store(&redis.url())
        // Nobody gets further than the store, which is asked each time.
        .set("/store/timeout", json!("100ms"))
        .route(json!({
            "name": "closed", "match": { "prefix": "/closed" }, "auth": "required",
            "require": { "roles": ["nobody"] }, "limits": ["wide"], "upstream": "echo",
        }))
        .set(
            "/limits/wide",
            json!({ "algorithm": "sliding_window", "limit": 1_000_000, "window": "1m", "key": "ip" }),
        );
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    let request = Request::get("/closed").bearer(&alice.access_token);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::connect(gateway.public))
        .collect();
    for wave in 0..WAVES {
        for client in &mut clients {
            client.send(request.to_bytes());
        }
        for client in &mut clients {
            let answer = client.answer();
            assert_eq!(answer.status, 403, "wave {wave}: {}", answer.text());
        }
    }
    let asked = "portcullis_store_operation_duration_seconds_count";
    let asked = gateway.metric(asked, &["operation=\"decide\""]);
    assert!(asked >= (CLIENTS * WAVES) as f64, "{asked}");
    let logs = gateway.logs();
    assert!(!logs.contains("the store's breaker"), "{logs}");
}
