use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::Hsts;
use crate::config::file::identity::{
    HeaderNames, IdentityHeaders as WrittenNames, RouteIdentityHeaders,
};
use crate::config::file::routing::route as file;
use crate::routing::{
    HeaderEdits, IdentityHeaders, NameSet, ProviderTokenField, ProviderTokenKind,
};

/// Headers of one connection or message, which cannot be configured (RFC 9110, section 7.6.1).
const CONNECTION_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that the gateway itself sends upstream, besides identity headers and the prefixes below.
const GATEWAY_HEADERS: [&str; 6] = [
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "x-real-ip",
    "x-request-id",
];

const GATEWAY_HEADER_PREFIXES: [&str; 2] = ["x-forwarded-", "x-portcullis-"];

/// The direction of a message whose headers are edited.
#[derive(Clone, Copy)]
pub(super) enum EditDirection<'a> {
    /// Toward the upstream, with the identity headers of the route.
    Upstream(&'a IdentityHeaders),
    /// Toward the client.
    Client,
}

/// Builds the value of `Strict-Transport-Security`.
pub(super) fn hsts(raw: Option<&Hsts>) -> Option<HeaderValue> {
    let raw = raw?;
    let seconds = raw.max_age.0.as_secs();
    let subdomains = match raw.include_subdomains {
        true => "; includeSubDomains",
        false => "",
    };
    HeaderValue::try_from(format!("max-age={seconds}{subdomains}")).ok()
}

/// Resolves the identity headers of routes without overrides.
pub(super) fn identity_headers(
    raw: &WrittenNames,
    context: &mut ResolveContext<'_>,
) -> Arc<IdentityHeaders> {
    let location = ConfigPath::root().key("identity_headers");
    let mut seen = Vec::new();
    let mut read = |raw: &Option<HeaderNames>, key: &str| {
        parse_identity_names(raw.as_ref(), &location.key(key), &mut seen, context)
    };
    Arc::new(IdentityHeaders {
        user: read(&raw.user, "user"),
        email: read(&raw.email, "email"),
        username: read(&raw.username, "username"),
        name: read(&raw.name, "name"),
        roles: read(&raw.roles, "roles"),
        scopes: read(&raw.scopes, "scopes"),
        session: read(&raw.session, "session"),
    })
}

/// Resolves the identity headers of a route, which override the global ones key by key.
pub(super) fn route_identity_headers(
    raw: &RouteIdentityHeaders,
    global: &IdentityHeaders,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> IdentityHeaders {
    let mut names = global.clone();
    let keys = [
        (&raw.user, &mut names.user, "user"),
        (&raw.email, &mut names.email, "email"),
        (&raw.username, &mut names.username, "username"),
        (&raw.name, &mut names.name, "name"),
        (&raw.roles, &mut names.roles, "roles"),
        (&raw.scopes, &mut names.scopes, "scopes"),
        (&raw.session, &mut names.session, "session"),
    ];
    let (replaced, kept): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(raw, ..)| raw.is_some());
    let mut seen: Vec<HeaderName> = kept
        .into_iter()
        .flat_map(|(_, names, _)| names.iter().cloned())
        .collect();
    for (raw, names, key) in replaced {
        let raw = raw.as_ref().and_then(Option::as_ref);
        *names = parse_identity_names(raw, &location.key(key), &mut seen, context);
    }
    names
}

/// Returns all header names that clients must not send.
pub(super) fn reserved_identity_headers<'r>(
    raw: &WrittenNames,
    global: &'r IdentityHeaders,
    routes: impl Iterator<Item = &'r IdentityHeaders>,
) -> NameSet {
    let disabled = [
        (&raw.user, "x-user-id"),
        (&raw.email, "x-user-email"),
        (&raw.roles, "x-user-roles"),
        (&raw.session, "x-session-id"),
    ];
    let disabled = disabled
        .into_iter()
        .filter(|(raw, _)| raw.is_none())
        .map(|(_, default)| HeaderName::from_static(default));
    let enabled = global.all().chain(routes.flat_map(IdentityHeaders::all));
    disabled.chain(enabled.cloned()).collect()
}

/// Parses the names of one key; `seen` are those of other keys.
fn parse_identity_names(
    raw: Option<&HeaderNames>,
    location: &ConfigPath,
    seen: &mut Vec<HeaderName>,
    context: &mut ResolveContext<'_>,
) -> Vec<HeaderName> {
    let texts: Vec<(&String, ConfigPath)> = match raw {
        None => Vec::new(),
        Some(HeaderNames::One(text)) => vec![(text, location.clone())],
        Some(HeaderNames::Several(texts)) => {
            let places = (0..).map(|index| location.item(index));
            texts.iter().zip(places).collect()
        }
    };
    let mut names = Vec::new();
    for (text, location) in texts {
        let Some(name) = header_name(text, &location, context) else {
            continue;
        };
        check_identity_name(&name, seen, &location, context);
        seen.push(name.clone());
        names.push(name);
    }
    names
}

