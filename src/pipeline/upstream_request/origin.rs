//! The origin of a request, as `X-Forwarded-*` headers for its upstream.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::pipeline::facts::ClientOrigin;
use crate::pipeline::header_fields::HeaderError;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Writes the origin of a request; `peer` is the address of the connection's peer.
///
/// # Errors
/// A value that no header can carry.
pub fn write_origin(
    fields: &mut HeaderMap,
    origin: &ClientOrigin,
    peer: &HeaderValue,
    host: &HeaderValue,
) -> Result<(), HeaderError> {
    let chain = match origin.chain.as_slice() {
        [] | [_] => peer.clone(),
        chain => {
            let hops: Vec<String> = chain.iter().map(IpAddr::to_string).collect();
            HeaderValue::try_from(hops.join(", "))?
        }
    };
    fields.insert(X_FORWARDED_FOR, chain);
    fields.insert(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(if origin.https { "https" } else { "http" }),
    );
    let host = match &origin.host {
        Some(host) => HeaderValue::try_from(host.as_str())?,
        None => host.clone(),
    };
    fields.insert(X_FORWARDED_HOST, host);
    Ok(())
}

/// Writes the prefix that is stripped from the path, after the one that a trusted proxy has stripped.
///
/// # Errors
/// A value that no header can carry.
pub(super) fn write_prefix(
    fields: &mut HeaderMap,
    prefix: &str,
    peer_trusted: bool,
) -> Result<(), HeaderError> {
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
    fields.insert(X_FORWARDED_PREFIX, HeaderValue::try_from(whole)?);
    Ok(())
}
