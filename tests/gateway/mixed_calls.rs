//! Three gateways share one store while clients mix every call that reads, changes or ends a
//! session. Each response is checked against the history: no false 401, no false 200 or 204, no
//! lost change.
//!
//! `PORTCULLIS_CALLS` is the number of calls of each client (`CALLS` without it), `PORTCULLIS_SEED`
//! the seed of their random choice.

mod account;
mod calls;

use std::time::{Duration, Instant};

use serde_json::json;

use self::account::{Account, ObservedSession};
use self::calls::Client;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::history::{REVOCATION_BOUND, is_linearizable};
use crate::support::nodes;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

const GATEWAYS: usize = 3;
const CLIENTS: u64 = 6;
/// What takes a debug build about half a minute, for both kinds of store together.
const CALLS: u64 = 600;

struct Fixture {
    gateways: [Gateway; GATEWAYS],
    accounts: [Account; 2],
}

fn env_number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn fixture(store: &str, durable: bool) -> Fixture {
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
    Fixture { gateways, accounts }
}

impl Fixture {
    /// Lets all clients make their calls.
    fn run_clients(&self) {
        let calls = env_number("PORTCULLIS_CALLS").unwrap_or(CALLS);
        let seed = env_number("PORTCULLIS_SEED").unwrap_or_else(rand::random);
        eprintln!("PORTCULLIS_SEED={seed}");
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                scope.spawn(move || Client::new(self, number, seed).make_calls(calls));
            }
        });
    }

    /// Once every change is known everywhere, each gateway says the same of each session.
    fn assert_settled(&self) {
        std::thread::sleep(REVOCATION_BOUND);
        for account in &self.accounts {
            for subject in account.observed_sessions() {
                for gateway in 0..GATEWAYS {
                    self.assert_session_settled(account, &subject, gateway);
                }
            }
        }
    }

    fn assert_session_settled(&self, account: &Account, subject: &ObservedSession, gateway: usize) {
        let called = Instant::now();
        let request = Request::get("/private/a").cookie(&subject.user.cookie);
        let response = self.gateways[gateway].request(&request);
        subject.record_response(account, gateway, called, &response);
        if subject.is_alive() {
            let roles = account.roles.latest_confirmed();
            assert_eq!(account::roles_of(&response.assert_ok().echo()), roles);
        }
    }

    fn assert_linearizable(&self) {
        for account in &self.accounts {
            for subject in account.observed_sessions() {
                let events = subject.events.lock();
                let session = &subject.user.session;
                assert!(is_linearizable(&events, GATEWAYS), "{session}: {events:#?}");
            }
        }
    }
}

fn assert_responses_consistent(store: &str, durable: bool) {
    let fixture = fixture(store, durable);
    fixture.run_clients();
    fixture.assert_settled();
    fixture.assert_linearizable();
    let counts = fixture.accounts.iter().map(Account::counts);
    let [signed_in, accepted, refused] = counts.fold([0; 3], |all, one| {
        std::array::from_fn(|place| all[place] + one[place])
    });
    eprintln!("{signed_in} sessions, {accepted} accepted, {refused} refused");
    // Otherwise it would say nothing.
    assert!(signed_in > 20 && accepted > 500 && refused > 50);
}

#[test]
fn responses_are_consistent_on_one_redis() {
    let redis = Redis::start();
    assert_responses_consistent(&redis.url(), false);
}

#[test]
fn responses_are_consistent_with_durable_sessions() {
    let redis = Redis::start();
    assert_responses_consistent(&redis.url(), true);
}

#[test]
fn responses_are_consistent_on_a_cluster() {
    let ports = nodes::shared().ports().into_iter();
    let hosts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    assert_responses_consistent(&format!("redis+cluster://{}", hosts.join(",")), false);
}

/// How long a change may take to be in force on a gateway that did not make it.
fn propagation_bound(made_by: usize, gateway: usize) -> Duration {
    if made_by == gateway {
        Duration::ZERO
    } else {
        REVOCATION_BOUND
    }
}
