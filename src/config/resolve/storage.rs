use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::topology;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::storage as file;
use crate::limits::OnOutage;
use crate::settings::{Engine, SessionsOnOutage, Store};

/// Where the fleet's memory is, and what holds while it is gone.
pub(super) fn store(
    written: &file::Store,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Store> {
    let password_file = written.password_file.as_deref();
    let password = review.read_secret(place, "password", written.password.as_ref(), password_file);
    let engine = engine(written, password, place, review);
    let visible = written
        .key_prefix
        .bytes()
        .all(|byte| byte.is_ascii_graphic());
    // Braces would decide which cluster slot a key is in.
    if !visible || written.key_prefix.contains(['{', '}']) || written.key_prefix.is_empty() {
        let message = "\"key_prefix\" must be visible ASCII without braces, and not empty";
        review.error(&place.key("key_prefix"), message);
    }
    let outage = place.key("on_outage");
    Some(Store {
        engine: engine?,
        key_prefix: written.key_prefix.clone(),
        timeout: review.require_positive(&place.key("timeout"), written.timeout),
        revocation_replicas: written.revocation_replicas,
        sessions_on_outage: match written.on_outage.sessions {
            file::SessionsOnOutage::Deny => SessionsOnOutage::Deny,
            file::SessionsOnOutage::Cached => SessionsOnOutage::Cached,
            file::SessionsOnOutage::TokenOnly => SessionsOnOutage::TokenOnly,
        },
        cached_for: review
            .require_positive(&outage.key("cached_for"), written.on_outage.cached_for),
        limits_on_outage: limits_on_outage(written.on_outage.limits),
    })
}

/// What becomes of limits while the store is gone.
pub(super) fn limits_on_outage(written: file::LimitsOnOutage) -> OnOutage {
    match written {
        file::LimitsOnOutage::Local => OnOutage::Local,
        file::LimitsOnOutage::Allow => OnOutage::Allow,
        file::LimitsOnOutage::Deny => OnOutage::Deny,
    }
}

fn engine(
    written: &file::Store,
    password: Option<SecretString>,
    section: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Engine> {
    if written.url == "memory" {
        topology::reject_redis_options(written, section, review);
        return Some(Engine::Memory);
    }
    topology::redis_address(written, password, section, review).map(Engine::Redis)
}

pub(super) fn credentials(
    url: &Url,
    username: Option<&String>,
    password: Option<SecretString>,
) -> Result<(Option<String>, Option<SecretString>), &'static str> {
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded
            .map(String::from)
            .map_err(|_| "the user or the password in the address is not UTF-8")
    };
    let username = match (url.username(), username) {
        ("", None) => None,
        ("", Some(username)) => Some(username.clone()),
        (username, None) => Some(decoded(username)?),
        (_, Some(_)) => return Err("the user is in the address and in \"username\": give one"),
    };
    let password = match (url.password(), password) {
        (None, password) => password,
        (Some(password), None) => Some(decoded(password)?.into()),
        (Some(_), Some(_)) => {
            return Err("the password is in the address and in \"password\": give one");
        }
    };
    Ok((username, password))
}
