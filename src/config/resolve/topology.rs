use secrecy::SecretString;
use url::Url;

use super::listeners;
use super::storage::credentials;
use crate::config::context::ResolveContext;
use crate::config::diagnostics::did_you_mean;
use crate::config::document::ConfigPath;
use crate::config::file::storage as file;
use crate::settings::{RedisAddress, RedisNode, RedisTls, Sentinels, Topology};
use crate::tls;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
];
const NO_ADDRESS: &str = "not a valid URL of a Redis server";

/// The parts of the store's URL, as written.
struct AddressParts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    hosts: &'a str,
    path: &'a str,
}

/// Parses the URL of a Redis. It may contain a password, so it is never displayed.
pub(super) fn redis_address(
    raw: &file::Store,
    password: Option<SecretString>,
    section: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<RedisAddress> {
    let location = section.key("url");
    let sentinel_password = context.read_secret(
        section,
        "sentinel_password",
        raw.sentinel_password.as_ref(),
        raw.sentinel_password_file.as_deref(),
    );
    let parts = match parse_parts(&raw.url) {
        Ok(parts) => parts,
        Err(message) => {
            context.error(&location, message);
            return None;
        }
    };
    if !parts.scheme.ends_with("+sentinel") {
        reject_sentinel_password(raw, section, context);
    }
    let tls = tls(raw, &parts, section, context);
    let resolved = topology(&parts, sentinel_password).and_then(|(topology, database)| {
        let login = login(&parts, raw.username.as_ref(), password)?;
        Ok((topology, database, login))
    });
    match resolved {
        Ok((topology, database, (username, password))) => Some(RedisAddress {
            topology,
            database,
            username,
            password,
            tls: tls?,
        }),
        Err(message) => {
            context.error(&location, message);
            None
        }
    }
}

/// The user and the password, from the URL or from keys of their own.
fn login(
    parts: &AddressParts<'_>,
    username: Option<&String>,
    password: Option<SecretString>,
) -> Result<(Option<String>, Option<SecretString>), &'static str> {
    let user = parts
        .user
        .map_or_else(String::new, |user| format!("{user}@"));
    let url = Url::parse(&format!("redis://{user}host")).map_err(|_| NO_ADDRESS)?;
    credentials(&url, username, password)
}

/// Rejects options of Redis for the store `memory`.
pub(super) fn reject_redis_options(
    raw: &file::Store,
    section: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    reject_sentinel_password(raw, section, context);
    if raw.revocation_replicas > 0 {
        let message = "\"revocation_replicas\" applies only to Redis, and this store is in memory";
        context.error_at_key(&section.key("revocation_replicas"), message);
    }
    if raw.tls.is_some() {
        let message = "\"tls\" applies only to Redis, and this store is in memory";
        context.error_at_key(&section.key("tls"), message);
    }
}

fn reject_sentinel_password(
    raw: &file::Store,
    section: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    for (name, given) in [
        ("sentinel_password", raw.sentinel_password.is_some()),
        (
            "sentinel_password_file",
            raw.sentinel_password_file.is_some(),
        ),
    ] {
        if given {
            let message =
                format!("\"{name}\" applies only to redis+sentinel:// and rediss+sentinel://");
            context.error_at_key(&section.key(name), message);
        }
    }
}

fn parse_parts(url: &str) -> Result<AddressParts<'_>, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if !SCHEMES.contains(&scheme) {
        let hint = did_you_mean(scheme, SCHEMES);
        return Err(format!(
            "the store must be memory, redis://HOST:PORT/DATABASE, \
             redis+sentinel://HOST,HOST/MASTER/DATABASE or redis+cluster://HOST,HOST, with rediss \
             for TLS{hint}"
        ));
    }
    if rest.contains(['?', '#']) {
        return Err("the URL of a Redis server must have no query and no fragment".to_owned());
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    Ok(AddressParts {
        scheme,
        user,
        hosts,
        path,
    })
}

/// Returns the servers and the database number.
fn topology(
    parts: &AddressParts<'_>,
    sentinel_password: Option<SecretString>,
) -> Result<(Topology, i64), &'static str> {
    let nodes = |port| -> Result<Vec<RedisNode>, &'static str> {
        let hosts = parts.hosts.split(',');
        hosts.map(|host| parse_node(host, port)).collect()
    };
    match parts.scheme.split_once('+').map(|(_, kind)| kind) {
        None => {
            if parts.hosts.contains(',') {
                return Err("several hosts require redis+sentinel:// or redis+cluster://");
            }
            let server = parse_node(parts.hosts, REDIS_PORT)?;
            Ok((Topology::Standalone(server), parse_database(parts.path)?))
        }
        Some("sentinel") => {
            let nodes = nodes(SENTINEL_PORT)?;
            let (master, rest) = parts.path.split_once('/').unwrap_or((parts.path, ""));
            // The characters that Sentinel itself allows.
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if master.is_empty() || !master.chars().all(allowed) {
                return Err(
                    "the Sentinels must be followed by the name of the master, such as /mymaster",
                );
            }
            let sentinels = Sentinels {
                nodes,
                master: master.to_owned(),
                password: sentinel_password,
            };
            Ok((Topology::Sentinel(sentinels), parse_database(rest)?))
        }
        Some(_) => {
            if !matches!(parts.path, "" | "0") {
                return Err("a cluster has only database 0; the URL must end after the hosts");
            }
            Ok((Topology::Cluster(nodes(REDIS_PORT)?), 0))
        }
    }
}

