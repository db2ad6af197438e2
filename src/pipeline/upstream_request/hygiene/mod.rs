//! Fields that a client may not send to an upstream: identity headers, forwarding headers from
//! untrusted peers, and the gateway's credentials.

use http::header::HeaderValue;

use crate::auth::credential;
use crate::pipeline::fields::{Field, FieldKind, Fields};
use crate::pipeline::header_fields::HeaderError;
use crate::routing::NameSet;
use crate::routing::name_set::{Initials, fold, is_spelling};
use crate::telemetry::request_id::X_REQUEST_ID;

/// Prefix of the header names that belong to the gateway.
const RESERVED: &[u8] = b"x-portcullis-";

/// The names that a client's field may not have.
#[derive(Clone, Copy)]
pub(super) struct ForbiddenNames<'a> {
    /// The identity headers of all routes.
    pub(super) identity: &'a NameSet,
    /// The names that the route's edits set or remove.
    pub(super) edited: &'a NameSet,
    peer_trusted: bool,
    /// Those of all these names.
    initials: Initials,
}

impl<'a> ForbiddenNames<'a> {
    pub(super) fn new(
        identity: &'a NameSet,
        edited: &'a NameSet,
        peer_trusted: bool,
    ) -> ForbiddenNames<'a> {
        let configured = identity.initials().union(edited.initials());
        ForbiddenNames {
            identity,
            edited,
            peer_trusted,
            initials: configured.union(LISTED),
        }
    }

    /// Whether a field is removed before the request is forwarded.
    ///
    /// CGI and its descendants turn every character other than a letter or digit into `_`, so names
    /// are compared with each of these read as `-`.
    pub(super) fn contains(self, field: &Field<'_>) -> bool {
        let name = field.name;
        let plain = field.kind != FieldKind::Irregular;
        if plain && !self.initials.intersects(Initials::of(name)) {
            return false;
        }
        if self.identity.contains_spelling(name) || self.edited.contains_spelling(name) {
            return true;
        }
        let as_request_id = || is_spelling(name, X_REQUEST_ID.as_str().as_bytes());
        if !plain && (name.contains(&b'_') || as_request_id()) {
            return true;
        }
        if !may_be_listed(name) {
            return false;
        }
        let folded = FoldedName::of(name);
        let folded = folded.as_bytes();
        // Only a trusted peer's plain spelling of a forwarding header passes.
        is_reserved(folded) || (!(plain && self.peer_trusted) && is_listed_forwarding(folded))
    }
}

/// Whether a header states the origin of a request, or its form before a proxy changed it: its
/// address, scheme, host, path or method. Method overrides are included, because routes match the
/// method of the request line.
pub(in crate::pipeline) fn is_forwarding(name: &[u8]) -> bool {
    may_be_listed(name) && is_listed_forwarding(FoldedName::of(name).as_bytes())
}

/// The first letters of the listed names.
const LISTED: Initials = Initials::of(b"c")
    .union(Initials::of(b"f"))
    .union(Initials::of(b"p"))
    .union(Initials::of(b"t"))
    .union(Initials::of(b"w"))
    .union(Initials::of(b"x"));

/// Whether a name may be a listed one; most header names of a request are not.
fn may_be_listed(name: &[u8]) -> bool {
    LISTED.intersects(Initials::of(name))
}

/// Whether only the gateway may write the header, or no client may send it (`Proxy` becomes
/// `HTTP_PROXY` in CGI, which HTTP libraries take for their proxy).
fn is_reserved(folded: &[u8]) -> bool {
    folded.starts_with(RESERVED)
        // The gateway writes the `X-Forwarded-*` form of this information.
        || folded == b"forwarded"
        || folded == b"proxy"
}

/// Whether a name is one of `X-Portcullis-*` in some spelling.
pub(super) fn is_portcullis(name: &[u8]) -> bool {
    let start = name.get(..RESERVED.len());
    start.is_some_and(|start| is_spelling(start, RESERVED))
}

fn is_listed_forwarding(folded: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 3] = [b"x-forwarded-", b"x-original-", b"x-rewrite-"];
    PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
        || matches!(
            folded,
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

/// The start of a name in lower case, with `-` for every character other than a letter or digit. It
/// is longer than every listed name.
struct FoldedName {
    bytes: [u8; 32],
    length: usize,
}

impl FoldedName {
    fn of(name: &[u8]) -> FoldedName {
        let mut bytes = [0; 32];
        for (folded, byte) in bytes.iter_mut().zip(name) {
            *folded = fold(*byte);
        }
        FoldedName {
            bytes,
            length: name.len().min(32),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Whether `Authorization` stays with the gateway: its own credentials, and a bearer token unless it
/// may be forwarded.
pub(super) fn withholds_authorization(fields: Fields<'_>, bearer_passes: bool) -> bool {
    let mut values = fields.all(FieldKind::Authorization);
    values.any(|value| match credential::auth_scheme(value) {
        credential::AuthScheme::Session => true,
        credential::AuthScheme::Bearer => !bearer_passes,
        credential::AuthScheme::Other => false,
    })
}

/// What becomes of a client's `Cookie` fields.
pub(super) enum Cookies {
    /// They hold no cookie of the gateway's.
    Pass,
    /// They hold no other cookie.
    Withheld,
    /// The other cookies, in one field.
    Rewritten(HeaderValue),
}

impl Cookies {
    pub(super) fn of(fields: Fields<'_>, cookie_name: &str) -> Cookies {
        let mut values = fields.all(FieldKind::Cookie);
        match (values.next(), values.next()) {
            (None, _) => return Cookies::Pass,
            // HTTP/2 splits cookies, other protocols do not (RFC 9113, section 8.2.3).
            (Some(value), None)
                if !value.is_empty() && !credential::has_own_cookie(value, cookie_name) =>
            {
                return Cookies::Pass;
            }
            _ => {}
        }
        let left = credential::strip_own_cookies(fields.all(FieldKind::Cookie), cookie_name);
        left.map_or(Cookies::Withheld, Cookies::Rewritten)
    }
}

/// The `Content-Length` that a client repeated with one value, which the upstream receives once; on
/// HTTP/1.1 the head reader has rejected it.
///
/// # Errors
/// The values differ.
pub(super) fn repeated_length(fields: Fields<'_>) -> Result<Option<&[u8]>, HeaderError> {
    let mut lengths = fields.all(FieldKind::ContentLength);
    let first = lengths.next();
    let mut repeated = None;
    for length in lengths {
        if Some(length) != first {
            return Err(HeaderError::ConflictingLengths);
        }
        repeated = first;
    }
    Ok(repeated)
}

#[cfg(test)]
mod tests;
