//! Whether the user may do what the store does. Each command is queued in a transaction that is given
//! up: the server says at once whether it is allowed, and nothing happens.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::exchange_error::ExchangeError;
use super::inspect::ServerRequirements;
use crate::store::inspect::Severity;

/// Every command that is used, in scripts too, with arguments that it takes; `KEY` is one of ours.
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
/// Only a cluster is asked these.
const CLUSTER_COMMANDS: [&str; 2] = ["ASKING", "CLUSTER"];
/// Only where replicas must have a revocation.
const REPLICATION_COMMAND: &str = "WAIT";

/// What is to be said of the user's rights; nothing, if they are enough.
pub(in crate::store::redis) async fn missing_permissions(
    connection: &mut MultiplexedConnection,
    wish: ServerRequirements<'_>,
) -> Result<Vec<(Severity, String)>, ExchangeError> {
    let prefix = wish.prefix;
    let key = format!("{prefix}probe:{:016x}", rand::random::<u64>());
    let mut told = Vec::new();
    if let Err(error) = redis::cmd("MULTI").query_async::<Value>(connection).await {
        let code = ExchangeError::from(error).code;
        let what = format!("what the user may do cannot be tried: {code}");
        return Ok(vec![(Severity::Warning, what)]);
    }
    for used in COMMANDS {
        let only_there = CLUSTER_COMMANDS.iter().any(|name| used.starts_with(name));
        let only_then = used.starts_with(REPLICATION_COMMAND);
        if (only_there && !wish.is_clustered()) || (only_then && wish.replicas == 0) {
            continue;
        }
        let mut command = redis::Cmd::new();
        for word in used.split(' ') {
            command.arg(if word == "KEY" { key.as_str() } else { word });
        }
        match command.query_async::<Value>(connection).await {
            Ok(_) => {}
            Err(error) => told.extend(describe_denial(&error, &command_name(used), prefix)),
        }
    }
    let _: Value = redis::cmd("DISCARD").query_async(connection).await?;
    told.dedup();
    Ok(told)
}

/// The words before the arguments.
fn command_name(used: &str) -> String {
    let upper = |word: &&str| *word != "KEY" && word.bytes().all(|b| b.is_ascii_uppercase());
    let words: Vec<&str> = used.split(' ').take_while(upper).collect();
    words.join(" ")
}

fn describe_denial(error: &RedisError, name: &str, prefix: &str) -> Option<(Severity, String)> {
    if error.code() != Some("NOPERM") {
        // A key that lies elsewhere, or a command that a transaction does not take.
        return None;
    }
    let about_keys = error
        .detail()
        .is_some_and(|detail| detail.contains("to access"));
    let what = if about_keys {
        format!("the user may not use keys that begin with {prefix}")
    } else {
        format!("the user may not use {name}")
    };
    Some((Severity::Error, what))
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

    /// The commands that a text names after one of these.
    fn commands_after<'t>(text: &'t str, before: &[&str]) -> Vec<&'t str> {
        let starts = before.iter().flat_map(|word| text.match_indices(word));
        starts
            .map(|(at, word)| {
                let rest = text.get(at + word.len()..).unwrap();
                rest.split(['"', '\'']).next().unwrap()
            })
            .collect()
    }

    #[test]
    fn every_used_command_is_checked() {
        let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/redis");
        let mut found = 0;
        for folder in ["links", "codec", "operations", "codec/scripts"].map(|it| engine.join(it)) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let Ok(text) = fs::read_to_string(&path) else {
                    continue;
                };
                let code = text.split("#[cfg(test)]").next().unwrap();
                let calls = ["redis.call('", "redis.pcall('", "cmd(\""];
                for command in commands_after(code, &calls) {
                    let special = ["SENTINEL", "INFO", "MULTI", "DISCARD"].contains(&command);
                    let tried = COMMANDS
                        .iter()
                        .any(|used| command_name(used).split(' ').next() == Some(command));
                    assert!(special || tried, "{}: {command}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found > 60, "{found}");
    }
}
