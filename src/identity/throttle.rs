//! Throttling of sign-in attempts: a flood guard in this process, then the configured limits on
//! attempts by address and on failures by account.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::normalize::LoginName;
use crate::database::User;
use crate::limits::{
    Algorithm, Charge, Counter, Decision, KeyPart, Limit, LimitDefinition, OnOutage,
    subscriber_network,
};
use crate::settings::{Identity, Rate};
use crate::store::{Store, StoreError};

/// Names of the built-in limits, in metrics and in the store.
const ADDRESS: &str = "sign-in-address";
const ACCOUNT: &str = "sign-in-account";
const EVERYWHERE: &str = "sign-in-account-everywhere";
/// Records sign-ins to one account from one address, for users without a database row.
const KNOWN_ADDRESS: &str = "sign-in-place";
/// Counts attempts from an IPv6 network, all of which one client may own.
const NETWORK: &str = "sign-in-network";
/// Minimum time for which a known address is kept.
const KNOWN_ADDRESS_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
pub(super) const LIMIT_NAMES: [&str; 4] = [ADDRESS, NETWORK, ACCOUNT, EVERYWHERE];
/// Attempts from a network, as a multiple of those from one address.
const NETWORK_FACTOR: u32 = 10;
/// Failures from all addresses together, as a multiple of those from one address.
const EVERYWHERE_FACTOR: u64 = 10;
/// Attempts per second and core, from one address, from one network, and in total: above what
/// hashing can handle, so that only a flood is stopped, before it costs a look-up.
const FLOOD_PER_ADDRESS: u32 = 50;
const FLOOD_PER_NETWORK: u32 = 100;
const FLOOD_TOTAL: u32 = 500;
const BURST_SECONDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);
/// Maximum number of tracked addresses; above it, idle ones are removed.
const MAX_TRACKED_KEYS: usize = 10_000;

