//! How often somebody may try to sign in: a flood guard in this process, then the configured limits
//! on attempts by address and on failures by account.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::limits::{Algorithm, Charge, Counter, Decision, KeyPart, Limit, OnOutage};
use crate::settings::{Identity, Rate};
use crate::store::{Store, StoreError};

/// Names of the built-in limits, in metrics and in the store.
const ADDRESS: &str = "sign-in-address";
const ACCOUNT: &str = "sign-in-account";
const EVERYWHERE: &str = "sign-in-account-everywhere";
/// Counts sign-ins to one account from one address, where no database remembers them.
const PLACE: &str = "sign-in-place";
/// How long such a place is remembered, at least.
const PLACE_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
pub(super) const NAMES: [&str; 3] = [ADDRESS, ACCOUNT, EVERYWHERE];
/// Failures from everywhere that an account bears, as a multiple of those from one address.
const EVERYWHERE_FACTOR: u64 = 10;
/// Attempts a second for each core, from one address and from all: above what hashing can do, so
/// that only a flood meets it, before it costs a look-up.
const FLOOD_PER_ADDRESS: u32 = 50;
const FLOOD_ALTOGETHER: u32 = 500;
const FOUR_SECONDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
/// Addresses after which those that were quiet are forgotten.
const ADDRESSES_KEPT: usize = 10_000;

