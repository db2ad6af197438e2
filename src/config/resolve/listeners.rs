use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::listeners as file;
use crate::settings::{
    CertificateExpiry, ConnectionLimits, ForwardedBy, Http2, Listener, ReloadableListener,
};
use crate::tls;

/// Bytes; more than a megabyte of headers is not a request.
const HEAD_SIZE: std::ops::RangeInclusive<u64> = (1 << 10)..=(1 << 20);
/// Bytes: what HTTP/2 begins with, up to what a window can reach without overflowing by an update.
const WINDOW_SIZE: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);
/// Bytes of an admin token.
const MIN_ADMIN_TOKEN: usize = 16;

/// The public sockets, what a restart rules and what a reload does.
pub(super) fn listeners(
    written: &[file::Listener],
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Vec<(Listener, ReloadableListener)>> {
    let mut seen: Vec<SocketAddr> = Vec::new();
    let mut complete = Some(Vec::new());
    for (index, one) in written.iter().enumerate() {
        let place = place.item(index);
        let bind = parse_address(&one.bind, &place.key("bind"), review);
        if let Some(bind) = bind {
            // Port 0 is a free port, another one each time.
            if bind.port() != 0 && seen.contains(&bind) {
                review.error(
                    &place.key("bind"),
                    format!("another listener has {bind} already"),
                );
            }
            seen.push(bind);
        }
        let live = reloadable_listener(one, &place, review);
        let limits = connection_limits(&one.limits, &place.key("limits"), review);
        let http2 = http2(&one.http2, &place.key("http2"), review);
        let listener = bind.zip(live).map(|(bind, live)| {
            let listener = Listener {
                bind,
                tls: one.tls.is_some(),
                client_ip_from: match one.client_ip_from {
                    file::ForwardedBy::XForwardedFor => ForwardedBy::XForwardedFor,
                    file::ForwardedBy::Forwarded => ForwardedBy::Forwarded,
                },
                proxy_protocol: one.proxy_protocol,
                limits,
                http2,
            };
            (listener, live)
        });
        complete = complete.zip(listener).map(|(mut all, one)| {
            all.push(one);
            all
        });
    }
    complete
}

fn reloadable_listener(
    one: &file::Listener,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<ReloadableListener> {
    let proxies = place.key("trusted_proxies");
    let mut trusted_proxies = Vec::new();
    for (index, text) in one.trusted_proxies.iter().enumerate() {
        match parse_network(text) {
            Some(network) => trusted_proxies.push(network),
            None => {
                let message =
                    "this is not an address or a network like 10.0.0.0/8 or 2001:db8::/32";
                review.error(&proxies.item(index), message);
            }
        }
    }
    let (tls, certificates) = match &one.tls {
        Some(written) => {
            let (config, expiries) = server_tls(written, &place.key("tls"), review)?;
            (Some(config), expiries)
        }
        None => (None, Vec::new()),
    };
    Some(ReloadableListener {
        trusted_proxies,
        redirect_to_https: one.redirect_to_https,
        tls,
        certificates,
    })
}

fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok();
    network
        .map(|network| network.trunc())
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// What a listener serves, and when its certificates expire.
fn server_tls(
    written: &file::ListenerTls,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<(Arc<rustls::ServerConfig>, Vec<CertificateExpiry>)> {
    let certificates = place.key("certificates");
    let (mut chains, mut expiries) = (Some(Vec::new()), Vec::new());
    for (index, pair) in written.certificates.iter().enumerate() {
        let chain = key_pair(&pair.cert, &pair.key, &certificates.item(index), review);
        expiries.extend(chain.as_ref().map(|chain| CertificateExpiry {
            file: pair.cert.clone(),
            not_after: chain.not_after(),
        }));
        chains = chains.zip(chain).map(|(mut chains, chain)| {
            chains.push(chain);
            chains
        });
    }
    let clients = match &written.client_ca {
        None => Some(tls::ClientAuth::NotRequested),
        Some(path) => {
            let place = place.key("client_ca");
            let pem = review.read_file(&place, path)?;
            match tls::client_auth(&pem) {
                Ok(clients) => Some(clients),
                Err(fault) => {
                    let path = review.display_path(&place, path);
                    review.error(&place, format!("{path}: {fault}"));
                    None
                }
            }
        }
    };
    match tls::server_config(chains?, clients?) {
        Ok(config) => Some((config, expiries)),
        Err(fault) => {
            review.error(&certificates, fault.to_string());
            None
        }
    }
}

/// A certificate chain with the key that belongs to it.
pub(super) fn key_pair(
    cert: &str,
    key: &str,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<tls::CertificateChain> {
    let cert_pem = review.read_file(&place.key("cert"), cert);
    let key_pem = review.read_file(&place.key("key"), key);
    match tls::parse_chain(&cert_pem?, &key_pem?) {
        Ok(chain) => Some(chain),
        Err(fault) => {
            let (name, path) = if fault.is_about_key() {
                ("key", key)
            } else {
                ("cert", cert)
            };
            let place = place.key(name);
            let path = review.display_path(&place, path);
            review.error(&place, format!("{path}: {fault}"));
            None
        }
    }
}

fn connection_limits(
    written: &file::ConnectionLimits,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> ConnectionLimits {
    if !HEAD_SIZE.contains(&written.head.0) {
        review.error(&place.key("head"), "\"head\" must be from 1KiB to 1MiB");
    }
    let key = |name| place.key(name);
    ConnectionLimits {
        head: usize::try_from(written.head.0).unwrap_or(usize::MAX),
        head_timeout: review.require_positive(&key("head_timeout"), written.head_timeout),
        handshake_timeout: review
            .require_positive(&key("handshake_timeout"), written.handshake_timeout),
        keepalive: review.require_positive(&key("keepalive"), written.keepalive),
        write_timeout: review.require_positive(&key("write_timeout"), written.write_timeout),
        fields: usize::try_from(written.fields).unwrap_or(usize::MAX),
        connections: usize::try_from(written.connections).unwrap_or(usize::MAX),
        connections_per_address: written
            .connections_per_address
            .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        body_rate: written.body_rate,
    }
}

fn http2(written: &file::Http2, place: &ConfigPath, review: &mut ResolveContext<'_>) -> Http2 {
    let mut window = |name: &str, size: u64| {
        if !WINDOW_SIZE.contains(&size) {
            let message = format!("\"{name}\" must be from 64KiB to 1GiB");
            review.error(&place.key(name), message);
        }
        u32::try_from(size).unwrap_or(u32::MAX)
    };
    Http2 {
        streams: written.streams,
        stream_window: window("stream_window", written.stream_window.0),
        connection_window: window("connection_window", written.connection_window.0),
    }
}

/// The admin listener's address and token.
pub(super) fn admin(
    written: &file::Admin,
    listeners: &[file::Listener],
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<(SocketAddr, Option<SecretString>)> {
    let bind = parse_address(&written.bind, &place.key("bind"), review);
    if let Some(bind) = bind {
        let same = |listener: &file::Listener| listener.bind.parse() == Ok(bind);
        if bind.port() != 0 && listeners.iter().any(same) {
            let message = format!("a listener has {bind} already; administration is never public");
            review.error(&place.key("bind"), message);
        }
    }
    let file = written.token_file.as_deref();
    let token = review.read_secret(place, "token", written.token.as_ref(), file);
    if let Some(token) = &token {
        let length = token.expose_secret().len();
        if length < MIN_ADMIN_TOKEN {
            let name = if file.is_some() {
                "token_file"
            } else {
                "token"
            };
            let message = format!(
                "the admin token needs at least {MIN_ADMIN_TOKEN} bytes, this one has {length}"
            );
            review.error(&place.key(name), message);
        }
    }
    bind.map(|bind| (bind, token))
}

/// The names by which the admin listener may be called; `None`: by any.
pub(super) fn admin_names(
    written: &file::Admin,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Vec<String>> {
    let place = place.key("names");
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    for (index, name) in written.names.iter().enumerate() {
        if name != "*" && (name.is_empty() || !name.bytes().all(is_of_names)) {
            let message = "this is neither a host name without a port nor \"*\"";
            review.error(&place.item(index), message);
        }
    }
    if written.names.iter().any(|name| name == "*") {
        return None;
    }
    let names = written.names.iter();
    Some(
        names
            .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
            .collect(),
    )
}

fn parse_address(
    text: &str,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        let message = "this is not an address and a port like 127.0.0.1:8080 or [::]:443";
        review.error(place, message);
    }
    address
}
