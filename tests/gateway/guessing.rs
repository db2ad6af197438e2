//! Concurrent guesses: at most the allowed number of failures is reported as wrong.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

const LIMIT: usize = 3;
const CONCURRENT: usize = 16;

fn limits() -> Value {
    json!({
        "attempts_per_address": { "limit": 1000, "window": "1m" },
        "failures_per_account": { "limit": LIMIT, "window": "10m" },
    })
}

/// How many of these logins, sent to the gateways in turn and all at once, get each status: 200, 401
/// and 429.
fn login_concurrently(gateways: &[SocketAddr], logins: &[Value]) -> [usize; 3] {
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let pending: Vec<_> = logins
            .iter()
            .zip(gateways.iter().cycle())
            .map(|(body, gateway)| {
                let login = Request::post("/api/v1/auth/login").json(body);
                scope.spawn(move || login.send(*gateway).status)
            })
            .collect();
        pending.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let counts = [200, 401, 429].map(|wanted| {
        let such = statuses.iter().filter(|status| **status == wanted);
        such.count()
    });
    assert_eq!(counts.iter().sum::<usize>(), logins.len(), "{statuses:?}");
    counts
}

#[test]
fn concurrent_guesses_at_a_backend_learn_no_more() {
    let (backend, redis) = (Backend::start("ann", "secret-of-ann"), Redis::start());
    let config = || {
        let config = Config::new(Upstream::start().address).store(&redis.url());
        config.set(
            "/identity",
            json!({ "upstream": {
                "login": format!("POST http://{}/login", backend.address),
                "user_id": "/id",
                "account": ["username"],
                "sign_in_limits": limits(),
            } }),
        )
    };
    let fleet = [Gateway::start(config()), Gateway::start(config())];
    let fleet = [fleet[0].public, fleet[1].public, fleet[0].public];
    let wrong = json!({ "username": "ann", "password": "a guess" });
    let right = json!({ "username": "ann", "password": "secret-of-ann" });
    // Right ones at once are no guesses.
    let many = vec![right.clone(); CONCURRENT];
    assert_eq!(login_concurrently(&fleet, &many), [CONCURRENT, 0, 0]);
    let guesses = vec![wrong; CONCURRENT];
    assert_eq!(
        login_concurrently(&fleet, &guesses),
        [0, LIMIT, CONCURRENT - LIMIT]
    );
    // Nor is the right password confirmed among too many guesses.
    assert_eq!(login_concurrently(&fleet, &[right]), [0, 0, 1]);
}

#[test]
fn concurrent_guesses_at_builtin_users_learn_no_more() {
    let redis = Redis::start();
    let gateway = Gateway::start(
        Config::new(Upstream::start().address)
            .store(&redis.url())
            .set("/identity/builtin/sign_in_limits", limits()),
    );
    gateway.register("ann@example.com");
    let login = |email: &str, password: &str| json!({ "email": email, "password": password });
    let fleet = [gateway.public];
    let right = vec![login("ann@example.com", PASSWORD); CONCURRENT];
    assert_eq!(login_concurrently(&fleet, &right), [CONCURRENT, 0, 0]);
    for email in ["ann@example.com", "nobody@example.com"] {
        let guesses = vec![login(email, "not the password"); CONCURRENT];
        let reported = login_concurrently(&fleet, &guesses);
        assert_eq!(reported, [0, LIMIT, CONCURRENT - LIMIT], "{email}");
    }
}
