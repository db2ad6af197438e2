use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderName;
use rustls::pki_types::ServerName;
use url::{Host, Url};

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::routing::upstream as file;
use crate::routing::{Path, PathAmbiguities, host_of};
use crate::settings::{
    Balance, HashKey, HealthCheck, Protocol, Server, ServerAddress, Timeouts, Upstream,
    UpstreamHost, UpstreamTls,
};
use crate::tls;

/// Resolves the upstreams.
pub(super) fn upstreams(
    raw: &BTreeMap<String, file::Upstream>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<Arc<Upstream>>> {
    let mut complete = Some(Vec::new());
    for (name, one) in raw {
        let location = location.key(name);
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            let message = "an upstream's name must consist of 1 to 100 printable characters";
            context.error_at_key(&location, message);
        }
        let upstream = upstream(name, one, &location, context);
        complete = complete.zip(upstream).map(|(mut all, upstream)| {
            all.push(Arc::new(upstream));
            all
        });
    }
    complete
}

fn upstream(
    name: &str,
    raw: &file::Upstream,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Upstream> {
    let servers = servers(&raw.servers, &location.key("servers"), context);
    let host = host(&raw.host, &location.key("host"), context);
    let tls_place = location.key("tls");
    let tls = upstream_tls(&raw.tls, &tls_place, context);
    let any_https = servers
        .as_ref()
        .is_none_or(|all| all.iter().any(|server| server.tls));
    if tls
        .as_ref()
        .is_some_and(|tls| *tls != UpstreamTls::default())
        && !any_https
    {
        context.error_at_key(
            &tls_place,
            "\"tls\" is set, but none of the servers is https",
        );
    }
    let balance = balance(raw, location, context);
    let check = raw.health_check.as_ref();
    let health_check =
        check.map(|check| health_check(check, &location.key("health_check"), context));
    let timeouts = timeouts(&raw.timeouts, &location.key("timeouts"), context);
    Some(Upstream {
        name: name.into(),
        servers: servers?,
        protocol: match raw.protocol {
            file::Protocol::Http1 => Protocol::Http1,
            file::Protocol::H2 => Protocol::H2,
        },
        host: host?,
        tls: tls?,
        balance: balance?,
        health_check,
        timeouts,
        retries: usize::try_from(raw.retries).unwrap_or(0),
    })
}

fn servers(
    raw: &[file::Server],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<Server>> {
    let mut complete = Some(Vec::new());
    let mut seen: Vec<ServerAddress> = Vec::new();
    for (index, one) in raw.iter().enumerate() {
        let (url, weight) = one.parts();
        let location = match one {
            file::Server::Url(_) => location.item(index),
            file::Server::Weighted(_) => location.item(index).key("url"),
        };
        let server = match parse_server(url, weight) {
            Ok(server) => {
                if seen.contains(&server.address) {
                    context.error(&location, "duplicate server; use a weight instead");
                }
                seen.push(server.address.clone());
                Some(server)
            }
            Err(message) => {
                context.error(&location, message);
                None
            }
        };
        complete = complete.zip(server).map(|(mut all, server)| {
            all.push(server);
            all
        });
    }
    complete
}

/// Parses the URL of a server. It may contain a password by mistake, so it is not shown.
fn parse_server(text: &str, weight: u32) -> Result<Server, &'static str> {
    let server = |address, tls| Server {
        url: text.into(),
        address,
        tls,
        weight: usize::try_from(weight).unwrap_or(1),
    };
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err("\"unix:\" must be followed by an absolute path");
        }
        return Ok(server(ServerAddress::Unix(PathBuf::from(path)), false));
    }
    let message = "not a server URL such as http://127.0.0.1:3000, https://host or unix:/path";
    let url = Url::parse(text).map_err(|_| message)?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(message),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a server URL must not contain a user or a password");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("a server URL must end after host and port; the path is that of the request");
    }
    let host = match url.host().ok_or(message)? {
        Host::Domain(name) => host_of(name).map_err(|_| message)?.into_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let port = port.ok_or("a server's port must be from 1 to 65535")?;
    Ok(server(ServerAddress::Tcp { host, port }, tls))
}

