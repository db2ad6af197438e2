//! Two gateways whose Redis dies: they share the limit meanwhile, and reconcile with Redis
//! afterwards.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

const PRESENCE_KEY: &str = "portcullis:gateways";

fn start(redis: &Redis, upstream: &Upstream) -> Gateway {
    let limit = json!({ "algorithm": "sliding_log", "limit": 10, "window": "10m", "key": "route" });
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .limit("shared", limit);
    Gateway::start(config)
}

/// Waits until each of two gateways has said that it is there after both had said so.
fn await_presence(redis: &Redis) {
    let output = || -> Vec<String> {
        let all = redis.command(&["HVALS", PRESENCE_KEY]);
        all.lines().map(str::to_owned).collect()
    };
    let first = eventually("there are two", || {
        Some(output()).filter(|it| it.len() == 2)
    });
    eventually("both have seen it", || {
        let now = output();
        now.iter().all(|it| !first.contains(it)).then_some(())
    });
}

fn count_admitted(gateway: &Gateway, path: &str, requested: usize) -> usize {
    let responses = (0..requested).map(|_| gateway.get(path));
    responses.filter(|response| response.status == 200).count()
}

#[test]
fn local_limits_are_shared_and_reconciled() {
    let (mut redis, upstream) = (Redis::start_persistent(), Upstream::start());
    let gateways = [start(&redis, &upstream), start(&redis, &upstream)];
    await_presence(&redis);
    let [one, two] = &gateways;
    // One counter is used up, and both gateways have seen that; two others are partly spent.
    assert_eq!(count_admitted(one, "/optional/a", 11), 10);
    assert_eq!(count_admitted(two, "/optional/a", 1), 0);
    assert_eq!(count_admitted(one, "/public/a", 1), 1);
    assert_eq!(count_admitted(two, "/public/a", 1), 1);
    redis.kill();
    for gateway in &gateways {
        assert_eq!(count_admitted(gateway, "/optional/a", 3), 0);
        let response = gateway.get("/public/a");
        assert_eq!(response.header("x-ratelimit-limit"), Some("5"));
        assert_eq!(response.header("x-ratelimit-remaining"), Some("3"));
        assert_eq!(count_admitted(gateway, "/public/a", 2), 2);
    }
    redis.restart();
    let left = |gateway: &Gateway| -> Option<Value> {
        let response = gateway.admin(Request::get("/admin/limits/shared/public"));
        (response.status == 200).then(|| response.data()["remaining"].clone())
    };
    eventually("Redis knows of all ten", || {
        (left(one)? == json!(10 - 2 - 6)).then_some(())
    });
    eventually("every worker of both asks it again", || {
        let sends = |gateway: &Gateway| {
            let links = Request::get("/ready").send(gateway.admin).json()["store"]["links"].clone();
            links["up"] == links["of"] && gateway.metric("portcullis_store_breaker", &[]) == 0.0
        };
        let done = |gateway| left(gateway) == Some(json!(2)) && sends(gateway);
        gateways.iter().all(done).then_some(())
    });
    let all = |path| count_admitted(one, path, 5) + count_admitted(two, path, 5);
    assert_eq!(all("/public/a"), 2);
    assert_eq!(all("/optional/a"), 0);
}

#[test]
fn gateways_together_admit_at_most_the_limit() {
    let (mut redis, upstream) = (Redis::start(), Upstream::start());
    let gateways = [start(&redis, &upstream), start(&redis, &upstream)];
    await_presence(&redis);
    redis.kill();
    let all: usize = std::thread::scope(|scope| {
        let pending = (0..4).map(|n| {
            let gateway = &gateways[n % 2];
            scope.spawn(move || count_admitted(gateway, "/public/a", 10))
        });
        let pending: Vec<_> = pending.collect();
        pending.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(all, 10);
}