/// The flood guard.
pub(super) struct FloodGuard {
    by_address: DefaultKeyedRateLimiter<String>,
    by_network: DefaultKeyedRateLimiter<String>,
    total: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl FloodGuard {
    pub(super) fn new() -> FloodGuard {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = u32::try_from(cores).unwrap_or(1);
        let quota = |per_second: u32| {
            let rate = NonZeroU32::MIN.saturating_add(per_second.saturating_mul(cores));
            Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST_SECONDS))
        };
        FloodGuard {
            by_address: RateLimiter::keyed(quota(FLOOD_PER_ADDRESS)),
            by_network: RateLimiter::keyed(quota(FLOOD_PER_NETWORK)),
            total: RateLimiter::direct(quota(FLOOD_TOTAL)),
            clock: DefaultClock::default(),
        }
    }

    /// Admits an attempt, or returns the time to wait.
    pub(super) fn check(&self, ip: IpAddr) -> Result<(), Duration> {
        for limiter in [&self.by_address, &self.by_network] {
            if limiter.len() > MAX_TRACKED_KEYS {
                limiter.retain_recent();
            }
        }
        self.by_address
            .check_key(&address_key(ip))
            .and_then(|()| match network_key(ip) {
                Some(network) => self.by_network.check_key(&network),
                None => Ok(()),
            })
            .and_then(|()| self.total.check())
            .map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// All counter keys of failed sign-ins to a user's account.
pub fn failure_counter_keys(user: &User) -> Vec<String> {
    let names = std::iter::once(&user.email).chain(&user.username);
    let names = names.map(|name| name_key(&LoginName::parse(name)));
    std::iter::once(user.id.clone()).chain(names).collect()
}

/// Charges one attempt to the limits of the address and its network; in this process while the
/// store is unavailable. If sessions need the store (not `alone`) and it is read-only, no session
/// could be opened, so nothing is compared.
pub(super) async fn charge_address(
    store: &Store,
    rules: &Identity,
    ip: IpAddr,
    alone: bool,
) -> Result<Vec<Decision>, StoreError> {
    let mut charges = vec![build_charge(address_limit(rules), &[address_key(ip)])];
    charges.extend(network_key(ip).map(|network| build_charge(network_limit(rules), &[network])));
    match store.charge(&charges).await {
        Err(StoreError::ReadOnly) if !alone => Err(StoreError::ReadOnly),
        Err(_) => Ok(store.charge_locally(&charges)),
        decisions => decisions,
    }
}

/// Counters of failed sign-ins to one account from one address.
pub(super) struct FailureCounters {
    from_address: Charge,
    everywhere: Charge,
    /// The account has signed in from this address before, so failures elsewhere do not count.
    pub(super) is_known_address: bool,
    /// Whether the client may learn the counters' state, and that one exceeds its limit.
    pub(super) is_disclosed: bool,
}

/// The counter key of a typed name, distinct from every user ID.
fn name_key(login: &LoginName) -> String {
    match login {
        LoginName::Email(email) => email.clone(),
        LoginName::Username(name) => format!("username:{name}"),
    }
}

impl FailureCounters {
    /// `account` is the user's ID, or a name of the account.
    pub(super) fn for_account(
        account: &str,
        ip: IpAddr,
        is_known_address: bool,
        rules: &Identity,
    ) -> FailureCounters {
        FailureCounters {
            from_address: build_charge(
                account_limit(rules),
                &[account.to_owned(), address_key(ip)],
            ),
            everywhere: build_charge(account_everywhere_limit(rules), &[account.to_owned()]),
            is_known_address,
            is_disclosed: true,
        }
    }

    /// Counters of an account claimed by name. Those of the name are disclosed, those of the
    /// account are not: a client must not learn which names belong to one account or to any, so an
    /// account over its limit looks like a wrong password. A name without account has both, for the
    /// same work.
    pub(super) fn for_login(
        name: &LoginName,
        user: Option<&str>,
        ip: IpAddr,
        known_here: bool,
        rules: &Identity,
    ) -> [FailureCounters; 2] {
        let name = name_key(name);
        let account = user.map_or_else(|| format!("unknown:{name}"), str::to_owned);
        let by_account = FailureCounters {
            is_disclosed: false,
            ..FailureCounters::for_account(&account, ip, known_here, rules)
        };
        [
            FailureCounters::for_account(&name, ip, known_here, rules),
            by_account,
        ]
    }

    /// Reads the counters that concern this client, without charging them. With `alone` this
    /// process' own counters stand in for an unavailable store.
    pub(super) async fn peek(
        &self,
        store: &Store,
        alone: bool,
    ) -> Result<Vec<Decision>, StoreError> {
        // Both in every case: the response time must not reveal the account's state.
        let here = peek_limit(store, &self.from_address, alone);
        let everywhere = peek_limit(store, &self.everywhere, alone);
        let (here, everywhere) = tokio::try_join!(here, everywhere)?;
        if !here.allowed || self.is_known_address {
            return Ok(vec![here]);
        }
        Ok(vec![here, everywhere])
    }

    /// Charges a failure to both counters; a full one does not keep the other from counting.
    /// Returns the counters that concern this client; one that refuses was full.
    pub(super) async fn record_failure(&self, store: &Store) -> Vec<Decision> {
        let mut counted =
            charge_with_fallback(store, std::slice::from_ref(&self.from_address)).await;
        let everywhere = charge_with_fallback(store, std::slice::from_ref(&self.everywhere)).await;
        if !self.is_known_address {
            counted.extend(everywhere);
        }
        counted
    }
}

/// Records a sign-in to the account from this address, as a counter that is used up.
pub(super) async fn record_known_address(store: &Store, account: &str, ip: IpAddr) {
    charge_with_fallback(store, &[known_address_charge(account, ip)]).await;
}

/// Whether the account has been signed in to from this address.
pub(super) async fn has_signed_in_from(
    store: &Store,
    account: &str,
    ip: IpAddr,
) -> Result<bool, StoreError> {
    Ok(!store
        .peek_limit(&known_address_charge(account, ip))
        .await?
        .allowed)
}

fn known_address_charge(account: &str, ip: IpAddr) -> Charge {
    let once = Rate {
        limit: 1,
        window: KNOWN_ADDRESS_TTL,
    };
    let limit = build_limit(KNOWN_ADDRESS, once, vec![KeyPart::User, KeyPart::Ip]);
    build_charge(limit, &[account.to_owned(), address_key(ip)])
}

fn build_charge(limit: Arc<Limit>, texts: &[String]) -> Charge {
    Charge {
        counter: sign_in_counter(&limit, texts),
        limit,
    }
}

async fn peek_limit(store: &Store, charge: &Charge, alone: bool) -> Result<Decision, StoreError> {
    match store.peek_limit(charge).await {
        Err(_) if alone => Ok(store.peek_locally(charge)),
        result => result,
    }
}

async fn charge_with_fallback(store: &Store, charges: &[Charge]) -> Vec<Decision> {
    match store.charge(charges).await {
        Ok(decisions) => decisions,
        Err(_) => store.charge_locally(charges),
    }
}

/// Whether the client learns the state of a limit. An account's failures from all addresses are
/// reported only when they refuse, since they would reveal whether this address is known. Other
/// clients of the same network are not reported either.
pub(super) fn is_reported(decision: &Decision) -> bool {
    !decision.allowed || ![EVERYWHERE, NETWORK].contains(&&*decision.limit.name)
}

/// The built-in limits.
pub fn sign_in_limits(rules: &Identity) -> [Arc<Limit>; 4] {
    [
        address_limit(rules),
        network_limit(rules),
        account_limit(rules),
        account_everywhere_limit(rules),
    ]
}

fn address_limit(rules: &Identity) -> Arc<Limit> {
    build_limit(ADDRESS, rules.attempts_per_address, vec![KeyPart::Ip])
}

fn network_limit(rules: &Identity) -> Arc<Limit> {
    let rate = rules.attempts_per_address;
    let network = Rate {
        limit: rate.limit.saturating_mul(NETWORK_FACTOR.into()),
        ..rate
    };
    build_limit(NETWORK, network, vec![KeyPart::Ip])
}

fn account_limit(rules: &Identity) -> Arc<Limit> {
    let key = vec![KeyPart::User, KeyPart::Ip];
    build_limit(ACCOUNT, rules.failures_per_account, key)
}

fn account_everywhere_limit(rules: &Identity) -> Arc<Limit> {
    let rate = rules.failures_per_account;
    let everywhere = Rate {
        limit: rate.limit.saturating_mul(EVERYWHERE_FACTOR),
        ..rate
    };
    build_limit(EVERYWHERE, everywhere, vec![KeyPart::User])
}

fn build_limit(name: &str, rate: Rate, key: Vec<KeyPart>) -> Arc<Limit> {
    Arc::new(Limit::new(LimitDefinition {
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
    }))
}

/// One key per client: the /64 of an IPv6 address, since one client has all of it, and the IPv4
/// address of a mapped one.
pub fn address_key(ip: IpAddr) -> String {
    match subscriber_network(ip) {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(network) => format!("{network}/64"),
    }
}

/// The /48 of an IPv6 address, the usual size of a site.
fn network_key(ip: IpAddr) -> Option<String> {
    match ip.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => {
            let network = Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 80));
            Some(format!("{network}/48"))
        }
    }
}

