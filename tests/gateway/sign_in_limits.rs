//! Limits on sign-ins: what they reveal about accounts, how spellings of an account are counted,
//! and what is left for its owner while others guess.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::upstream::Upstream;

const LOGIN: &str = "/api/v1/auth/login";

fn config(upstream: SocketAddr, attempts: u32, failures: u32) -> Config {
    Config::new(upstream)
        .set("/listeners/0/trusted_proxies", json!(["127.0.0.1/32"]))
        .set(
            "/identity/builtin/sign_in_limits",
            json!({
                "attempts_per_address": { "limit": attempts, "window": "1h" },
                "failures_per_account": { "limit": failures, "window": "1h" },
            }),
        )
}

fn register(gateway: &Gateway, email: &str, username: &str) {
    let body = json!({ "email": email, "username": username, "password": PASSWORD });
    let response = gateway.request(&Request::post("/api/v1/auth/register").json(&body));
    assert_eq!(response.status, 201, "{}", response.text());
}

fn login(gateway: &Gateway, from: &str, body: &Value) -> Response {
    gateway.request(
        &Request::post(LOGIN)
            .header("X-Forwarded-For", from)
            .json(body),
    )
}

/// Everything that a response tells of the limits, but for the time that has passed.
fn error_body(response: &Response) -> Value {
    let remaining = |item: &str| item.split(";t=").next().unwrap().to_owned();
    let items: Vec<String> = response
        .header("ratelimit")
        .map(|value| value.split(", ").map(remaining).collect())
        .unwrap_or_default();
    json!({
        "status": response.status,
        "limit": response.header("x-ratelimit-limit"),
        "remaining": response.header("x-ratelimit-remaining"),
        "policy": response.header("ratelimit-policy"),
        "items": items,
        "retries": response.header("retry-after").is_some(),
    })
}

#[test]
fn limits_do_not_reveal_account_aliases() {
    let gateway = Gateway::start(config(Upstream::start().address, 1000, 3));
    register(&gateway, "ann@example.com", "ann");
    // From another address each: what it has used of its own limit is no difference.
    let seen = |from: &str, names: [Value; 2]| -> Vec<Value> {
        let guesses = names.iter().cycle().take(10);
        let guess = |name: &Value| {
            let mut body = name.clone();
            body["password"] = json!("not the password");
            error_body(&login(&gateway, from, &body))
        };
        guesses.map(guess).collect()
    };
    let cached = seen(
        "192.0.2.1",
        [
            json!({ "email": "ann@example.com" }),
            json!({ "username": "ann" }),
        ],
    );
    let unknown = seen(
        "192.0.2.2",
        [
            json!({ "email": "bob@example.com" }),
            json!({ "username": "bob" }),
        ],
    );
    assert_eq!(cached, unknown);
    assert_eq!(cached.last().unwrap()["status"], 429);
}

#[test]
fn attempts_cost_the_same_for_every_account() {
    let gateway = Gateway::start(config(Upstream::start().address, 1000, 3));
    register(&gateway, "ann@example.com", "ann");
    let own = json!({ "email": "ann@example.com", "password": PASSWORD });
    login(&gateway, "192.0.2.1", &own).assert_ok();
    let work = |from: &str, name: Value| {
        let mut body = name;
        body["password"] = json!("not the password");
        let looked = || {
            let looked = "portcullis_store_operation_duration_seconds_count";
            gateway.metric(looked, &["operation=\"peek_limit\""])
        };
        let before = looked();
        login(&gateway, from, &body).assert_refused(401, "INVALID_CREDENTIALS");
        looked() - before
    };
    let unknown = work("192.0.2.2", json!({ "email": "bob@example.com" }));
    assert!(unknown > 0.0);
    let known_here = work("192.0.2.1", json!({ "email": "ann@example.com" }));
    assert_eq!(known_here, unknown);
    for _ in 0..3 {
        work("192.0.2.3", json!({ "username": "ann" }));
    }
    // The account is over its limit, and the name is not.
    let over = work("192.0.2.3", json!({ "email": "ann@example.com" }));
    assert_eq!(over, unknown);
}

