use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::storage::limits_on_outage;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::routing::limit as file;
use crate::config::file::storage::LimitsOnOutage;
use crate::limits::{Algorithm, KeyPart, Limit, LimitDefinition, is_exact};

/// Maximum limit of a sliding log, which stores the time of every request.
const MAX_LOG: u64 = 100_000;

/// Resolves the limits, by name. Invalid ones are included, so that routes can refer to them.
pub(super) fn limits(
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> BTreeMap<String, Arc<Limit>> {
    let outage = file.store.on_outage.limits;
    let mut limits = BTreeMap::new();
    for (name, one) in &file.limits {
        let location = location.key(name);
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 100 || !name.bytes().all(is_name_byte) {
            let message = "a limit's name must consist of 1 to 100 letters, digits, \".\", \"_\" \
                           and \"-\"";
            context.error_at_key(&location, message);
        }
        limits.insert(
            name.clone(),
            Arc::new(limit(name, one, outage, &location, context)),
        );
    }
    limits
}

fn limit(
    name: &str,
    raw: &file::Limit,
    outage: LimitsOnOutage,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Limit {
    let window = context.require_positive(&location.key("window"), raw.window);
    check_exact(raw.limit, window, &location.key("limit"), context);
    if let Some(burst) = raw.burst {
        check_exact(burst, window, &location.key("burst"), context);
        if raw.algorithm != file::Algorithm::TokenBucket {
            let message = "\"burst\" applies only to \"algorithm: token_bucket\"";
            context.error_at_key(&location.key("burst"), message);
        }
    }
    if raw.algorithm == file::Algorithm::SlidingLog && raw.limit > MAX_LOG {
        let message =
            format!("a sliding_log stores every request; \"limit\" must be at most {MAX_LOG}");
        context.error(&location.key("limit"), message);
    }
    Limit::new(LimitDefinition {
        name: name.into(),
        algorithm: match raw.algorithm {
            file::Algorithm::SlidingWindow => Algorithm::SlidingWindow,
            file::Algorithm::SlidingLog => Algorithm::SlidingLog,
            file::Algorithm::TokenBucket => Algorithm::TokenBucket {
                burst: raw.burst.unwrap_or(raw.limit),
            },
        },
        limit: raw.limit,
        window,
        key: key_parts(&raw.key, &location.key("key"), context),
        roles: raw.roles.clone(),
        except_roles: raw.except_roles.clone(),
        on_outage: limits_on_outage(raw.on_outage.unwrap_or(outage)),
        shadow: raw.shadow,
        leased: raw.consistency == file::Consistency::Leased,
    })
}

/// Rejects a limit that cannot be counted exactly.
pub(super) fn check_exact(
    requests: u64,
    window: Duration,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if !is_exact(requests, window) {
        let message = "this limit cannot be counted exactly over its window: requests times \
                       milliseconds must be at most 2^53";
        context.error(location, message);
    }
}

fn key_parts(
    raw: &file::Key,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<KeyPart> {
    let mut parts: Vec<KeyPart> = Vec::new();
    for (index, part) in raw.parts().iter().enumerate() {
        let location = match raw {
            file::Key::One(_) => location.clone(),
            file::Key::Many(_) => location.item(index),
        };
        let Some(part) = parse_key_part(&part.0) else {
            context.error(&location, "not a valid header name");
            continue;
        };
        if parts.contains(&part) {
            context.error(&location, "duplicate part of the key");
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
