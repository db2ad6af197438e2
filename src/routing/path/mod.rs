//! Parser of request paths.
//!
//! Most bypasses of authenticating proxies exploit a difference between the path that was checked
//! and the path that was served. A path that two programs could interpret differently is therefore
//! rejected, and all other paths are forwarded byte for byte.

use std::slice::Iter;

use super::PathAmbiguities;

/// An unambiguous path, except for the [`PathAmbiguities`] that a route must allow.
#[derive(Debug)]
pub struct Path<'a> {
    raw: &'a [u8],
    /// Nothing in it had to be looked at more closely.
    is_plain: bool,
    /// The decoded segments, if `raw` has encoded bytes.
    decoded: Option<Vec<Box<[u8]>>>,
    ambiguities: PathAmbiguities,
}

/// Reason why a path is rejected on every route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path must start with a slash")]
    NoLeadingSlash,
    #[error("the path has a dot segment, literal or encoded")]
    DotSegment,
    #[error("the path has a backslash")]
    Backslash,
    #[error("the path has a control character, literal or encoded")]
    Control,
    #[error("the path has an unencoded space")]
    Space,
    #[error("the path has a fragment")]
    Fragment,
    #[error("the path has a question mark")]
    QuestionMark,
    #[error("the path has an unencoded byte outside ASCII")]
    NotAscii,
    #[error("the path has an invalid percent-encoding")]
    PercentEncoding,
    #[error("the path has an overlong UTF-8 encoding of an ASCII character")]
    Overlong,
}

impl<'a> Path<'a> {
    /// Parses the path of a request target, which is the part before its `?`.
    pub fn read(raw: &'a [u8]) -> Result<Path<'a>, PathError> {
        if raw.first() != Some(&b'/') {
            return Err(PathError::NoLeadingSlash);
        }
        let is_plain = is_plain(raw);
        let encoded = !is_plain && check_bytes(raw)?;
        let mut ambiguities = PathAmbiguities::NONE;
        let mut decoded = None;
        if encoded {
            ambiguities = check_encodings(raw)?;
            check_decoded(&fully_decoded(raw))?;
            let segments = RawSegments::new(raw).map(|piece| decode_once(piece).into_boxed_slice());
            decoded = Some(segments.collect());
        }
        if !is_plain && check_segments(raw)? {
            ambiguities = ambiguities.with(PathAmbiguities::DOUBLE_SLASH);
        }
        Ok(Path {
            raw,
            is_plain,
            decoded,
            ambiguities,
        })
    }

    /// Whether the path may be one below `prefix`, which is plain. It reads no segments.
    pub(super) fn may_begin_with(&self, prefix: &str) -> bool {
        !self.is_plain || self.raw.starts_with(prefix.as_bytes())
    }

    /// The ambiguities that a route must allow.
    pub fn ambiguities(&self) -> PathAmbiguities {
        self.ambiguities
    }

    /// Returns the decoded segments, each up to its first `;`.
    ///
    /// A path that ends with a slash has an empty last segment. Other empty segments are omitted,
    /// so that `//admin`, if a route allows it, is still under `/admin`.
    pub fn segments(&self) -> Segments<'_> {
        match &self.decoded {
            Some(decoded) => Segments::Decoded(decoded.iter()),
            None => Segments::Raw(RawSegments::new(self.raw)),
        }
    }
}

/// The segments of a [`Path`], in order.
#[derive(Debug, Clone)]
pub enum Segments<'p> {
    Raw(RawSegments<'p>),
    Decoded(Iter<'p, Box<[u8]>>),
}

impl<'p> Iterator for Segments<'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        match self {
            Segments::Raw(pieces) => pieces.next(),
            Segments::Decoded(segments) => segments.next().map(|segment| &**segment),
        }
    }
}

/// The undecoded segments of a path, without parameters and without empty segments before the last.
#[derive(Debug, Clone)]
pub struct RawSegments<'p> {
    rest: Option<&'p [u8]>,
}

impl<'p> RawSegments<'p> {
    /// Iterates over a path that starts with a slash.
    pub(super) fn new(raw: &'p [u8]) -> RawSegments<'p> {
        RawSegments { rest: raw.get(1..) }
    }

    /// The rest of the path, without the slash before it.
    pub(super) fn rest(&self) -> Option<&'p [u8]> {
        self.rest
    }
}

impl<'p> Iterator for RawSegments<'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        loop {
            let (segment, rest) = split_at_byte(self.rest?, b'/');
            self.rest = rest;
            let (name, _) = split_at_byte(segment, b';');
            if !name.is_empty() || rest.is_none() {
                return Some(name);
            }
        }
    }
}

