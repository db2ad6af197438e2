//! Looking at the servers of a store, for whoever is about to use them.

use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::dial::{self, with_timeout};
use super::exchange_error::ExchangeError;
use super::sentinel::MasterReport;
use super::slots::SlotMap;
use super::{acl, sentinel};
use crate::clock;
use crate::settings::{RedisAddress, RedisNode, Sentinels, Topology};
use crate::store::inspect::{ServerCheck, Severity};
use crate::store::redis::codec::keys::Keys;
use crate::store::redis::parse_time;

/// For connecting and everything that is asked of one server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
const MIN_VERSION: (u32, u32) = (6, 2);
/// How much is looked at under the prefix: so many times so many keys of the server's.
const SCAN_STEPS: usize = 10;
const KEYS_PER_STEP: u64 = 1_000;
/// Characters of a key that are shown.
const MAX_SHOWN_KEY: usize = 80;
/// Clocks may be so far apart, in milliseconds, before somebody is told.
const MAX_CLOCK_SKEW: i64 = 1_000;

/// What the servers have to be good for.
#[derive(Clone, Copy)]
pub(in crate::store) struct ServerRequirements<'a> {
    pub address: &'a RedisAddress,
    pub prefix: &'a str,
    /// That must have a revocation.
    pub replicas: u32,
}

impl ServerRequirements<'_> {
    pub(in crate::store::redis) fn is_clustered(&self) -> bool {
        matches!(self.address.topology, Topology::Cluster(_))
    }
}

/// Looks at every server that the address leads to.
pub(in crate::store) async fn inspect_servers(wish: ServerRequirements<'_>) -> Vec<ServerCheck> {
    let address = wish.address;
    match &address.topology {
        Topology::Standalone(server) => inspect_server(server, wish).await,
        Topology::Sentinel(sentinels) => inspect_sentinels(sentinels, wish).await,
        Topology::Cluster(seeds) => inspect_cluster(seeds, wish).await,
    }
}

async fn inspect_sentinels(
    sentinels: &Sentinels,
    wish: ServerRequirements<'_>,
) -> Vec<ServerCheck> {
    let address = wish.address;
    let mut found = Vec::new();
    let mut masters: Vec<RedisNode> = Vec::new();
    for node in &sentinels.nodes {
        let asking = sentinel::query_sentinel(node, sentinels, address.tls.as_ref());
        let name = format!("Sentinel {node}");
        match with_timeout(SERVER_TIMEOUT, asking).await {
            Ok(MasterReport { master, .. }) => {
                let what = format!("{} is {master}", sentinels.master);
                found.push(server_check(&name, Severity::Ok, what));
                if !masters.contains(&master) {
                    masters.push(master);
                }
            }
            Err(fault) => found.push(server_check(
                &name,
                Severity::Warning,
                unusable_message(&fault),
            )),
        }
    }
    match masters.as_slice() {
        [] => {
            let what = format!("no Sentinel says where {} is", sentinels.master);
            found.push(server_check(&address.topology, Severity::Error, what));
        }
        [master] => found.extend(inspect_server(master, wish).await),
        _ => {
            let what = "the Sentinels do not agree on the master".to_owned();
            found.push(server_check(&address.topology, Severity::Error, what));
        }
    }
    found
}

async fn inspect_cluster(seeds: &[RedisNode], wish: ServerRequirements<'_>) -> Vec<ServerCheck> {
    let address = wish.address;
    let mut found = Vec::new();
    let mut known: Option<SlotMap> = None;
    for seed in seeds {
        match with_timeout(SERVER_TIMEOUT, query_slot_map(seed, address)).await {
            Ok(map) => known = known.or(Some(map)),
            Err(fault) => found.push(server_check(
                seed,
                Severity::Warning,
                unusable_message(&fault),
            )),
        }
    }
    let Some(map) = known else {
        let what = "none of these servers says who has which slot".to_owned();
        found.push(server_check(&address.topology, Severity::Error, what));
        return found;
    };
    if !map.is_complete() {
        let what = "there are slots that no server has".to_owned();
        found.push(server_check(&address.topology, Severity::Error, what));
    }
    for master in map.masters() {
        found.extend(inspect_server(master, wish).await);
    }
    found
}

