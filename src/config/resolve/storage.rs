use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::topology;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::storage as file;
use crate::limits::OnOutage;
use crate::settings::{Engine, SessionsOnOutage, Store};

/// Resolves the store and the behavior in degraded mode.
pub(super) fn store(
    raw: &file::Store,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Store> {
    let password_file = raw.password_file.as_deref();
    let password = context.read_secret(location, "password", raw.password.as_ref(), password_file);
    let engine = engine(raw, password, location, context);
    let visible = raw.key_prefix.bytes().all(|byte| byte.is_ascii_graphic());
    // Braces would determine the cluster slot of a key.
    if !visible || raw.key_prefix.contains(['{', '}']) || raw.key_prefix.is_empty() {
        let message = "\"key_prefix\" must not be empty and must be visible ASCII without braces";
        context.error(&location.key("key_prefix"), message);
    }
    let outage = location.key("on_outage");
    Some(Store {
        engine: engine?,
        key_prefix: raw.key_prefix.clone(),
        timeout: context.require_positive(&location.key("timeout"), raw.timeout),
        revocation_replicas: raw.revocation_replicas,
        sessions_on_outage: match raw.on_outage.sessions {
            file::SessionsOnOutage::Deny => SessionsOnOutage::Deny,
            file::SessionsOnOutage::Cached => SessionsOnOutage::Cached,
            file::SessionsOnOutage::TokenOnly => SessionsOnOutage::TokenOnly,
        },
        cached_for: context.require_positive(&outage.key("cached_for"), raw.on_outage.cached_for),
        limits_on_outage: limits_on_outage(raw.on_outage.limits),
    })
}

/// Resolves the behavior of limits in degraded mode.
pub(super) fn limits_on_outage(raw: file::LimitsOnOutage) -> OnOutage {
    match raw {
        file::LimitsOnOutage::Local => OnOutage::Local,
        file::LimitsOnOutage::Allow => OnOutage::Allow,
        file::LimitsOnOutage::Deny => OnOutage::Deny,
    }
}

fn engine(
    raw: &file::Store,
    password: Option<SecretString>,
    section: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Engine> {
    if raw.url == "memory" {
        topology::reject_redis_options(raw, section, context);
        return Some(Engine::Memory);
    }
    topology::redis_address(raw, password, section, context).map(Engine::Redis)
}

/// Merges the user and the password of a URL with those of separate keys.
pub(super) fn credentials(
    url: &Url,
    username: Option<&String>,
    password: Option<SecretString>,
) -> Result<(Option<String>, Option<SecretString>), &'static str> {
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded
            .map(String::from)
            .map_err(|_| "the user or the password in the URL is not UTF-8")
    };
    let username = match (url.username(), username) {
        ("", None) => None,
        ("", Some(username)) => Some(username.clone()),
        (username, None) => Some(decode(username)?),
        (_, Some(_)) => return Err("the user is both in the URL and in \"username\""),
    };
    let password = match (url.password(), password) {
        (None, password) => password,
        (Some(password), None) => Some(decode(password)?.into()),
        (Some(_), Some(_)) => {
            return Err("the password is both in the URL and in \"password\"");
        }
    };
    Ok((username, password))
}
