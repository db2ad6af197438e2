//! The origin of a request, as `X-Forwarded-*` headers for its upstream.

use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};

use crate::pipeline::facts::ClientOrigin;
use crate::pipeline::fields::{Fields, text_of};
use crate::pipeline::header_fields::{FieldSink, HeaderError};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Writes the origin of a request; `peer` is the address of the connection's peer.
///
/// # Errors
/// A value that no header can carry.
pub(super) fn write(
    sink: &mut dyn FieldSink,
    origin: &ClientOrigin,
    peer: &HeaderValue,
    host: &HeaderValue,
) -> Result<(), HeaderError> {
    match origin.chain.as_slice() {
        [] | [_] => sink.add(&X_FORWARDED_FOR, peer),
        chain => {
            let hops: Vec<String> = chain.iter().map(IpAddr::to_string).collect();
            sink.add_text(&X_FORWARDED_FOR, hops.join(", ").as_bytes())?;
        }
    }
    let scheme = if origin.https { "https" } else { "http" };
    sink.add(&X_FORWARDED_PROTO, &HeaderValue::from_static(scheme));
    match &origin.host {
        Some(host) => sink.add_text(&X_FORWARDED_HOST, host.as_bytes())?,
        None => sink.add(&X_FORWARDED_HOST, host),
    }
    Ok(())
}

/// The prefix that is stripped from the path, after the one that a trusted proxy has stripped; `None`:
/// it is empty.
pub(super) fn prefix(fields: Fields<'_>, stripped: &str, peer_trusted: bool) -> Option<String> {
    let name = X_FORWARDED_PREFIX;
    let before = fields
        .named(name.as_str())
        .next()
        .and_then(text_of)
        .filter(|before| peer_trusted && before.starts_with('/'))
        .map(|before| before.trim_end_matches('/'))
        .unwrap_or_default();
    let whole = format!("{before}{stripped}");
    (!whole.is_empty()).then_some(whole)
}
