//! An upgrade replaces the process and drops nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::json;

use crate::support::client::{Client, Request, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::signal;
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::tls;
use crate::support::upgrade::{try_upgrade, upgradable, upgrade};
use crate::support::upstream::Upstream;
use crate::support::wait::{SetOnDrop, eventually};
use crate::support::websocket::{GOING_AWAY, WebSocketClient};

/// A client that pauses for longer may find its connection closed. No client here does so on purpose;
/// a busy machine may make it.
const PAUSE: Duration = Duration::from_secs(1);
const WEB_SOCKETS: usize = 200;

/// What the clients of a load have seen.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    served: AtomicUsize,
    lost: AtomicUsize,
}

impl Load {
    /// Sends requests until the load is over. Connects again only after a response that closes, or
    /// for every request.
    fn send(&self, keep: bool, connect: impl Fn() -> Client) {
        let request = Request::post("/public/a").body("hello");
        let request = match keep {
            true => request,
            false => request.header("Connection", "close"),
        };
        while !self.over.load(Ordering::Relaxed) {
            let mut client = connect();
            let mut idle_since = Instant::now();
            while !self.over.load(Ordering::Relaxed) {
                let pause = idle_since.elapsed();
                let sent = client.try_send(request.to_bytes());
                let response = sent.and_then(|()| client.read_response_to("POST"));
                idle_since = Instant::now();
                match response {
                    Ok(response) if response.status == 200 => {
                        self.served.fetch_add(1, Ordering::Relaxed);
                        if response.header("connection") == Some("close") {
                            break;
                        }
                    }
                    failed => {
                        let lost = usize::from(pause < PAUSE);
                        if lost == 1 {
                            eprintln!("lost: {:?}", failed.map(|response| response.status));
                        }
                        self.lost.fetch_add(lost, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
    }
}

fn connect_plain(address: SocketAddr) -> Client {
    Client::from_stream(connect_socket(address).unwrap())
}

fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    Client::from_stream(tls::connect(address, "localhost", config).unwrap())
}

#[test]
fn ten_upgrades_under_load_lose_nothing() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let certificate = tls::certificate("localhost");
    let config = Config::new(upstream.address).store(&redis.url());
    let cert = config.write_beside("cert.pem", &certificate.cert);
    let key = config.write_beside("key.pem", &certificate.key);
    let mut config = config.set("/shutdown", json!({ "delay": "100ms", "grace": "120s" }));
    let tls = json!({ "certificates": [{ "cert": cert, "key": key }] });
    config.add_listener(json!({ "bind": ports::free().to_string(), "tls": tls }));
    let gateway = upgradable(config);
    let (plain, secure) = (gateway.public, gateway.config.listener(1));
    let client = tls::client(&certificate, &["http/1.1"]);
    let mut sockets: Vec<_> = (0..WEB_SOCKETS)
        .map(|_| {
            WebSocketClient::open(plain, "/public/ws", &[])
                .ok()
                .unwrap()
        })
        .collect();
    let load = Load::default();
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&load.over);
        for _ in 0..3 {
            scope.spawn(|| load.send(true, || connect_plain(plain)));
            scope.spawn(|| load.send(false, || connect_plain(plain)));
        }
        scope.spawn(|| load.send(true, || connect_tls(secure, &client)));
        scope.spawn(|| load.send(false, || connect_tls(secure, &client)));
        let mut processes = vec![gateway.pid()];
        for _ in 0..10 {
            let before = load.served.load(Ordering::Relaxed);
            eventually("requests go on", || {
                (load.served.load(Ordering::Relaxed) > before + 100).then_some(())
            });
            processes.push(upgrade(&gateway));
            assert_eq!(Request::get("/ready").send(gateway.admin).status, 200);
        }
        processes.sort_unstable();
        processes.dedup();
        assert_eq!(processes.len(), 11, "each is another process");
    });
    assert_eq!(load.lost.load(Ordering::Relaxed), 0);
    for (index, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(socket.echo("still here"), "still here", "{index}");
    }
}

#[test]
fn websockets_stay_until_the_grace_period_ends() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/shutdown", json!({ "grace": "3s" }));
    let mut gateway = upgradable(config);
    let public = gateway.public;
    let mut socket = WebSocketClient::open(public, "/public/ws", &[])
        .ok()
        .unwrap();
    socket.echo("before");
    let start = Instant::now();
    upgrade(&gateway);
    assert_eq!(socket.echo("after"), "after");
    assert_eq!(socket.close_code(Duration::from_secs(20)), Some(GOING_AWAY));
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(gateway.wait_exit().code(), Some(0));
    // The new one serves, and stays.
    gateway.get("/public/a").assert_ok();
}

