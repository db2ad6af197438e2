//! The cost of a password hash is configured, and a reload is enough to raise it.

use std::time::Duration;

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::postgres::Postgres;
use crate::support::upstream::Upstream;

const COST: &str = "/identity/builtin/password_hash";

#[test]
fn sign_in_rehashes_after_a_cost_increase() {
    let (upstream, server) = (Upstream::start(), Postgres::server());
    let database = server.database();
    let config = Config::new(upstream.address).postgres(server.address, &database);
    let mut gateway = Gateway::start(config);
    let hash_of = |email: &str| {
        let query = format!("SELECT password_hash FROM users WHERE email = '{email}'");
        server.sql(&database, &query).unwrap()
    };
    let ann = gateway.register("ann@example.com");
    gateway.register("bob@example.com");
    let before = hash_of("ann@example.com");
    assert!(before.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    gateway.reload("applied", |config| {
        config.put(
            COST,
            json!({ "memory": "24MiB", "iterations": 3, "parallelism": 2 }),
        );
    });
    // A wrong password changes nothing.
    let wrong = json!({ "email": "ann@example.com", "password": "not the password" });
    let wrong = Request::post("/api/v1/auth/login").json(&wrong);
    gateway
        .request(&wrong)
        .assert_refused(401, "INVALID_CREDENTIALS");
    assert_eq!(hash_of("ann@example.com"), before);
    let again = gateway.login("ann@example.com");
    let risen = "$argon2id$v=19$m=24576,t=3,p=2$";
    let after = hash_of("ann@example.com");
    assert!(after.starts_with(risen), "{after}");
    // No session ends because of it, and the password is unchanged.
    assert!(gateway.accepts(&ann) && gateway.accepts(&again));
    gateway.login("ann@example.com");
    assert_eq!(hash_of("ann@example.com"), after);
    assert!(hash_of("bob@example.com").starts_with("$argon2id$v=19$m=19456,"));
    // New users and new passwords have the new cost at once.
    gateway.register("eve@example.com");
    assert!(hash_of("eve@example.com").starts_with(risen));
    let body = json!({ "current_password": PASSWORD, "new_password": "another-long-one-7" });
    let change = Request::new("PUT", "/api/v1/profile/password").json(&body);
    let changed = gateway.request(&change.bearer(&again.access_token));
    assert_eq!(changed.status, 204, "{}", changed.text());
    assert!(hash_of("ann@example.com").starts_with(risen));
    // A lower cost makes no hash weaker that there is.
    gateway.reload("applied", |config| config.put(COST, json!({})));
    gateway.login("eve@example.com");
    assert!(hash_of("eve@example.com").starts_with(risen));
}

#[test]
fn password_change_during_rehash_is_accepted() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let ann = gateway.register("ann@example.com");
    let mut password = PASSWORD.to_owned();
    let send = |gateway: &Gateway, current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        let change = Request::new("PUT", "/api/v1/profile/password").json(&body);
        gateway.request(&change.bearer(&ann.access_token)).status
    };
    for (turn, memory) in (20..25).enumerate() {
        // Each time the hash has become too cheap once more.
        gateway.reload("applied", |config| {
            config.put(COST, json!({ "memory": format!("{memory}MiB") }));
        });
        let next = format!("another-long-one-{turn}");
        let login = json!({ "email": "ann@example.com", "password": password });
        let login = Request::post("/api/v1/auth/login").json(&login);
        let changed = std::thread::scope(|scope| {
            let signing_in = scope.spawn(|| gateway.request(&login).status);
            // The sign-in is under way, and writes its hash while this one compares.
            std::thread::sleep(Duration::from_millis(5 * turn as u64));
            let changed = send(&gateway, &password, &next);
            assert!(matches!(signing_in.join().unwrap(), 200 | 401));
            changed
        });
        assert_eq!(changed, 204, "{turn}");
        password = next;
    }
}
