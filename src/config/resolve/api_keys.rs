//! API keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::headers::{cgi_name, header_name, is_connection_header, is_gateway_header};
use super::user_prefixes;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::limits::{KeyPart, Limit};
use crate::routing::NameSet;
use crate::settings::ApiKeys;

/// Maximum length of a prefix, in bytes.
const MAX_PREFIX: usize = 32;

/// Request headers with another meaning, besides those of the connection and of the gateway.
const OTHER_HEADERS: [&str; 27] = [
    "authorization",
    "cache-control",
    "cf-connecting-ip",
    "client-ip",
    "cookie",
    "date",
    "expect",
    "forwarded-for",
    "from",
    "max-forwards",
    "origin",
    "pragma",
    "proxy",
    "range",
    "referer",
    "set-cookie",
    "true-client-ip",
    "user-agent",
    "via",
    "www-authenticate",
    "x-client-ip",
    "x-device-name",
    "x-device-type",
    "x-forwarded",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

const OTHER_HEADER_PREFIXES: [&str; 7] = [
    "accept",
    "access-control-",
    "content-",
    "if-",
    "sec-",
    "x-original-",
    "x-rewrite-",
];

/// Resolves API keys. `identity` are the identity headers of all routes.
pub(super) fn api_keys(
    file: &File,
    limits: &BTreeMap<String, Arc<Limit>>,
    identity: &NameSet,
    context: &mut ResolveContext<'_>,
) -> Option<ApiKeys> {
    let raw = file.api_keys.as_ref()?;
    let location = ConfigPath::root().key("api_keys");
    if !is_prefix(&raw.prefix) {
        let message = "\"prefix\" must consist of 1 to 32 characters of a-z, 0-9 and single \"_\" \
                       between them, with a letter first";
        context.error(&location.key("prefix"), message);
    }
    let at = location.key("header");
    let header = raw.header.as_deref();
    let header = header.and_then(|text| key_header(text, identity, &at, context));
    if let Some(header) = &header {
        check_limits(limits, header, context);
    }
    if raw.self_service && !has_users(file, context) {
        let message = "\"self_service\" needs users in the database, and the gateway's own \
                       endpoints";
        context.error(&location.key("self_service"), message);
    }
    user_prefixes::check_services(file, context);
    let at = location.key("max_ttl");
    let max_ttl: Option<Duration> = raw.max_ttl.map(|time| context.require_positive(&at, time));
    Some(ApiKeys {
        prefix: raw.prefix.clone(),
        header,
        self_service: raw.self_service,
        max_per_owner: raw.max_per_owner,
        max_ttl,
    })
}

/// Adds the header of keys to the headers that reach no upstream as clients send them.
pub(super) fn reserve_header(names: NameSet, keys: &Option<ApiKeys>) -> NameSet {
    names.with(keys.as_ref().and_then(|keys| keys.header.as_ref()))
}

/// Whether users are in the database and have endpoints.
fn has_users(file: &File, context: &ResolveContext<'_>) -> bool {
    super::enabled_api(file).is_some() && super::offered_endpoints(file, context).users
}

/// Whether a text can be the prefix of keys. No JWT begins with such a text and `_`.
fn is_prefix(text: &str) -> bool {
    let is_word = |word: &str| {
        let mut bytes = word.bytes();
        !word.is_empty() && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
    };
    text.len() <= MAX_PREFIX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.split('_').all(is_word)
}

/// Resolves the header of keys.
fn key_header(
    text: &str,
    identity: &NameSet,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<HeaderName> {
    let name = header_name(text, location, context)?;
    let normalized = cgi_name(&name);
    let is_other = OTHER_HEADERS.contains(&normalized.as_str())
        || OTHER_HEADER_PREFIXES
            .iter()
            .any(|prefix| normalized.starts_with(prefix));
    let is_identity = identity.contains_spelling(normalized.as_bytes());
    if is_other || is_identity || is_connection_header(&name) || is_gateway_header(&name) {
        let message = format!("\"{name}\" has another meaning and cannot carry an API key");
        context.error(location, message);
    } else if name.as_str() != normalized {
        let message = "the name must consist of letters, digits and \"-\"; other characters make it \
                       ambiguous";
        context.error(location, message);
    }
    Some(name)
}

/// Rejects limits that count by the header of keys: counters are named by its values, which are
/// secrets.
fn check_limits(
    limits: &BTreeMap<String, Arc<Limit>>,
    header: &HeaderName,
    context: &mut ResolveContext<'_>,
) {
    let all = ConfigPath::root().key("limits");
    let part = KeyPart::Header(header.clone());
    for (name, _) in limits.iter().filter(|(_, limit)| limit.key.contains(&part)) {
        let message = format!("\"{header}\" carries API keys; count them by \"token\"");
        context.error(&all.key(name).key("key"), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_of_words_that_begin_with_a_letter() {
        let longest = "a".repeat(MAX_PREFIX);
        for (text, expected) in [
            ("pck", true),
            ("a", true),
            ("acme_live2", true),
            (longest.as_str(), true),
            (&format!("{longest}a"), false),
            ("", false),
            ("2acme", false),
            ("Acme", false),
            ("acme-live", false),
            ("_acme", false),
            ("acme_", false),
            ("acme__live", false),
            ("é", false),
        ] {
            assert_eq!(is_prefix(text), expected, "{text}");
        }
    }
}
