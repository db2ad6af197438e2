//! API keys on two gateways that share a Redis and a database: every end is in force on both within a
//! second, and closes what the key opened.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::support::api_keys::{KeyOperator, ShownKey};
use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, within};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

struct Fleet {
    gateways: [Gateway; 2],
    operator: KeyOperator,
    redis: Redis,
    _upstream: Upstream,
}

fn start() -> Fleet {
    let (upstream, redis, server) = (
        Upstream::start(),
        Redis::start_persistent(),
        Postgres::server(),
    );
    let database = server.database();
    let config = || {
        Config::new(upstream.address)
            .set("/api_keys", json!({}))
            .store(&redis.url())
            .postgres(server.address, &database)
    };
    let gateways = [Gateway::start(config()), Gateway::start(config())];
    Fleet {
        operator: KeyOperator::of(&gateways[0].config),
        gateways,
        redis,
        _upstream: upstream,
    }
}

fn request(gateway: &Gateway, key: &ShownKey) -> Response {
    gateway.request(&Request::get("/private/a").bearer(&key.key))
}

fn open(to: SocketAddr, key: &ShownKey) -> WebSocketClient {
    let authorization = format!("Bearer {}", key.key);
    let headers = [("authorization", authorization.as_str())];
    let mut socket = WebSocketClient::open(to, "/private/ws", &headers)
        .ok()
        .unwrap();
    assert_eq!(socket.echo("hello"), "hello");
    socket
}

impl Fleet {
    fn key(&self) -> ShownKey {
        self.operator.create("service:billing", |_| {})
    }

    /// Uses a key everywhere until both gateways know it well, and opens a socket on each.
    fn make_known(&self, key: &ShownKey) -> Vec<WebSocketClient> {
        let open_on = |gateway: &Gateway| {
            for _ in 0..5 {
                request(gateway, key).assert_ok();
            }
            open(gateway.public, key)
        };
        self.gateways.iter().map(open_on).collect()
    }

    fn await_end(&self, key: &ShownKey, mut sockets: Vec<WebSocketClient>, code: &str) {
        for gateway in &self.gateways {
            within(PROPAGATION_DEADLINE, "the key ends everywhere", || {
                let response = request(gateway, key);
                (response.status != 200).then(|| response.assert_refused(401, code).status)
            });
        }
        for socket in &mut sockets {
            assert_eq!(
                socket.close_code(PROPAGATION_DEADLINE),
                Some(POLICY_VIOLATION)
            );
        }
    }
}

#[test]
fn revocation_is_in_force_everywhere() {
    let fleet = start();
    let (key, other) = (fleet.key(), fleet.key());
    let sockets = fleet.make_known(&key);
    let mut kept = fleet.make_known(&other);
    assert!(fleet.operator.revoke(&key));
    fleet.await_end(&key, sockets, "TOKEN_REVOKED");
    for (gateway, socket) in fleet.gateways.iter().zip(&mut kept) {
        request(gateway, &other).assert_ok();
        assert_eq!(socket.echo("still"), "still");
    }
    let secret = other.key.split_at(40).1;
    assert!(!fleet.redis.dump().contains(secret));
}

#[test]
fn replaced_secret_ends_with_its_grace() {
    let fleet = start();
    let first = fleet.key();
    let sockets = fleet.make_known(&first);
    let second = fleet.operator.rotate(&first, Duration::from_secs(2));
    let mut later = fleet.make_known(&second);
    for gateway in &fleet.gateways {
        request(gateway, &first).assert_ok();
    }
    let grace = Duration::from_secs(2);
    for gateway in &fleet.gateways {
        within(grace + PROPAGATION_DEADLINE, "the grace ends", || {
            let response = request(gateway, &first);
            (response.status != 200).then(|| response.assert_refused(401, "TOKEN_REVOKED").status)
        });
    }
    fleet.await_end(&first, sockets, "TOKEN_REVOKED");
    for (gateway, socket) in fleet.gateways.iter().zip(&mut later) {
        request(gateway, &second).assert_ok();
        assert_eq!(socket.echo("still"), "still");
    }
    // Without a grace at once.
    let third = fleet.operator.rotate(&second, Duration::ZERO);
    fleet.await_end(&second, later, "TOKEN_REVOKED");
    fleet.make_known(&third);
}

#[test]
fn owner_decides_everywhere() {
    let fleet = start();
    let [one, two] = &fleet.gateways;
    let ann = one.register("ann@example.com");
    let path = format!("/admin/users/{}", ann.user);
    let patch = |body| {
        let request = Request::new("PATCH", &path).json(&body);
        one.admin(request).assert_ok();
    };
    patch(json!({ "roles": ["editor"] }));
    let key = fleet
        .operator
        .create(&ann.user, |new| new.roles = vec!["editor".to_owned()]);
    let roles = || {
        request(two, &key)
            .echo()
            .header("x-user-roles")
            .unwrap_or_default()
    };
    assert_eq!(roles(), "editor");
    let mut sockets = fleet.make_known(&key);
    patch(json!({ "roles": [] }));
    within(PROPAGATION_DEADLINE, "the role is gone", || {
        roles().is_empty().then_some(())
    });
    for socket in &mut sockets {
        assert_eq!(socket.echo("still"), "still");
    }
    patch(json!({ "disabled": true }));
    fleet.await_end(&key, sockets, "TOKEN_REVOKED");
    patch(json!({ "disabled": false }));
    within(PROPAGATION_DEADLINE, "the owner is back", || {
        (request(two, &key).status == 200).then_some(())
    });
    let sockets = fleet.make_known(&key);
    assert_eq!(one.admin(Request::delete(&path)).status, 204);
    fleet.await_end(&key, sockets, "TOKEN_REVOKED");
}

#[test]
fn nothing_revoked_comes_back_with_the_store() {
    let mut fleet = start();
    let (key, other) = (fleet.key(), fleet.key());
    let sockets = fleet.make_known(&key);
    let kept = fleet.make_known(&other);
    let record = format!("portcullis:api-key:{{{}}}", key.id);
    let backup = format!("backup:{{{}}}", key.id);
    assert_eq!(fleet.redis.command(&["COPY", &record, &backup]), "1");
    assert!(fleet.operator.revoke(&key));
    fleet.await_end(&key, sockets, "TOKEN_REVOKED");
    // The server comes back with an older state, as after a failover to a replica that was behind.
    fleet.redis.transaction(&[
        &format!("COPY {backup} {record} REPLACE"),
        "CLIENT KILL TYPE normal",
        "CLIENT KILL TYPE pubsub",
    ]);
    refused_for_a_while(&fleet, &key);
    // The server loses everything.
    fleet.redis.command(&["FLUSHALL"]);
    refused_for_a_while(&fleet, &key);
    fleet.redis.kill();
    fleet.redis.restart();
    refused_for_a_while(&fleet, &key);
    drop(kept);
    for gateway in &fleet.gateways {
        request(gateway, &other).assert_ok();
    }
}

/// For longer than gateways take to connect again.
fn refused_for_a_while(fleet: &Fleet, key: &ShownKey) {
    let until = std::time::Instant::now() + Duration::from_secs(2);
    while std::time::Instant::now() < until {
        for gateway in &fleet.gateways {
            let response = request(gateway, key);
            assert!(matches!(response.status, 401 | 503), "{}", response.text());
        }
    }
}
