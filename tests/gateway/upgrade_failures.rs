//! A new process that does not start changes nothing, and the reason is printed and logged.

use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, binary, run, signal};
use crate::support::redis::Redis;
use crate::support::upgrade::{
    install, install_script, own_binary, try_upgrade, upgradable, upgrade,
};
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;
use crate::support::websocket::WebSocketClient;

/// A gateway whose process must stay the same.
struct Fixture {
    gateway: Gateway,
    kept: Client,
    _redis: Redis,
}

impl Fixture {
    fn start() -> Fixture {
        let (upstream, redis) = (Upstream::start(), Redis::start());
        let gateway = upgradable(Config::new(upstream.address).store(&redis.url()));
        let kept = Client::connect(gateway.public);
        let mut fixture = Fixture {
            gateway,
            kept,
            _redis: redis,
        };
        fixture.assert_unchanged();
        fixture
    }

    /// The command fails with this text, which is also logged, and nothing has changed.
    fn assert_fails(&mut self, arguments: &[&str], expected: &str) {
        let (code, _, errors) = try_upgrade(&self.gateway, arguments);
        assert_eq!(code, 1, "{errors}");
        assert!(errors.contains(expected), "{errors}");
        self.gateway.wait_for_log("the gateway was not upgraded");
        self.assert_unchanged();
    }

    fn assert_unchanged(&mut self) {
        assert!(self.gateway.is_running());
        self.gateway.get("/public/a").assert_ok();
        // A connection of the same process, which does not drain.
        let response = self.kept.request(&Request::get("/public/a"));
        assert_eq!(
            response.assert_ok().header("connection"),
            Some("keep-alive")
        );
        assert_eq!(Request::get("/ready").send(self.gateway.admin).status, 200);
    }
}

#[test]
fn invalid_configuration_changes_nothing() {
    let mut fixture = Fixture::start();
    let valid = fixture.gateway.config.write_beside(
        "valid.yaml",
        serde_json::to_string(&fixture.gateway.config.file).unwrap(),
    );
    fixture
        .gateway
        .config
        .put("/routes/0/upstraem", json!("echo"));
    fixture.gateway.config.write();
    // The new process finds the mistake.
    let valid = valid.to_str().unwrap();
    let (code, _, errors) = run(&["upgrade", "--config", valid]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("upstraem"), "{errors}");
    let logs = fixture.gateway.wait_for_log("was not upgraded: ");
    assert!(logs.contains("upstraem"), "{logs}");
    fixture.assert_unchanged();
    signal(fixture.gateway.pid(), "USR2");
    eventually("it is logged again", || {
        let logs = fixture.gateway.logs();
        (logs.matches("was not upgraded: ").count() > 1).then_some(())
    });
    fixture.assert_unchanged();
}

#[test]
fn occupied_address_changes_nothing() {
    let mut fixture = Fixture::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = &mut fixture.gateway.config;
    config.add_listener(json!({ "bind": address }));
    config.write();
    fixture.assert_fails(&[], &format!("{address} cannot be bound"));
    drop(taken);
    upgrade(&fixture.gateway);
}

#[test]
fn store_that_does_not_respond_changes_nothing() {
    let mut fixture = Fixture::start();
    let config = &mut fixture.gateway.config;
    // Nothing listens there.
    config.put("/store/url", json!("redis://127.0.0.1:1"));
    config.write();
    let (code, _, errors) = try_upgrade(&fixture.gateway, &[]);
    assert_eq!(code, 1);
    assert!(errors.contains("not ready: store_down"), "{errors}");
    fixture.assert_unchanged();
}

#[test]
fn binaries_that_do_not_start_change_nothing() {
    let mut fixture = Fixture::start();
    for (script, expected) in [
        ("exit 3", "exit status: 3"),
        ("kill -KILL $$", "signal: 9"),
        ("printf garbage >&0; exec sleep 60", "malformed"),
        (
            "printf '{\"version\":3,\"message\":{}}' >&0",
            "speaks version 3 of the handover",
        ),
        (
            "printf '{\"version\":2,\"message\":\"released\"}' >&0",
            "another message than expected",
        ),
    ] {
        install_script(&fixture.gateway.config, script);
        fixture.assert_fails(&[], expected);
    }
    std::fs::remove_file(own_binary(&fixture.gateway.config)).unwrap();
    fixture.assert_fails(&[], "could not be started");
    install(&fixture.gateway.config);
    upgrade(&fixture.gateway);
    assert_eq!(fixture.gateway.wait_exit().code(), Some(0));
    fixture.gateway.get("/public/a").assert_ok();
}

/// A binary that takes a while to start, and leaves a file once it runs.
fn install_slow(gateway: &Gateway, before: &str) {
    let folder = gateway.config.folder().display();
    let script = format!(
        "{before}touch {folder}/started; while [ ! -e {folder}/go ]; do sleep 0.05; done; exec {} \"$@\"",
        binary()
    );
    install_script(&gateway.config, &script);
}

