//! Host and path patterns of configured routes.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS};

use super::path::{Path, PathError, RawSegments};
use super::{HostPattern, PathAmbiguities, PathPattern};

/// Reason why a pattern is rejected: no request could ever match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("a path with `;` never matches, because parameters are ignored")]
    Parameter,
    #[error("a path with `//` or an encoded delimiter (%2f %5c %3b %25 %3f %23) cannot be matched")]
    Ambiguous,
    #[error("the decoded path is not UTF-8")]
    NotUtf8,
    #[error("a host must be a name, an IP address, or `*.` and a name, without a port")]
    Host,
}

/// Characters that a pattern may contain literally although clients encode them.
const TO_ENCODE: &AsciiSet = &CONTROLS.add(b' ');

impl PathPattern {
    /// Parses a prefix, which matches the leading segments of a path. A final slash is ignored.
    pub fn prefix(text: &str) -> Result<PathPattern, PatternError> {
        let mut segments = parse_segments(text)?;
        if segments.last().is_some_and(String::is_empty) {
            segments.pop();
        }
        Ok(PathPattern::Prefix(segments))
    }

    /// Parses an exact path. A final slash is significant.
    pub fn exact(text: &str) -> Result<PathPattern, PatternError> {
        Ok(PathPattern::Exact(parse_segments(text)?))
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &Path<'_>) -> bool {
        let mut segments = path.segments();
        let starts_with = |pattern: &[String], segments: &mut dyn Iterator<Item = &[u8]>| {
            pattern
                .iter()
                .all(|segment| segments.next() == Some(segment.as_bytes()))
        };
        match self {
            PathPattern::Exact(pattern) => {
                starts_with(pattern, &mut segments) && segments.next().is_none()
            }
            PathPattern::Prefix(pattern) => starts_with(pattern, &mut segments),
        }
    }

    pub(super) fn segments(&self) -> &[String] {
        match self {
            PathPattern::Exact(segments) | PathPattern::Prefix(segments) => segments,
        }
    }
}

fn parse_segments(text: &str) -> Result<Vec<String>, PatternError> {
    if text.contains(|c: char| c.is_ascii_control()) {
        return Err(PathError::Control.into());
    }
    if text.contains(';') {
        return Err(PatternError::Parameter);
    }
    let encoded: Cow<'_, str> = percent_encoding::utf8_percent_encode(text, TO_ENCODE).into();
    let path = Path::read(encoded.as_bytes())?;
    if path.ambiguities() != PathAmbiguities::NONE {
        return Err(PatternError::Ambiguous);
    }
    path.segments()
        .map(|segment| String::from_utf8(segment.to_vec()).map_err(|_| PatternError::NotUtf8))
        .collect()
}

/// Removes the segments that `prefix` matched from the start of a path, including parameters.
///
/// The result starts with exactly one slash. Only whole segments are removed, so no dot segment can
/// appear.
#[must_use]
pub fn strip_prefix<'p>(raw_path: &'p str, prefix: &PathPattern) -> &'p str {
    let mut pieces = RawSegments::new(raw_path.as_bytes());
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

/// Returns the part of a path that [`strip_prefix`] removes, which may be empty.
#[must_use]
pub fn stripped_part<'p>(raw_path: &'p str, prefix: &PathPattern) -> &'p str {
    let rest = strip_prefix(raw_path, prefix);
    raw_path.strip_suffix(rest).unwrap_or(raw_path)
}

/// Skips the first segment if its name is empty.
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
    /// Parses `name`, `*.name`, an IPv4 address or a bracketed IPv6 address.
    pub fn parse(text: &str) -> Result<HostPattern, PatternError> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
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

    /// Whether a host, in lower case and without port, matches.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => name == host,
            HostPattern::Wildcard(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
        }
    }
}

#[cfg(test)]
mod tests;
