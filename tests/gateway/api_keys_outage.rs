//! API keys while the store, the database, or both are away; and a flood of keys that do not exist.

use serde_json::json;

use crate::support::api_keys::{KeyOperator, ShownKey, with_checksum};
use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::Gateway;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};

struct Fixture {
    gateways: [Gateway; 2],
    operator: KeyOperator,
    redis: Redis,
    /// The lines of the gateways to the database.
    database: FaultProxy,
    _upstream: Upstream,
}

fn start() -> Fixture {
    let (upstream, redis, server) = (Upstream::start(), Redis::start(), Postgres::server());
    let name = server.database();
    let database = FaultProxy::before(server.address);
    let config = |address| {
        Config::new(upstream.address)
            .set("/api_keys", json!({}))
            .set("/store/timeout", json!("300ms"))
            .store(&redis.url())
            .postgres(address, &name)
    };
    let gateways = [
        Gateway::start(config(database.address)),
        Gateway::start(config(database.address)),
    ];
    Fixture {
        operator: KeyOperator::of(&config(server.address)),
        gateways,
        redis,
        database,
        _upstream: upstream,
    }
}

fn request(gateway: &Gateway, key: &ShownKey) -> Response {
    gateway.request(&Request::get("/private/a").bearer(&key.key))
}

impl Fixture {
    fn key(&self) -> ShownKey {
        self.operator.create("service:billing", |_| {})
    }

    fn await_store(&self, up: f64) {
        for gateway in &self.gateways {
            eventually("the store's state is noticed", || {
                (gateway.metric("portcullis_store_up", &[]) == up).then_some(())
            });
        }
    }
}

#[test]
fn cached_keys_continue_without_the_database() {
    let fixture = start();
    let [one, two] = &fixture.gateways;
    let (cached, new) = (fixture.key(), fixture.key());
    eventually("the key is in the store", || {
        request(one, &cached).assert_ok();
        let keys = fixture.redis.keys();
        keys.iter()
            .any(|key| key.contains(cached.id.as_str()))
            .then_some(())
    });
    fixture.database.refuse();
    fixture.database.cut();
    for _ in 0..3 {
        request(one, &cached).assert_ok();
        // This gateway has it from the store.
        request(two, &cached).assert_ok();
        request(one, &new).assert_refused(503, "STORE_UNAVAILABLE");
        request(two, &new).assert_refused(503, "STORE_UNAVAILABLE");
    }
    fixture.database.restore();
    within(PROPAGATION_DEADLINE * 3, "the database is back", || {
        (request(one, &new).status == 200).then_some(())
    });
}

#[test]
fn keys_continue_without_the_store() {
    let mut fixture = start();
    let (known, new, revoked) = (fixture.key(), fixture.key(), fixture.key());
    for gateway in &fixture.gateways {
        request(gateway, &known).assert_ok();
        request(gateway, &revoked).assert_ok();
    }
    fixture.redis.kill();
    fixture.await_store(0.0);
    for gateway in &fixture.gateways {
        request(gateway, &known).assert_ok();
        request(gateway, &new).assert_ok();
    }
    // Not confirmed, and in force all the same: the gateways ask the database.
    assert!(!fixture.operator.revoke(&revoked));
    for gateway in &fixture.gateways {
        within(PROPAGATION_DEADLINE, "the revocation is in force", || {
            let response = request(gateway, &revoked);
            (response.status != 200).then(|| response.assert_refused(401, "TOKEN_REVOKED").status)
        });
    }
    // Without the database too, those that the gateway has seen continue.
    let unseen = fixture.key();
    fixture.database.refuse();
    fixture.database.cut();
    let gateway = &fixture.gateways[0];
    request(gateway, &known).assert_ok();
    request(gateway, &unseen).assert_refused(503, "STORE_UNAVAILABLE");
    assert_ne!(request(gateway, &revoked).status, 200);
    fixture.database.restore();
    fixture.redis.restart();
    fixture.await_store(1.0);
    for gateway in &fixture.gateways {
        within(PROPAGATION_DEADLINE * 3, "all is well again", || {
            (request(gateway, &unseen).status == 200).then_some(())
        });
        request(gateway, &revoked).assert_refused(401, "TOKEN_REVOKED");
    }
}

#[test]
fn invented_keys_do_not_flood_the_database() {
    let fixture = start();
    let gateway = &fixture.gateways[0];
    let (known, operator) = (fixture.key(), &fixture.operator);
    request(gateway, &known).assert_ok();
    // Each of them is the beginning of keys with other IDs, which do not exist.
    let invented: Vec<String> = (0..8)
        .map(|_| operator.create("service:flood", |_| {}).key)
        .collect();
    let mut refused = 0;
    std::thread::scope(|scope| {
        let floods: Vec<_> = invented
            .iter()
            .map(|key| {
                scope.spawn(move || {
                    let mut client = Client::connect(gateway.public);
                    let mut blocked = 0;
                    for number in 0..60 {
                        let text = with_id(key, number);
                        let response = client.request(&Request::get("/private/a").bearer(&text));
                        assert!(matches!(response.status, 401 | 503), "{}", response.text());
                        blocked += usize::from(response.status == 503);
                    }
                    blocked
                })
            })
            .collect();
        while floods.iter().any(|flood| !flood.is_finished()) {
            request(gateway, &known).assert_ok();
        }
        for flood in floods {
            refused += flood.join().unwrap();
        }
    });
    assert!(refused > 0, "all were looked up");
}

/// A key with another ID and the right checksum.
fn with_id(key: &str, number: usize) -> String {
    let (start, rest) = key.split_at(4);
    let (id, secret) = rest.split_at(16);
    let (secret, _) = secret.split_at(44);
    with_checksum(&format!("{start}{}{number:04}{secret}", id.split_at(12).0))
}
