//! What goes to the upstream and back: claims that clients may not make are stripped, and what the
//! gateway vouches for is written, last and only here.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::client::Origin;
use crate::admission::Identity;
use crate::credential;
use crate::routing::HeaderEdits;
use crate::settings::IdentityHeaders;

/// Headers by which a client, or a proxy that nobody trusts, could pretend to another address,
/// scheme, host, path, method or user, beside everything under [`FORWARDING_PREFIXES`]. Method
/// overrides are among them: they pass by whatever the route said of methods.
const FORWARDING: [&str; 12] = [
    "forwarded",
    "x-real-ip",
    "x-rewrite-url",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "front-end-https",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];
const FORWARDING_PREFIXES: [&str; 2] = ["x-forwarded-", "x-original-"];

/// Whether a header says where a request came from, or what it was before a proxy changed it.
pub(super) fn is_forwarding(name: &str) -> bool {
    FORWARDING_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || FORWARDING.contains(&name)
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const RESERVED: &str = "x-portcullis-";

/// The first value of each of these names, found in one look at all: asking a map costs a hash for each
/// name, and most requests have few of them.
pub(super) fn first<'m, const N: usize>(
    fields: &'m HeaderMap,
    names: [&HeaderName; N],
) -> [Option<&'m HeaderValue>; N] {
    let mut found = [None; N];
    for (name, value) in fields {
        for (slot, wanted) in found.iter_mut().zip(names) {
            if slot.is_none() && name == wanted {
                *slot = Some(value);
            }
        }
    }
    found
}

/// Which of these names are there, found in one look.
pub(super) fn has<const N: usize>(fields: &HeaderMap, names: [&HeaderName; N]) -> [bool; N] {
    first(fields, names).map(|value| value.is_some())
}

/// Whether a client's header is dropped before the request goes on.
///
/// A name is compared as the most forgiving server behind us would read it: `_` and `.` as `-`.
fn is_dropped(name: &str, identity: &IdentityHeaders, peer_trusted: bool) -> bool {
    let mut dotted = false;
    for byte in name.bytes() {
        match byte {
            b'_' => return true,
            b'.' => dotted = true,
            _ => {}
        }
    }
    let read = if dotted {
        Cow::Owned(name.replace('.', "-"))
    } else {
        Cow::Borrowed(name)
    };
    let ours = [
        &identity.user,
        &identity.email,
        &identity.roles,
        &identity.session,
    ];
    ours.iter().any(|header| header.as_str() == read)
        || read.starts_with(RESERVED)
        // Of the two forms that say where a request came from, the other one is written.
        || read == "forwarded"
        || ((!peer_trusted || dotted) && is_forwarding(&read))
}

/// Removes what the client may not claim.
pub fn strip(fields: &mut HeaderMap, identity: &IdentityHeaders, peer_trusted: bool) {
    let dropped: Vec<HeaderName> = fields
        .keys()
        .filter(|name| is_dropped(name.as_str(), identity, peer_trusted))
        .cloned()
        .collect();
    for name in dropped {
        fields.remove(&name);
    }
}

/// Removes the gateway's own credentials, and a bearer token unless it may pass.
pub fn strip_credentials(fields: &mut HeaderMap, cookie_name: &str, bearer_passes: bool) {
    let [authorization, cookie] = has(fields, [&header::AUTHORIZATION, &header::COOKIE]);
    let removed = authorization
        && fields.get_all(header::AUTHORIZATION).iter().any(|value| {
            match credential::scheme_of(value) {
                credential::Scheme::Session => true,
                credential::Scheme::Bearer => !bearer_passes,
                credential::Scheme::Other => false,
            }
        });
    if removed {
        fields.remove(header::AUTHORIZATION);
    }
    if cookie {
        let left = credential::strip_cookie(fields.get_all(header::COOKIE).iter(), cookie_name);
        match left {
            Some(left) => fields.insert(header::COOKIE, left),
            None => fields.remove(header::COOKIE),
        };
    }
}

/// Writes who the request is from.
///
/// # Errors
/// A header that does not fit.
pub fn write_identity(
    fields: &mut HeaderMap,
    names: &IdentityHeaders,
    identity: &Identity,
) -> pingora::Result<()> {
    fields.insert(names.user.clone(), visible(identity.user())?);
    if let Some(email) = identity.email() {
        fields.insert(names.email.clone(), visible(email)?);
    }
    if !identity.roles().is_empty() {
        // A comma inside a role would read as two roles.
        let roles: Vec<String> = identity
            .roles()
            .iter()
            .map(|role| role.replace(',', "%2C"))
            .collect();
        fields.insert(names.roles.clone(), visible(&roles.join(","))?);
    }
    if let Some(session) = identity.session() {
        let id = HeaderValue::from_str(session.id.hex(&mut [0; 64])).map_err(not_ours)?;
        fields.insert(names.session.clone(), id);
    }
    Ok(())
}

