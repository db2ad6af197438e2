//! The request line and its target (RFC 9112, section 3).

use std::ops::Range;

use super::{HeadRejection, bad, too_large};
use crate::rejection::Reason;
use crate::routing::{host_of, path_length, port_of};

/// Bytes of a target; Pingora keeps it as an `http::Uri`, which has no room for more.
pub(super) const MAX_TARGET: usize = 65_533;

/// The parts that a target in absolute form has beyond origin form (RFC 9112, section 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Absolute {
    /// The position of scheme and authority in the buffer.
    pub(super) cut: Range<usize>,
    /// Their replacement: the path, if the target omits it.
    pub(super) path: &'static [u8],
    /// Must equal the `Host`.
    authority: Vec<u8>,
    default_port: u16,
}

impl Absolute {
    /// Whether the target's authority is this `Host`: host and port are compared without regard to
    /// case, and a missing port is the scheme's default (RFC 9110, section 4.2.3).
    pub(super) fn names(&self, host: &[u8]) -> bool {
        let host = std::str::from_utf8(host).unwrap_or_default();
        let authority = std::str::from_utf8(&self.authority).unwrap_or_default();
        let (Ok(ours), Ok(theirs)) = (host_of(authority), host_of(host)) else {
            return false;
        };
        let port = |authority| port_of(authority).unwrap_or(self.default_port);
        ours == theirs && port(authority) == port(host)
    }
}

/// Splits a request line at its spaces.
pub(super) fn split_request_line(line: &[u8]) -> Result<[&[u8]; 3], HeadRejection> {
    let parts = line.iter().position(|byte| *byte == b' ').and_then(|at| {
        let (method, rest) = line.split_at(at);
        let rest = rest.get(1..)?;
        // What nearly all clients send.
        let end = match rest.strip_suffix(b" HTTP/1.1") {
            Some(target) => target.len(),
            None => rest.iter().rposition(|byte| *byte == b' ')?,
        };
        let (target, version) = rest.split_at(end);
        Some([method, target, version.get(1..)?])
    });
    match parts {
        Some(parts @ [_, target, _]) if !target.contains(&b' ') => Ok(parts),
        _ => bad("the request line has not three parts"),
    }
}

/// Rejects bytes that no URI contains (RFC 3986, section 2) and that Pingora therefore cannot
/// forward unchanged, and fragments: a reader that cuts one off sees another path. Returns the length
/// of the target without its query.
pub(super) fn check(target: &[u8]) -> Result<usize, HeadRejection> {
    let Some(length) = path_length(target) else {
        return bad("the target has an illegal byte");
    };
    if target.len() > MAX_TARGET {
        return too_large(Reason::Head("the target is too long"));
    }
    Ok(length)
}

/// Parses a target in absolute form that begins at `at` in the buffer.
pub(super) fn absolute(target: &[u8], at: usize, options: bool) -> Result<Absolute, HeadRejection> {
    let Some(scheme_end) = memchr::memmem::find(target, b"://") else {
        return bad("the target is neither a path nor absolute");
    };
    let (scheme, rest) = target.split_at(scheme_end);
    let default_port = if scheme.eq_ignore_ascii_case(b"http") {
        80
    } else if scheme.eq_ignore_ascii_case(b"https") {
        443
    } else {
        return bad("the scheme of the target is neither http nor https");
    };
    let rest = rest.get(3..).unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let end = end.unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Ok(Absolute {
        cut: at..at + scheme_end + 3 + end,
        path: match path.first() {
            Some(b'/') => b"",
            // RFC 9112, section 3.2.4.
            None if options => b"*",
            _ => b"/",
        },
        authority: authority.to_vec(),
        default_port,
    })
}
