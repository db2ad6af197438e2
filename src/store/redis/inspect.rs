//! Looking at the servers of a store, for whoever is about to use them.

use std::time::{Duration, SystemTime};

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::super::inspect::{Finding, Grade};
use super::dial::{self, within};
use super::fault::Fault;
use super::keys::Keys;
use super::sentinel::Answer;
use super::slots::Map;
use super::{clock, rights, sentinel};
use crate::settings::{Node, RedisAddress, Sentinels, Topology};

/// For connecting and everything that is asked of one server.
const PATIENCE: Duration = Duration::from_secs(3);
const OLDEST: (u32, u32) = (6, 2);
/// How much is looked at under the prefix: so many times so many keys of the server's.
const LOOKS: usize = 10;
const KEYS_A_LOOK: u64 = 1_000;
/// Characters of a key that are shown.
const LONGEST_NAME: usize = 80;
/// Clocks may be so far apart, in milliseconds, before somebody is told.
const APART: i64 = 1_000;

/// What the servers have to be good for.
#[derive(Clone, Copy)]
pub(in super::super) struct Wish<'a> {
    pub address: &'a RedisAddress,
    pub prefix: &'a str,
    /// That must have a revocation.
    pub replicas: u32,
}

impl Wish<'_> {
    pub(super) fn is_clustered(&self) -> bool {
        matches!(self.address.topology, Topology::Cluster(_))
    }
}

/// Looks at every server that the address leads to.
pub(in super::super) async fn servers(wish: Wish<'_>) -> Vec<Finding> {
    let address = wish.address;
    match &address.topology {
        Topology::Standalone(server) => one(server, wish).await,
        Topology::Sentinel(sentinels) => watched(sentinels, wish).await,
        Topology::Cluster(seeds) => cluster(seeds, wish).await,
    }
}

async fn watched(sentinels: &Sentinels, wish: Wish<'_>) -> Vec<Finding> {
    let address = wish.address;
    let mut found = Vec::new();
    let mut masters: Vec<Node> = Vec::new();
    for node in &sentinels.nodes {
        let asking = sentinel::ask(node, sentinels, address.tls.as_ref());
        let name = format!("Sentinel {node}");
        match within(PATIENCE, asking).await {
            Ok(Answer { master, .. }) => {
                let what = format!("{} is {master}", sentinels.master);
                found.push(finding(&name, Grade::Fine, what));
                if !masters.contains(&master) {
                    masters.push(master);
                }
            }
            Err(fault) => found.push(finding(&name, Grade::Warning, unusable(&fault))),
        }
    }
    match masters.as_slice() {
        [] => {
            let what = format!("no Sentinel says where {} is", sentinels.master);
            found.push(finding(&address.topology, Grade::Error, what));
        }
        [master] => found.extend(one(master, wish).await),
        _ => {
            let what = "the Sentinels do not agree on the master".to_owned();
            found.push(finding(&address.topology, Grade::Error, what));
        }
    }
    found
}

async fn cluster(seeds: &[Node], wish: Wish<'_>) -> Vec<Finding> {
    let address = wish.address;
    let mut found = Vec::new();
    let mut known: Option<Map> = None;
    for seed in seeds {
        match within(PATIENCE, map_of(seed, address)).await {
            Ok(map) => known = known.or(Some(map)),
            Err(fault) => found.push(finding(seed, Grade::Warning, unusable(&fault))),
        }
    }
    let Some(map) = known else {
        let what = "none of these servers says who has which slot".to_owned();
        found.push(finding(&address.topology, Grade::Error, what));
        return found;
    };
    if !map.is_whole() {
        let what = "there are slots that no server has".to_owned();
        found.push(finding(&address.topology, Grade::Error, what));
    }
    for master in map.masters() {
        found.extend(one(master, wish).await);
    }
    found
}

async fn map_of(seed: &Node, address: &RedisAddress) -> Result<Map, Fault> {
    let mut connection = dial::plain(seed, address).await?;
    let mut question = redis::cmd("CLUSTER");
    let reply = question.arg("SLOTS").query_async(&mut connection).await?;
    Map::read(reply, seed).ok_or_else(|| Fault::unreachable("it knows no cluster"))
}

/// Looks at one server; it is fine only if nothing else is to be said of it.
async fn one(server: &Node, wish: Wish<'_>) -> Vec<Finding> {
    let looking = async {
        let mut connection = dial::plain(server, wish.address).await?;
        look(&mut connection, wish).await
    };
    let (version, told) = match within(PATIENCE, looking).await {
        Ok(found) => found,
        Err(fault) => return vec![finding(server, Grade::Error, unusable(&fault))],
    };
    if told.is_empty() {
        return vec![finding(server, Grade::Fine, version)];
    }
    told.into_iter()
        .map(|(grade, what)| finding(server, grade, what))
        .collect()
}

async fn look(
    connection: &mut MultiplexedConnection,
    wish: Wish<'_>,
) -> Result<(String, Vec<(Grade, String)>), Fault> {
    let mut told = Vec::new();
    let mut version = "it does not tell its version".to_owned();
    let info = redis::cmd("INFO").query_async::<String>(connection).await;
    match info {
        Ok(info) => {
            version = version_of(&info).unwrap_or(version);
            told.extend(by_info(&info, wish.is_clustered()));
            told.extend(by_replicas(&info, wish.replicas));
        }
        Err(error) => {
            let code = Fault::from(error).code;
            let what = format!("version and eviction policy are not known: {code}");
            told.push((Grade::Warning, what));
        }
    }
    let before = now();
    let time: Result<Value, _> = redis::cmd("TIME").query_async(connection).await;
    let here = i64::midpoint(before, now());
    if let Some(there) = time.ok().as_ref().and_then(clock) {
        told.extend(by_clock(i64::try_from(there).unwrap_or(i64::MAX) - here));
    }
    told.extend(rights::missing(connection, wish).await?);
    told.extend(foreign(connection, &Keys::new(wish.prefix)).await);
    Ok((version, told))
}

