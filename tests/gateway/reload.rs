//! A new configuration replaces the running one between two requests, or not at all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::ports;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;
use crate::support::websocket::WebSocketClient;

fn add_route(config: &mut Config) {
    let route =
        json!({ "name": "new", "match": { "prefix": "/new" }, "auth": "none", "upstream": "echo" });
    config.file["routes"].as_array_mut().unwrap().push(route);
}

fn await_new_route(gateway: &Gateway) {
    eventually("the new route answers", || {
        (gateway.get("/new/a").status == 200).then_some(())
    });
}

#[test]
fn every_reload_trigger_works() {
    let upstream = Upstream::start();

    let mut gateway = Gateway::start(Config::new(upstream.address));
    gateway.get("/new/a").assert_refused(404, "ROUTE_NOT_FOUND");
    gateway.reload("applied", add_route);
    gateway.get("/new/a").assert_ok();

    let mut gateway = Gateway::start(Config::new(upstream.address));
    add_route(&mut gateway.config);
    gateway.config.write();
    await_new_route(&gateway);

    let mut gateway = Gateway::start(Config::new(upstream.address));
    add_route(&mut gateway.config);
    gateway.config.write();
    let response = gateway.admin(Request::post("/admin/reload"));
    assert_eq!(response.status, 200, "{}", response.text());
    gateway.get("/new/a").assert_ok();
}

#[test]
fn kubernetes_symlink_swap_reloads() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let folder = config.folder().to_owned();
    let text = |config: &Config| serde_json::to_string_pretty(&config.file).unwrap();
    // ..data is a link to a folder; the file is a link into ..data; a change swaps ..data.
    std::fs::create_dir(folder.join("v1")).unwrap();
    std::fs::write(folder.join("v1/portcullis.yaml"), text(&config)).unwrap();
    std::os::unix::fs::symlink("v1", folder.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/portcullis.yaml", folder.join("portcullis.yaml")).unwrap();
    // The gateway's start writes the same text again, through the links.
    let gateway = Gateway::start(config);
    let mut changed = Config::new(upstream.address);
    changed.file = gateway.config.file.clone();
    add_route(&mut changed);
    std::fs::create_dir(folder.join("v2")).unwrap();
    std::fs::write(folder.join("v2/portcullis.yaml"), text(&changed)).unwrap();
    std::os::unix::fs::symlink("v2", folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    await_new_route(&gateway);
}

#[test]
fn invalid_file_is_reported_and_changes_nothing() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    gateway.reload("rejected", |config| {
        config.put("/routes/0/upstraem", json!("echo"))
    });
    gateway.get("/public/a").assert_ok();
    // The log names the mistake.
    gateway.wait_for_log("upstraem");
    let response = gateway.admin(Request::post("/admin/reload"));
    assert!((400..500).contains(&response.status), "{}", response.status);
    gateway.rewrite("{ not yaml: [");
    gateway.sighup();
    eventually("it is counted", || {
        let count = gateway.metric("portcullis_config_reloads_total", &["outcome=\"rejected\""]);
        (count >= 2.0).then_some(())
    });
    std::fs::remove_file(gateway.file()).unwrap();
    gateway.sighup();
    gateway.get("/public/a").assert_ok();
    assert!(gateway.is_running());
}

#[test]
fn boot_setting_change_rejects_the_reload() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    gateway.reload("restart_required", |config| {
        add_route(config);
        config.put("/listeners/0/bind", json!(ports::free().to_string()));
    });
    gateway.get("/new/a").assert_refused(404, "ROUTE_NOT_FOUND");
}

#[test]
fn reload_under_load_loses_no_request_or_connection() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let bearer = format!("Bearer {}", alice.access_token);
    let mut socket =
        WebSocketClient::open(gateway.public, "/private/ws", &[("Authorization", &bearer)])
            .ok()
            .unwrap();
    let public = gateway.public;
    let done = AtomicBool::new(false);
    let received = AtomicUsize::new(0);
    let request = Request::get("/private/a").bearer(&alice.access_token);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(public);
                while !done.load(Ordering::Relaxed) {
                    client.request(&request).assert_ok();
                    received.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..5 {
            gateway.reload("applied", |config| {
                config.put(
                    "/routes/0/response_headers",
                    json!({ "set": { "X-Round": round.to_string() } }),
                );
            });
            let before = received.load(Ordering::Relaxed);
            eventually("requests go on", || {
                (received.load(Ordering::Relaxed) > before + 50).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(socket.echo("still open"), "still open");
}

#[test]
fn call_in_flight_keeps_its_configuration() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let call = Request::post("/api/v1/auth/register").json(&body);
    let call = call.to_bytes();
    let (first, last) = call.split_at(call.len() - 1);
    let mut client = Client::connect(gateway.public);
    client.send(first);
    eventually("the call has begun", || {
        let in_flight = gateway.metric("portcullis_requests_in_flight", &[]);
        (in_flight > 0.0).then_some(())
    });
    gateway.reload("applied", |config| {
        config.put("/sessions/cookie/name", json!("renamed"));
        config.put("/identity/builtin/registration", json!("closed"));
    });
    let response = client.send(last).read_response();
    assert_eq!(response.status, 201, "{}", response.text());
    let cookie = response.header("set-cookie").unwrap();
    assert!(cookie.starts_with("portcullis="), "{cookie}");
    gateway
        .request(&Request::post("/api/v1/auth/register").json(&body))
        .assert_refused(403, "REGISTRATION_CLOSED");
}