#[test]
fn second_upgrade_is_refused_while_one_is_in_progress() {
    let mut fixture = Fixture::start();
    install_slow(&fixture.gateway, "");
    let folder = fixture.gateway.config.folder().to_owned();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| try_upgrade(&fixture.gateway, &[]));
        eventually("the first has begun", || {
            folder.join("started").exists().then_some(())
        });
        let (code, _, errors) = try_upgrade(&fixture.gateway, &[]);
        assert_eq!(code, 1);
        assert!(
            errors.contains("another upgrade is in progress"),
            "{errors}"
        );
        // Meanwhile it serves.
        fixture.gateway.get("/public/a").assert_ok();
        std::fs::write(folder.join("go"), "").unwrap();
        assert_eq!(first.join().unwrap().0, 0);
    });
    assert_eq!(fixture.gateway.wait_exit().code(), Some(0));
    fixture.gateway.get("/public/a").assert_ok();
}

/// Starts an upgrade to a slow binary, and waits until that runs.
fn begin_upgrade(gateway: &Gateway) {
    let started = gateway.config.folder().join("started");
    signal(gateway.pid(), "USR2");
    eventually("it has begun", || started.exists().then_some(()));
}

/// Terminates the gateway while the new process starts.
fn terminate_while_a_successor_starts(gateway: &mut Gateway) {
    begin_upgrade(gateway);
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn terminated_gateway_takes_its_starting_successor_with_it() {
    let mut fixture = Fixture::start();
    install_slow(&fixture.gateway, "");
    terminate_while_a_successor_starts(&mut fixture.gateway);
    let public = fixture.gateway.public;
    eventually("nothing listens", || TcpListener::bind(public).ok());
}

/// A gateway that is killed cannot end the new process, which has no sockets yet.
#[test]
fn killed_gateway_leaves_no_sockets_with_its_starting_successor() {
    let mut fixture = Fixture::start();
    install_slow(&fixture.gateway, "");
    begin_upgrade(&fixture.gateway);
    signal(fixture.gateway.pid(), "KILL");
    fixture.gateway.wait_exit();
    let public = fixture.gateway.public;
    eventually("nothing listens", || TcpListener::bind(public).ok());
}

#[test]
fn successor_that_ends_while_its_predecessor_drains_is_no_zombie() {
    let mut fixture = Fixture::start();
    let gateway = &mut fixture.gateway;
    gateway.reload("applied", |config| {
        config.put("/shutdown", json!({ "grace": "10m" }));
    });
    let socket = WebSocketClient::open(gateway.public, "/public/ws", &[]);
    let _open = socket.ok().unwrap();
    let successor = upgrade(gateway);
    signal(successor, "KILL");
    let process = PathBuf::from(format!("/proc/{successor}"));
    eventually("it is gone", || (!process.exists()).then_some(()));
    assert!(gateway.is_running());
}

#[test]
fn successor_without_predecessor_does_not_serve() {
    let mut fixture = Fixture::start();
    install_slow(&fixture.gateway, "trap '' TERM; ");
    terminate_while_a_successor_starts(&mut fixture.gateway);
    let gateway = fixture.gateway;
    std::fs::write(gateway.config.folder().join("go"), "").unwrap();
    gateway.wait_for_log("the running gateway cannot be asked for its sockets");
    let public = gateway.public;
    eventually("nothing listens", || TcpListener::bind(public).ok());
}

#[test]
fn draining_gateway_is_not_upgraded() {
    let mut fixture = Fixture::start();
    let config = &mut fixture.gateway;
    config.reload("applied", |config| {
        config.put("/shutdown", json!({ "delay": "3s" }));
    });
    let mut gateway = fixture.gateway;
    gateway.sigterm();
    eventually("it drains", || {
        (Request::get("/ready").send(gateway.admin).status == 503).then_some(())
    });
    let (code, _, errors) = try_upgrade(&gateway, &[]);
    assert_eq!(code, 1);
    assert!(errors.contains("shutting down"), "{errors}");
    signal(gateway.pid(), "USR2");
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let (code, _, errors) = try_upgrade(&gateway, &[]);
    assert_eq!(code, 1);
    assert!(errors.contains("no gateway can be reached"), "{errors}");
}

/// Only a gateway that starts a new process sets the variable.
#[test]
fn forged_predecessor_is_an_error() {
    let upstream = Upstream::start();
    let mut config = Config::new(upstream.address);
    config
        .environment
        .push(("PORTCULLIS_PREDECESSOR", "1".into()));
    let mut gateway = Gateway::spawn(config, &[]);
    assert_eq!(gateway.wait_exit().code(), Some(1));
    let logs = gateway.logs();
    assert!(logs.contains("does not lead to a gateway"), "{logs}");
}