fn check_identity_name(
    name: &HeaderName,
    seen: &[HeaderName],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let is_reserved = is_gateway_header(name) && !is_forwarded_identity(name);
    if is_connection_header(name) || is_reserved || is_credential(name) {
        let message = format!("\"{name}\" has another meaning and cannot be an identity header");
        context.error(location, message);
    } else if name
        .as_str()
        .contains(|c: char| !c.is_ascii_alphanumeric() && c != '-')
    {
        let message = "the name of an identity header must consist of letters, digits and \"-\"; \
                       other characters make it ambiguous";
        context.error(location, message);
    } else if seen.contains(name) {
        context.error(
            location,
            format!("\"{name}\" is already used for another attribute"),
        );
    }
}

/// Whether a forwarding header can carry an identity (`X-Forwarded-User`). The others describe how
/// the request arrived.
fn is_forwarded_identity(name: &HeaderName) -> bool {
    const FORWARDING_SUFFIXES: [&str; 9] = [
        "for", "host", "port", "prefix", "proto", "protocol", "scheme", "server", "ssl",
    ];
    let suffix = name.as_str().strip_prefix("x-forwarded-");
    suffix.is_some_and(|suffix| !FORWARDING_SUFFIXES.contains(&suffix))
}

fn is_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), "authorization" | "cookie" | "set-cookie")
}

pub(super) fn is_connection_header(name: &HeaderName) -> bool {
    CONNECTION_HEADERS.contains(&cgi_name(name).as_str())
}

pub(super) fn is_gateway_header(name: &HeaderName) -> bool {
    let name = cgi_name(name);
    GATEWAY_HEADERS.contains(&name.as_str())
        || GATEWAY_HEADER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Normalizes a name as CGI does, which maps every character other than a letter or digit to one.
pub(super) fn cgi_name(name: &HeaderName) -> String {
    name.as_str()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// Resolves the field in which an upstream receives a provider's token.
pub(super) fn provider_token_field(
    raw: &file::ProviderToken,
    edits: &file::HeaderEdits,
    identity: &IdentityHeaders,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ProviderTokenField> {
    let location = location.key("header");
    let header = header_name(&raw.header, &location, context)?;
    let normalized = cgi_name(&header);
    let is_same = |text: &String| {
        let name = HeaderName::from_bytes(text.as_bytes());
        name.is_ok_and(|name| cgi_name(&name) == normalized)
    };
    let is_identity_header = identity.all().any(|one| one.as_str() == normalized);
    let is_cookie = matches!(normalized.as_str(), "cookie" | "set-cookie");
    if is_connection_header(&header)
        || is_gateway_header(&header)
        || is_identity_header
        || is_cookie
    {
        let message =
            format!("\"{header}\" has another meaning and cannot carry a provider's token");
        context.error(&location, message);
    } else if header.as_str() != normalized {
        let message = "the name must consist of letters, digits and \"-\"; other characters make it \
                       ambiguous";
        context.error(&location, message);
    } else if edits.set.keys().any(is_same) {
        let message = format!("\"{header}\" is also set by \"request_headers\"");
        context.error(&location, message);
    }
    let token = match raw.token {
        file::ProviderTokenKind::Access => ProviderTokenKind::Access,
        file::ProviderTokenKind::Id => ProviderTokenKind::Id,
    };
    Some(ProviderTokenField { header, token })
}

/// Resolves the header edits of a route, whose upstream may receive a provider's token.
pub(super) fn header_edits(
    raw: &file::HeaderEdits,
    provider_token: Option<&ProviderTokenField>,
    direction: EditDirection<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> HeaderEdits {
    let mut set = Vec::new();
    // The client's own field of that name passes in no spelling.
    let mut remove: Vec<_> = provider_token
        .map(|field| field.header.clone())
        .into_iter()
        .collect();
    for (text, value) in &raw.set {
        let location = location.key("set").key(text);
        let Some(name) = header_name_at_key(text, &location, context) else {
            continue;
        };
        check_editable(&name, direction, &location, context);
        match HeaderValue::from_str(value) {
            Ok(value) => set.push((name, value)),
            Err(_) => context.error(
                &location,
                "a header value must not contain control characters",
            ),
        }
    }
    for (index, text) in raw.remove.iter().enumerate() {
        let location = location.key("remove").item(index);
        if let Some(name) = header_name(text, &location, context) {
            check_editable(&name, direction, &location, context);
            remove.push(name);
        }
    }
    HeaderEdits::new(set, remove)
}

fn check_editable(
    name: &HeaderName,
    direction: EditDirection<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if is_connection_header(name) {
        context.error_at_key(location, format!("\"{name}\" belongs to the connection"));
        return;
    }
    let EditDirection::Upstream(identity) = direction else {
        return;
    };
    let normalized = cgi_name(name);
    let is_identity_header = identity.all().any(|one| one.as_str() == normalized);
    if is_identity_header || is_gateway_header(name) {
        let message = format!("the gateway vouches for \"{name}\"; it cannot be edited");
        context.error_at_key(location, message);
    }
}

/// Parses a header name that is a value of the file.
pub(super) fn header_name(
    text: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        context.error(location, "not a valid header name");
    }
    name
}

/// Parses a header name that is a key of the file.
pub(super) fn header_name_at_key(
    text: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        context.error_at_key(location, format!("\"{text}\" is not a valid header name"));
    }
    name
}
