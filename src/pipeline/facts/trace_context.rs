//! W3C Trace Context: a valid trace is continued, otherwise a new one starts.

use crate::hex_digits;
use crate::pipeline::fields::{FieldKind, Fields};
use crate::pipeline::header_fields::FieldSink;
use crate::pipeline::own_field::TRACEPARENT;
use crate::telemetry::random;
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace_id::TraceId;

/// The trace of a request toward its upstream.
#[derive(Debug)]
pub(crate) enum Trace {
    /// The client's: its `traceparent` passes, with its `tracestate`.
    Continued(TraceId),
    /// One that starts here, as the value of `traceparent`.
    Started([u8; 55]),
}

impl Trace {
    /// Continues a valid trace of the client's, and starts a new one otherwise (W3C Trace Context,
    /// section 3.2). Its identifier is the request's where that is a valid one, so that either leads to
    /// the other.
    pub(crate) fn of(fields: Fields<'_>, request_id: &RequestId) -> Trace {
        if let Some(id) = client_trace(fields) {
            return Trace::Continued(id);
        }
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        if let Some(trace) = value.get_mut(3..35) {
            trace.copy_from_slice(&new_trace_id(request_id));
        }
        if let Some(span) = value.get_mut(36..52) {
            // Sixteen bytes cost less than eight: their digits are vectorized.
            let id = u128::from(random::bits_64().max(1)) << 64;
            let digits: [u8; 32] = hex_digits::encode(&id.to_be_bytes());
            span.copy_from_slice(digits.first_chunk::<16>().unwrap_or(&[b'1'; 16]));
        }
        Trace::Started(value)
    }

    pub(crate) fn is_continued(&self) -> bool {
        matches!(self, Trace::Continued(_))
    }

    pub(crate) fn id(&self) -> Option<TraceId> {
        match self {
            Trace::Continued(id) => Some(*id),
            Trace::Started(value) => TraceId::read(value.get(3..35)?),
        }
    }

    /// Writes `traceparent`, unless the client's passes.
    pub(crate) fn write(&self, sink: &mut dyn FieldSink) {
        if let Trace::Started(value) = self {
            sink.add_checked(&TRACEPARENT, value);
        }
    }
}

/// Returns the trace of a client's request, where its identifier is not the request's.
pub(crate) fn of_client(fields: Fields<'_>, request_id: &[u8]) -> Option<TraceId> {
    client_trace(fields)?.unless_request_id(request_id)
}

/// The trace of a client's request, if it names exactly one.
fn client_trace(fields: Fields<'_>) -> Option<TraceId> {
    let mut parents = fields.all(FieldKind::Traceparent);
    match (parents.next(), parents.next()) {
        (Some(parent), None) => trace_id_of(parent),
        _ => None,
    }
}

/// The identifier of a trace that starts here, never all zeros, which is an invalid one.
fn new_trace_id(request_id: &RequestId) -> [u8; 32] {
    if let Some(digits) = request_id.generated() {
        return *digits;
    }
    let received = request_id.as_bytes().try_into().ok();
    let usable = received.filter(|id: &[u8; 32]| is_trace_id(id));
    usable.unwrap_or_else(|| hex_digits::encode(&random::bits_128().max(1).to_be_bytes()))
}

/// Adding up bytes without an early return lets the compiler vectorize the check.
fn is_trace_id(id: &[u8; 32]) -> bool {
    let odd = |sum, byte: &u8| sum | u8::from(!is_hex(byte));
    let set = |sum, byte: &u8| sum | (byte ^ b'0');
    id.iter().fold(0, odd) == 0 && id.iter().fold(0, set) != 0
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
    use crate::pipeline::header_fields::tests::added;

    fn started(trace: &Trace) -> Vec<(String, String)> {
        added(|sink| {
            trace.write(sink);
            Ok(())
        })
    }

    #[test]
    fn new_trace_uses_the_request_id_if_valid() {
        let uuid = "0af7651916cd43dd8448eb211c80319c";
        let received = |id: &str| RequestId::keep_or_generate(Some(id.as_bytes()));
        for (request_id, kept) in [
            (RequestId::generate(), true),
            (received(uuid), true),
            (received("0af7651916cd43dd8448eb211c80319C"), false),
            (received("00000000000000000000000000000000"), false),
            (received("abc"), false),
        ] {
            let id = request_id.as_str();
            let state = list(&[("tracestate", "a=1"), ("Traceparent", "00-0-0-0")]);
            let trace = Trace::of(Fields::new(&state), &request_id);
            assert!(!trace.is_continued());
            let fields = started(&trace);
            let [(name, parent)] = fields.as_slice() else {
                panic!("{fields:?}");
            };
            assert_eq!(name, "traceparent");
            let written = trace_id_of(parent.as_bytes()).unwrap();
            assert_eq!(written.as_str() == id, kept, "{parent}");
            assert_eq!(trace.id(), Some(written), "{parent}");
            // As the client's, it is continued, and logged because it differs from the request's.
            let fields = list(&[("Traceparent", parent.as_str())]);
            let fields = Fields::new(&fields);
            let trace = Trace::of(fields, &request_id);
            assert!(trace.is_continued() && started(&trace).is_empty());
            assert_eq!(trace.id(), Some(written));
            assert_eq!(of_client(fields, id.as_bytes()), (!kept).then_some(written));
        }
    }

    #[test]
    fn two_parents_start_a_new_trace() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let fields = list(&[("traceparent", parent), ("traceparent", parent)]);
        assert!(!Trace::of(Fields::new(&fields), &RequestId::EMPTY).is_continued());
        assert_eq!(of_client(Fields::new(&fields), b"a"), None);
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
