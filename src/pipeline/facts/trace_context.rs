//! W3C Trace Context: a valid trace is continued, otherwise a new one starts.

use bytes::BytesMut;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::pipeline::fields::{FieldKind, Fields};
use crate::pipeline::header_fields::{self, HeaderError};
use crate::telemetry::trace_id::TraceId;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Returns the trace of a client's request, where its identifier is not the request's.
pub(crate) fn of_client(fields: Fields<'_>, request_id: &str) -> Option<TraceId> {
    let mut parents = fields.all(FieldKind::Traceparent);
    let (Some(parent), None) = (parents.next(), parents.next()) else {
        return None;
    };
    trace_id_of(parent)?.unless_request_id(request_id)
}

/// Keeps a valid `traceparent` with its `tracestate`, and starts a new trace otherwise (W3C Trace
/// Context, section 3.2). Its identifier is the request's where that is a valid one, so that either leads to
/// the other. Returns the trace where its identifier is not the request's.
///
/// # Errors
/// A value that no header can carry.
pub(crate) fn write(
    fields: &mut HeaderMap,
    request_id: &str,
) -> Result<Option<TraceId>, HeaderError> {
    let [parent, state] = header_fields::has(fields, [&TRACEPARENT, &TRACESTATE]);
    if parent {
        let mut parents = fields.get_all(TRACEPARENT).iter();
        if let (Some(parent), None) = (parents.next(), parents.next())
            && let Some(kept) = trace_id_of(parent.as_bytes())
        {
            return Ok(kept.unless_request_id(request_id));
        }
    }
    if state {
        fields.remove(TRACESTATE);
    }
    // Never all zeros, which is an invalid id.
    let span = rand::random::<u64>().max(1);
    let mut hex = [0; 48];
    let (trace, rest) = hex.split_at_mut(32);
    let own = is_trace_id(request_id.as_bytes());
    if own {
        trace.copy_from_slice(request_id.as_bytes());
    } else {
        let id = rand::random::<u128>().max(1);
        write_hex(&id.to_be_bytes(), trace);
    }
    let other = if own { None } else { TraceId::read(trace) };
    write_hex(&span.to_be_bytes(), rest);
    let mut fresh = BytesMut::with_capacity(55);
    for part in [b"00-", &*trace, b"-", &*rest, b"-00"] {
        fresh.extend_from_slice(part);
    }
    let fresh = HeaderValue::from_maybe_shared(fresh.freeze())?;
    fields.insert(TRACEPARENT, fresh);
    Ok(other)
}

/// Writes two digits for each byte; `digits` has exactly that length.
fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    // It fails only for a wrong length.
    let _ = hex::encode_to_slice(bytes, digits);
}

/// Adding up bytes without an early return lets the compiler vectorize the check.
fn is_trace_id(id: &[u8]) -> bool {
    let odd = |sum, byte: &u8| sum | u8::from(!is_hex(byte));
    let set = |sum, byte: &u8| sum | (byte ^ b'0');
    id.len() == 32 && id.iter().fold(0, odd) == 0 && id.iter().fold(0, set) != 0
}

fn is_hex(byte: &u8) -> bool {
    byte.is_ascii_digit() | matches!(byte, b'a'..=b'f')
}

/// The trace id of a valid `traceparent`.
fn trace_id_of(value: &[u8]) -> Option<TraceId> {
    let hex =
        |range: std::ops::Range<usize>| value.get(range).filter(|part| part.iter().all(is_hex));
    let dashes = [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'));
    let (Some(version), Some(trace), Some(parent), Some(_)) =
        (hex(0..2), hex(3..35), hex(36..52), hex(53..55))
    else {
        return None;
    };
    let known_length = value.len() == 55 || (version != b"00" && value.get(55) == Some(&b'-'));
    let valid = dashes
        && known_length
        && version != b"ff"
        && trace.iter().any(|b| *b != b'0')
        && parent.iter().any(|b| *b != b'0');
    valid.then(|| TraceId::read(trace)).flatten()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::pipeline::fields::tests::list;

    #[test]
    fn new_trace_uses_the_request_id_if_valid() {
        let uuid = "0af7651916cd43dd8448eb211c80319c";
        for (id, kept) in [
            (uuid, true),
            ("0af7651916cd43dd8448eb211c80319C", false),
            ("00000000000000000000000000000000", false),
            ("abc", false),
        ] {
            let mut fields = HeaderMap::new();
            let other = write(&mut fields, id).unwrap();
            let parent = fields.get(TRACEPARENT).unwrap().clone();
            let parent = parent.to_str().unwrap();
            let written = trace_id_of(parent.as_bytes()).unwrap();
            assert_eq!(written.as_str() == id, kept, "{parent}");
            assert_eq!(other, (!kept).then_some(written), "{parent}");
            // The client's trace is kept, and returned because it differs from the request's.
            assert_eq!(write(&mut fields, id).unwrap(), other);
            let list = list(&[("traceparent", parent)]);
            assert_eq!(of_client(Fields::new(&list), id), other);
        }
    }

    #[test]
    fn traceparent_is_validated_strictly() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(trace_id_of(good.as_bytes()).is_some());
        assert!(trace_id_of(format!("01{}-more", &good[2..]).as_bytes()).is_some());
        for bad in [
            "",
            "00-0-0-0",
            &good[..54],
            &format!("{good}-x"),
            &good.to_uppercase(),
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(trace_id_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
