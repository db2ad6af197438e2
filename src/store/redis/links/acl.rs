//! Check of the user's permissions.
//!
//! Each command is queued in a transaction that is discarded: the server reports at once whether it is
//! permitted, and executes nothing.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::exchange_error::ExchangeError;
use super::inspect::ServerRequirements;
use crate::store::inspect::Severity;

/// Every command used, also in scripts, with valid arguments; `KEY` stands for a key of the gateway.
const COMMANDS: [&str; 37] = [
    "EVALSHA 0 1 KEY",
    "EVAL - 1 KEY",
    "SCRIPT LOAD -",
    "TIME",
    "PING",
    "CLIENT TRACKING off",
    "SCAN 0",
    "GET KEY",
    "SET KEY 1",
    "GETRANGE KEY 0 1",
    "DEL KEY",
    "EXISTS KEY",
    "EXPIRE KEY 1",
    "PEXPIRE KEY 1",
    "PEXPIREAT KEY 1",
    "PTTL KEY",
    "TYPE KEY",
    "HDEL KEY a",
    "HEXISTS KEY a",
    "HGET KEY a",
    "HGETALL KEY",
    "HLEN KEY",
    "HSET KEY a 1",
    "LINDEX KEY 0",
    "LLEN KEY",
    "LPOP KEY",
    "LRANGE KEY 0 1",
    "LTRIM KEY 0 1",
    "RPUSH KEY 1",
    "XADD KEY * a 1",
    "XRANGE KEY - +",
    "XREVRANGE KEY + -",
    "ROLE",
    "ASKING",
    "CLUSTER SLOTS",
    "CLUSTER INFO",
    "WAIT 0 1",
];
/// Commands used in clusters only.
const CLUSTER_COMMANDS: [&str; 2] = ["ASKING", "CLUSTER"];
/// Command used only if revocations wait for replicas.
const REPLICATION_COMMAND: &str = "WAIT";

/// Returns the user's missing permissions.
pub(in crate::store::redis) async fn missing_permissions(
    connection: &mut MultiplexedConnection,
    requirements: ServerRequirements<'_>,
) -> Result<Vec<(Severity, String)>, ExchangeError> {
    let prefix = requirements.prefix;
    let key = format!("{prefix}probe:{:016x}", rand::random::<u64>());
    let mut missing = Vec::new();
    if let Err(error) = redis::cmd("MULTI").query_async::<Value>(connection).await {
        let code = ExchangeError::from(error).code;
        let message = format!("cannot check the user's permissions: {code}");
        return Ok(vec![(Severity::Warning, message)]);
    }
    for used in COMMANDS {
        let for_clusters = CLUSTER_COMMANDS.iter().any(|name| used.starts_with(name));
        let for_replicas = used.starts_with(REPLICATION_COMMAND);
        if (for_clusters && !requirements.is_clustered())
            || (for_replicas && requirements.replicas == 0)
        {
            continue;
        }
        let mut command = redis::Cmd::new();
        for word in used.split(' ') {
            command.arg(if word == "KEY" { key.as_str() } else { word });
        }
        match command.query_async::<Value>(connection).await {
            Ok(_) => {}
            Err(error) => missing.extend(describe_denial(&error, &command_name(used), prefix)),
        }
    }
    let _: Value = redis::cmd("DISCARD").query_async(connection).await?;
    missing.dedup();
    Ok(missing)
}

/// The name of a command and its subcommand, without arguments.
fn command_name(used: &str) -> String {
    let is_name = |word: &&str| *word != "KEY" && word.bytes().all(|b| b.is_ascii_uppercase());
    let words: Vec<&str> = used.split(' ').take_while(is_name).collect();
    words.join(" ")
}

fn describe_denial(error: &RedisError, name: &str, prefix: &str) -> Option<(Severity, String)> {
    if error.code() != Some("NOPERM") {
        // A redirect, or a command that is not allowed in transactions.
        return None;
    }
    let is_about_keys = error
        .detail()
        .is_some_and(|detail| detail.contains("to access"));
    let message = if is_about_keys {
        format!("the user may not use keys that begin with {prefix}")
    } else {
        format!("the user may not use {name}")
    };
    Some((Severity::Error, message))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn command_name_excludes_arguments() {
        for (used, expected) in [
            ("SCAN 0", "SCAN"),
            ("SCRIPT LOAD -", "SCRIPT LOAD"),
            ("GET KEY", "GET"),
            ("TIME", "TIME"),
        ] {
            assert_eq!(command_name(used), expected);
        }
    }

    /// The quoted commands that follow one of the prefixes in a text.
    fn commands_after<'t>(text: &'t str, prefixes: &[&str]) -> Vec<&'t str> {
        let starts = prefixes
            .iter()
            .flat_map(|prefix| text.match_indices(prefix));
        starts
            .map(|(at, prefix)| {
                let rest = text.get(at + prefix.len()..).unwrap();
                rest.split(['"', '\'']).next().unwrap()
            })
            .collect()
    }

    #[test]
    fn every_used_command_is_checked() {
        let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/redis");
        let mut count = 0;
        for folder in [
            "links",
            "codec",
            "operations",
            "codec/scripts",
            "links/slots",
        ] {
            let folder = engine.join(folder);
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let Ok(text) = fs::read_to_string(&path) else {
                    continue;
                };
                let code = text.split("#[cfg(test)]").next().unwrap();
                let calls = ["redis.call('", "redis.pcall('", "cmd(\""];
                for command in commands_after(code, &calls) {
                    let is_exempt = ["SENTINEL", "INFO", "MULTI", "DISCARD"].contains(&command);
                    let is_checked = COMMANDS
                        .iter()
                        .any(|used| command_name(used).split(' ').next() == Some(command));
                    assert!(is_exempt || is_checked, "{}: {command}", path.display());
                    count += 1;
                }
            }
        }
        assert!(count > 60, "{count}");
    }
}