#[test]
fn account_aliases_share_the_guess_limit() {
    let gateway = Gateway::start(config(Upstream::start().address, 1000, 4));
    register(&gateway, "ann@example.com", "ann");
    let request = |from: &str, name: Value, password: &str| {
        let mut body = name;
        body["password"] = json!(password);
        login(&gateway, from, &body)
    };
    let (email, username) = (
        json!({ "email": "ann@example.com" }),
        json!({ "username": "ann" }),
    );
    for name in [&email, &username, &email, &username] {
        request("192.0.2.1", name.clone(), "not the password")
            .assert_refused(401, "INVALID_CREDENTIALS");
    }
    // Neither name is over its limit. The account is, which only its owner could tell.
    for name in [&email, &username] {
        request("192.0.2.1", name.clone(), PASSWORD).assert_refused(401, "INVALID_CREDENTIALS");
    }
    request("192.0.2.9", email, PASSWORD).assert_ok();
}

#[test]
fn admin_unlocks_an_account_under_all_names() {
    let gateway = Gateway::start(config(Upstream::start().address, 1000, 2));
    register(&gateway, "ann@example.com", "ann");
    let request = |name: &Value, password: &str| {
        let mut body = name.clone();
        body["password"] = json!(password);
        login(&gateway, "192.0.2.1", &body)
    };
    let names = [
        json!({ "email": "ann@example.com" }),
        json!({ "username": "ann" }),
    ];
    for name in names.iter().cycle().take(4) {
        request(name, "not the password");
    }
    for name in &names {
        request(name, PASSWORD).assert_refused(429, "RATE_LIMITED");
    }
    let users = gateway.admin(Request::get("/admin/users")).data();
    let user = users["users"][0]["id"].as_str().unwrap().to_owned();
    let key = format!("/admin/limits/sign-in-account/{user},192.0.2.1");
    let reset = gateway.admin(Request::delete(&key));
    assert_eq!(reset.status, 204, "{}", reset.text());
    for name in &names {
        request(name, PASSWORD).assert_ok();
    }
}

#[test]
fn networks_have_their_own_limit() {
    let gateway = Gateway::start(config(Upstream::start().address, 2, 1000));
    let guess = |from: &str, n: u32| {
        let body = json!({ "email": format!("user{n}@example.com"), "password": "x" });
        login(&gateway, from, &body)
    };
    // Ten times what one address may.
    for n in 0..20 {
        guess(&format!("2001:db8:1:{n:x}::1"), n).assert_refused(401, "INVALID_CREDENTIALS");
    }
    let limited = guess("2001:db8:1:ffff::1", 20);
    limited.assert_refused(429, "RATE_LIMITED");
    assert!(limited.numeric_header("retry-after") > 0);
    guess("2001:db8:2::1", 21).assert_refused(401, "INVALID_CREDENTIALS");
    guess("192.0.2.1", 22).assert_refused(401, "INVALID_CREDENTIALS");
}

#[test]
fn known_addresses_bypass_a_full_password_queue() {
    let mut gateway = Gateway::start(config(Upstream::start().address, 1000, 1000));
    register(&gateway, "ann@example.com", "ann");
    let ann = json!({ "email": "ann@example.com", "password": PASSWORD });
    login(&gateway, "192.0.2.1", &ann).assert_ok();
    // So that the queue stays full for as long as the test takes.
    gateway.reload("applied", |config| {
        let cost = json!({ "memory": "64MiB", "iterations": 12 });
        config.put("/identity/builtin/password_hash", cost);
    });
    let address = gateway.public;
    // More than run and wait at once: some are refused as soon as the queue is full.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, statuses) = std::sync::mpsc::channel();
    for n in 0..cores * 55 {
        let body = json!({ "email": format!("user{n}@example.com"), "password": "x" });
        let from = format!("198.51.{}.{}", n / 250, n % 250 + 1);
        let request = Request::post(LOGIN)
            .header("X-Forwarded-For", &from)
            .json(&body);
        let sender = sender.clone();
        std::thread::spawn(move || {
            if let Ok(response) = request.try_send(address) {
                let _ = sender.send(response.status);
            }
        });
    }
    drop(sender);
    assert!(
        statuses.iter().any(|status| status == 503),
        "no queue is full"
    );
    login(&gateway, "192.0.2.1", &ann).assert_ok();
}
