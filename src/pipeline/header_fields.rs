//! Look-ups and edits of header fields, shared by requests and responses.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, InvalidHeaderValue};

use crate::auth::token::SignError;
use crate::routing::HeaderEdits;

/// Why the headers of a message cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("a header of the gateway's own has an invalid value")]
    InvalidValue(#[from] InvalidHeaderValue),
    #[error("the assertion for the upstream cannot be signed")]
    Assertion(#[from] SignError),
    /// The client's request is malformed.
    #[error("the values of Content-Length differ")]
    ConflictingLengths,
}

/// Returns the first value of each of these names in one pass over all fields: a look-up in the map
/// costs a hash for each name, and most messages have few fields.
pub(crate) fn first<'m, const N: usize>(
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

/// Returns which of these names are present, in one pass over all fields.
pub(crate) fn has<const N: usize>(fields: &HeaderMap, names: [&HeaderName; N]) -> [bool; N] {
    first(fields, names).map(|value| value.is_some())
}

/// Applies a route's edits.
pub(super) fn apply_edits(fields: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        fields.remove(name);
    }
    for (name, value) in &edits.set {
        fields.insert(name.clone(), value.clone());
    }
}
