//! W3C Trace Context: a valid trace is passed on, any other starts anew.

use http::header::HeaderValue;
use pingora::http::RequestHeader;

use super::headers::not_ours;

/// Keeps a valid `traceparent` with its `tracestate`, and starts a new trace otherwise (W3C Trace
/// Context, section 3.2).
///
/// # Errors
/// A header that does not fit.
pub(super) fn write(request: &mut RequestHeader) -> pingora::Result<()> {
    let mut parents = request.headers.get_all("traceparent").iter();
    let valid = match (parents.next(), parents.next()) {
        (Some(parent), None) => is_traceparent(parent.as_bytes()),
        _ => false,
    };
    if valid {
        return Ok(());
    }
    request.remove_header("tracestate");
    let (trace, span): (u128, u64) = rand::random();
    let fresh = format!("00-{:032x}-{:016x}-00", trace.max(1), span.max(1));
    request.insert_header(
        "traceparent",
        HeaderValue::try_from(fresh).map_err(not_ours)?,
    )
}

fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value
            .get(range)
            .filter(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let dashes = [2, 35, 52].iter().all(|at| value.get(*at) == Some(&b'-'));
    let (Some(version), Some(trace), Some(parent), Some(_)) =
        (hex(0..2), hex(3..35), hex(36..52), hex(53..55))
    else {
        return false;
    };
    let known_length = value.len() == 55 || (version != b"00" && value.get(55) == Some(&b'-'));
    dashes
        && known_length
        && version != b"ff"
        && trace.iter().any(|b| *b != b'0')
        && parent.iter().any(|b| *b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_checked_to_the_letter() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good.as_bytes()));
        assert!(is_traceparent(format!("01{}-more", &good[2..]).as_bytes()));
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
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }
}
