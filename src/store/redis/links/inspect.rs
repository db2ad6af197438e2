//! Checks of the store's servers, for `portcullis check --connect`.

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

/// Timeout of all checks of one server, connection setup included.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);
const MIN_VERSION: (u32, u32) = (6, 2);
/// Number of scan steps, of [`KEYS_PER_STEP`] keys each, in the search for foreign keys.
const SCAN_STEPS: usize = 10;
const KEYS_PER_STEP: u64 = 1_000;
/// Number of characters of a key that are shown.
const MAX_SHOWN_KEY: usize = 80;
/// Largest clock skew that is not reported, in milliseconds.
const MAX_CLOCK_SKEW: i64 = 1_000;

/// Requirements on the servers.
#[derive(Clone, Copy)]
pub(in crate::store) struct ServerRequirements<'a> {
    pub address: &'a RedisAddress,
    pub prefix: &'a str,
    /// Number of replicas that must confirm a revocation.
    pub replicas: u32,
}

impl ServerRequirements<'_> {
    pub(in crate::store::redis) fn is_clustered(&self) -> bool {
        matches!(self.address.topology, Topology::Cluster(_))
    }
}

/// Checks every server that the address leads to.
pub(in crate::store) async fn inspect_servers(
    requirements: ServerRequirements<'_>,
) -> Vec<ServerCheck> {
    let address = requirements.address;
    match &address.topology {
        Topology::Standalone(server) => inspect_server(server, requirements).await,
        Topology::Sentinel(sentinels) => inspect_sentinels(sentinels, requirements).await,
        Topology::Cluster(seeds) => inspect_cluster(seeds, requirements).await,
    }
}

async fn inspect_sentinels(
    sentinels: &Sentinels,
    requirements: ServerRequirements<'_>,
) -> Vec<ServerCheck> {
    let address = requirements.address;
    let mut checks = Vec::new();
    let mut masters: Vec<RedisNode> = Vec::new();
    for node in &sentinels.nodes {
        let report = sentinel::query_sentinel(node, sentinels, address.tls.as_ref());
        let name = format!("Sentinel {node}");
        match with_timeout(SERVER_TIMEOUT, report).await {
            Ok(MasterReport { master, .. }) => {
                let message = format!("{} is {master}", sentinels.master);
                checks.push(server_check(&name, Severity::Ok, message));
                if !masters.contains(&master) {
                    masters.push(master);
                }
            }
            Err(error) => checks.push(server_check(
                &name,
                Severity::Warning,
                unusable_message(&error),
            )),
        }
    }
    match masters.as_slice() {
        [] => {
            let message = format!("no Sentinel says where {} is", sentinels.master);
            checks.push(server_check(&address.topology, Severity::Error, message));
        }
        [master] => checks.extend(inspect_server(master, requirements).await),
        _ => {
            let message = "the Sentinels do not agree on the master".to_owned();
            checks.push(server_check(&address.topology, Severity::Error, message));
        }
    }
    checks
}

async fn inspect_cluster(
    seeds: &[RedisNode],
    requirements: ServerRequirements<'_>,
) -> Vec<ServerCheck> {
    let address = requirements.address;
    let mut checks = Vec::new();
    let mut map: Option<SlotMap> = None;
    for seed in seeds {
        match with_timeout(SERVER_TIMEOUT, query_slot_map(seed, address)).await {
            Ok(reported) => map = map.or(Some(reported)),
            Err(error) => checks.push(server_check(
                seed,
                Severity::Warning,
                unusable_message(&error),
            )),
        }
    }
    let Some(map) = map else {
        let message = "none of these servers says who has which slot".to_owned();
        checks.push(server_check(&address.topology, Severity::Error, message));
        return checks;
    };
    if !map.is_complete() {
        let message = "there are slots that no server has".to_owned();
        checks.push(server_check(&address.topology, Severity::Error, message));
    }
    for master in map.masters() {
        checks.extend(inspect_server(master, requirements).await);
    }
    checks
}

async fn query_slot_map(
    seed: &RedisNode,
    address: &RedisAddress,
) -> Result<SlotMap, ExchangeError> {
    let mut connection = dial::connect(seed, address).await?;
    let mut command = redis::cmd("CLUSTER");
    let reply = command.arg("SLOTS").query_async(&mut connection).await?;
    SlotMap::parse(reply, seed).ok_or_else(|| ExchangeError::unreachable("it knows no cluster"))
}

/// Checks one server; the result is `Ok` only without findings.
async fn inspect_server(
    server: &RedisNode,
    requirements: ServerRequirements<'_>,
) -> Vec<ServerCheck> {
    let check = async {
        let mut connection = dial::connect(server, requirements.address).await?;
        check_server(&mut connection, requirements).await
    };
    let (version, findings) = match with_timeout(SERVER_TIMEOUT, check).await {
        Ok(outcome) => outcome,
        Err(error) => {
            return vec![server_check(
                server,
                Severity::Error,
                unusable_message(&error),
            )];
        }
    };
    if findings.is_empty() {
        return vec![server_check(server, Severity::Ok, version)];
    }
    findings
        .into_iter()
        .map(|(severity, message)| server_check(server, severity, message))
        .collect()
}

