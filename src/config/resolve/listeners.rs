use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use super::acme;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::acme::Acme;
use crate::config::file::encryption::Encryption;
use crate::config::file::{File, listeners as file};
use crate::settings::acme::ListenerAcme;
use crate::settings::{
    BindAddress, CertificateExpiry, ConnectionLimits, ForwardedBy, Http2, Listener,
    ReloadableListener,
};
use crate::tls;

/// Sizes of a request head, in bytes.
const HEAD_SIZE: std::ops::RangeInclusive<u64> = (1 << 10)..=(1 << 20);
/// Sizes of an HTTP/2 window, in bytes: from the initial size to one that no update can overflow.
const WINDOW_SIZE: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);
/// Minimum length of an admin token, in bytes.
const MIN_ADMIN_TOKEN: usize = 16;

/// Resolves the public listeners: the settings fixed until a restart, and the reloadable ones.
pub(super) fn listeners(
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<(Listener, ReloadableListener)>> {
    let mut seen: Vec<(SocketAddr, ConfigPath)> = Vec::new();
    let mut complete = Some(Vec::new());
    for (index, one) in file.listeners.iter().enumerate() {
        let location = location.item(index);
        let at = location.key("bind");
        let bind = parse_address(&one.bind, &at, context);
        if let Some(bind) = bind {
            // Port 0 selects a different free port each time.
            let mut others = seen.iter().filter(|_| bind.port() != 0);
            if let Some((_, first)) = others.find(|(other, _)| *other == bind) {
                let first = context.first_position(first, &at);
                let message =
                    format!("another listener already has the address {bind}, at {first}");
                context.error(&at, message);
            }
            seen.push((bind, at));
        }
        let tls = one.tls.as_ref();
        let reloadable = reloadable_listener(
            &one.trusted_proxies,
            tls,
            &file.encryption,
            &location,
            context,
        );
        let reloadable = reloadable.map(|reloadable| ReloadableListener {
            redirect_to_https: one.redirect_to_https,
            ..reloadable
        });
        let limits = connection_limits(&one.limits, &location.key("limits"), context);
        let http2 = http2(&one.http2, &location.key("http2"), context);
        let listener = bind.zip(reloadable).map(|(bind, reloadable)| {
            let listener = Listener {
                bind: BindAddress::Tcp(bind),
                tls: one.tls.is_some(),
                client_ip_from: match one.client_ip_from {
                    file::ForwardedBy::XForwardedFor => ForwardedBy::XForwardedFor,
                    file::ForwardedBy::Forwarded => ForwardedBy::Forwarded,
                },
                proxy_protocol: one.proxy_protocol,
                limits,
                http2,
            };
            (listener, reloadable)
        });
        complete = complete.zip(listener).map(|(mut all, one)| {
            all.push(one);
            all
        });
    }
    complete
}

/// Resolves what a reload replaces of a listener.
pub(super) fn reloadable_listener(
    proxies: &[String],
    tls: Option<&file::ListenerTls>,
    encryption: &Encryption,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ReloadableListener> {
    let mut listener = ReloadableListener {
        trusted_proxies: networks(proxies, &location.key("trusted_proxies"), context),
        redirect_to_https: false,
        tls: None,
        certificates: Vec::new(),
        acme: None,
    };
    if let Some(raw) = tls {
        let location = location.key("tls");
        let acme = raw.acme.as_ref();
        let acme = acme.map(|raw| listener_acme(raw, encryption, &location.key("acme"), context));
        let issued = acme.as_ref().and_then(Option::as_ref);
        let issued = issued.map(|acme| Arc::clone(&acme.issued));
        let (config, expiries) = server_tls(raw, issued, &location, context)?;
        (listener.tls, listener.certificates) = (Some(config), expiries);
        if let Some(acme) = acme {
            listener.acme = Some(acme?);
        }
    }
    Some(listener)
}

fn listener_acme(
    raw: &Acme,
    encryption: &Encryption,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ListenerAcme> {
    let settings = acme::acme(raw, encryption, location, context)?;
    let issued = Arc::default();
    Some(ListenerAcme { settings, issued })
}

fn networks(
    texts: &[String],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match parse_network(text) {
            Some(network) => networks.push(network),
            None => {
                let message = "not an address or network such as 10.0.0.0/8 or 2001:db8::/32";
                context.error(&location.item(index), message);
            }
        }
    }
    networks
}

fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok();
    network
        .map(|network| network.trunc())
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Resolves the TLS configuration of a listener, and when its certificates expire.
fn server_tls(
    raw: &file::ListenerTls,
    issued: Option<Arc<tls::IssuedCertificates>>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<(Arc<rustls::ServerConfig>, Vec<CertificateExpiry>)> {
    let certificates = location.key("certificates");
    if !context.source_map.contains(&certificates) && raw.acme.is_none() {
        context.error_at_key(location, "\"certificates\" or \"acme\" is missing");
    }
    let (mut chains, mut expiries) = (Some(Vec::new()), Vec::new());
    for (index, pair) in raw.certificates.iter().enumerate() {
        let location = certificates.item(index);
        if !context.reads_key_pair(&location, &pair.cert, &pair.key) {
            continue;
        }
        let chain = key_pair(&pair.cert, &pair.key, &location, context);
        expiries.extend(chain.as_ref().map(|chain| CertificateExpiry {
            file: pair.cert.clone(),
            not_after: chain.not_after(),
        }));
        chains = chains.zip(chain).map(|(mut chains, chain)| {
            chains.push(chain);
            chains
        });
    }
    let clients = match &raw.client_ca {
        None => Some(tls::ClientAuth::NotRequested),
        Some(path) => {
            let location = location.key("client_ca");
            let pem = context.read_file(&location, path)?;
            match tls::client_auth(&pem) {
                Ok(clients) => Some(clients),
                Err(error) => {
                    let path = context.display_path(&location, path);
                    context.error(&location, format!("{path}: {error}"));
                    None
                }
            }
        }
    };
    match tls::server_config(chains?, issued, clients?) {
        Ok(config) => Some((config, expiries)),
        Err(error) => {
            context.error(&certificates, error.to_string());
            None
        }
    }
}

/// Reads a certificate chain and its key.
pub(super) fn key_pair(
    cert: &str,
    key: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<tls::CertificateChain> {
    let cert_pem = context.read_file(&location.key("cert"), cert);
    let key_pem = context.read_file(&location.key("key"), key);
    match tls::parse_chain(&cert_pem?, &key_pem?) {
        Ok(chain) => Some(chain),
        Err(error) => {
            let (name, path) = if error.is_about_key() {
                ("key", key)
            } else {
                ("cert", cert)
            };
            let location = location.key(name);
            let path = context.display_path(&location, path);
            context.error(&location, format!("{path}: {error}"));
            None
        }
    }
}

/// Resolves the limits of a listener's connections.
pub(super) fn connection_limits(
    raw: &file::ConnectionLimits,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> ConnectionLimits {
    if !HEAD_SIZE.contains(&raw.head.0) {
        context.error(&location.key("head"), "\"head\" must be from 1KiB to 1MiB");
    }
    let key = |name| location.key(name);
    ConnectionLimits {
        head: usize::try_from(raw.head.0).unwrap_or(usize::MAX),
        head_timeout: context.require_positive(&key("head_timeout"), raw.head_timeout),
        handshake_timeout: context
            .require_positive(&key("handshake_timeout"), raw.handshake_timeout),
        keepalive: context.require_positive(&key("keepalive"), raw.keepalive),
        write_timeout: context.require_positive(&key("write_timeout"), raw.write_timeout),
        fields: usize::try_from(raw.fields).unwrap_or(usize::MAX),
        connections: usize::try_from(raw.connections).unwrap_or(usize::MAX),
        connections_per_address: raw
            .connections_per_address
            .map(|maximum| usize::try_from(maximum).unwrap_or(usize::MAX)),
        body_rate: raw.body_rate,
    }
}

/// Resolves the limits of a listener's HTTP/2 connections.
pub(super) fn http2(
    raw: &file::Http2,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Http2 {
    let mut window = |name: &str, size: u64| {
        if !WINDOW_SIZE.contains(&size) {
            let message = format!("\"{name}\" must be from 64KiB to 1GiB");
            context.error(&location.key(name), message);
        }
        u32::try_from(size).unwrap_or(u32::MAX)
    };
    Http2 {
        streams: raw.streams,
        stream_window: window("stream_window", raw.stream_window.0),
        connection_window: window("connection_window", raw.connection_window.0),
    }
}

/// Resolves the address and the token of the admin listener.
pub(super) fn admin(
    raw: &file::Admin,
    listeners: &[file::Listener],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<(SocketAddr, Option<SecretString>)> {
    let bind = parse_address(&raw.bind, &location.key("bind"), context);
    if let Some(bind) = bind {
        let is_same = |listener: &file::Listener| listener.bind.parse() == Ok(bind);
        if bind.port() != 0 && listeners.iter().any(is_same) {
            let message = format!("a public listener already has the address {bind}");
            context.error(&location.key("bind"), message);
        }
    }
    let file = raw.token_file.as_deref();
    let token = context.read_secret(location, "token", raw.token.as_ref(), file);
    if let Some(token) = &token {
        let length = token.expose_secret().len();
        if length < MIN_ADMIN_TOKEN {
            let name = if file.is_some() {
                "token_file"
            } else {
                "token"
            };
            let message =
                format!("the admin token needs at least {MIN_ADMIN_TOKEN} bytes, but has {length}");
            context.error(&location.key(name), message);
        }
    }
    bind.map(|bind| (bind, token))
}

/// Resolves the accepted host names of the admin listener; `None` for any.
pub(super) fn admin_names(
    raw: &file::Admin,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<String>> {
    let location = location.key("names");
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    for (index, name) in raw.names.iter().enumerate() {
        if name != "*" && (name.is_empty() || !name.bytes().all(is_name_byte)) {
            let message = "neither a host name without a port nor \"*\"";
            context.error(&location.item(index), message);
        }
    }
    if raw.names.iter().any(|name| name == "*") {
        return None;
    }
    let names = raw.names.iter();
    Some(
        names
            .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
            .collect(),
    )
}

/// Resolves the path of the control socket, if there is one.
pub(super) fn control_socket(
    raw: &file::Admin,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<PathBuf>> {
    let path = raw.control_socket.as_ref().map(PathBuf::from);
    if path.as_ref().is_some_and(|path| !path.is_absolute()) {
        let message = "not an absolute path such as /run/portcullis/control.sock";
        context.error(&location.key("control_socket"), message);
        return None;
    }
    Some(path)
}

/// Parses an address and a port.
pub(super) fn parse_address(
    text: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        let message = "not an address and port such as 127.0.0.1:8080 or [::]:443";
        context.error(location, message);
    }
    address
}