/// Whether somebody else writes under the prefix, by a look at some of the keys there.
async fn foreign(connection: &mut MultiplexedConnection, keys: &Keys) -> Option<(Grade, String)> {
    let mut cursor = 0_u64;
    for _ in 0..LOOKS {
        let mut look = redis::cmd("SCAN");
        look.arg(cursor).arg("MATCH").arg(keys.pattern(""));
        look.arg("COUNT").arg(KEYS_A_LOOK);
        // Without the right to look there is nothing to be said.
        let found: (u64, Vec<Vec<u8>>) = look.query_async(connection).await.ok()?;
        let names = found.1.iter().map(|key| String::from_utf8_lossy(key));
        if let Some(name) = names.into_iter().find(|name| !keys.is_ours(name)) {
            let name: String = name.escape_debug().take(LONGEST_NAME).collect();
            let what = format!(
                "`{name}` is no key of the gateway's: another program writes under the key_prefix"
            );
            return Some((Grade::Warning, what));
        }
        cursor = found.0;
        if cursor == 0 {
            return None;
        }
    }
    None
}

/// What `INFO` gives reason to say.
fn by_info(info: &str, clustered: bool) -> Vec<(Grade, String)> {
    let mut told = Vec::new();
    let mut error = |what: String| told.push((Grade::Error, what));
    match version_of(info) {
        Some(version) if numbers(info).is_none_or(|numbers| numbers < OLDEST) => {
            error(format!(
                "{version} is too old: 6.2 is the oldest that will do"
            ));
        }
        _ => {}
    }
    if line(info, "role").is_some_and(|role| role != "master") {
        error("it is a replica, and takes no writes".to_owned());
    }
    match line(info, "maxmemory_policy") {
        None | Some("noeviction") => {}
        Some(policy) => error(format!(
            "maxmemory-policy is {policy}, which forgets revocations when memory is short: \
             it must be noeviction"
        )),
    }
    match (line(info, "cluster_enabled"), clustered) {
        (Some("1"), false) => {
            error("it is a server of a cluster: the address must begin with redis+cluster or rediss+cluster".to_owned());
        }
        (Some("0"), true) => error("it is not a server of a cluster".to_owned()),
        _ => {}
    }
    told
}

/// Whether there are as many replicas as must have a revocation.
fn by_replicas(info: &str, wanted: u32) -> Option<(Grade, String)> {
    let connected = line(info, "connected_slaves")?.parse::<u32>().ok()?;
    let what = format!(
        "it has {connected} replicas and revocation_replicas is {wanted}: \
         every revocation would be answered with 503"
    );
    (connected < wanted).then_some((Grade::Error, what))
}

/// How far a server's clock is ahead, in milliseconds.
fn by_clock(ahead: i64) -> Option<(Grade, String)> {
    let seconds = ahead.unsigned_abs() as f64 / 1000.0;
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let what = format!("its clock is {seconds:.1} s {side} this machine's");
    (ahead.abs() > APART).then_some((Grade::Warning, what))
}

fn line<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

/// The product and its version. Others than Redis say beside their own which Redis they are like.
fn version_of(info: &str) -> Option<String> {
    match line(info, "valkey_version") {
        Some(version) => Some(format!("Valkey {version}")),
        None => line(info, "redis_version").map(|version| format!("Redis {version}")),
    }
}

fn numbers(info: &str) -> Option<(u32, u32)> {
    let mut numbers = line(info, "redis_version")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(0))
}

fn unusable(fault: &Fault) -> String {
    if fault.code.is_empty() {
        return "it cannot be used".to_owned();
    }
    format!("it cannot be used: {}", fault.code)
}

fn finding(server: &dyn std::fmt::Display, grade: Grade, what: String) -> Finding {
    Finding {
        server: server.to_string(),
        grade,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells_of_itself_is_judged() {
        let fit = "redis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n";
        let check = |replacing: &str, by: &str, clustered: bool| {
            let told = by_info(&fit.replace(replacing, by), clustered);
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
        assert_eq!(version_of(&valkey).as_deref(), Some("Valkey 8.1.0"));
        assert!(by_info(&valkey, false).is_empty());
    }

    #[test]
    fn replicas_that_are_missing_are_told() {
        let told = |wanted| by_replicas("role:master\r\nconnected_slaves:1\r\n", wanted);
        assert_eq!((told(0), told(1)), (None, None));
        assert!(told(2).is_some_and(|(_, what)| what.starts_with("it has 1 replicas")));
        assert_eq!(by_replicas("role:master\r\n", 2), None);
    }

    #[test]
    fn clocks_may_be_a_second_apart() {
        assert_eq!(by_clock(1_000), None);
        assert_eq!(by_clock(-1_000), None);
        let told = |ahead| by_clock(ahead).map(|(_, what)| what).unwrap_or_default();
        assert_eq!(told(5_250), "its clock is 5.2 s ahead of this machine's");
        assert_eq!(told(-2_000), "its clock is 2.0 s behind this machine's");
    }
}
