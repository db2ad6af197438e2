//! Three gateways share one store while clients mix every call that reads, changes or ends a session.
//! Each response is checked against the history: no untrue 401, no untrue 200 or 204, no change lost.
//!
//! `PORTCULLIS_CALLS` is the number of calls of each client (`CALLS` without it), `PORTCULLIS_SEED`
//! what they are drawn from.

mod account;
mod calls;

use std::time::{Duration, Instant};

use serde_json::json;

use self::account::{Account, Subject};
use self::calls::Client;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::history::{BOUND, is_linearizable};
use crate::support::nodes;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

const FLEET: usize = 3;
const CLIENTS: u64 = 6;
/// What takes a debug build about half a minute, for both kinds of store together.
const CALLS: u64 = 600;

struct Scene {
    gateways: [Gateway; FLEET],
    accounts: [Account; 2],
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn scene(store: &str, durable: bool) -> Scene {
    let upstream = Upstream::start();
    let prefix = format!("mixed{}:", rand::random::<u64>());
    let config = || {
        Config::new(upstream.address)
            .store(store)
            .set("/store/key_prefix", json!(prefix))
            // Other tests load the machine.
            .set("/store/timeout", json!("3s"))
            .set("/sessions/max_per_user", json!(10_000))
            .set("/sessions/durable", json!(durable))
            .set("/tokens/refresh_grace", json!("1h"))
            .set(
                "/identity/builtin/sign_in_limits/attempts_per_address",
                json!({ "limit": 100_000, "window": "1m" }),
            )
    };
    let first = config();
    let database = first.file["database"]["url"].clone();
    let other = || Gateway::start(config().set("/database/url", database.clone()));
    let gateways = [Gateway::start(first), other(), other()];
    let accounts = ["alice@example.com", "bob@example.com"];
    let accounts = accounts.map(|email| Account::new(email, &gateways[0].register(email).user));
    Scene { gateways, accounts }
}

impl Scene {
    /// Lets all clients make their calls.
    fn play(&self) {
        let calls = number("PORTCULLIS_CALLS").unwrap_or(CALLS);
        let seed = number("PORTCULLIS_SEED").unwrap_or_else(rand::random);
        eprintln!("PORTCULLIS_SEED={seed}");
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                scope.spawn(move || Client::new(self, number, seed).call(calls));
            }
        });
    }

    /// Once every change is known everywhere, each gateway says the same of each session.
    fn settles(&self) {
        std::thread::sleep(BOUND);
        for account in &self.accounts {
            for subject in account.subjects() {
                for gateway in 0..FLEET {
                    self.is_settled(account, &subject, gateway);
                }
            }
        }
    }

    fn is_settled(&self, account: &Account, subject: &Subject, gateway: usize) {
        let called = Instant::now();
        let request = Request::get("/private/a").cookie(&subject.who.cookie);
        let response = self.gateways[gateway].ask(&request);
        subject.answered(account, gateway, called, &response);
        if subject.is_alive() {
            let roles = account.roles.latest();
            assert_eq!(account::roles_of(&response.ok().echo()), roles);
        }
    }

    fn is_consistent(&self) {
        for account in &self.accounts {
            for subject in account.subjects() {
                let events = subject.events.lock();
                let session = &subject.who.session;
                assert!(is_linearizable(&events, FLEET), "{session}: {events:#?}");
            }
        }
    }
}

fn no_response_is_untrue(store: &str, durable: bool) {
    let scene = scene(store, durable);
    scene.play();
    scene.settles();
    scene.is_consistent();
    let counts = scene.accounts.iter().map(Account::counts);
    let [signed_in, accepted, refused] = counts.fold([0; 3], |all, one| {
        std::array::from_fn(|place| all[place] + one[place])
    });
    eprintln!("{signed_in} sessions, {accepted} accepted, {refused} refused");
    // Otherwise it would say nothing.
    assert!(signed_in > 20 && accepted > 500 && refused > 50);
}

#[test]
fn no_response_is_untrue_with_one_redis() {
    let redis = Redis::start();
    no_response_is_untrue(&redis.url(), false);
}

#[test]
fn no_response_is_untrue_with_durable_sessions() {
    let redis = Redis::start();
    no_response_is_untrue(&redis.url(), true);
}

#[test]
fn no_response_is_untrue_with_a_cluster() {
    let ports = nodes::shared().ports().into_iter();
    let hosts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    no_response_is_untrue(&format!("redis+cluster://{}", hosts.join(",")), false);
}

/// How long a change may take to be in force on a gateway that did not make it.
fn bound(made_by: usize, gateway: usize) -> Duration {
    if made_by == gateway {
        Duration::ZERO
    } else {
        BOUND
    }
}
