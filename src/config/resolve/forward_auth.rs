use std::net::SocketAddr;
use std::path::Path;

use super::listeners;
use super::providers::addresses::parse_secure;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::forward_auth as file;
use crate::config::file::listeners::{ConnectionLimits, Http2};
use crate::config::units::Size;
use crate::settings::forward_auth::ForwardAuth;
use crate::settings::{BindAddress, ForwardedBy, Listener};

/// Head size of calls, in bytes: they repeat the target of a request whose head has the default size.
const HEAD_SIZE: Size = Size(128 << 10);
/// Maximum number of fields: front proxies add some to those of a request.
const FIELDS: u64 = 256;

/// Resolves the decisions for front proxies; `Some(None)` without any, `None` on an error.
#[expect(
    clippy::option_option,
    reason = "an error, or validly no front proxies"
)]
pub(super) fn forward_auth(
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<(Listener, ForwardAuth)>> {
    let Some(raw) = &file.forward_auth else {
        return Some(None);
    };
    let bind = bind_address(raw, file, &location.key("bind"), context);
    let is_unix = raw.bind.starts_with("unix:");
    check_peers(raw, is_unix, location, context);
    let tls = raw.tls.as_ref();
    let proxies = &raw.trusted_proxies;
    let reloadable =
        listeners::reloadable_listener(proxies, tls, &file.encryption, location, context);
    let sign_in_url = sign_in_url(
        raw.sign_in_url.as_deref(),
        &location.key("sign_in_url"),
        context,
    );
    let limits = ConnectionLimits {
        head: HEAD_SIZE,
        fields: FIELDS,
        ..ConnectionLimits::default()
    };
    let listener = Listener {
        bind: bind?,
        tls: tls.is_some(),
        client_ip_from: ForwardedBy::XForwardedFor,
        proxy_protocol: false,
        limits: listeners::connection_limits(&limits, location, context),
        http2: listeners::http2(&Http2::default(), location, context),
    };
    let forward_auth = ForwardAuth {
        listener: reloadable?,
        trusts_every_peer: is_unix,
        sign_in_url: sign_in_url?,
        return_credentials: raw.return_credentials,
    };
    Some(Some((listener, forward_auth)))
}

fn bind_address(
    raw: &file::ForwardAuth,
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<BindAddress> {
    if let Some(path) = raw.bind.strip_prefix("unix:") {
        let path = Path::new(path);
        if !path.is_absolute() || path.file_name().is_none() {
            let message = "not an absolute path such as unix:/run/portcullis/authz.sock";
            context.error(location, message);
            return None;
        }
        if file.admin.control_socket.as_deref().map(Path::new) == Some(path) {
            context.error(location, "\"admin.control_socket\" already has this path");
        }
        return Some(BindAddress::Unix(path.to_owned()));
    }
    let Ok(bind) = raw.bind.parse::<SocketAddr>() else {
        let message = "not an address and port such as 127.0.0.1:9191, and not a socket such as \
                       unix:/run/portcullis/authz.sock";
        context.error(location, message);
        return None;
    };
    let is_same = |text: &str| bind.port() != 0 && text.parse() == Ok(bind);
    if file.listeners.iter().any(|one| is_same(&one.bind)) {
        let message = format!("a public listener already has the address {bind}");
        context.error(location, message);
    } else if is_same(&file.admin.bind) {
        let message = format!("the admin listener already has the address {bind}");
        context.error(location, message);
    }
    Some(BindAddress::Tcp(bind))
}

/// Checks that it is known who may query.
fn check_peers(
    raw: &file::ForwardAuth,
    is_unix: bool,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if !is_unix && raw.trusted_proxies.is_empty() {
        let message = "\"trusted_proxies\" is missing: the peers that may query, such as 127.0.0.1";
        match context
            .source_map
            .contains(&location.key("trusted_proxies"))
        {
            true => context.error(&location.key("trusted_proxies"), message),
            false => context.error_at_key(location, message),
        }
    }
    if is_unix && raw.tls.is_some() {
        let message = "a Unix socket has no TLS";
        context.error_at_key(&location.key("tls"), message);
    }
}

/// Resolves the address of the sign-in page; `Some(None)`: the gateway's own, `None` on an error.
#[expect(clippy::option_option, reason = "an error, or validly no address")]
fn sign_in_url(
    raw: Option<&str>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<String>> {
    let Some(text) = raw else {
        return Some(None);
    };
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['\\', '#', '?']);
    let is_path = text.starts_with('/') && !text.starts_with("//");
    if !is_plain {
        let message = "must be visible ASCII, without a query and a fragment";
        context.error(location, message);
        return None;
    }
    if !is_path && let Err(message) = parse_secure(text) {
        context.error(location, message);
        return None;
    }
    Some(Some(text.to_owned()))
}
