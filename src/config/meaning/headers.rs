use http::{HeaderName, HeaderValue};

use crate::config::document::Place;
use crate::config::file::people::IdentityHeaders as WrittenNames;
use crate::config::file::traffic::route as file;
use crate::config::review::Review;
use crate::routing::HeaderEdits;
use crate::settings::IdentityHeaders;

/// What belongs to one connection or one message, never to an operator (RFC 9110, section 7.6.1).
const OF_THE_CONNECTION: [&str; 10] = [
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
const VOUCHED: [&str; 6] = [
    "forwarded",
    "host",
    "traceparent",
    "tracestate",
    "x-real-ip",
    "x-request-id",
];

const VOUCHED_PREFIXES: [&str; 2] = ["x-forwarded-", "x-portcullis-"];

/// Which way a request or an answer goes when its headers are edited.
#[derive(Clone, Copy)]
pub(super) enum Towards<'a> {
    /// The identity headers, when they are known.
    Upstream(Option<&'a IdentityHeaders>),
    Client,
}

/// The names under which an upstream learns who is asking.
pub(super) fn identity(
    written: &WrittenNames,
    place: &Place,
    review: &mut Review<'_>,
) -> Option<IdentityHeaders> {
    let mut seen: Vec<HeaderName> = Vec::new();
    let mut name = |text: &str, key: &str| {
        let place = place.key(key);
        let name = name(text, &place, review)?;
        if is_of_the_connection(&name) || is_vouched(&name) || is_credential(&name) {
            let message = format!("\"{name}\" means something else, and cannot tell an identity");
            review.fault(&place, message);
        } else if name
            .as_str()
            .contains(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        {
            let message = "an identity header is written with letters, digits and \"-\": with other \
                           characters it could be confused with another";
            review.fault(&place, message);
        } else if seen.contains(&name) {
            review.fault(&place, format!("\"{name}\" tells something else already"));
        }
        seen.push(name.clone());
        Some(name)
    };
    let user = name(&written.user, "user");
    let email = name(&written.email, "email");
    let roles = name(&written.roles, "roles");
    let session = name(&written.session, "session");
    Some(IdentityHeaders {
        user: user?,
        email: email?,
        roles: roles?,
        session: session?,
    })
}

fn is_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), "authorization" | "cookie" | "set-cookie")
}

fn is_of_the_connection(name: &HeaderName) -> bool {
    OF_THE_CONNECTION.contains(&as_read(name).as_str())
}

fn is_vouched(name: &HeaderName) -> bool {
    let name = as_read(name);
    VOUCHED.contains(&name.as_str())
        || VOUCHED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// A name as CGI reads it, which turns every character other than a letter or digit into one.
fn as_read(name: &HeaderName) -> String {
    name.as_str()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// A route's edits of headers.
pub(super) fn edits(
    written: &file::HeaderEdits,
    towards: Towards<'_>,
    place: &Place,
    review: &mut Review<'_>,
) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    for (text, value) in &written.set {
        let place = place.key("set").key(text);
        let Some(name) = name_at_key(text, &place, review) else {
            continue;
        };
        refuse_untouchable(&name, towards, &place, review);
        match HeaderValue::from_str(value) {
            Ok(value) => edits.set.push((name, value)),
            Err(_) => review.fault(&place, "a header's value cannot have control characters"),
        }
    }
    for (index, text) in written.remove.iter().enumerate() {
        let place = place.key("remove").item(index);
        if let Some(name) = name(text, &place, review) {
            refuse_untouchable(&name, towards, &place, review);
            edits.remove.push(name);
        }
    }
    edits
}

fn refuse_untouchable(
    name: &HeaderName,
    towards: Towards<'_>,
    place: &Place,
    review: &mut Review<'_>,
) {
    if is_of_the_connection(name) {
        review.fault_at_key(place, format!("\"{name}\" belongs to the connection"));
        return;
    }
    let Towards::Upstream(identity) = towards else {
        return;
    };
    let read = as_read(name);
    let tells_identity = identity.is_some_and(|names| {
        [&names.user, &names.email, &names.roles, &names.session]
            .iter()
            .any(|one| one.as_str() == read)
    });
    if tells_identity || is_vouched(name) {
        let message = format!("the gateway vouches for \"{name}\"; it cannot be edited");
        review.fault_at_key(place, message);
    }
}

/// Reads the name of a header.
pub(super) fn name(text: &str, place: &Place, review: &mut Review<'_>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        review.fault(place, "this is not the name of a header");
    }
    name
}

/// Reads the name of a header that is a key of the file.
pub(super) fn name_at_key(
    text: &str,
    place: &Place,
    review: &mut Review<'_>,
) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        review.fault_at_key(place, format!("\"{text}\" is not the name of a header"));
    }
    name
}
