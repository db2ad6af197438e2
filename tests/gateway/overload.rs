//! Overloaded workers: their own delay is not attributed to the store.

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, signal};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

/// The default limit of open files per process, less those of other uses.
const CLIENTS: usize = 800;
/// Waves in which each request gets a response, and the maximum number of waves tried. If the
/// gateway's own slowness counted against the store, there would be none.
const CLEAN: usize = 4;
const WAVES: usize = 200;
/// Less than the worker takes for one wave, and more than Redis takes for a batch of it.
const STORE_TIMEOUT: &str = "10ms";

#[test]
fn worker_overload_is_not_counted_as_store_failure() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let alice = {
        // With the store timeout of the other tests.
        let gateway = Gateway::start(Config::new(upstream.address).store(&redis.url()));
        gateway.register("alice@example.com")
    };
    let config = Config::new(upstream.address)
        .store(&redis.url())
        // Every request gets as far as the store, which is queried each time.
        .set("/store/timeout", json!(STORE_TIMEOUT))
        .route(json!({
            "name": "closed", "match": { "prefix": "/closed" }, "auth": "required",
            "require": { "roles": ["nobody"] }, "limits": ["wide"], "upstream": "echo",
        }))
        .set(
            "/limits/wide",
            json!({ "algorithm": "sliding_window", "limit": 1_000_000, "window": "1m", "key": "ip" }),
        );
    // On one core there is one worker.
    let gateway = Gateway::start_after(config, "taskset -p -c 0 $$ >/dev/null");
    let request = Request::get("/closed").bearer(&alice.access_token);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::connect(gateway.public))
        .collect();
    let (mut waves, mut clean, mut refused) = (0, 0, 0);
    while clean < CLEAN && waves < WAVES {
        // All requests are there when the worker looks.
        signal(gateway.pid(), "STOP");
        for client in &mut clients {
            client.send(request.to_bytes());
        }
        signal(gateway.pid(), "CONT");
        let mut unavailable = 0;
        for client in &mut clients {
            let response = client.read_response();
            // Where other processes leave no CPU to Redis, it is Redis that is slow.
            match response.status {
                403 => refused += 1,
                503 => unavailable += 1,
                other => panic!("wave {waves}: {other} {}", response.text()),
            }
        }
        waves += 1;
        clean += usize::from(unavailable == 0);
    }
    let logs = gateway.logs();
    assert_eq!(clean, CLEAN, "of {waves} waves\n{logs}");
    let decided = "portcullis_store_operation_duration_seconds_count";
    let decided = gateway.metric(decided, &["operation=\"decide\""]);
    assert!(decided >= f64::from(refused), "{decided} of {refused}");
    assert!(
        waves > CLEAN || !logs.contains("store breaker changed"),
        "{logs}"
    );
}