async fn query_slot_map(
    seed: &RedisNode,
    address: &RedisAddress,
) -> Result<SlotMap, ExchangeError> {
    let mut connection = dial::connect(seed, address).await?;
    let mut question = redis::cmd("CLUSTER");
    let reply = question.arg("SLOTS").query_async(&mut connection).await?;
    SlotMap::parse(reply, seed).ok_or_else(|| ExchangeError::unreachable("it knows no cluster"))
}

/// Looks at one server; it is fine only if nothing else is to be said of it.
async fn inspect_server(server: &RedisNode, wish: ServerRequirements<'_>) -> Vec<ServerCheck> {
    let looking = async {
        let mut connection = dial::connect(server, wish.address).await?;
        check_server(&mut connection, wish).await
    };
    let (version, told) = match with_timeout(SERVER_TIMEOUT, looking).await {
        Ok(found) => found,
        Err(fault) => {
            return vec![server_check(
                server,
                Severity::Error,
                unusable_message(&fault),
            )];
        }
    };
    if told.is_empty() {
        return vec![server_check(server, Severity::Ok, version)];
    }
    told.into_iter()
        .map(|(grade, what)| server_check(server, grade, what))
        .collect()
}

async fn check_server(
    connection: &mut MultiplexedConnection,
    wish: ServerRequirements<'_>,
) -> Result<(String, Vec<(Severity, String)>), ExchangeError> {
    let mut told = Vec::new();
    let mut version = "it does not tell its version".to_owned();
    let info = redis::cmd("INFO").query_async::<String>(connection).await;
    match info {
        Ok(info) => {
            version = product_version(&info).unwrap_or(version);
            told.extend(check_info(&info, wish.is_clustered()));
            told.extend(check_replicas(&info, wish.replicas));
        }
        Err(error) => {
            let code = ExchangeError::from(error).code;
            let what = format!("version and eviction policy are not known: {code}");
            told.push((Severity::Warning, what));
        }
    }
    let before = local_millis();
    let time: Result<Value, _> = redis::cmd("TIME").query_async(connection).await;
    let here = i64::midpoint(before, local_millis());
    if let Some(there) = time.ok().as_ref().and_then(parse_time) {
        told.extend(check_clock(i64::try_from(there).unwrap_or(i64::MAX) - here));
    }
    told.extend(acl::missing_permissions(connection, wish).await?);
    told.extend(check_foreign_keys(connection, &Keys::new(wish.prefix)).await);
    Ok((version, told))
}