/// The flood guard.
pub(super) struct Attempts {
    by_address: DefaultKeyedRateLimiter<String>,
    altogether: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Attempts {
    pub(super) fn new() -> Attempts {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = u32::try_from(cores).unwrap_or(1);
        let quota = |per_second: u32| {
            let rate = NonZeroU32::MIN.saturating_add(per_second.saturating_mul(cores));
            Quota::per_second(rate).allow_burst(rate.saturating_mul(FOUR_SECONDS))
        };
        Attempts {
            by_address: RateLimiter::keyed(quota(FLOOD_PER_ADDRESS)),
            altogether: RateLimiter::direct(quota(FLOOD_ALTOGETHER)),
            clock: DefaultClock::default(),
        }
    }

    /// Lets an attempt pass, or says how long to wait.
    pub(super) fn guard(&self, ip: IpAddr) -> Result<(), Duration> {
        if self.by_address.len() > ADDRESSES_KEPT {
            self.by_address.retain_recent();
        }
        self.by_address
            .check_key(&address_key(ip))
            .and_then(|()| self.altogether.check())
            .map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// Takes one attempt from the address' limit; in this process while the store is gone.
pub(super) async fn charge_address(store: &Store, rules: &Identity, ip: IpAddr) -> Vec<Decision> {
    let charge = charge(by_address(rules), &[address_key(ip)]);
    charge_all(store, &[charge]).await
}

/// The counters that failures to sign in to one account, from one address, are kept in.
pub(super) struct Failures {
    here: Charge,
    everywhere: Charge,
    /// The account signed in from here before: failures elsewhere are no concern.
    known_here: bool,
}

impl Failures {
    /// `account` is the user's id, or the canonical name when there is no such user.
    pub(super) fn of(account: &str, ip: IpAddr, known_here: bool, rules: &Identity) -> Failures {
        Failures {
            here: charge(by_account(rules), &[account.to_owned(), address_key(ip)]),
            everywhere: charge(by_account_everywhere(rules), &[account.to_owned()]),
            known_here,
        }
    }

    /// Looks, without counting, how the counters that concern this client stand. `alone`: without the
    /// store this process' own counters say so.
    pub(super) async fn standing(
        &self,
        store: &Store,
        alone: bool,
    ) -> Result<Vec<Decision>, StoreError> {
        let here = peek(store, &self.here, alone).await?;
        if !here.allowed || self.known_here {
            return Ok(vec![here]);
        }
        let everywhere = peek(store, &self.everywhere, alone).await?;
        Ok(vec![here, everywhere])
    }

    /// Counts a failure, in both; one that is full does not keep the other from counting. Tells how
    /// the counters that concern this client stand now; one that refuses was full.
    pub(super) async fn count(&self, store: &Store) -> Vec<Decision> {
        let mut counted = charge_all(store, std::slice::from_ref(&self.here)).await;
        let everywhere = charge_all(store, std::slice::from_ref(&self.everywhere)).await;
        if !self.known_here {
            counted.extend(everywhere);
        }
        counted
    }
}

/// Remembers that somebody signed in to an account from there: a counter that is used up.
pub(super) async fn remember_place(store: &Store, account: &str, ip: IpAddr) {
    charge_all(store, &[place(account, ip)]).await;
}

/// Tells whether somebody has signed in to the account from there.
pub(super) async fn knows_place(
    store: &Store,
    account: &str,
    ip: IpAddr,
) -> Result<bool, StoreError> {
    Ok(!store.peek_limit(&place(account, ip)).await?.allowed)
}

fn place(account: &str, ip: IpAddr) -> Charge {
    let once = Rate {
        limit: 1,
        window: PLACE_KEPT,
    };
    let limit = limit(PLACE, once, vec![KeyPart::User, KeyPart::Ip]);
    charge(limit, &[account.to_owned(), address_key(ip)])
}

fn charge(limit: Arc<Limit>, texts: &[String]) -> Charge {
    Charge {
        counter: counter(&limit, texts),
        limit,
    }
}

async fn peek(store: &Store, charge: &Charge, alone: bool) -> Result<Decision, StoreError> {
    match store.peek_limit(charge).await {
        Err(_) if alone => Ok(store.peek_locally(charge)),
        answer => answer,
    }
}

async fn charge_all(store: &Store, charges: &[Charge]) -> Vec<Decision> {
    match store.charge(charges).await {
        Ok(decisions) => decisions,
        Err(_) => store.charge_locally(charges),
    }
}

/// Whether a client is told how it stands with a limit. How many failures an account has from
/// everywhere, and whether that matters to this client, is told only where it refuses: it would say
/// whether the account is known here.
pub(super) fn is_told(decision: &Decision) -> bool {
    !decision.allowed || &*decision.limit.name != EVERYWHERE
}

/// The built-in limits, for whoever lists them or looks at a counter.
pub fn sign_in_limits(rules: &Identity) -> [Arc<Limit>; 3] {
    [
        by_address(rules),
        by_account(rules),
        by_account_everywhere(rules),
    ]
}

fn by_address(rules: &Identity) -> Arc<Limit> {
    limit(ADDRESS, rules.attempts_per_address, vec![KeyPart::Ip])
}

fn by_account(rules: &Identity) -> Arc<Limit> {
    let key = vec![KeyPart::User, KeyPart::Ip];
    limit(ACCOUNT, rules.failures_per_account, key)
}

fn by_account_everywhere(rules: &Identity) -> Arc<Limit> {
    let rate = rules.failures_per_account;
    let everywhere = Rate {
        limit: rate.limit.saturating_mul(EVERYWHERE_FACTOR),
        ..rate
    };
    limit(EVERYWHERE, everywhere, vec![KeyPart::User])
}

fn limit(name: &str, rate: Rate, key: Vec<KeyPart>) -> Arc<Limit> {
    Arc::new(Limit {
        name: name.into(),
        algorithm: Algorithm::SlidingWindow,
        limit: rate.limit,
        window: rate.window,
        key,
        roles: Vec::new(),
        except_roles: Vec::new(),
        on_outage: OnOutage::Local,
        shadow: false,
        leased: false,
    })
}

/// One text for each client: the /64 of an IPv6 address, since a client has that many, and the IPv4
/// address of a mapped one.
pub fn address_key(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let network = Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64));
            format!("{network}/64")
        }
    }
}

/// Names a counter of a built-in limit by the texts of its key's parts.
pub fn counter(limit: &Limit, texts: &[String]) -> Counter {
    let tagged = texts
        .iter()
        .zip(0..)
        .map(|(text, tag)| (tag, text.as_bytes()));
    Counter::of(&limit.name, tagged)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_client_has_one_key() {
        let cases = [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::ffff:1:2:3", "2001:db8::/64"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ];
        for (ip, key) in cases {
            assert_eq!(address_key(ip.parse().unwrap()), key);
        }
    }

    #[test]
    fn a_flood_from_one_address_is_stopped_and_others_are_not() {
        let attempts = Attempts::new();
        let (flooder, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let passed = (0..100_000)
            .take_while(|_| attempts.guard(flooder).is_ok())
            .count();
        assert!((50..100_000).contains(&passed), "{passed}");
        assert!(attempts.guard(flooder).unwrap_err() < Duration::from_secs(1));
        assert_eq!(attempts.guard(other), Ok(()));
    }
}
