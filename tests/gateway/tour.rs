//! `examples/tour`, the story of a user, against the real binary; and the same story while Redis is
//! killed before each of its steps.

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
fn tour(gateway: &Gateway, call: &str) -> (Option<i32>, String) {
    let output = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tour"))
        .env("BASE", format!("http://{}", gateway.public))
        .env("ADMIN", format!("http://{}", gateway.admin))
        .env("TOKEN", ADMIN_TOKEN)
        .env("CALL", call)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code(), said)
}

#[test]
fn the_tour_works_with_everything_embedded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let (status, said) = tour(&gateway, "/private/a");
    assert_eq!(status, Some(0), "{said}");
    // It tells what is wrong: this path needs nobody to be signed in.
    let (status, said) = tour(&gateway, "/public/a");
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("FAILED") && said.contains("200 instead of 401"),
        "{said}"
    );
}

#[test]
fn the_tour_works_on_redis_and_postgresql_also_where_registration_is_closed() {
    let (upstream, redis, people) = (Upstream::start(), Redis::start(), Postgres::server());
    let database = people.database();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .postgres(people.address, &database)
        .set("/identity/builtin/registration", json!("closed"));
    let (status, said) = tour(&Gateway::start(config), "/private/a");
    assert_eq!(status, Some(0), "{said}");
    let disabled = people.sql(&database, "SELECT disabled FROM users").unwrap();
    assert_eq!(disabled, "t", "nobody can sign in as the tour's user");
}

const EMAIL: &str = "ann@example.com";
const NEW_PASSWORD: &str = "eleven tall yellow ladders";

/// What the story has been given so far.
#[derive(Default)]
struct Told {
    laptop: Value,
    phone: Value,
}

impl Told {
    fn access(device: &Value) -> &str {
        device["access_token"].as_str().unwrap_or_default()
    }
}

/// One step: how it is asked, what it answers, and what is kept of that.
struct Step {
    name: &'static str,
    ask: fn(&Told) -> Request,
    expected: u16,
    keep: fn(&mut Told, Value),
}

fn login(password: &str) -> Request {
    let body = json!({ "email": EMAIL, "password": password });
    Request::post("/api/v1/auth/login").json(&body)
}

fn call(device: &Value) -> Request {
    Request::get("/private/a").bearer(Told::access(device))
}

fn nothing(_: &mut Told, _: Value) {}

const fn step(
    name: &'static str,
    ask: fn(&Told) -> Request,
    expected: u16,
    keep: fn(&mut Told, Value),
) -> Step {
    Step {
        name,
        ask,
        expected,
        keep,
    }
}

/// The tour's steps, after registering.
const STEPS: [Step; 15] = [
    step(
        "sign in",
        |_| login(PASSWORD),
        200,
        |told, data| told.laptop = data,
    ),
    step(
        "again",
        |_| login(PASSWORD),
        200,
        |told, data| told.phone = data,
    ),
    step("call", |told| call(&told.phone), 200, nothing),
    step(
        "refresh",
        |told| {
            let body = json!({ "refresh_token": told.phone["refresh_token"] });
            Request::post("/api/v1/auth/refresh").json(&body)
        },
        200,
        |told, data| told.phone = data,
    ),
    step(
        "list the devices",
        |told| Request::get("/api/v1/sessions").bearer(Told::access(&told.phone)),
        200,
        |_, data| assert_eq!(data["count"], 3),
    ),
    step(
        "terminate one",
        |told| {
            let id = told.laptop["session"]["id"].as_str().unwrap();
            Request::delete(&format!("/api/v1/sessions/{id}")).bearer(Told::access(&told.phone))
        },
        204,
        nothing,
    ),
    step("it is refused", |told| call(&told.laptop), 401, nothing),
    step(
        "sign out",
        |told| Request::post("/api/v1/auth/logout").bearer(Told::access(&told.phone)),
        204,
        nothing,
    ),
    step(
        "the old token is refused",
        |told| call(&told.phone),
        401,
        nothing,
    ),
    step(
        "sign in anew",
        |_| login(PASSWORD),
        200,
        |told, data| told.laptop = data,
    ),
    step(
        "and again",
        |_| login(PASSWORD),
        200,
        |told, data| told.phone = data,
    ),
    step(
        "change the password",
        |told| {
            let body = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
            Request::new("PUT", "/api/v1/profile/password")
                .bearer(Told::access(&told.laptop))
                .json(&body)
        },
        204,
        nothing,
    ),
    step(
        "the other is signed out",
        |told| call(&told.phone),
        401,
        nothing,
    ),
    step("this one is not", |told| call(&told.laptop), 200, nothing),
    step("the new password", |_| login(NEW_PASSWORD), 200, nothing),
];

/// Without `sessions.durable` only Redis knows the sessions: while it is gone the answer is that it
/// is unknown, never that somebody is signed out. When it is back, with what it kept on disk, the
/// story goes on where it was.
#[test]
fn redis_killed_before_any_step_stops_the_story_and_does_not_change_it() {
    let upstream = Upstream::start();
    let mut redis = Redis::keeping();
    let gateway = Gateway::start(Config::new(upstream.address).store(&redis.url()));
    gateway.register(EMAIL);
    let mut told = Told::default();
    for step in &STEPS {
        let request = (step.ask)(&told);
        redis.kill();
        let unknown = gateway.ask(&request);
        // What this gateway itself has ended it need not ask for.
        if unknown.status != 401 || step.expected != 401 {
            unknown.refused(503, "STORE_UNAVAILABLE");
        }
        redis.restart();
        let answer = once_known(&gateway, &request, step.name);
        assert_eq!(
            answer.status,
            step.expected,
            "{}: {}",
            step.name,
            answer.text()
        );
        if answer.status == 200 {
            (step.keep)(&mut told, answer.json()["data"].clone());
        }
    }
}

/// Asks until the gateway has found its store again.
fn once_known(gateway: &Gateway, request: &Request, name: &str) -> Response {
    eventually(name, || {
        let answer = gateway.ask(request);
        (answer.status != 503).then_some(answer)
    })
}