/// Whether somebody else writes under the prefix, by a look at some of the keys there.
async fn check_foreign_keys(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Option<(Severity, String)> {
    let mut cursor = 0_u64;
    for _ in 0..SCAN_STEPS {
        let mut look = redis::cmd("SCAN");
        look.arg(cursor).arg("MATCH").arg(keys.scan_pattern(""));
        look.arg("COUNT").arg(KEYS_PER_STEP);
        // Without the right to look there is nothing to be said.
        let found: (u64, Vec<Vec<u8>>) = look.query_async(connection).await.ok()?;
        let names = found.1.iter().map(|key| String::from_utf8_lossy(key));
        if let Some(name) = names.into_iter().find(|name| !keys.is_gateway_key(name)) {
            let name: String = name.escape_debug().take(MAX_SHOWN_KEY).collect();
            let what = format!(
                "`{name}` is no key of the gateway's: another program writes under the key_prefix"
            );
            return Some((Severity::Warning, what));
        }
        cursor = found.0;
        if cursor == 0 {
            return None;
        }
    }
    None
}

/// What `INFO` gives reason to say.
fn check_info(info: &str, clustered: bool) -> Vec<(Severity, String)> {
    let mut told = Vec::new();
    let mut error = |what: String| told.push((Severity::Error, what));
    match product_version(info) {
        Some(version) if redis_version(info).is_none_or(|numbers| numbers < MIN_VERSION) => {
            error(format!(
                "{version} is too old: 6.2 is the oldest that will do"
            ));
        }
        _ => {}
    }
    if info_field(info, "role").is_some_and(|role| role != "master") {
        error("it is a replica, and takes no writes".to_owned());
    }
    match info_field(info, "maxmemory_policy") {
        None | Some("noeviction") => {}
        Some(policy) => error(format!(
            "maxmemory-policy is {policy}, which forgets revocations when memory is short: \
             it must be noeviction"
        )),
    }
    match (info_field(info, "cluster_enabled"), clustered) {
        (Some("1"), false) => {
            error("it is a server of a cluster: the address must begin with redis+cluster or rediss+cluster".to_owned());
        }
        (Some("0"), true) => error("it is not a server of a cluster".to_owned()),
        _ => {}
    }
    told
}

/// Whether there are as many replicas as must have a revocation.
fn check_replicas(info: &str, wanted: u32) -> Option<(Severity, String)> {
    let connected = info_field(info, "connected_slaves")?.parse::<u32>().ok()?;
    let what = format!(
        "it has {connected} replicas and revocation_replicas is {wanted}: \
         every revocation would be answered with 503"
    );
    (connected < wanted).then_some((Severity::Error, what))
}

/// How far a server's clock is ahead, in milliseconds.
fn check_clock(ahead: i64) -> Option<(Severity, String)> {
    let seconds = ahead.unsigned_abs() as f64 / 1000.0;
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let what = format!("its clock is {seconds:.1} s {side} this machine's");
    (ahead.abs() > MAX_CLOCK_SKEW).then_some((Severity::Warning, what))
}

fn info_field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// The product and its version. Others than Redis say beside their own which Redis they are like.
fn product_version(info: &str) -> Option<String> {
    match info_field(info, "valkey_version") {
        Some(version) => Some(format!("Valkey {version}")),
        None => info_field(info, "redis_version").map(|version| format!("Redis {version}")),
    }
}

fn redis_version(info: &str) -> Option<(u32, u32)> {
    let mut numbers = info_field(info, "redis_version")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn local_millis() -> i64 {
    i64::try_from(clock::unix_millis()).unwrap_or(0)
}

fn unusable_message(fault: &ExchangeError) -> String {
    if fault.code.is_empty() {
        return "it cannot be used".to_owned();
    }
    format!("it cannot be used: {}", fault.code)
}

fn server_check(server: &dyn std::fmt::Display, grade: Severity, what: String) -> ServerCheck {
    ServerCheck {
        server: server.to_string(),
        severity: grade,
        message: what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfit_server_info_is_reported() {
        let fit = "redis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";
        let check = |replacing: &str, by: &str, clustered: bool| {
            let told = check_info(&fit.replace(replacing, by), clustered);
            let told: Vec<String> = told.into_iter().map(|(_, what)| what).collect();
            told.join("; ")
        };
        for (replacing, by, expected) in [
            ("7.0.15", "6.2.0", ""),
            ("7.0.15", "10.0.0", ""),
            ("7.0.15", "6.0.16", "Redis 6.0.16 is too old"),
            ("7.0.15", "nonsense", "Redis nonsense is too old"),
            ("role:master", "role:slave", "it is a replica"),
            (
                "noeviction",
                "volatile-lru",
                "maxmemory-policy is volatile-lru",
            ),
            (
                "cluster_enabled:0",
                "cluster_enabled:1",
                "begin with redis+cluster",
            ),
        ] {
            let told = check(replacing, by, false);
            assert!(told.contains(expected), "{by}: {told}");
            assert_eq!(told.is_empty(), expected.is_empty(), "{by}: {told}");
        }
        assert_eq!(check("x", "x", true), "it is not a server of a cluster");
        let valkey = format!("{fit}valkey_version:8.1.0\r\n");
        assert_eq!(product_version(&valkey).as_deref(), Some("Valkey 8.1.0"));
        assert!(check_info(&valkey, false).is_empty());
    }

    #[test]
    fn missing_replicas_are_reported() {
        let told = |wanted| check_replicas("role:master\r\nconnected_slaves:1\r\n", wanted);
        assert_eq!((told(0), told(1)), (None, None));
        assert!(told(2).is_some_and(|(_, what)| what.starts_with("it has 1 replicas")));
        assert_eq!(check_replicas("role:master\r\n", 2), None);
    }

    #[test]
    fn clock_skew_over_a_second_is_reported() {
        assert_eq!(check_clock(1_000), None);
        assert_eq!(check_clock(-1_000), None);
        let told = |ahead| check_clock(ahead).map(|(_, what)| what).unwrap_or_default();
        assert_eq!(told(5_250), "its clock is 5.2 s ahead of this machine's");
        assert_eq!(told(-2_000), "its clock is 2.0 s behind this machine's");
    }
}
