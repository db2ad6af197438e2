use http::{HeaderName, HeaderValue};

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::Hsts;
use crate::config::file::identity::{
    HeaderNames, IdentityHeaders as WrittenNames, RouteIdentityHeaders,
};
use crate::config::file::routing::route as file;
use crate::routing::{HeaderEdits, IdentityHeaders};
use crate::settings::IdentityHeaderNames;

/// What belongs to one connection or one message, never to an operator (RFC 9110, section 7.6.1).
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

/// What the gateway itself tells an upstream, beside identities and the two prefixes below.
const GATEWAY_HEADERS: [&str; 6] = [
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "x-real-ip",
    "x-request-id",
];

const GATEWAY_HEADER_PREFIXES: [&str; 2] = ["x-forwarded-", "x-portcullis-"];

/// Which way a request or an answer goes when its headers are edited.
#[derive(Clone, Copy)]
pub(super) enum EditDirection<'a> {
    /// With the identity headers of the route.
    Upstream(&'a IdentityHeaders),
    Client,
}

/// The value of `Strict-Transport-Security`.
pub(super) fn hsts(written: Option<&Hsts>) -> Option<HeaderValue> {
    let written = written?;
    let seconds = written.max_age.0.as_secs();
    let subdomains = match written.include_subdomains {
        true => "; includeSubDomains",
        false => "",
    };
    HeaderValue::try_from(format!("max-age={seconds}{subdomains}")).ok()
}

/// The headers by which upstreams learn who a request is from, where a route does not differ.
pub(super) fn identity_headers(
    written: &WrittenNames,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> IdentityHeaders {
    let mut seen = Vec::new();
    let mut read = |written: &Option<HeaderNames>, key: &str| {
        parse_identity_names(written.as_ref(), &place.key(key), &mut seen, review)
    };
    IdentityHeaders {
        user: read(&written.user, "user"),
        email: read(&written.email, "email"),
        username: read(&written.username, "username"),
        name: read(&written.name, "name"),
        roles: read(&written.roles, "roles"),
        scopes: read(&written.scopes, "scopes"),
        session: read(&written.session, "session"),
    }
}

/// Those of a route, which replace the others key by key.
pub(super) fn route_identity_headers(
    written: &RouteIdentityHeaders,
    global: &IdentityHeaders,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> IdentityHeaders {
    let mut names = global.clone();
    let keys = [
        (&written.user, &mut names.user, "user"),
        (&written.email, &mut names.email, "email"),
        (&written.username, &mut names.username, "username"),
        (&written.name, &mut names.name, "name"),
        (&written.roles, &mut names.roles, "roles"),
        (&written.scopes, &mut names.scopes, "scopes"),
        (&written.session, &mut names.session, "session"),
    ];
    let (replaced, kept): (Vec<_>, Vec<_>) = keys
        .into_iter()
        .partition(|(written, ..)| written.is_some());
    let mut seen: Vec<HeaderName> = kept
        .into_iter()
        .flat_map(|(_, names, _)| names.iter().cloned())
        .collect();
    for (written, names, key) in replaced {
        let written = written.as_ref().and_then(Option::as_ref);
        *names = parse_identity_names(written, &place.key(key), &mut seen, review);
    }
    names
}

/// Every name that no client may send.
pub(super) fn reserved_identity_headers<'r>(
    written: &WrittenNames,
    global: &'r IdentityHeaders,
    routes: impl Iterator<Item = &'r IdentityHeaders>,
) -> IdentityHeaderNames {
    let off = [
        (&written.user, "x-user-id"),
        (&written.email, "x-user-email"),
        (&written.roles, "x-user-roles"),
        (&written.session, "x-session-id"),
    ];
    let off = off
        .into_iter()
        .filter(|(written, _)| written.is_none())
        .map(|(_, default)| HeaderName::from_static(default));
    let on = global.all().chain(routes.flat_map(IdentityHeaders::all));
    IdentityHeaderNames::new(off.chain(on.cloned()))
}

/// Reads the names of one key; `seen` are those of the others.
fn parse_identity_names(
    written: Option<&HeaderNames>,
    place: &ConfigPath,
    seen: &mut Vec<HeaderName>,
    review: &mut ResolveContext<'_>,
) -> Vec<HeaderName> {
    let texts: Vec<(&String, ConfigPath)> = match written {
        None => Vec::new(),
        Some(HeaderNames::One(text)) => vec![(text, place.clone())],
        Some(HeaderNames::Several(texts)) => {
            let places = (0..).map(|index| place.item(index));
            texts.iter().zip(places).collect()
        }
    };
    let mut names = Vec::new();
    for (text, place) in texts {
        let Some(name) = header_name(text, &place, review) else {
            continue;
        };
        check_identity_name(&name, seen, &place, review);
        seen.push(name.clone());
        names.push(name);
    }
    names
}

fn check_identity_name(
    name: &HeaderName,
    seen: &[HeaderName],
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    let taken = is_gateway_header(name) && !is_forwarded_identity(name);
    if is_connection_header(name) || taken || is_credential(name) {
        let message = format!("\"{name}\" means something else, and cannot tell an identity");
        review.error(place, message);
    } else if name
        .as_str()
        .contains(|c: char| !c.is_ascii_alphanumeric() && c != '-')
    {
        let message = "an identity header is written with letters, digits and \"-\": with other \
                       characters it could be confused with another";
        review.error(place, message);
    } else if seen.contains(name) {
        review.error(place, format!("\"{name}\" tells something else already"));
    }
}

/// Whether a forwarding header is free to name a user (`X-Forwarded-User`): the others say how a
/// request came.
fn is_forwarded_identity(name: &HeaderName) -> bool {
    const FORWARDING_SUFFIXES: [&str; 9] = [
        "for", "host", "port", "prefix", "proto", "protocol", "scheme", "server", "ssl",
    ];
    let rest = name.as_str().strip_prefix("x-forwarded-");
    rest.is_some_and(|rest| !FORWARDING_SUFFIXES.contains(&rest))
}

fn is_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), "authorization" | "cookie" | "set-cookie")
}

