//! Removal of headers that a client may not send to an upstream: identity headers, forwarding
//! headers from untrusted peers, and the gateway's credentials.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use crate::auth::credential;
use crate::pipeline::header_fields::{self, HeaderError};
use crate::routing::HeaderEdits;
use crate::settings::IdentityHeaderNames;
use crate::telemetry::request_id::X_REQUEST_ID;

/// Whether a header states the origin of a request, or its form before a proxy changed it: its
/// address, scheme, host, path or method. Method overrides are included, because routes match the
/// method of the request line. `name` is in lower case.
pub(in crate::pipeline) fn is_forwarding(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 3] = [b"x-forwarded-", b"x-original-", b"x-rewrite-"];
    // Most header names of a request begin with another letter.
    if !matches!(name.first(), Some(b'c' | b'f' | b'p' | b't' | b'w' | b'x')) {
        return false;
    }
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || matches!(
            name,
            b"forwarded"
                | b"forwarded-for"
                | b"x-forwarded"
                | b"x-real-ip"
                | b"client-ip"
                | b"x-client-ip"
                | b"x-cluster-client-ip"
                | b"true-client-ip"
                | b"proxy-client-ip"
                | b"wl-proxy-client-ip"
                | b"cf-connecting-ip"
                | b"cf-connecting-ipv6"
                | b"fastly-client-ip"
                | b"x-azure-clientip"
                | b"x-envoy-external-address"
                | b"x-originating-ip"
                | b"x-proxyuser-ip"
                | b"x-remote-addr"
                | b"x-remote-ip"
                | b"x-host"
                | b"x-http-host-override"
                | b"front-end-https"
                | b"x-http-method-override"
                | b"x-http-method"
                | b"x-method-override"
        )
}

/// Prefix of the header names that belong to the gateway.
const RESERVED: &[u8] = b"x-portcullis-";

/// Whether a client's header is removed before the request is forwarded. `name` is in lower case.
///
/// CGI and its descendants turn every character other than a letter or digit into `_`, so names are
/// compared with each of these read as `-`. A name in another spelling than with `-` is also removed
/// where it equals a header that the gateway or the route's edits write or remove.
pub(super) fn is_dropped(
    name: &[u8],
    identity: &IdentityHeaderNames,
    edits: &HeaderEdits,
    peer_trusted: bool,
) -> bool {
    if name.iter().copied().all(is_plain) {
        return is_reserved(name, identity)
            || (!peer_trusted && is_forwarding(name))
            || is_edited_otherwise(name, edits);
    }
    if name.contains(&b'_') {
        return true;
    }
    let dashed: Vec<u8> = name.iter().copied().map(dash_unless_plain).collect();
    let edited = |header: &HeaderName| is_cgi_equivalent(bytes_of(header), &dashed);
    is_reserved(&dashed, identity)
        || is_forwarding(&dashed)
        || bytes_of(&X_REQUEST_ID) == dashed
        || edits.remove.iter().any(edited)
        || edits.set.iter().any(|(header, _)| edited(header))
}

/// Whether the route's edits name this header in a spelling without `-`: the edit would leave this
/// spelling beside its own.
fn is_edited_otherwise(name: &[u8], edits: &HeaderEdits) -> bool {
    let set = edits.set.iter().map(|(header, _)| bytes_of(header));
    let removed = edits.remove.iter().map(bytes_of);
    set.chain(removed)
        .any(|header| is_cgi_equivalent(header, name) && header != name)
}

/// Whether only the gateway may write the header, or no client may send it (`Proxy` becomes
/// `HTTP_PROXY` in CGI, which HTTP libraries take for their proxy).
fn is_reserved(name: &[u8], identity: &IdentityHeaderNames) -> bool {
    identity.iter().any(|header| is_cgi_equivalent(bytes_of(header), name))
        || name.starts_with(RESERVED)
        // The gateway writes the `X-Forwarded-*` form of this information.
        || name == b"forwarded"
        || name == b"proxy"
}

fn bytes_of(name: &HeaderName) -> &[u8] {
    name.as_str().as_bytes()
}

/// A character that CGI keeps, or the `-` that stands for all others; names are in lower case here.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn dash_unless_plain(byte: u8) -> u8 {
    if is_plain(byte) { byte } else { b'-' }
}

/// Whether two names are equal with every character other than a letter or digit read as `-`.
fn is_cgi_equivalent(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| dash_unless_plain(*one) == dash_unless_plain(*other))
}

/// Removes the headers that clients may not send; `edits` are those of the route.
pub fn strip_untrusted(
    fields: &mut HeaderMap,
    identity: &IdentityHeaderNames,
    edits: &HeaderEdits,
    peer_trusted: bool,
) {
    let dropped: Vec<HeaderName> = fields
        .keys()
        .filter(|name| is_dropped(bytes_of(name), identity, edits, peer_trusted))
        .cloned()
        .collect();
    for name in dropped {
        fields.remove(&name);
    }
}

/// Removes the gateway's own credentials, and a bearer token unless it may be forwarded.
pub fn strip_credentials(fields: &mut HeaderMap, cookie_name: &str, bearer_passes: bool) {
    let [authorization, cookie] =
        header_fields::has(fields, [&header::AUTHORIZATION, &header::COOKIE]);
    let removed = authorization
        && fields
            .get_all(header::AUTHORIZATION)
            .iter()
            .any(|value| match credential::auth_scheme(value.as_bytes()) {
                credential::AuthScheme::Session => true,
                credential::AuthScheme::Bearer => !bearer_passes,
                credential::AuthScheme::Other => false,
            });
    if removed {
        fields.remove(header::AUTHORIZATION);
    }
    if cookie {
        let cookies = fields.get_all(header::COOKIE).iter();
        let left = credential::strip_own_cookies(cookies.map(HeaderValue::as_bytes), cookie_name);
        match left {
            Some(left) => fields.insert(header::COOKIE, left),
            None => fields.remove(header::COOKIE),
        };
    }
}

/// Reduces a `Content-Length` that a client repeated with one value to one field; on HTTP/1.1 the
/// head reader has rejected it.
///
/// # Errors
/// The values differ.
pub(super) fn collapse_content_length(fields: &mut HeaderMap) -> Result<(), HeaderError> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next();
    let mut repeated = false;
    for length in lengths {
        repeated = true;
        if Some(length) != first {
            return Err(HeaderError::ConflictingLengths);
        }
    }
    if let (true, Some(length)) = (repeated, first.cloned()) {
        fields.insert(header::CONTENT_LENGTH, length);
    }
    Ok(())
}
