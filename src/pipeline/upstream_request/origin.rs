//! The origin of a request, as `X-Forwarded-*` headers for its upstream.

use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};

use crate::pipeline::facts::ClientOrigin;
use crate::pipeline::fields::{Fields, text_of};
use crate::pipeline::header_fields::{FieldSink, HeaderError};
use crate::pipeline::own_field::X_FORWARDED_HOST;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) static X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");

/// The peer of a connection, as the origin of its requests. Rendered once, because few peers are
/// trusted to report another.
#[derive(Debug)]
pub struct PeerOrigin {
    address: HeaderValue,
    https: bool,
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    lines: Box<[u8]>,
}

impl PeerOrigin {
    pub fn new(ip: IpAddr, https: bool) -> PeerOrigin {
        let ip = ip.to_canonical().to_string();
        let scheme = scheme(https).to_str().unwrap_or_default();
        let lines = format!("{X_FORWARDED_FOR}: {ip}\r\n{X_FORWARDED_PROTO}: {scheme}\r\n");
        PeerOrigin {
            // The text of an address is always a valid header value.
            address: HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("")),
            https,
            lines: lines.into_bytes().into(),
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let address = (&X_FORWARDED_FOR, &self.address);
        [address, (&X_FORWARDED_PROTO, scheme(self.https))].into_iter()
    }
}

fn scheme(https: bool) -> &'static HeaderValue {
    match https {
        true => &HTTPS,
        false => &HTTP,
    }
}

/// Writes the origin of a request.
///
/// # Errors
/// A value that no header can carry.
pub(super) fn write(
    sink: &mut dyn FieldSink,
    origin: &ClientOrigin,
    peer: &PeerOrigin,
    host: &str,
) -> Result<(), HeaderError> {
    if origin.chain.is_empty() {
        sink.add_rendered(&peer.lines, &mut peer.fields());
    } else {
        let hops: Vec<String> = origin.chain.iter().map(IpAddr::to_string).collect();
        sink.add_text(&X_FORWARDED_FOR, hops.join(", ").as_bytes())?;
        sink.add(&X_FORWARDED_PROTO, scheme(origin.https));
    }
    match origin.host.as_deref() {
        Some(host) => sink.add_text(&X_FORWARDED_HOST.name, host.as_bytes())?,
        // The reader of heads has checked it.
        None => sink.add_checked(&X_FORWARDED_HOST, host.as_bytes()),
    }
    Ok(())
}

/// The prefix that is stripped from the path, after the one that a trusted proxy has stripped; `None`:
/// it is empty.
pub(super) fn prefix(fields: Fields<'_>, stripped: &str, peer_trusted: bool) -> Option<String> {
    let name = &X_FORWARDED_PREFIX;
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