/// Writes where the request came from; `peer` is our peer's address.
///
/// # Errors
/// A header that does not fit.
pub fn write_origin(
    fields: &mut HeaderMap,
    origin: &Origin,
    peer: &HeaderValue,
    host: &HeaderValue,
) -> pingora::Result<()> {
    let chain = match origin.chain.as_slice() {
        [] | [_] => peer.clone(),
        chain => {
            let hops: Vec<String> = chain.iter().map(IpAddr::to_string).collect();
            HeaderValue::try_from(hops.join(", ")).map_err(not_ours)?
        }
    };
    fields.insert(X_FORWARDED_FOR, chain);
    fields.insert(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(if origin.https { "https" } else { "http" }),
    );
    let host = match &origin.host {
        Some(told) => HeaderValue::try_from(told.as_str()).map_err(not_ours)?,
        None => host.clone(),
    };
    fields.insert(X_FORWARDED_HOST, host);
    Ok(())
}

/// Applies a route's edits.
pub fn edit(fields: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        fields.remove(name);
    }
    for (name, value) in &edits.set {
        fields.insert(name.clone(), value.clone());
    }
}

/// Removes an upstream's attempt to set the gateway's cookie.
pub fn strip_set_cookie(fields: &mut HeaderMap, cookie_name: &str) {
    let ours = |value: &HeaderValue| credential::set_cookie_is_ours(value, cookie_name);
    let cookies = fields.get_all(header::SET_COOKIE);
    if !cookies.iter().any(ours) {
        return;
    }
    let kept: Vec<HeaderValue> = cookies
        .iter()
        .filter(|value| !ours(value))
        .cloned()
        .collect();
    fields.remove(header::SET_COOKIE);
    for value in kept {
        fields.append(header::SET_COOKIE, value);
    }
}

/// Whether a client's request id may be kept.
pub fn is_request_id(value: &[u8]) -> bool {
    (1..=128).contains(&value.len())
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// Visible ASCII as it is, everything else percent-encoded, so that no value can break out of its
/// header.
fn visible(text: &str) -> pingora::Result<HeaderValue> {
    let odd = |sum, byte| sum | u8::from(!matches!(byte, 0x21..=0x7e));
    if text.bytes().fold(0, odd) == 0 {
        return HeaderValue::from_str(text).map_err(not_ours);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(encoded).map_err(not_ours)
}

pub(super) fn not_ours(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Box<pingora::Error> {
    pingora::Error::because(
        pingora::ErrorType::InternalError,
        "a header of the gateway's own making",
        error,
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn names() -> IdentityHeaders {
        IdentityHeaders {
            user: HeaderName::from_static("x-user-id"),
            email: HeaderName::from_static("x-user-email"),
            roles: HeaderName::from_static("x-user-roles"),
            session: HeaderName::from_static("x-session-id"),
        }
    }

    #[test]
    fn claims_that_clients_may_not_make_are_dropped() {
        for name in [
            "x-user-id",
            "x_user_id",
            "x.user.id",
            "x-user_id",
            "x-session-id",
            "x-portcullis-anything",
            "x.portcullis.anything",
            "some_name",
            "x-forwarded-for",
            "x.forwarded.for",
            "forwarded",
            "x-original-url",
            "x-forwarded-user",
            "true-client-ip",
            "x-http-method-override",
            "x-real-ip",
        ] {
            assert!(is_dropped(name, &names(), false), "{name}");
        }
        for name in [
            "x-user",
            "accept",
            "x-userid",
            "x-request-id",
            "traceparent",
            "a.b",
        ] {
            assert!(!is_dropped(name, &names(), false), "{name}");
        }
    }

    #[test]
    fn a_trusted_peer_may_forward_but_not_identify() {
        assert!(!is_dropped("x-forwarded-port", &names(), true));
        assert!(is_dropped("x.forwarded.for", &names(), true));
        assert!(is_dropped("forwarded", &names(), true));
        assert!(is_dropped("x-user-id", &names(), true));
    }

    #[test]
    fn identity_values_are_made_visible() {
        assert_eq!(visible("a,b").unwrap(), "a,b");
        assert_eq!(visible("é x\r\n").unwrap(), "%C3%A9%20x%0D%0A");
    }
}
