//! What `check` warns of: valid, and probably not meant.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::context::ResolveContext;
use super::document::ConfigPath;
use super::file::File;
use super::file::identity::Registration;
use super::file::listeners::Listener;
use super::file::routing::upstream::Server;
use crate::routing::HostPattern;
use crate::settings::{ServerAddress, Settings};

/// Reviews a file without mistakes.
pub(super) fn check(file: &File, settings: &Settings, review: &mut ResolveContext<'_>) {
    let root = ConfigPath::root();
    check_trusted_proxies(file, &root.key("listeners"), review);
    check_loops(file, settings, &root.key("upstreams"), review);
    check_literal_stars(file, &root.key("routes"), review);
    let sessions = &settings.reloadable.sessions;
    if sessions
        .idle_timeout
        .is_some_and(|idle| idle > sessions.ttl)
    {
        let message = "it has no effect: \"ttl\" is shorter and ends every session first; set it below \"ttl\", or to null";
        review.warn(&root.key("sessions").key("idle_timeout"), message);
    }
    if settings.reloadable.api.is_none() {
        return;
    }
    check_cookies(file, settings, &root.key("listeners"), review);
    if file.identity.upstream.is_some() {
        return;
    }
    check_trusted_issuers(file, &root.key("tokens").key("trusted_issuers"), review);
    if file.identity.builtin.registration == Registration::Open {
        let place = root.key("identity").key("builtin").key("registration");
        let message = "anyone can register any email address that is not taken; it is not verified \
                       before it reaches upstreams as the user's";
        review.warn(&place, message);
    }
}

fn check_trusted_proxies(file: &File, listeners: &ConfigPath, review: &mut ResolveContext<'_>) {
    for (index, listener) in file.listeners.iter().enumerate() {
        let proxies = listeners.item(index).key("trusted_proxies");
        for (index, text) in listener.trusted_proxies.iter().enumerate() {
            let Ok(network) = text.parse::<IpNet>() else {
                continue;
            };
            if network.addr() != network.network() {
                let meant = network.trunc();
                let message = format!("\"{network}\" has host bits; it counts as {meant}");
                review.warn(&proxies.item(index), message);
            }
        }
    }
}

/// Servers of upstreams that are listeners of the gateway itself.
fn check_loops(
    file: &File,
    settings: &Settings,
    upstreams: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    for upstream in &settings.reloadable.upstreams {
        let place = upstreams.key(&upstream.name).key("servers");
        let written = file.upstreams.get(&*upstream.name);
        let servers = written.map_or(&[][..], |written| &written.servers);
        for (index, (server, written)) in upstream.servers.iter().zip(servers).enumerate() {
            let mut listeners = settings.boot.listeners.iter();
            if listeners.any(|listener| reaches_listener(&server.address, listener.bind)) {
                let place = match written {
                    Server::Url(_) => place.item(index),
                    Server::Weighted(_) => place.item(index).key("url"),
                };
                let message = "this is a listener of the gateway itself; requests that come back to it \
                               are 508";
                review.warn(&place, message);
            }
        }
    }
}

/// Whether a server's address is this listener's, as far as the file says.
fn reaches_listener(server: &ServerAddress, bind: SocketAddr) -> bool {
    let ServerAddress::Tcp { host, port } = server else {
        return false;
    };
    let everywhere = bind.ip().is_unspecified();
    *port == bind.port()
        && match host.parse::<IpAddr>() {
            Ok(ip) => ip == bind.ip() || (everywhere && (ip.is_loopback() || ip.is_unspecified())),
            Err(_) => host == "localhost" && (everywhere || bind.ip().is_loopback()),
        }
}

fn check_literal_stars(file: &File, routes: &ConfigPath, review: &mut ResolveContext<'_>) {
    for (index, route) in file.routes.iter().enumerate() {
        let place = routes.item(index).key("match");
        for (key, path) in [
            ("prefix", &route.matches.prefix),
            ("path", &route.matches.path),
        ] {
            if path.as_ref().is_some_and(|path| path.contains('*')) {
                let message = "\"*\" is a character like any other here; a prefix matches all paths \
                               under it without one";
                review.warn(&place.key(key), message);
            }
        }
    }
}

fn check_trusted_issuers(file: &File, issuers: &ConfigPath, review: &mut ResolveContext<'_>) {
    for (index, issuer) in file.tokens.trusted_issuers.iter().enumerate() {
        if issuer.user_prefix.is_empty() {
            let message = "without \"user_prefix\" upstreams cannot tell its users from those of the \
                           database";
            review.warn(&issuers.item(index), message);
        }
    }
}

/// Browsers keep a secure cookie that comes over plain HTTP from this machine only.
fn check_cookies(
    file: &File,
    settings: &Settings,
    listeners: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    if !settings.reloadable.sessions.cookie.secure {
        return;
    }
    let named = settings.reloadable.routes.routes().iter().any(|route| {
        let host = route.matches.host.as_ref();
        host.is_some_and(|host| !is_local(host))
    });
    for (index, listener) in file.listeners.iter().enumerate() {
        if is_plain(listener) && (named || !is_loopback(&listener.bind)) {
            let message = "browsers drop the session cookie, which is secure, where this listener is \
                           reached over plain HTTP by another name than localhost; give it \"tls\", or \
                           the proxy that ends TLS in front of it in \"trusted_proxies\"";
            review.warn(&listeners.item(index).key("bind"), message);
        }
    }
}

/// Whether clients speak plain HTTP to it, as far as the file says.
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
