//! Warnings of `check`: settings that are valid but suspicious.

mod providers;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::acme::Challenge;
use crate::config::file::identity::Registration;
use crate::config::file::listeners::Listener;
use crate::config::file::routing::upstream::Server;
use crate::routing::HostPattern;
use crate::settings::{BindAddress, IdentitySource, ServerAddress, Settings};

/// Checks a valid file for suspicious settings.
pub(super) fn check(file: &File, settings: &Settings, context: &mut ResolveContext<'_>) {
    let root = ConfigPath::root();
    check_trusted_proxies(file, &root.key("listeners"), context);
    check_loops(file, settings, &root.key("upstreams"), context);
    check_literal_stars(file, &root.key("routes"), context);
    check_acme(file, &root.key("listeners"), context);
    let sessions = &settings.reloadable.sessions;
    if sessions
        .idle_timeout
        .is_some_and(|idle| idle > sessions.ttl)
    {
        // The key may not be in the file: the default is a day.
        let message = "\"idle_timeout\" has no effect, because \"ttl\" is shorter and ends every \
                       session first; set it below \"ttl\" or to null";
        context.warn(&root.key("sessions").key("idle_timeout"), message);
    }
    if settings.reloadable.api.is_none() {
        return;
    }
    check_cookies(file, settings, &root.key("listeners"), context);
    providers::check(file, settings, context);
    if settings.reloadable.identity.source != IdentitySource::Builtin {
        return;
    }
    check_trusted_issuers(file, &root.key("tokens").key("trusted_issuers"), context);
    if file.identity.builtin.registration == Registration::Open {
        let location = root.key("identity").key("builtin").key("registration");
        let message = "anyone can register any unused email address, which is passed to upstreams \
                       without verification";
        context.warn(&location, message);
    }
}

fn check_trusted_proxies(file: &File, listeners: &ConfigPath, context: &mut ResolveContext<'_>) {
    for (index, listener) in file.listeners.iter().enumerate() {
        let proxies = listeners.item(index).key("trusted_proxies");
        for (index, text) in listener.trusted_proxies.iter().enumerate() {
            let Ok(network) = text.parse::<IpNet>() else {
                continue;
            };
            if network.addr() != network.network() {
                let masked = network.trunc();
                let message = format!("\"{network}\" has host bits and is treated as {masked}");
                context.warn(&proxies.item(index), message);
            }
        }
    }
}

/// Warns about upstream servers that are listeners of the gateway itself.
fn check_loops(
    file: &File,
    settings: &Settings,
    upstreams: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    for upstream in &settings.reloadable.upstreams {
        let location = upstreams.key(&upstream.name).key("servers");
        let raw = file.upstreams.get(&*upstream.name);
        let servers = raw.map_or(&[][..], |raw| &raw.servers);
        for (index, (server, raw)) in upstream.servers.iter().zip(servers).enumerate() {
            let mut listeners = settings.boot.listeners.iter();
            if listeners.any(|listener| reaches_listener(&server.address, &listener.bind)) {
                let location = match raw {
                    Server::Url(_) => location.item(index),
                    Server::Weighted(_) => location.item(index).key("url"),
                };
                let message = "this is a listener of the gateway itself; looped requests are \
                               rejected with 508";
                context.warn(&location, message);
            }
        }
    }
}

/// Whether a server's address is that of this listener, as far as the file shows.
fn reaches_listener(server: &ServerAddress, bind: &BindAddress) -> bool {
    let (ServerAddress::Tcp { host, port }, BindAddress::Tcp(bind)) = (server, bind) else {
        return false;
    };
    let is_unspecified = bind.ip().is_unspecified();
    *port == bind.port()
        && match host.parse::<IpAddr>() {
            Ok(ip) => {
                ip == bind.ip() || (is_unspecified && (ip.is_loopback() || ip.is_unspecified()))
            }
            Err(_) => host == "localhost" && (is_unspecified || bind.ip().is_loopback()),
        }
}

fn check_literal_stars(file: &File, routes: &ConfigPath, context: &mut ResolveContext<'_>) {
    for (index, route) in file.routes.iter().enumerate() {
        let location = routes.item(index).key("match");
        for (key, path) in [
            ("prefix", &route.matches.prefix),
            ("path", &route.matches.path),
        ] {
            if path.as_ref().is_some_and(|path| path.contains('*')) {
                let message = "\"*\" is an ordinary character here; a prefix matches all paths \
                               under it without a wildcard";
                context.warn(&location.key(key), message);
            }
        }
    }
}

/// Warns about challenges that no listener receives.
fn check_acme(file: &File, listeners: &ConfigPath, context: &mut ResolveContext<'_>) {
    if file.listeners.iter().any(|listener| listener.tls.is_none()) {
        return;
    }
    for (index, listener) in file.listeners.iter().enumerate() {
        let acme = listener.tls.as_ref().and_then(|tls| tls.acme.as_ref());
        if acme.is_some_and(|acme| acme.challenge == Challenge::Http) {
            let location = listeners
                .item(index)
                .key("tls")
                .key("acme")
                .key("challenge");
            let message = "there is no listener without \"tls\", which \"http-01\" requires; the \
                           authority must reach it at port 80";
            context.warn(&location, message);
        }
    }
}

fn check_trusted_issuers(file: &File, issuers: &ConfigPath, context: &mut ResolveContext<'_>) {
    for (index, issuer) in file.tokens.trusted_issuers.iter().enumerate() {
        if issuer.user_prefix.is_empty() {
            let message = "without \"user_prefix\", upstreams cannot distinguish its users from \
                           those of the database";
            context.warn(&issuers.item(index), message);
        }
    }
}

/// Warns about plain HTTP listeners: browsers accept a secure cookie over plain HTTP only from
/// localhost.
fn check_cookies(
    file: &File,
    settings: &Settings,
    listeners: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if !settings.reloadable.sessions.cookie.secure {
        return;
    }
    let has_public_host = settings.reloadable.routes.routes().iter().any(|route| {
        let host = route.matches.host.as_ref();
        host.is_some_and(|host| !is_local(host))
    });
    for (index, listener) in file.listeners.iter().enumerate() {
        if is_plain(listener) && (has_public_host || !is_loopback(&listener.bind)) {
            let message = "browsers reject the secure session cookie over plain HTTP, except from \
                           localhost; set \"tls\", or list the proxy that terminates TLS in \
                           \"trusted_proxies\"";
            context.warn(&listeners.item(index).key("bind"), message);
        }
    }
}

/// Whether clients use plain HTTP on the listener, as far as the file shows.
fn is_plain(listener: &Listener) -> bool {
    listener.tls.is_none() && listener.trusted_proxies.is_empty() && !listener.redirect_to_https
}

fn is_loopback(bind: &str) -> bool {
    let address = bind.parse::<SocketAddr>();
    address.is_ok_and(|address| address.ip().is_loopback())
}

fn is_local(host: &HostPattern) -> bool {
    let (HostPattern::Exact(name) | HostPattern::Wildcard(name)) = host;
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