fn is_connection_header(name: &HeaderName) -> bool {
    CONNECTION_HEADERS.contains(&cgi_name(name).as_str())
}

fn is_gateway_header(name: &HeaderName) -> bool {
    let name = cgi_name(name);
    GATEWAY_HEADERS.contains(&name.as_str())
        || GATEWAY_HEADER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// A name as CGI reads it, which turns every character other than a letter or digit into one.
fn cgi_name(name: &HeaderName) -> String {
    name.as_str()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// A route's edits of headers.
pub(super) fn header_edits(
    written: &file::HeaderEdits,
    towards: EditDirection<'_>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    for (text, value) in &written.set {
        let place = place.key("set").key(text);
        let Some(name) = header_name_at_key(text, &place, review) else {
            continue;
        };
        check_editable(&name, towards, &place, review);
        match HeaderValue::from_str(value) {
            Ok(value) => edits.set.push((name, value)),
            Err(_) => review.error(&place, "a header's value cannot have control characters"),
        }
    }
    for (index, text) in written.remove.iter().enumerate() {
        let place = place.key("remove").item(index);
        if let Some(name) = header_name(text, &place, review) {
            check_editable(&name, towards, &place, review);
            edits.remove.push(name);
        }
    }
    edits
}

fn check_editable(
    name: &HeaderName,
    towards: EditDirection<'_>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    if is_connection_header(name) {
        review.error_at_key(place, format!("\"{name}\" belongs to the connection"));
        return;
    }
    let EditDirection::Upstream(identity) = towards else {
        return;
    };
    let read = cgi_name(name);
    let tells_identity = identity.all().any(|one| one.as_str() == read);
    if tells_identity || is_gateway_header(name) {
        let message = format!("the gateway vouches for \"{name}\"; it cannot be edited");
        review.error_at_key(place, message);
    }
}

/// Reads the name of a header.
pub(super) fn header_name(
    text: &str,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        review.error(place, "this is not the name of a header");
    }
    name
}

/// Reads the name of a header that is a key of the file.
pub(super) fn header_name_at_key(
    text: &str,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        review.error_at_key(place, format!("\"{text}\" is not the name of a header"));
    }
    name
}
