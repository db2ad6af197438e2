//! The identity of a request, as headers for its upstream.

use std::fmt::Write as _;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::pipeline::admission::Identity;
use crate::pipeline::header_fields::HeaderError;
use crate::routing::IdentityHeaders;

/// Writes the identity headers of a route.
///
/// # Errors
/// A value that no header can carry.
pub fn write_identity(
    fields: &mut HeaderMap,
    names: &IdentityHeaders,
    identity: &Identity,
) -> Result<(), HeaderError> {
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
            Ok(HeaderValue::from_str(session.id.write_hex(&mut [0; 64]))?)
        })?;
    }
    Ok(())
}

/// Writes a value under each of these names; the value is built only if there is one.
fn insert(
    fields: &mut HeaderMap,
    names: &[HeaderName],
    value: impl FnOnce() -> Result<HeaderValue, HeaderError>,
) -> Result<(), HeaderError> {
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

/// Percent-encodes everything but visible ASCII, so that no value can break out of its header.
pub(super) fn encode_visible(text: &str) -> Result<HeaderValue, HeaderError> {
    let odd = |sum, byte| sum | u8::from(!matches!(byte, 0x21..=0x7e));
    if text.bytes().fold(0, odd) == 0 {
        return Ok(HeaderValue::from_str(text)?);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Ok(HeaderValue::try_from(encoded)?)
}
