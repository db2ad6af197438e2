//! A store with Sentinels: another server becomes the master under load, and the gateway follows
//! without a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::sentinels::{MASTER, SentinelSetup};
use crate::support::servers::until;
use crate::support::upstream::Upstream;
use crate::support::wait::within;

/// No response may take longer: the deadlines of a round trip and its second half, on a loaded
/// machine.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(2);

struct Fixture {
    gateway: Gateway,
    sentinels: SentinelSetup,
    alice: SignedIn,
}

fn fixture(password: Option<&'static str>) -> Fixture {
    let watched = SentinelSetup::start(password);
    let upstream = Upstream::start();
    let mut config = Config::new(upstream.address)
        .store(&format!("redis+sentinel://{}/{MASTER}", watched.hosts()))
        .set("/store/timeout", json!("300ms"))
        .limit(
            "l",
            json!({ "algorithm": "sliding_window", "limit": 10_000_000, "window": "10m", "key": "ip" }),
        );
    if let Some(password) = password {
        config.put("/store/sentinel_password", json!(password));
    }
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    // What replicas do not have yet would be lost with the master, and that is not the question.
    watched.servers[0].await_replicas(2);
    Fixture {
        gateway,
        sentinels: watched,
        alice,
    }
}

/// What clients saw: how often which status.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<BTreeMap<u16, usize>>>,
}

impl Fixture {
    fn start_load(&self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let requests = [
            Request::get("/private/a").cookie(&self.alice.cookie),
            Request::get("/private/a").bearer(&self.alice.access_token),
        ];
        let client = |request: Request| {
            let (stop, public) = (Arc::clone(&stop), self.gateway.public);
            std::thread::spawn(move || {
                let mut statuses = BTreeMap::new();
                while !stop.load(Ordering::SeqCst) {
                    let start = Instant::now();
                    let response = request.send(public);
                    assert!(
                        start.elapsed() < RESPONSE_DEADLINE,
                        "it hung: {:?}",
                        start.elapsed()
                    );
                    assert_eq!(response.header("set-cookie"), None, "{}", response.status);
                    *statuses.entry(response.status).or_default() += 1;
                }
                statuses
            })
        };
        Load {
            clients: requests.into_iter().map(client).collect(),
            stop,
        }
    }

    /// Waits until another server than this is the master, and then until a sign-in succeeds, which
    /// requires a master.
    fn await_failover(&self, old: usize) {
        let switched = until("another server is the master", || {
            self.sentinels.master() != old
        });
        let start = Instant::now();
        within(Duration::from_secs(2), "the gateway follows", || {
            self.gateway.try_login("alice@example.com").map(drop)
        });
        let followed = start.elapsed();
        eprintln!("switched after {switched:?}, followed after {followed:?} more");
    }
}

impl Load {
    /// No user was signed out, and only the outage was visible.
    fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            let statuses = client.join().unwrap();
            eprintln!("{statuses:?}");
            assert!(
                statuses.keys().all(|s| matches!(s, 200 | 503)),
                "{statuses:?}"
            );
            assert!(statuses[&200] > 0);
        }
    }
}

#[test]
fn requested_failover_is_followed() {
    let fixture = fixture(Some("sentinel-secret"));
    let load = fixture.start_load();
    let requested = fixture.sentinels.sentinels[1].command(&["SENTINEL", "FAILOVER", MASTER]);
    assert_eq!(requested, "OK");
    fixture.await_failover(0);
    load.finish();
}

#[test]
fn master_failure_and_return_are_survived() {
    let mut fixture = fixture(None);
    let load = fixture.start_load();
    fixture.sentinels.servers[0].kill();
    // A Sentinel that does not respond is skipped.
    fixture.sentinels.sentinels[2].signal("STOP");
    fixture.await_failover(0);
    // The one that was the master comes back, is one for a moment, and is then made a replica.
    fixture.sentinels.restart_server(0);
    until("it follows", || {
        fixture.sentinels.servers[0]
            .command(&["ROLE"])
            .starts_with("slave")
    });
    fixture.sentinels.sentinels[2].signal("CONT");
    assert!(fixture.gateway.accepts(&fixture.alice));
    load.finish();
    assert_ne!(fixture.sentinels.master(), 0);
}

#[test]
fn unusable_sentinels_are_reported() {
    let watched = SentinelSetup::start(Some("sentinel-secret"));
    for (url, password, reported) in [
        (
            "other",
            "sentinel-secret",
            "Sentinel: it does not know this master",
        ),
        (MASTER, "hunter2", "Sentinel: authentication failed"),
    ] {
        let config = Config::new(Upstream::start().address)
            .store(&format!("redis+sentinel://{}/{url}", watched.hosts()))
            .set("/store/sentinel_password", json!(password));
        let gateway = Gateway::start_with_arguments(config, &[]);
        until("it is told", || gateway.logs().contains(reported));
        assert!(!gateway.logs().contains(password));
        assert_eq!(gateway.get("/private/a").status, 401);
        let cookie = format!("portcullis={}", "a".repeat(64));
        let response = gateway.request(&Request::get("/private/a").cookie(&cookie));
        response.assert_refused(503, "STORE_UNAVAILABLE");
    }
}
