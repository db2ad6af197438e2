use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::storage::limits_on_outage;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::routing::limit as file;
use crate::config::file::storage::LimitsOnOutage;
use crate::limits::{Algorithm, KeyPart, Limit, is_exact};

/// A sliding log keeps the time of every admission.
const MAX_LOG: u64 = 100_000;

/// The limits by name. Those with mistakes are there too, so that routes can refer to them.
pub(super) fn limits(
    written: &BTreeMap<String, file::Limit>,
    outage: LimitsOnOutage,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> BTreeMap<String, Arc<Limit>> {
    let mut limits = BTreeMap::new();
    for (name, one) in written {
        let place = place.key(name);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(plain) {
            let message = "a limit's name has 1 to 100 letters, digits, \".\", \"_\" and \"-\"";
            review.error_at_key(&place, message);
        }
        limits.insert(
            name.clone(),
            Arc::new(limit(name, one, outage, &place, review)),
        );
    }
    limits
}

fn limit(
    name: &str,
    written: &file::Limit,
    outage: LimitsOnOutage,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Limit {
    let window = review.require_positive(&place.key("window"), written.window);
    check_exact(written.limit, window, &place.key("limit"), review);
    if let Some(burst) = written.burst {
        check_exact(burst, window, &place.key("burst"), review);
        if written.algorithm != file::Algorithm::TokenBucket {
            let message = "\"burst\" is for \"algorithm: token_bucket\"";
            review.error_at_key(&place.key("burst"), message);
        }
    }
    if written.algorithm == file::Algorithm::SlidingLog && written.limit > MAX_LOG {
        let message =
            format!("a sliding_log keeps every admission: \"limit\" must be at most {MAX_LOG}");
        review.error(&place.key("limit"), message);
    }
    Limit {
        name: name.into(),
        algorithm: match written.algorithm {
            file::Algorithm::SlidingWindow => Algorithm::SlidingWindow,
            file::Algorithm::SlidingLog => Algorithm::SlidingLog,
            file::Algorithm::TokenBucket => Algorithm::TokenBucket {
                burst: written.burst.unwrap_or(written.limit),
            },
        },
        limit: written.limit,
        window,
        key: key_parts(&written.key, &place.key("key"), review),
        roles: written.roles.clone(),
        except_roles: written.except_roles.clone(),
        on_outage: limits_on_outage(written.on_outage.unwrap_or(outage)),
        shadow: written.shadow,
        leased: written.consistency == file::Consistency::Leased,
    }
}

/// Rejects a limit that cannot be counted exactly.
pub(super) fn check_exact(
    requests: u64,
    window: Duration,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    if !is_exact(requests, window) {
        let message = "this limit cannot be counted exactly over its window: requests times \
                       milliseconds must be at most 2^53";
        review.error(place, message);
    }
}

fn key_parts(
    written: &file::Key,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Vec<KeyPart> {
    let mut parts: Vec<KeyPart> = Vec::new();
    for (index, part) in written.parts().iter().enumerate() {
        let place = match written {
            file::Key::One(_) => place.clone(),
            file::Key::Many(_) => place.item(index),
        };
        let Some(part) = parse_key_part(&part.0) else {
            review.error(&place, "this is not the name of a header");
            continue;
        };
        if parts.contains(&part) {
            review.error(&place, "this part is in the key already");
        }
        parts.push(part);
    }
    parts
}

fn parse_key_part(text: &str) -> Option<KeyPart> {
    Some(match text {
        "ip" => KeyPart::Ip,
        "user" => KeyPart::User,
        "session" => KeyPart::Session,
        "token" => KeyPart::Token,
        "route" => KeyPart::Route,
        other => {
            let name = other.strip_prefix("header:").unwrap_or(other);
            KeyPart::Header(HeaderName::from_bytes(name.as_bytes()).ok()?)
        }
    })
}
