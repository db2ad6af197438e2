//! What goes to the upstream and back: claims that clients may not make are stripped, and what the
//! gateway vouches for is written, last and only here.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::client_origin::ClientOrigin;
use crate::auth::credential;
use crate::pipeline::admission::Identity;
use crate::routing::HeaderEdits;
use crate::settings::{IdentityHeaderNames, IdentityHeaders};
use crate::telemetry::request_id::X_REQUEST_ID;

/// Whether a header says where a request came from, or what it was before a proxy changed it: its
/// address, scheme, host, path or method. Method overrides are among them, because routes match the
/// method of the request line.
pub(super) fn is_forwarding(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["x-forwarded-", "x-original-", "x-rewrite-"];
    // Most names of a request begin otherwise.
    if !matches!(
        name.as_bytes().first(),
        Some(b'c' | b'f' | b'p' | b't' | b'w' | b'x')
    ) {
        return false;
    }
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || matches!(
            name,
            "forwarded"
                | "forwarded-for"
                | "x-forwarded"
                | "x-real-ip"
                | "client-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "true-client-ip"
                | "proxy-client-ip"
                | "wl-proxy-client-ip"
                | "cf-connecting-ip"
                | "cf-connecting-ipv6"
                | "fastly-client-ip"
                | "x-azure-clientip"
                | "x-envoy-external-address"
                | "x-originating-ip"
                | "x-proxyuser-ip"
                | "x-remote-addr"
                | "x-remote-ip"
                | "x-host"
                | "x-http-host-override"
                | "front-end-https"
                | "x-http-method-override"
                | "x-http-method"
                | "x-method-override"
        )
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
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

/// Whether a client's header is dropped before the request is forwarded.
///
/// CGI and its descendants turn every character other than a letter or digit into `_`, so a name is
/// compared with each of them read as `-`. A name in another spelling than with `-` is also dropped
/// where it equals a header that the gateway or the route's edits write or remove.
fn is_dropped(
    name: &str,
    identity: &IdentityHeaderNames,
    edits: &HeaderEdits,
    peer_trusted: bool,
) -> bool {
    if name.bytes().all(is_plain) {
        return is_reserved(name, identity)
            || (!peer_trusted && is_forwarding(name))
            || is_edited_otherwise(name, edits);
    }
    if name.contains('_') {
        return true;
    }
    let read = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let edited = |header: &HeaderName| is_cgi_equivalent(header.as_str(), &read);
    is_reserved(&read, identity)
        || is_forwarding(&read)
        || X_REQUEST_ID == *read
        || edits.remove.iter().any(edited)
        || edits.set.iter().any(|(header, _)| edited(header))
}

/// Whether the route's edits mean this header in a spelling without `-`: they would leave this one
/// beside theirs.
fn is_edited_otherwise(name: &str, edits: &HeaderEdits) -> bool {
    let set = edits.set.iter().map(|(header, _)| header.as_str());
    let removed = edits.remove.iter().map(HeaderName::as_str);
    set.chain(removed)
        .any(|header| is_cgi_equivalent(header, name) && header != name)
}

/// Whether the header is one that only the gateway may write, or that no client may send (`Proxy`
/// becomes `HTTP_PROXY` in CGI, which HTTP libraries take for their proxy).
fn is_reserved(name: &str, identity: &IdentityHeaderNames) -> bool {
    identity.iter().any(|header| is_cgi_equivalent(header.as_str(), name))
        || name.starts_with(RESERVED)
        // Of the two forms that say where a request came from, the other one is written.
        || name == "forwarded"
        || name == "proxy"
}

/// A character that every reader takes for itself; header names are in lower case here.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Whether two names are equal with every character other than a letter or digit read as `-`.
fn is_cgi_equivalent(one: &str, other: &str) -> bool {
    let read = |byte: u8| if is_plain(byte) { byte } else { b'-' };
    one.len() == other.len() && one.bytes().map(read).eq(other.bytes().map(read))
}

/// Removes what the client may not claim; `edits` are those of the route.
pub fn strip(
    fields: &mut HeaderMap,
    identity: &IdentityHeaderNames,
    edits: &HeaderEdits,
    peer_trusted: bool,
) {
    let dropped: Vec<HeaderName> = fields
        .keys()
        .filter(|name| is_dropped(name.as_str(), identity, edits, peer_trusted))
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
        && fields
            .get_all(header::AUTHORIZATION)
            .iter()
            .any(|value| match credential::auth_scheme(value) {
                credential::AuthScheme::Session => true,
                credential::AuthScheme::Bearer => !bearer_passes,
                credential::AuthScheme::Other => false,
            });
    if removed {
        fields.remove(header::AUTHORIZATION);
    }
    if cookie {
        let left =
            credential::strip_own_cookies(fields.get_all(header::COOKIE).iter(), cookie_name);
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
    insert(fields, &names.user, || encode_visible(identity.user()))?;
    let texts = [
        (&names.email, identity.email()),
        (&names.username, identity.username()),
        (&names.name, identity.name()),
    ];
    for (names, text) in texts {
        if let Some(text) = text {
            insert(fields, names, || encode_visible(text))?;
        }
    }
    let lists = [
        (&names.roles, identity.roles()),
        (&names.scopes, identity.scopes()),
    ];
    for (names, list) in lists {
        if !list.is_empty() {
            insert(fields, names, || encode_visible(&join_list(list)))?;
        }
    }
    if let Some(session) = identity.session() {
        insert(fields, &names.session, || {
            HeaderValue::from_str(session.id.write_hex(&mut [0; 64])).map_err(invalid_own_header)
        })?;
    }
    Ok(())
}

/// Writes a value under each of these names; without names it is not made.
fn insert(
    fields: &mut HeaderMap,
    names: &[HeaderName],
    value: impl FnOnce() -> pingora::Result<HeaderValue>,
) -> pingora::Result<()> {
    let Some((last, others)) = names.split_last() else {
        return Ok(());
    };
    let value = value()?;
    for name in others {
        fields.insert(name.clone(), value.clone());
    }
    fields.insert(last.clone(), value);
    Ok(())
}

/// Separated by commas; a comma inside a role would read as two roles.
fn join_list(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| item.replace(',', "%2C")).collect();
    items.join(",")
}

/// Writes the prefix that is taken off the path, after the one that a trusted proxy took off before.
///
/// # Errors
/// A header that does not fit.
pub fn write_prefix(
    fields: &mut HeaderMap,
    prefix: &str,
    peer_trusted: bool,
) -> pingora::Result<()> {
    let before = fields
        .get(X_FORWARDED_PREFIX)
        .and_then(|value| value.to_str().ok())
        .filter(|before| peer_trusted && before.starts_with('/'))
        .map(|before| before.trim_end_matches('/'))
        .unwrap_or_default();
    let whole = format!("{before}{prefix}");
    if whole.is_empty() {
        return Ok(());
    }
    fields.insert(
        X_FORWARDED_PREFIX,
        HeaderValue::try_from(whole).map_err(invalid_own_header)?,
    );
    Ok(())
}

/// Writes where the request came from; `peer` is our peer's address.
///
/// # Errors
/// A header that does not fit.
pub fn write_origin(
    fields: &mut HeaderMap,
    origin: &ClientOrigin,
    peer: &HeaderValue,
    host: &HeaderValue,
) -> pingora::Result<()> {
    let chain = match origin.chain.as_slice() {
        [] | [_] => peer.clone(),
        chain => {
            let hops: Vec<String> = chain.iter().map(IpAddr::to_string).collect();
            HeaderValue::try_from(hops.join(", ")).map_err(invalid_own_header)?
        }
    };
    fields.insert(X_FORWARDED_FOR, chain);
    fields.insert(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(if origin.https { "https" } else { "http" }),
    );
    let host = match &origin.host {
        Some(told) => HeaderValue::try_from(told.as_str()).map_err(invalid_own_header)?,
        None => host.clone(),
    };
    fields.insert(X_FORWARDED_HOST, host);
    Ok(())
}

/// Writes a `Content-Length` that a client repeated with one value only once; on HTTP/1.1 the head
/// reader has refused it.
///
/// # Errors
/// The values differ.
pub(super) fn collapse_content_length(fields: &mut HeaderMap) -> pingora::Result<()> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next();
    let mut repeated = false;
    for length in lengths {
        repeated = true;
        if Some(length) != first {
            let error = pingora::ErrorType::InvalidHTTPHeader;
            return Err(pingora::Error::new_down(error));
        }
    }
    if let (true, Some(length)) = (repeated, first.cloned()) {
        fields.insert(header::CONTENT_LENGTH, length);
    }
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
    let ours = |value: &HeaderValue| credential::sets_own_cookie(value, cookie_name);
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

/// Visible ASCII as it is, everything else percent-encoded, so that no value can break out of its
/// header.
fn encode_visible(text: &str) -> pingora::Result<HeaderValue> {
    let odd = |sum, byte| sum | u8::from(!matches!(byte, 0x21..=0x7e));
    if text.bytes().fold(0, odd) == 0 {
        return HeaderValue::from_str(text).map_err(invalid_own_header);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(encoded).map_err(invalid_own_header)
}

pub(super) fn invalid_own_header(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Box<pingora::Error> {
    pingora::Error::because(
        pingora::ErrorType::InternalError,
        "a header of the gateway's own making",
        error,
    )
}

#[cfg(test)]
mod tests;
