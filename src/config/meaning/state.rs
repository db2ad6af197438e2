use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::topology;
use crate::config::document::Place;
use crate::config::file::state as file;
use crate::config::review::Review;
use crate::limits::OnOutage;
use crate::settings::{Engine, SessionsOnOutage, Store};

/// Where the fleet's memory is, and what holds while it is gone.
pub(super) fn store(
    written: &file::Store,
    place: &Place,
    review: &mut Review<'_>,
) -> Option<Store> {
    let password_file = written.password_file.as_deref();
    let password = review.secret(place, "password", written.password.as_ref(), password_file);
    let engine = engine(written, password, place, review);
    let visible = written
        .key_prefix
        .bytes()
        .all(|byte| byte.is_ascii_graphic());
    // Braces would decide which cluster slot a key is in.
    if !visible || written.key_prefix.contains(['{', '}']) || written.key_prefix.is_empty() {
        let message = "\"key_prefix\" must be visible ASCII without braces, and not empty";
        review.fault(&place.key("key_prefix"), message);
    }
    let outage = place.key("on_outage");
    Some(Store {
        engine: engine?,
        key_prefix: written.key_prefix.clone(),
        timeout: review.positive(&place.key("timeout"), written.timeout),
        revocation_replicas: written.revocation_replicas,
        sessions_on_outage: match written.on_outage.sessions {
            file::SessionsOnOutage::Deny => SessionsOnOutage::Deny,
            file::SessionsOnOutage::Cached => SessionsOnOutage::Cached,
            file::SessionsOnOutage::TokenOnly => SessionsOnOutage::TokenOnly,
        },
        cached_for: review.positive(&outage.key("cached_for"), written.on_outage.cached_for),
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
    section: &Place,
    review: &mut Review<'_>,
) -> Option<Engine> {
    if written.url == "memory" {
        topology::refuse_in_memory(written, section, review);
        return Some(Engine::Memory);
    }
    topology::address(written, password, section, review).map(Engine::Redis)
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
