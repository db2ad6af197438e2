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
use crate::support::sentinels::{MASTER, Watched};
use crate::support::servers::until;
use crate::support::upstream::Upstream;
use crate::support::wait::within;

/// No answer may take longer: the deadlines of a trip and its second half, and a machine under load.
const HANGS: Duration = Duration::from_secs(2);

struct Scene {
    gateway: Gateway,
    watched: Watched,
    alice: SignedIn,
}

fn scene(password: Option<&'static str>) -> Scene {
    let watched = Watched::start(password);
    let upstream = Upstream::start();
    let mut config = Config::new(upstream.address)
        .store(&format!("redis+sentinel://{}/{MASTER}", watched.hosts()))
        .set("/store/timeout", json!("300ms"))
        .limited(
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
    Scene {
        gateway,
        watched,
        alice,
    }
}

/// What clients saw: how often which status.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<BTreeMap<u16, usize>>>,
}

impl Scene {
    fn load(&self) -> Load {
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
                    let answer = request.send(public);
                    assert!(start.elapsed() < HANGS, "it hung: {:?}", start.elapsed());
                    assert_eq!(answer.header("set-cookie"), None, "{}", answer.status);
                    *statuses.entry(answer.status).or_default() += 1;
                }
                statuses
            })
        };
        Load {
            clients: requests.into_iter().map(client).collect(),
            stop,
        }
    }

    /// Waits until another server than this is the master, and then until somebody can sign in, which
    /// only a master lets happen: soon.
    fn follows(&self, old: usize) {
        let switched = until("another server is the master", || {
            self.watched.master() != old
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
    /// Nobody was signed out, and nothing but the outage showed.
    fn end(self) {
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
fn a_failover_that_was_asked_for_is_followed() {
    let scene = scene(Some("sentinel-secret"));
    let load = scene.load();
    let asked = scene.watched.sentinels[1].command(&["SENTINEL", "FAILOVER", MASTER]);
    assert_eq!(asked, "OK");
    scene.follows(0);
    load.end();
}

#[test]
fn the_death_of_the_master_is_survived_and_its_return_too() {
    let mut scene = scene(None);
    let load = scene.load();
    scene.watched.servers[0].kill();
    // A Sentinel that does not answer is passed over.
    scene.watched.sentinels[2].signal("STOP");
    scene.follows(0);
    // The one that was the master comes back, is one for a moment, and is then made a replica.
    scene.watched.revive(0);
    until("it follows", || {
        scene.watched.servers[0]
            .command(&["ROLE"])
            .starts_with("slave")
    });
    scene.watched.sentinels[2].signal("CONT");
    assert!(scene.gateway.lets_in(&scene.alice));
    load.end();
    assert_ne!(scene.watched.master(), 0);
}

#[test]
fn sentinels_that_are_of_no_use_are_told_by_what_they_say() {
    let watched = Watched::start(Some("sentinel-secret"));
    for (url, password, told) in [
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
        let gateway = Gateway::alive(config, &[]);
        until("it is told", || gateway.logs().contains(told));
        assert!(!gateway.logs().contains(password));
        assert_eq!(gateway.get("/private/a").status, 401);
        let cookie = format!("portcullis={}", "a".repeat(64));
        let answer = gateway.ask(&Request::get("/private/a").cookie(&cookie));
        answer.refused(503, "STORE_UNAVAILABLE");
    }
}