/// The key of an address in the counters of a built-in limit.
pub fn limit_address_key(limit: &Limit, ip: IpAddr) -> Option<String> {
    match &*limit.name {
        NETWORK => network_key(ip),
        _ => Some(address_key(ip)),
    }
}

/// Names a counter of a built-in limit by the parts of its key.
pub fn sign_in_counter(limit: &Limit, texts: &[String]) -> Counter {
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
    fn address_key_groups_ipv6_by_64() {
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
    fn network_key_is_the_ipv6_48() {
        let key = |ip: &str| network_key(ip.parse().unwrap());
        assert_eq!(key("192.0.2.1"), None);
        assert_eq!(key("::ffff:192.0.2.1"), None);
        for ip in ["2001:db8:1::1", "2001:db8:1:ffff:1:2:3:4"] {
            assert_eq!(key(ip).as_deref(), Some("2001:db8:1::/48"), "{ip}");
        }
        assert_eq!(key("2001:db8:2::1").as_deref(), Some("2001:db8:2::/48"));
    }

    #[test]
    fn flood_from_one_address_spares_others() {
        let attempts = FloodGuard::new();
        let (flooder, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let passed = (0..100_000)
            .take_while(|_| attempts.check(flooder).is_ok())
            .count();
        assert!((50..100_000).contains(&passed), "{passed}");
        assert!(attempts.check(flooder).unwrap_err() < Duration::from_secs(1));
        assert_eq!(attempts.check(other), Ok(()));
    }
}