fn host(
    raw: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<UpstreamHost> {
    match raw {
        "preserve" => Some(UpstreamHost::Preserve),
        "upstream" => Some(UpstreamHost::Upstream),
        name => {
            if host_of(name).is_err() {
                context.error(location, "\"host\" must be preserve, upstream or a name");
                return None;
            }
            Some(UpstreamHost::Name(name.to_ascii_lowercase()))
        }
    }
}

/// Resolves the CA certificates that verify servers, and the client certificate.
pub(super) fn upstream_tls(
    raw: &file::UpstreamTls,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<UpstreamTls> {
    let ca = match &raw.ca {
        None => None,
        Some(path) => {
            let location = location.key("ca");
            let pem = context.read_file(&location, path)?;
            if let Err(error) = tls::parse_authorities(&pem) {
                let path = context.display_path(&location, path);
                context.error(&location, format!("{path}: {error}"));
            }
            Some(pem.to_vec())
        }
    };
    let client = match (&raw.cert, &raw.key) {
        (None, None) => None,
        (Some(cert), Some(key)) if !context.reads_key_pair(location, cert, key) => None,
        (Some(cert), Some(key)) => {
            super::listeners::key_pair(cert, key, location, context)?;
            let cert = context.read_file(&location.key("cert"), cert)?;
            let key = context.read_file(&location.key("key"), key)?;
            Some((cert.to_vec(), key.to_vec()))
        }
        (Some(_), None) | (None, Some(_)) => {
            context.error(location, "\"cert\" and \"key\" must be set together");
            None
        }
    };
    if let Some(name) = &raw.server_name
        && ServerName::try_from(name.as_str()).is_err()
    {
        context.error(
            &location.key("server_name"),
            "not a valid name for a certificate",
        );
    }
    Some(UpstreamTls {
        ca,
        client,
        server_name: raw.server_name.clone(),
    })
}

fn balance(
    raw: &file::Upstream,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Balance> {
    let location = location.key("hash_key");
    let by_hash = raw.balance == file::Balance::ConsistentHash;
    match (&raw.hash_key, by_hash) {
        (Some(_), false) => {
            context.error_at_key(
                &location,
                "\"hash_key\" applies only to \"balance: consistent_hash\"",
            );
            return None;
        }
        (None, true) => {
            context.error(&location, "\"balance: consistent_hash\" needs \"hash_key\"");
            return None;
        }
        (Some(_), true) | (None, false) => {}
    }
    Some(match raw.balance {
        file::Balance::RoundRobin => Balance::RoundRobin,
        file::Balance::LeastRequests => Balance::LeastRequests,
        file::Balance::Random => Balance::Random,
        file::Balance::ConsistentHash => {
            let key = raw.hash_key.as_ref().and_then(|key| parse_hash_key(&key.0));
            if key.is_none() {
                context.error(&location, "not a valid header name");
            }
            Balance::ConsistentHash(key?)
        }
    })
}

fn parse_hash_key(text: &str) -> Option<HashKey> {
    Some(match text {
        "ip" => HashKey::Ip,
        "user" => HashKey::User,
        "session" => HashKey::Session,
        other => {
            let name = other.strip_prefix("header:")?;
            HashKey::Header(HeaderName::from_bytes(name.as_bytes()).ok()?)
        }
    })
}

fn health_check(
    raw: &file::HealthCheck,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> HealthCheck {
    let path = raw.path.split('?').next().unwrap_or_default();
    let is_valid = Path::read(path.as_bytes())
        .is_ok_and(|path| path.ambiguities() == PathAmbiguities::NONE)
        && raw
            .path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_valid {
        context.error(
            &location.key("path"),
            "\"path\" must be a path such as /healthz",
        );
    }
    HealthCheck {
        path: raw.path.clone(),
        interval: context.require_positive(&location.key("interval"), raw.interval),
        timeout: context.require_positive(&location.key("timeout"), raw.timeout),
        unhealthy_after: usize::try_from(raw.unhealthy_after).unwrap_or(1),
        healthy_after: usize::try_from(raw.healthy_after).unwrap_or(1),
    }
}

fn timeouts(
    raw: &file::Timeouts,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Timeouts {
    let stream_idle = location.key("stream_idle");
    Timeouts {
        connect: context.require_positive(&location.key("connect"), raw.connect),
        read: context.require_positive(&location.key("read"), raw.read),
        write: context.require_positive(&location.key("write"), raw.write),
        idle: context.require_positive(&location.key("idle"), raw.idle),
        stream_idle: raw
            .stream_idle
            .map(|time| context.require_positive(&stream_idle, time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_parsed() {
        let tcp = |host: &str, port| ServerAddress::Tcp {
            host: host.to_owned(),
            port,
        };
        for (text, expected) in [
            (
                "http://127.0.0.1:3000",
                Some((tcp("127.0.0.1", 3000), false)),
            ),
            ("http://Backend", Some((tcp("backend", 80), false))),
            (
                "https://backend.test/",
                Some((tcp("backend.test", 443), true)),
            ),
            ("http://[::1]:3000", Some((tcp("::1", 3000), false))),
            (
                "unix:/run/app.sock",
                Some((ServerAddress::Unix("/run/app.sock".into()), false)),
            ),
            ("unix:app.sock", None),
            ("127.0.0.1:3000", None),
            ("backend:3000", None),
            ("ftp://backend", None),
            ("http://user:secret@backend", None),
            ("http://backend/path", None),
            ("http://backend?x", None),
            ("http://backend:0", None),
            ("", None),
        ] {
            let parsed = parse_server(text, 1)
                .ok()
                .map(|server| (server.address, server.tls));
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