#[test]
fn sigterm_ends_a_replaced_gateway_before_the_grace_period() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/shutdown", json!({ "grace": "10m" }));
    let mut gateway = upgradable(config);
    let public = gateway.public;
    let mut socket = WebSocketClient::open(public, "/public/ws", &[])
        .ok()
        .unwrap();
    upgrade(&gateway);
    gateway.sigterm();
    assert_eq!(socket.close_code(Duration::from_secs(20)), Some(GOING_AWAY));
    assert_eq!(gateway.wait_exit().code(), Some(0));
    gateway.get("/public/a").assert_ok();
}

#[test]
fn sigusr2_upgrades() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = Config::new(upstream.address).store(&redis.url());
    // Without a control socket.
    let config = config.set("/admin/control_socket", json!(null));
    let mut gateway = upgradable(config);
    signal(gateway.pid(), "USR2");
    assert_eq!(gateway.wait_exit().code(), Some(0));
    gateway.get("/public/a").assert_ok();
    assert_eq!(Request::get("/ready").send(gateway.admin).status, 200);
    let logs = gateway.logs();
    assert!(logs.contains("the new process serves"), "{logs}");
}

#[test]
fn signed_in_users_stay_signed_in() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let gateway = upgradable(Config::new(upstream.address).store(&redis.url()));
    let alice = gateway.register("alice@example.com");
    upgrade(&gateway);
    assert!(gateway.accepts(&alice));
    let bearer = Request::get("/private/a").bearer(&alice.access_token);
    gateway.request(&bearer).assert_ok();
}

#[test]
fn upgrade_applies_settings_that_a_reload_cannot() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let mut config = Config::new(upstream.address).store(&redis.url());
    let second = ports::free();
    config.add_listener(json!({ "bind": second.to_string() }));
    let mut gateway = upgradable(config);
    Request::get("/public/a").send(second).assert_ok();
    let (old_admin, third) = (gateway.admin, ports::free());
    // The second listener goes, another one and another admin address come.
    gateway.reload("restart_required", |config| {
        config.put("/listeners/1", json!({ "bind": third.to_string() }));
        config.put("/admin/bind", json!(ports::free().to_string()));
    });
    upgrade(&gateway);
    gateway.get("/public/a").assert_ok();
    Request::get("/public/a").send(third).assert_ok();
    assert_eq!(
        Request::get("/ready").send(gateway.config.admin()).status,
        200
    );
    assert_eq!(gateway.wait_exit().code(), Some(0));
    for gone in [second, old_admin] {
        assert!(connect_socket(gone).is_err(), "{gone}");
    }
}

#[test]
fn kept_alive_probe_does_not_notice_the_drain() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/shutdown", json!({ "delay": "30s" }));
    let gateway = upgradable(config);
    let mut probe = Client::connect(gateway.admin);
    assert_eq!(probe.request(&Request::get("/ready")).status, 200);
    let mut kept = Client::connect(gateway.public);
    kept.request(&Request::get("/public/a")).assert_ok();
    upgrade(&gateway);
    // Both are connections of the old process, which announces their end.
    let ready = probe.request(&Request::get("/ready"));
    assert_eq!(
        (ready.status, ready.header("connection")),
        (200, Some("close"))
    );
    let response = kept.request(&Request::get("/public/a"));
    assert_eq!(response.assert_ok().header("connection"), Some("close"));
}

/// The state in memory is not handed over.
#[test]
fn memory_store_is_upgraded_by_force_only() {
    let upstream = Upstream::start();
    let gateway = upgradable(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let (code, _, errors) = try_upgrade(&gateway, &[]);
    assert_eq!(code, 1);
    assert!(errors.contains("the store is in memory"), "{errors}");
    signal(gateway.pid(), "USR2");
    eventually("both are logged", || {
        let logs = gateway.logs();
        (logs.matches("the store is in memory").count() == 2).then_some(())
    });
    assert!(gateway.accepts(&alice));
    let (code, _, errors) = try_upgrade(&gateway, &["--force"]);
    assert_eq!((code, &*errors), (0, ""));
    assert!(!gateway.accepts(&alice));
    gateway.login("alice@example.com");
}

#[test]
fn durable_sessions_of_a_memory_store_survive() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/sessions/durable", json!(true));
    let gateway = upgradable(config);
    let alice = gateway.register("alice@example.com");
    upgrade(&gateway);
    eventually("the session is accepted", || {
        gateway.accepts(&alice).then_some(())
    });
}
