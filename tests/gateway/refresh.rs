//! Refreshes: bound to the client that signed in, and not affected by a store that loses its
//! scripts.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::durable::refresh;
use crate::support::client::{Request, Response, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::http2::Http2;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{SetOnDrop, eventually};

const AGENT: &str = "a-browser/1.0";

fn successor(response: &Response) -> String {
    response.data()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn refresh_as(gateway: &Gateway, agent: &str, token: &str) -> Response {
    let body = json!({ "refresh_token": token });
    let request = Request::post("/api/v1/auth/refresh").json(&body);
    gateway.request(&request.header("User-Agent", agent))
}

fn start_bound(binding: &str, grace: &str, store: &str, durable: bool) -> (Gateway, String) {
    let config = Config::new(Upstream::start().address)
        .store(store)
        .set("/sessions/durable", json!(durable))
        .set("/tokens/refresh_grace", json!(grace))
        .set("/sessions/bind", json!({ "user_agent": binding }));
    let gateway = Gateway::start(config);
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let register = Request::post("/api/v1/auth/register").json(&body);
    let registered = gateway.request(&register.header("User-Agent", AGENT));
    assert_eq!(registered.status, 201, "{}", registered.text());
    let token = successor(&registered);
    (gateway, token)
}

#[test]
fn bound_session_cannot_be_refreshed_elsewhere() {
    let redis = Redis::start();
    for (store, durable) in [
        ("memory", false),
        (&*redis.url(), false),
        (&*redis.url(), true),
    ] {
        let (gateway, first) = start_bound("deny", "30s", store, durable);
        let mismatch = |token: &str| {
            refresh_as(&gateway, "another/2.0", token)
                .assert_refused(401, "SESSION_BINDING_MISMATCH");
        };
        mismatch(&first);
        let body = json!({ "refresh_token": first }).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("user-agent", "another/2.0"),
        ];
        let connection = Http2::connect(gateway.public);
        let path = "/api/v1/auth/refresh";
        let stream = connection.open("POST", path, &headers, body.as_bytes());
        assert_eq!(stream.unwrap().status, 401);
        // It was not used up by that.
        let second = successor(refresh_as(&gateway, AGENT, &first).assert_ok());
        // Within the grace time it has a successor, which no other client receives either.
        mismatch(&first);
        mismatch(&second);
        assert_eq!(
            successor(refresh_as(&gateway, AGENT, &first).assert_ok()),
            second
        );
        eventually("each mismatch is logged", || {
            let events = gateway.events();
            let mismatches = events.iter().filter(|it| it["event"] == "binding_mismatch");
            (mismatches.count() == 4).then_some(())
        });
        refresh_as(&gateway, "another/2.0", &"x".repeat(100)).assert_refused(401, "TOKEN_INVALID");
    }
}

#[test]
fn refresh_reuse_ends_a_bound_session() {
    let (gateway, first) = start_bound("deny", "1ms", "memory", false);
    refresh_as(&gateway, AGENT, &first).assert_ok();
    std::thread::sleep(std::time::Duration::from_millis(5));
    refresh_as(&gateway, "another/2.0", &first).assert_refused(401, "REFRESH_TOKEN_REUSED");
}

#[test]
fn binding_mismatch_in_warn_mode_is_an_event() {
    let (gateway, first) = start_bound("warn", "30s", "memory", false);
    refresh_as(&gateway, "another/2.0", &first).assert_ok();
    eventually("the event is logged", || {
        let events = gateway.events();
        let mismatch = |event: &serde_json::Value| event["event"] == "binding_mismatch";
        events.iter().any(mismatch).then_some(())
    });
}

#[test]
fn script_flushes_do_not_disturb_refreshes() {
    let redis = Redis::start();
    let config = Config::new(Upstream::start().address).store(&redis.url());
    // Busy with flushes, the server may take longer than the default for a response.
    let gateway = Gateway::start(config.set("/store/timeout", json!("2s")));
    let mut token = gateway.register("ann@example.com").refresh_token;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let _over = SetOnDrop(over);
        for _ in 0..2 {
            let address = redis.address;
            scope.spawn(move || {
                let mut link = connect_socket(address).unwrap();
                let mut reply = [0; 5];
                while !over.load(Ordering::SeqCst) {
                    link.write_all(b"SCRIPT FLUSH\r\n").unwrap();
                    link.read_exact(&mut reply).unwrap();
                }
            });
        }
        for _ in 0..60 {
            let response = refresh(&gateway, &token);
            token = successor(response.assert_ok());
        }
    });
}
