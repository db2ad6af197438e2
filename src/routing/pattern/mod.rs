//! What a configured route says about hosts and paths.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS};

use super::path::{Path, PathError, RawSegments};
use super::{HostPattern, PathAmbiguities, PathPattern};

/// Why a pattern is refused: nothing that a client can send would ever match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("matching leaves out what follows a `;` in a segment, so no path can match this")]
    Parameter,
    #[error(
        "a path with `//` or an encoded delimiter (%2f %5c %3b %25 %3f %23) cannot be matched on"
    )]
    Ambiguous,
    #[error("the decoded path is not UTF-8")]
    NotUtf8,
    #[error("a host is a name, an IP address, or `*.` before a name; without port")]
    Host,
}

/// What an operator may write as it is although a client has to encode it.
const TO_ENCODE: &AsciiSet = &CONTROLS.add(b' ');

impl PathPattern {
    /// Matches the path's first segments. A slash at its end makes no difference.
    pub fn prefix(written: &str) -> Result<PathPattern, PatternError> {
        let mut segments = parse_segments(written)?;
        if segments.last().is_some_and(String::is_empty) {
            segments.pop();
        }
        Ok(PathPattern::Prefix(segments))
    }

    /// Matches the whole path. A slash at its end makes a difference.
    pub fn exact(written: &str) -> Result<PathPattern, PatternError> {
        Ok(PathPattern::Exact(parse_segments(written)?))
    }

    /// Whether a path is matched.
    pub fn matches(&self, path: &Path<'_>) -> bool {
        let mut found = path.segments();
        let all = |wanted: &[String], found: &mut dyn Iterator<Item = &[u8]>| {
            wanted
                .iter()
                .all(|segment| found.next() == Some(segment.as_bytes()))
        };
        match self {
            PathPattern::Exact(wanted) => all(wanted, &mut found) && found.next().is_none(),
            PathPattern::Prefix(wanted) => all(wanted, &mut found),
        }
    }

    pub(super) fn segments(&self) -> &[String] {
        match self {
            PathPattern::Exact(segments) | PathPattern::Prefix(segments) => segments,
        }
    }
}

fn parse_segments(written: &str) -> Result<Vec<String>, PatternError> {
    if written.contains(|c: char| c.is_ascii_control()) {
        return Err(PathError::Control.into());
    }
    if written.contains(';') {
        return Err(PatternError::Parameter);
    }
    let encoded: Cow<'_, str> = percent_encoding::utf8_percent_encode(written, TO_ENCODE).into();
    let path = Path::read(encoded.as_bytes())?;
    if path.ambiguities() != PathAmbiguities::NONE {
        return Err(PatternError::Ambiguous);
    }
    path.segments()
        .map(|segment| String::from_utf8(segment.to_vec()).map_err(|_| PatternError::NotUtf8))
        .collect()
}

/// Takes the segments that `prefix` matched away from the front of a path, parameters included.
/// The rest begins with exactly one slash; whole segments go, so no dot segment can appear.
#[must_use]
pub fn strip_prefix<'p>(raw_path: &'p str, prefix: &PathPattern) -> &'p str {
    let mut pieces = RawSegments::new(raw_path);
    for _ in prefix.segments() {
        pieces.next();
    }
    let mut rest = pieces.rest();
    while let Some(after) = rest.and_then(without_empty_segment) {
        rest = Some(after);
    }
    let Some(rest) = rest else {
        return "/";
    };
    let slash = raw_path.len().saturating_sub(rest.len() + 1);
    raw_path.get(slash..).unwrap_or("/")
}

/// What [`strip_prefix`] takes off a path; empty where that is nothing.
#[must_use]
pub fn stripped_part<'p>(raw_path: &'p str, prefix: &PathPattern) -> &'p str {
    let rest = strip_prefix(raw_path, prefix);
    raw_path.strip_suffix(rest).unwrap_or(raw_path)
}

/// What follows a first segment whose name is empty.
fn without_empty_segment(rest: &[u8]) -> Option<&[u8]> {
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let (segment, after) = rest.split_at(slash);
    if matches!(segment.first(), None | Some(b';')) {
        after.get(1..)
    } else {
        None
    }
}

impl HostPattern {
    /// Reads `name`, `*.name`, an IPv4 address or a bracketed IPv6 address.
    pub fn parse(written: &str) -> Result<HostPattern, PatternError> {
        let (name, wildcard) = match written.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (written, false),
        };
        let has_port = !name.starts_with('[') && name.contains(':') || name.contains("]:");
        let canonical = super::host::host_of(name).map_err(|_| PatternError::Host)?;
        if has_port || canonical.contains('*') || wildcard && canonical.starts_with('[') {
            return Err(PatternError::Host);
        }
        let canonical = canonical.into_owned();
        Ok(if wildcard {
            HostPattern::Wildcard(canonical)
        } else {
            HostPattern::Exact(canonical)
        })
    }
}

#[cfg(test)]
mod tests;
