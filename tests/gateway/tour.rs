//! `examples/tour`, the scenario of one user, against the real binary; and the
//! same tour while Redis is killed before each of its steps.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::config::{ADMIN_TOKEN, Config};
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// Runs the script; gives its status and what it said.
fn run_tour(gateway: &Gateway, call: &str) -> (Option<i32>, String) {
    let output = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tour"))
        .env("BASE", format!("http://{}", gateway.public))
        .env("ADMIN", format!("http://{}", gateway.admin))
        .env("TOKEN", ADMIN_TOKEN)
        .env("CALL", call)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    (output.status.code(), printed)
}

#[test]
fn tour_works_embedded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let (status, output) = run_tour(&gateway, "/private/a");
    assert_eq!(status, Some(0), "{output}");
    assert!(
        output.contains("skipped: users do not create API keys"),
        "{output}"
    );
    // It reports the problem: this path requires no sign-in.
    let (status, output) = run_tour(&gateway, "/public/a");
    assert_eq!(status, Some(1), "{output}");
    assert!(
        output.contains("FAILED") && output.contains("200 instead of 401"),
        "{output}"
    );
}

#[test]
fn tour_works_on_redis_and_postgresql() {
    let (upstream, redis, people) = (Upstream::start(), Redis::start(), Postgres::server());
    let database = people.database();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .postgres(people.address, &database)
        .set("/identity/builtin/registration", json!("closed"))
        .set("/api_keys", json!({ "self_service": true }));
    let (status, output) = run_tour(&Gateway::start(config), "/private/a");
    assert_eq!(status, Some(0), "{output}");
    assert!(output.contains("the key is rejected"), "{output}");
    let disabled = people.sql(&database, "SELECT disabled FROM users").unwrap();
    assert_eq!(disabled, "t", "nobody can sign in as the tour's user");
}

const EMAIL: &str = "ann@example.com";
const NEW_PASSWORD: &str = "eleven tall yellow ladders";

/// What the story has been given so far.
#[derive(Default)]
struct TourState {
    laptop: Value,
    phone: Value,
}

impl TourState {
    fn access_token(device: &Value) -> &str {
        device["access_token"].as_str().unwrap_or_default()
    }
}

/// One step: the request, the response, and the values kept from it.
struct Step {
    name: &'static str,
    request: fn(&TourState) -> Request,
    expected: u16,
    store: fn(&mut TourState, Value),
}

fn login(password: &str) -> Request {
    let body = json!({ "email": EMAIL, "password": password });
    Request::post("/api/v1/auth/login").json(&body)
}

fn private_request(device: &Value) -> Request {
    Request::get("/private/a").bearer(TourState::access_token(device))
}

fn ignore(_: &mut TourState, _: Value) {}

const fn step(
    name: &'static str,
    send: fn(&TourState) -> Request,
    expected: u16,
    keep: fn(&mut TourState, Value),
) -> Step {
    Step {
        name,
        request: send,
        expected,
        store: keep,
    }
}

/// The tour's steps, after registering.
const STEPS: [Step; 15] = [
    step(
        "sign in",
        |_| login(PASSWORD),
        200,
        |reported, data| reported.laptop = data,
    ),
    step(
        "again",
        |_| login(PASSWORD),
        200,
        |reported, data| reported.phone = data,
    ),
    step(
        "call",
        |reported| private_request(&reported.phone),
        200,
        ignore,
    ),
    step(
        "refresh",
        |reported| {
            let body = json!({ "refresh_token": reported.phone["refresh_token"] });
            Request::post("/api/v1/auth/refresh").json(&body)
        },
        200,
        |reported, data| reported.phone = data,
    ),
    step(
        "list the devices",
        |reported| {
            Request::get("/api/v1/sessions").bearer(TourState::access_token(&reported.phone))
        },
        200,
        |_, data| assert_eq!(data["count"], 3),
    ),
    step(
        "terminate one",
        |reported| {
            let id = reported.laptop["session"]["id"].as_str().unwrap();
            Request::delete(&format!("/api/v1/sessions/{id}"))
                .bearer(TourState::access_token(&reported.phone))
        },
        204,
        ignore,
    ),
    step(
        "it is refused",
        |reported| private_request(&reported.laptop),
        401,
        ignore,
    ),
    step(
        "sign out",
        |reported| {
            Request::post("/api/v1/auth/logout").bearer(TourState::access_token(&reported.phone))
        },
        204,
        ignore,
    ),
    step(
        "the old token is refused",
        |reported| private_request(&reported.phone),
        401,
        ignore,
    ),
    step(
        "sign in anew",
        |_| login(PASSWORD),
        200,
        |reported, data| reported.laptop = data,
    ),
    step(
        "and again",
        |_| login(PASSWORD),
        200,
        |reported, data| reported.phone = data,
    ),
    step(
        "change the password",
        |reported| {
            let body = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
            Request::new("PUT", "/api/v1/profile/password")
                .bearer(TourState::access_token(&reported.laptop))
                .json(&body)
        },
        204,
        ignore,
    ),
    step(
        "the other is signed out",
        |reported| private_request(&reported.phone),
        401,
        ignore,
    ),
    step(
        "this one is not",
        |reported| private_request(&reported.laptop),
        200,
        ignore,
    ),
    step("the new password", |_| login(NEW_PASSWORD), 200, ignore),
];

/// Without `sessions.durable` only Redis has the sessions: while it is away the response is that
/// the status is unknown, never that a user is signed out. When it is back with its persisted data,
/// the sessions are valid as before.
#[test]
fn tour_resumes_after_redis_fails_at_any_step() {
    let upstream = Upstream::start();
    let mut redis = Redis::start_persistent();
    let gateway = Gateway::start(Config::new(upstream.address).store(&redis.url()));
    gateway.register(EMAIL);
    let mut reported = TourState::default();
    for step in &STEPS {
        let request = (step.request)(&reported);
        redis.kill();
        let unknown = gateway.request(&request);
        // What this gateway itself has ended it need not ask for.
        if unknown.status != 401 || step.expected != 401 {
            unknown.assert_refused(503, "STORE_UNAVAILABLE");
        }
        redis.restart();
        let response = retry_until_available(&gateway, &request, step.name);
        assert_eq!(
            response.status,
            step.expected,
            "{}: {}",
            step.name,
            response.text()
        );
        if response.status == 200 {
            (step.store)(&mut reported, response.json()["data"].clone());
        }
    }
}

/// Asks until the gateway has found its store again.
fn retry_until_available(gateway: &Gateway, request: &Request, name: &str) -> Response {
    eventually(name, || {
        let response = gateway.request(request);
        (response.status != 503).then_some(response)
    })
}
