use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use crate::config::document::Place;
use crate::config::file::state as file;
use crate::config::review::Review;
use crate::limits::OnOutage;
use crate::settings::{Engine, RedisAddress, SessionsOnOutage, Store};

const REDIS_PORT: u16 = 6379;
/// What later versions will connect to.
const LATER: [&str; 5] = [
    "rediss",
    "redis+sentinel",
    "redis+cluster",
    "rediss+sentinel",
    "rediss+cluster",
];

/// Where the fleet's memory is, and what holds while it is gone.
pub(super) fn store(
    written: &file::Store,
    place: &Place,
    review: &mut Review<'_>,
) -> Option<Store> {
    refuse_later(written, place, review);
    let password_file = written.password_file.as_deref();
    let password = review.secret(place, "password", written.password.as_ref(), password_file);
    let engine = engine(written, password, &place.key("url"), review);
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
        sessions_on_outage: match written.on_outage.sessions {
            file::SessionsOnOutage::Deny => SessionsOnOutage::Deny,
            file::SessionsOnOutage::Cached => SessionsOnOutage::Cached,
            file::SessionsOnOutage::TokenOnly => SessionsOnOutage::TokenOnly,
        },
        cached_for: review.positive(&outage.key("cached_for"), written.on_outage.cached_for),
        limits_on_outage: limits_on_outage(written.on_outage.limits),
    })
}

fn refuse_later(written: &file::Store, place: &Place, review: &mut Review<'_>) {
    for (name, given) in [
        ("sentinel_password", written.sentinel_password.is_some()),
        (
            "sentinel_password_file",
            written.sentinel_password_file.is_some(),
        ),
        ("tls", written.tls.is_some()),
        ("revocation_replicas", written.revocation_replicas > 0),
    ] {
        if given {
            review.unsupported(&place.key(name));
        }
    }
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
    place: &Place,
    review: &mut Review<'_>,
) -> Option<Engine> {
    if written.url == "memory" {
        return Some(Engine::Memory);
    }
    // The address may hold a password: it is never shown.
    let scheme = written.url.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("redis") => {}
        Some(later) if LATER.contains(&later) => {
            let message = format!("\"{later}\" is not supported by this version yet");
            review.fault(place, message);
            return None;
        }
        _ => {
            let message = "the store is memory or redis://HOST:PORT/DATABASE";
            review.fault(place, message);
            return None;
        }
    }
    match redis(written, password) {
        Ok(address) => Some(Engine::Redis(address)),
        Err(message) => {
            review.fault(place, message);
            None
        }
    }
}

fn redis(
    written: &file::Store,
    password: Option<SecretString>,
) -> Result<RedisAddress, &'static str> {
    let url = Url::parse(&written.url).map_err(|_| "this is not an address of a Redis server")?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or("the address names no host")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the address of a Redis server has no query and no fragment");
    }
    let database = match url.path().trim_start_matches('/') {
        "" => 0,
        number => number
            .parse::<u16>()
            .map(i64::from)
            .map_err(|_| "after the host comes the number of a database, like /0")?,
    };
    let (username, password) = credentials(&url, written.username.as_ref(), password)?;
    Ok(RedisAddress {
        host: host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
        port: url.port().unwrap_or(REDIS_PORT),
        database,
        username,
        password,
    })
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
