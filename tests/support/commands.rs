//! Commands of the real binary, run with the configuration of a gateway.

use serde_json::{Value, json};

use super::client::Request;
use super::config::Config;
use super::gateway::{Gateway, run_with_input};
use super::postgres::Postgres;
use super::redis::Redis;
use super::upstream::Upstream;
use super::wait::eventually;

pub const ANN: &str = "ann@example.com";

/// Runs a command with `--config`, feeding it a line; it has to succeed.
#[track_caller]
pub fn run_ok(gateway: &Gateway, words: &[&str], input: &str) -> String {
    let (status, out, err) = try_run(gateway, words, input);
    assert_eq!(status, 0, "{words:?}: {out}{err}");
    out
}

/// The same of a command that has to fail: what it says, in lines.
#[track_caller]
pub fn run_failing(gateway: &Gateway, words: &[&str], input: &str) -> Vec<String> {
    let (status, out, err) = try_run(gateway, words, input);
    assert_eq!(status, 1, "{words:?}: {out}{err}");
    err.lines().map(str::to_owned).collect()
}

pub fn try_run(gateway: &Gateway, words: &[&str], input: &str) -> (i32, String, String) {
    let file = gateway.file().to_str().unwrap();
    let mut arguments = words[..2].to_vec();
    arguments.extend(["--config", file]);
    arguments.extend(&words[2..]);
    run_with_input(&arguments, input)
}

#[track_caller]
pub fn run_json(gateway: &Gateway, words: &[&str]) -> Value {
    let words = [words, &["--json"]].concat();
    serde_json::from_str(&run_ok(gateway, &words, "")).unwrap()
}

/// A gateway with a route for admins, everything embedded; and one over Redis and PostgreSQL.
pub fn for_each_store(story: impl Fn(&Gateway)) {
    for_each_store_with(|config| config, story);
}

/// The same, with a change of the configuration.
pub fn for_each_store_with(change: impl Fn(Config) -> Config, story: impl Fn(&Gateway)) {
    let (redis, people) = (Redis::start(), Postgres::server());
    for embedded in [true, false] {
        let upstream = Upstream::start();
        let admins = json!({
            "name": "admins", "match": { "prefix": "/private/admin" }, "auth": "required",
            "require": { "roles": ["admin"] }, "upstream": "echo",
        });
        let mut config = Config::new(upstream.address).route(admins);
        if !embedded {
            let database = people.database();
            config = config
                .store(&redis.url())
                .postgres(people.address, &database);
        }
        story(&Gateway::start(change(config)));
    }
}

/// The response of a route to the cookie, once it is the expected one.
#[track_caller]
pub fn await_status(gateway: &Gateway, path: &str, cookie: &str, expected: u16) {
    eventually(&format!("{path} answers {expected}"), || {
        let response = gateway.request(&Request::get(path).cookie(cookie));
        (response.status == expected).then_some(())
    });
}

pub fn log_in(gateway: &Gateway, password: &str) -> u16 {
    let body = json!({ "email": ANN, "password": password });
    let request = Request::post("/api/v1/auth/login").json(&body);
    gateway.request(&request).status
}

/// The ids of the sessions of a list.
pub fn ids(list: &Value) -> Vec<Value> {
    let sessions = list["sessions"].as_array().unwrap().iter();
    sessions.map(|session| session["id"].clone()).collect()
}