async fn check_server(
    connection: &mut MultiplexedConnection,
    requirements: ServerRequirements<'_>,
) -> Result<(String, Vec<(Severity, String)>), ExchangeError> {
    let mut findings = Vec::new();
    let mut version = "it does not report its version".to_owned();
    let info = redis::cmd("INFO").query_async::<String>(connection).await;
    match info {
        Ok(info) => {
            version = product_version(&info).unwrap_or(version);
            findings.extend(check_info(&info, requirements.is_clustered()));
            findings.extend(check_replicas(&info, requirements.replicas));
        }
        Err(error) => {
            let code = ExchangeError::from(error).code;
            let message = format!("version and eviction policy are not known: {code}");
            findings.push((Severity::Warning, message));
        }
    }
    let before = local_millis();
    let time: Result<Value, _> = redis::cmd("TIME").query_async(connection).await;
    let here = i64::midpoint(before, local_millis());
    if let Some(there) = time.ok().as_ref().and_then(parse_time) {
        findings.extend(check_clock(i64::try_from(there).unwrap_or(i64::MAX) - here));
    }
    findings.extend(acl::missing_permissions(connection, requirements).await?);
    findings.extend(check_foreign_keys(connection, &Keys::new(requirements.prefix)).await);
    Ok((version, findings))
}

/// Searches a sample of the keys under the prefix for one that another program has written.
async fn check_foreign_keys(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Option<(Severity, String)> {
    let mut cursor = 0_u64;
    for _ in 0..SCAN_STEPS {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(keys.scan_pattern(""));
        command.arg("COUNT").arg(KEYS_PER_STEP);
        // Skipped without the permission to scan.
        let (next, names): (u64, Vec<Vec<u8>>) = command.query_async(connection).await.ok()?;
        let mut names = names.iter().map(|key| String::from_utf8_lossy(key));
        if let Some(name) = names.find(|name| !keys.is_gateway_key(name)) {
            let name: String = name.escape_debug().take(MAX_SHOWN_KEY).collect();
            let message = format!(
                "`{name}` is no key of the gateway's: another program writes under the key_prefix"
            );
            return Some((Severity::Warning, message));
        }
        cursor = next;
        if cursor == 0 {
            return None;
        }
    }
    None
}

/// Checks version, role, eviction policy and cluster mode in the reply to `INFO`.
fn check_info(info: &str, clustered: bool) -> Vec<(Severity, String)> {
    let mut findings = Vec::new();
    let mut error = |message: String| findings.push((Severity::Error, message));
    match product_version(info) {
        Some(version) if redis_version(info).is_none_or(|numbers| numbers < MIN_VERSION) => {
            error(format!(
                "{version} is too old: 6.2 is the oldest that will do"
            ));
        }
        _ => {}
    }
    if info_field(info, "role").is_some_and(|role| role != "master") {
        error("it is a replica, which accepts no writes".to_owned());
    }
    match info_field(info, "maxmemory_policy") {
        None | Some("noeviction") => {}
        Some(policy) => error(format!(
            "maxmemory-policy is {policy}, which evicts revocations when memory is short: \
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
    findings
}

/// Checks that enough replicas are connected to confirm a revocation.
fn check_replicas(info: &str, required: u32) -> Option<(Severity, String)> {
    let connected = info_field(info, "connected_slaves")?.parse::<u32>().ok()?;
    let message = format!(
        "it has {connected} replicas and revocation_replicas is {required}: \
         every revocation would be answered with 503"
    );
    (connected < required).then_some((Severity::Error, message))
}

/// Checks the clock skew; `ahead` is by how many milliseconds the server's clock is ahead.
fn check_clock(ahead: i64) -> Option<(Severity, String)> {
    let seconds = ahead.unsigned_abs() as f64 / 1000.0;
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let message = format!("its clock is {seconds:.1} s {side} this machine's");
    (ahead.abs() > MAX_CLOCK_SKEW).then_some((Severity::Warning, message))
}

fn info_field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// The product and its version. Valkey reports the compatible Redis version besides its own.
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

fn unusable_message(error: &ExchangeError) -> String {
    if error.code.is_empty() {
        return "it cannot be used".to_owned();
    }
    format!("it cannot be used: {}", error.code)
}

fn server_check(
    server: &dyn std::fmt::Display,
    severity: Severity,
    message: String,
) -> ServerCheck {
    ServerCheck {
        server: server.to_string(),
        severity,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfit_server_info_is_reported() {
        let fit = "redis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";
        let check = |from: &str, to: &str, clustered: bool| {
            let findings = check_info(&fit.replace(from, to), clustered);
            let messages: Vec<String> = findings.into_iter().map(|(_, message)| message).collect();
            messages.join("; ")
        };
        for (from, to, expected) in [
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
            let messages = check(from, to, false);
            assert!(messages.contains(expected), "{to}: {messages}");
            assert_eq!(messages.is_empty(), expected.is_empty(), "{to}: {messages}");
        }
        assert_eq!(check("x", "x", true), "it is not a server of a cluster");
        let valkey = format!("{fit}valkey_version:8.1.0\r\n");
        assert_eq!(product_version(&valkey).as_deref(), Some("Valkey 8.1.0"));
        assert!(check_info(&valkey, false).is_empty());
    }

    #[test]
    fn missing_replicas_are_reported() {
        let check = |required| check_replicas("role:master\r\nconnected_slaves:1\r\n", required);
        assert_eq!((check(0), check(1)), (None, None));
        assert!(check(2).is_some_and(|(_, message)| message.starts_with("it has 1 replicas")));
        assert_eq!(check_replicas("role:master\r\n", 2), None);
    }

    #[test]
    fn clock_skew_over_a_second_is_reported() {
        assert_eq!(check_clock(1_000), None);
        assert_eq!(check_clock(-1_000), None);
        let message = |ahead| check_clock(ahead).map(|(_, text)| text).unwrap_or_default();
        assert_eq!(message(5_250), "its clock is 5.2 s ahead of this machine's");
        assert_eq!(message(-2_000), "its clock is 2.0 s behind this machine's");
    }
}
