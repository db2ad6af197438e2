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

/// The backends, by name.
pub(super) fn upstreams(
    written: &BTreeMap<String, file::Upstream>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Vec<Arc<Upstream>>> {
    let mut complete = Some(Vec::new());
    for (name, one) in written {
        let place = place.key(name);
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            let message = "an upstream's name has 1 to 100 printable characters";
            review.error_at_key(&place, message);
        }
        let upstream = upstream(name, one, &place, review);
        complete = complete.zip(upstream).map(|(mut all, upstream)| {
            all.push(Arc::new(upstream));
            all
        });
    }
    complete
}

fn upstream(
    name: &str,
    written: &file::Upstream,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Upstream> {
    let servers = servers(&written.servers, &place.key("servers"), review);
    let host = host(&written.host, &place.key("host"), review);
    let tls_place = place.key("tls");
    let tls = upstream_tls(&written.tls, &tls_place, review);
    let some_https = servers
        .as_ref()
        .is_none_or(|all| all.iter().any(|server| server.tls));
    if tls
        .as_ref()
        .is_some_and(|tls| *tls != UpstreamTls::default())
        && !some_https
    {
        review.error_at_key(
            &tls_place,
            "\"tls\" is given, but none of the servers is https",
        );
    }
    let balance = balance(written, place, review);
    let check = written.health_check.as_ref();
    let health_check = check.map(|check| health_check(check, &place.key("health_check"), review));
    let timeouts = timeouts(&written.timeouts, &place.key("timeouts"), review);
    Some(Upstream {
        name: name.into(),
        servers: servers?,
        protocol: match written.protocol {
            file::Protocol::Http1 => Protocol::Http1,
            file::Protocol::H2 => Protocol::H2,
        },
        host: host?,
        tls: tls?,
        balance: balance?,
        health_check,
        timeouts,
        retries: usize::try_from(written.retries).unwrap_or(0),
    })
}

fn servers(
    written: &[file::Server],
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Vec<Server>> {
    let mut complete = Some(Vec::new());
    let mut seen: Vec<ServerAddress> = Vec::new();
    for (index, one) in written.iter().enumerate() {
        let (url, weight) = one.parts();
        let place = match one {
            file::Server::Url(_) => place.item(index),
            file::Server::Weighted(_) => place.item(index).key("url"),
        };
        let server = match parse_server(url, weight) {
            Ok(server) => {
                if seen.contains(&server.address) {
                    review.error(
                        &place,
                        "this server is in the list already; give it a weight",
                    );
                }
                seen.push(server.address.clone());
                Some(server)
            }
            Err(message) => {
                review.error(&place, message);
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

/// Reads a server's address. It may hold a password by mistake, so it is not shown.
fn parse_server(written: &str, weight: u32) -> Result<Server, &'static str> {
    let made = |address, tls| Server {
        url: written.into(),
        address,
        tls,
        weight: usize::try_from(weight).unwrap_or(1),
    };
    if let Some(path) = written.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err("after \"unix:\" comes an absolute path");
        }
        return Ok(made(ServerAddress::Unix(PathBuf::from(path)), false));
    }
    let wrong = "this is not an address like http://127.0.0.1:3000, https://host or unix:/path";
    let url = Url::parse(written).map_err(|_| wrong)?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(wrong),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a server's address cannot have a user and a password");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("a server's address ends after host and port; a path comes from the request");
    }
    let host = match url.host().ok_or(wrong)? {
        Host::Domain(name) => host_of(name).map_err(|_| wrong)?.into_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let port = port.ok_or("a server's port is from 1 to 65535")?;
    Ok(made(ServerAddress::Tcp { host, port }, tls))
}

fn host(
    written: &str,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<UpstreamHost> {
    match written {
        "preserve" => Some(UpstreamHost::Preserve),
        "upstream" => Some(UpstreamHost::Upstream),
        name => {
            if host_of(name).is_err() {
                review.error(place, "\"host\" is preserve, upstream, or a name");
                return None;
            }
            Some(UpstreamHost::Name(name.to_ascii_lowercase()))
        }
    }
}

/// What verifies a server, and what the gateway shows to it.
pub(super) fn upstream_tls(
    written: &file::UpstreamTls,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<UpstreamTls> {
    let ca = match &written.ca {
        None => None,
        Some(path) => {
            let place = place.key("ca");
            let pem = review.read_file(&place, path)?;
            if let Err(fault) = tls::parse_authorities(&pem) {
                let path = review.display_path(&place, path);
                review.error(&place, format!("{path}: {fault}"));
            }
            Some(pem.to_vec())
        }
    };
    let client = match (&written.cert, &written.key) {
        (None, None) => None,
        (Some(cert), Some(key)) => {
            super::listeners::key_pair(cert, key, place, review)?;
            let cert = review.read_file(&place.key("cert"), cert)?;
            let key = review.read_file(&place.key("key"), key)?;
            Some((cert.to_vec(), key.to_vec()))
        }
        (Some(_), None) | (None, Some(_)) => {
            review.error(place, "\"cert\" and \"key\" go together");
            None
        }
    };
    if let Some(name) = &written.server_name
        && ServerName::try_from(name.as_str()).is_err()
    {
        review.error(
            &place.key("server_name"),
            "this is not a name that a certificate is for",
        );
    }
    Some(UpstreamTls {
        ca,
        client,
        server_name: written.server_name.clone(),
    })
}

fn balance(
    written: &file::Upstream,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Balance> {
    let place = place.key("hash_key");
    let by_hash = written.balance == file::Balance::ConsistentHash;
    match (&written.hash_key, by_hash) {
        (Some(_), false) => {
            review.error_at_key(&place, "\"hash_key\" is for \"balance: consistent_hash\"");
            return None;
        }
        (None, true) => {
            review.error(&place, "\"balance: consistent_hash\" needs \"hash_key\"");
            return None;
        }
        (Some(_), true) | (None, false) => {}
    }
    Some(match written.balance {
        file::Balance::RoundRobin => Balance::RoundRobin,
        file::Balance::LeastRequests => Balance::LeastRequests,
        file::Balance::Random => Balance::Random,
        file::Balance::ConsistentHash => {
            let key = written
                .hash_key
                .as_ref()
                .and_then(|key| parse_hash_key(&key.0));
            if key.is_none() {
                review.error(&place, "this is not the name of a header");
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
    written: &file::HealthCheck,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> HealthCheck {
    let path = written.path.split('?').next().unwrap_or_default();
    let sound = Path::read(path.as_bytes())
        .is_ok_and(|path| path.ambiguities() == PathAmbiguities::NONE)
        && written
            .path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !sound {
        review.error(&place.key("path"), "\"path\" is a path like /healthz");
    }
    HealthCheck {
        path: written.path.clone(),
        interval: review.require_positive(&place.key("interval"), written.interval),
        timeout: review.require_positive(&place.key("timeout"), written.timeout),
        unhealthy_after: usize::try_from(written.unhealthy_after).unwrap_or(1),
        healthy_after: usize::try_from(written.healthy_after).unwrap_or(1),
    }
}

fn timeouts(
    written: &file::Timeouts,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Timeouts {
    let stream_idle = place.key("stream_idle");
    Timeouts {
        connect: review.require_positive(&place.key("connect"), written.connect),
        read: review.require_positive(&place.key("read"), written.read),
        write: review.require_positive(&place.key("write"), written.write),
        idle: review.require_positive(&place.key("idle"), written.idle),
        stream_idle: written
            .stream_idle
            .map(|time| review.require_positive(&stream_idle, time)),
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
        for (written, expected) in [
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
            let found = parse_server(written, 1)
                .ok()
                .map(|server| (server.address, server.tls));
            assert_eq!(found, expected, "{written}");
        }
    }
}