/// Splits at the first separator.
fn split_at_byte(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == separator) {
        Some(at) => {
            let (head, tail) = bytes.split_at(at);
            (head, tail.get(1..))
        }
        None => (bytes, None),
    }
}

/// Whether a path has nothing that must be looked at more closely: neither encodings, dots, parameters
/// nor empty segments.
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn is_plain(raw: &[u8]) -> bool {
    let (mut all, mut pairs, mut last) = (0, 0, 0);
    for byte in raw {
        let class = CLASSES[*byte as usize];
        all |= class;
        pairs |= class & last;
        last = class;
    }
    all & SPECIAL == 0 && pairs & SLASH == 0
}

const SLASH: u8 = 1;
/// Encodings, dots and parameters, and what no path may contain.
const SPECIAL: u8 = 2;

#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
const CLASSES: [u8; 256] = {
    let mut classes = [SPECIAL; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        classes[byte] = match byte as u8 {
            b'/' => SLASH,
            b'%' | b'.' | b';' | b'\\' | b'#' | b'?' => SPECIAL,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Rejects bytes that no path may contain, and returns whether any are percent-encoded.
fn check_bytes(raw: &[u8]) -> Result<bool, PathError> {
    let mut encoded = false;
    for byte in raw {
        match byte {
            b'%' => encoded = true,
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b' ' => return Err(PathError::Space),
            b'\\' => return Err(PathError::Backslash),
            b'#' => return Err(PathError::Fragment),
            b'?' => return Err(PathError::QuestionMark),
            0x80.. => return Err(PathError::NotAscii),
            _ => {}
        }
    }
    Ok(encoded)
}

/// Rejects invalid encodings and encoded control characters, and collects the ambiguities.
fn check_encodings(raw: &[u8]) -> Result<PathAmbiguities, PathError> {
    let mut ambiguities = PathAmbiguities::NONE;
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let (_, from) = rest.split_at(at);
        let byte = decode_escape(from).ok_or(PathError::PercentEncoding)?;
        ambiguities = ambiguities.with(match byte {
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'/' => PathAmbiguities::ENCODED_SLASH,
            b'\\' => PathAmbiguities::ENCODED_BACKSLASH,
            b';' => PathAmbiguities::ENCODED_SEMICOLON,
            b'%' => PathAmbiguities::ENCODED_PERCENT,
            b'?' => PathAmbiguities::ENCODED_QUESTION_MARK,
            b'#' => PathAmbiguities::ENCODED_HASH,
            _ => PathAmbiguities::NONE,
        });
        rest = from.get(3..).unwrap_or_default();
    }
    Ok(ambiguities)
}

/// Rejects dot segments, and returns whether a segment before the last is empty: `//`, or `/;x/`,
/// which is equivalent for programs that remove parameters.
fn check_segments(raw: &[u8]) -> Result<bool, PathError> {
    let mut empty = false;
    let mut rest = raw.get(1..);
    while let Some(bytes) = rest {
        let (segment, after) = split_at_byte(bytes, b'/');
        let (name, _) = split_at_byte(segment, b';');
        if name == b"." || name == b".." {
            return Err(PathError::DotSegment);
        }
        empty |= name.is_empty() && after.is_some();
        rest = after;
    }
    Ok(empty)
}

/// Rejects dot segments and overlong encodings in a fully decoded path. A dot segment of any
/// earlier decoding is still present, because decoding never removes dots and separators.
fn check_decoded(bytes: &[u8]) -> Result<(), PathError> {
    let is_overlong = bytes.windows(2).any(|pair| {
        matches!(
            pair,
            [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]
        )
    });
    if is_overlong {
        return Err(PathError::Overlong);
    }
    let mut segments = bytes.split(|byte| matches!(byte, b'/' | b'\\'));
    let has_dot_segment = segments.any(|segment| {
        // A lenient parser ends the name at any of these.
        let name = segment
            .split(|byte| matches!(byte, b';' | b'?' | b'#'))
            .next();
        matches!(name, Some(b"." | b".."))
    });
    if has_dot_segment {
        return Err(PathError::DotSegment);
    }
    Ok(())
}

/// Decodes repeatedly encoded bytes in one pass. Encoded bytes never overlap, so the order of
/// decoding does not matter, and the time is linear in the length of the path.
fn fully_decoded(raw: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(raw.len());
    for byte in raw {
        out.push(*byte);
        while let Some(byte) = out.last_chunk::<3>().and_then(|end| decode_escape(end)) {
            out.truncate(out.len().saturating_sub(3));
            out.push(byte);
        }
    }
    out
}

/// Decodes each encoded byte once.
fn decode_once(piece: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(piece).collect()
}

/// Decodes the `%XX` at the start of the input.
fn decode_escape(from: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    match from {
        [b'%', high, low, ..] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
