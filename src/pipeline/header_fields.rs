//! Fields that the gateway adds to a message.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::own_field::{OwnField, OwnName};
use crate::auth::token::SignError;
use crate::limits::LimitHeaders;

/// Why the headers of a message cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("a header of the gateway's own has an invalid value")]
    InvalidValue,
    #[error("the assertion for the upstream cannot be signed")]
    Assertion(#[from] SignError),
    /// The client's request is malformed.
    #[error("the values of Content-Length differ")]
    ConflictingLengths,
}

/// The destination of added fields: the map of an engine that has one, a list, or the bytes of a head.
pub trait FieldSink {
    /// Adds a field.
    fn add(&mut self, name: &HeaderName, value: &HeaderValue);

    /// Adds a field that is the same in every message.
    fn add_own(&mut self, field: &OwnField) {
        self.add(&field.name, &field.value);
    }

    /// Adds a field with a value that any field can carry: its characters are digits, or were checked
    /// before.
    fn add_checked(&mut self, name: &OwnName, value: &[u8]);

    /// Adds a field with a text as its value.
    ///
    /// # Errors
    /// No field can carry the text.
    fn add_text(&mut self, name: &HeaderName, text: &[u8]) -> Result<(), HeaderError>;

    /// Adds the limit headers without those that `keeps` rejects.
    fn add_limits(&mut self, limits: &LimitHeaders<'_>, keeps: &dyn Fn(&HeaderName) -> bool);

    /// Adds fields that were rendered before; `lines` are theirs.
    fn add_rendered<'f>(
        &mut self,
        lines: &[u8],
        fields: &mut dyn Iterator<Item = (&'f HeaderName, &'f HeaderValue)>,
    ) {
        let _ = lines;
        for (name, value) in fields {
            self.add(name, value);
        }
    }
}

/// Adds a field with a number as its value.
pub fn add_number(sink: &mut dyn FieldSink, name: &OwnName, number: u64) {
    sink.add_checked(name, itoa::Buffer::new().format(number).as_bytes());
}

impl FieldSink for HeaderMap {
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name.clone(), value.clone());
    }

    fn add_checked(&mut self, name: &OwnName, value: &[u8]) {
        if let Some((name, value)) = name.field(value) {
            self.append(name, value);
        }
    }

    fn add_text(&mut self, name: &HeaderName, text: &[u8]) -> Result<(), HeaderError> {
        let value = HeaderValue::from_bytes(text).map_err(|_| HeaderError::InvalidValue)?;
        self.append(name.clone(), value);
        Ok(())
    }

    fn add_limits(&mut self, limits: &LimitHeaders<'_>, keeps: &dyn Fn(&HeaderName) -> bool) {
        let kept = limits.fields().filter(|(name, _)| keeps(name));
        kept.for_each(|(name, value)| {
            self.append(name, value);
        });
    }
}

/// Fields that become part of a head later.
pub type FieldBuffer = Vec<(HeaderName, HeaderValue)>;

impl FieldSink for FieldBuffer {
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.push((name.clone(), value.clone()));
    }

    fn add_checked(&mut self, name: &OwnName, value: &[u8]) {
        self.extend(name.field(value));
    }

    fn add_text(&mut self, name: &HeaderName, text: &[u8]) -> Result<(), HeaderError> {
        let value = HeaderValue::from_bytes(text).map_err(|_| HeaderError::InvalidValue)?;
        self.push((name.clone(), value));
        Ok(())
    }

    fn add_limits(&mut self, limits: &LimitHeaders<'_>, keeps: &dyn Fn(&HeaderName) -> bool) {
        self.extend(limits.fields().filter(|(name, _)| keeps(name)));
    }
}

/// Lines of a head in HTTP/1.1.
impl FieldSink for Vec<u8> {
    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        push_line(self, name, value.as_bytes());
    }

    fn add_own(&mut self, field: &OwnField) {
        self.extend_from_slice(&field.line);
    }

    fn add_checked(&mut self, name: &OwnName, value: &[u8]) {
        let start = name.start.as_bytes();
        self.reserve(start.len() + value.len() + 2);
        self.extend_from_slice(start);
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }

    fn add_text(&mut self, name: &HeaderName, text: &[u8]) -> Result<(), HeaderError> {
        if !is_value(text) {
            return Err(HeaderError::InvalidValue);
        }
        push_line(self, name, text);
        Ok(())
    }

    fn add_limits(&mut self, limits: &LimitHeaders<'_>, keeps: &dyn Fn(&HeaderName) -> bool) {
        limits.write_lines(self, keeps);
    }

    fn add_rendered<'f>(
        &mut self,
        lines: &[u8],
        _: &mut dyn Iterator<Item = (&'f HeaderName, &'f HeaderValue)>,
    ) {
        self.extend_from_slice(lines);
    }
}

fn push_line(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    head.reserve(name.len() + value.len() + 4);
    // Not in a loop: parts of constant length are stored without a call.
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Whether a text can be a value (RFC 9110, section 5.5). Looks at parts of a fixed length, which the
/// compiler vectorizes; the last one overlaps the one before it.
fn is_value(text: &[u8]) -> bool {
    let (parts, rest) = text.as_chunks::<8>();
    match text.last_chunk::<8>() {
        Some(last) => parts.iter().all(is_part) && is_part(last),
        None => rest.iter().all(|byte| is_part(&[*byte])),
    }
}

fn is_part<const N: usize>(part: &[u8; N]) -> bool {
    let is_invalid = |byte: u8| (byte != b'\t') & ((byte < b' ') | (byte == 0x7f));
    let accumulate = |invalid, byte: &u8| invalid | is_invalid(*byte);
    !part.iter().fold(false, accumulate)
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What is added, in both forms, which have to agree.
    pub(in crate::pipeline) fn added(
        add: impl Fn(&mut dyn FieldSink) -> Result<(), HeaderError>,
    ) -> Vec<(String, String)> {
        let (mut map, mut head) = (HeaderMap::new(), Vec::<u8>::new());
        add(&mut map).unwrap();
        add(&mut head).unwrap();
        let head = String::from_utf8(head).unwrap();
        let lines = head.split_terminator("\r\n");
        let fields = lines.map(|line| line.split_once(": ").unwrap());
        let fields: Vec<_> = fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut sorted: Vec<_> = map
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let mut expected = fields.clone();
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected);
        fields
    }

    #[test]
    fn no_text_ends_its_line() {
        let name = HeaderName::from_static("x-name");
        for text in [
            "a\r\nb: c",
            "a\0",
            "\x7f",
            "12345678\n",
            "\n12345678",
            "1234\n5678",
        ] {
            let (mut map, mut head) = (HeaderMap::new(), Vec::<u8>::new());
            assert!(map.add_text(&name, text.as_bytes()).is_err());
            assert!(head.add_text(&name, text.as_bytes()).is_err());
            assert!(map.is_empty() && head.is_empty());
        }
        let fields = added(|sink| sink.add_text(&name, b"a\tb"));
        assert_eq!(fields, [("x-name".to_owned(), "a\tb".to_owned())]);
    }
}