fn parse_node(host: &str, port: u16) -> Result<RedisNode, &'static str> {
    if host.is_empty() {
        return Err("the URL has no host");
    }
    let url = Url::parse(&format!("redis://{host}")).map_err(|_| NO_ADDRESS)?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or("the URL has no host")?;
    Ok(RedisNode {
        host: host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
        port: url.port().unwrap_or(port),
    })
}

fn parse_database(path: &str) -> Result<i64, &'static str> {
    match path {
        "" => Ok(0),
        number => number
            .parse::<u16>()
            .map(i64::from)
            .map_err(|_| "the host must be followed by a database number, such as /0"),
    }
}

/// Checks the TLS files, which are re-read for every connection. `None` on an error.
fn tls(
    raw: &file::Store,
    parts: &AddressParts<'_>,
    section: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<RedisTls>> {
    let location = section.key("tls");
    let is_tls_scheme = parts.scheme.starts_with("rediss");
    let Some(files) = &raw.tls else {
        return Some(is_tls_scheme.then(RedisTls::default));
    };
    if !is_tls_scheme {
        let message = "\"tls\" is set, but the scheme of the URL is not rediss";
        context.error_at_key(&location, message);
        return None;
    }
    if let Some(path) = &files.ca {
        let location = location.key("ca");
        let pem = context.read_file(&location, path);
        if let Some(Err(error)) = pem.map(|pem| tls::parse_authorities(&pem)) {
            let path = context.display_path(&location, path);
            context.error(&location, format!("{path}: {error}"));
        }
    }
    let client = match (&files.cert, &files.key) {
        (None, None) => None,
        (Some(cert), Some(key)) => {
            if context.reads_key_pair(&location, cert, key) {
                listeners::key_pair(cert, key, &location, context)?;
            }
            Some((
                context.resolve_path(&location.key("cert"), cert),
                context.resolve_path(&location.key("key"), key),
            ))
        }
        (Some(_), None) | (None, Some(_)) => {
            context.error(&location, "\"cert\" and \"key\" must be set together");
            None
        }
    };
    let ca = files.ca.as_ref();
    Some(Some(RedisTls {
        ca: ca.map(|path| context.resolve_path(&location.key("ca"), path)),
        client,
    }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parse(url: &str) -> Result<(String, i64), String> {
        let (topology, database) = topology(&parse_parts(url)?, None)?;
        Ok((topology.to_string(), database))
    }

    #[test]
    fn addresses_of_every_topology_are_parsed() {
        for (url, displayed, database) in [
            ("redis://127.0.0.1", "127.0.0.1:6379", 0),
            ("redis://[::1]:7000/3", "[::1]:7000", 3),
            ("rediss://user:pass@redis.test:1", "redis.test:1", 0),
            (
                "redis+sentinel://u:p@a,b:1,[::1]:2/my-master.1/2",
                "my-master.1 of the Sentinels a:26379, b:1, [::1]:2",
                2,
            ),
            ("rediss+sentinel://a/m", "m of the Sentinels a:26379", 0),
            ("redis+cluster://a,b:7001", "the cluster a:6379, b:7001", 0),
            ("rediss+cluster://a/0", "the cluster a:6379", 0),
        ] {
            assert_eq!(
                parse(url).unwrap(),
                (displayed.to_owned(), database),
                "{url}"
            );
        }
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for (url, expected) in [
            ("redis://", "has no host"),
            ("redis://:7", NO_ADDRESS),
            ("redis://a:99999", NO_ADDRESS),
            ("redis://a?x=1", "must have no query"),
            ("redis://a/first", "a database number"),
            ("redis://a,b", "several hosts"),
            ("redis+sentinel://a,b", "the name of the master"),
            ("redis+sentinel://a/", "the name of the master"),
            ("redis+sentinel://a/my master", "the name of the master"),
            ("redis+sentinel://a/m/x", "a database number"),
            ("redis+sentinel://a,,b/m", "has no host"),
            ("redis+cluster://a/1", "only database 0"),
            ("redis+cluster://a,", "has no host"),
            ("reddis://a", "did you mean \"redis\"?"),
            ("redis-sentinel://a/m", "did you mean \"redis+sentinel\"?"),
            ("127.0.0.1:6379", "the store must be memory"),
            ("", "the store must be memory"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}
