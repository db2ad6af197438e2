//! Field lines of a message head (RFC 9112, section 5): positions in the received bytes.

use std::cell::RefCell;

use super::super::byte_class::is_token;
use crate::pipeline::fields::{Field, FieldKind};

/// Number of lists that a worker keeps.
const MAX_KEPT: usize = 256;
/// A longer list is freed instead.
const MAX_CAPACITY: usize = 256;
const INITIAL_CAPACITY: usize = 24;

thread_local! {
    static FREE: RefCell<Vec<Vec<HeadField>>> = const { RefCell::new(Vec::new()) };
}

/// A field line in the bytes of its head. A head of 4 GiB is rejected long before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadField {
    /// Of the name.
    pub start: u32,
    /// The end of the name.
    pub colon: u32,
    /// Of the value, without the whitespace around it.
    pub value: u32,
    pub value_end: u32,
    /// Behind the line end.
    pub end: u32,
    pub kind: FieldKind,
}

impl HeadField {
    pub fn name<'h>(&self, bytes: &'h [u8]) -> &'h [u8] {
        slice(bytes, (self.start, self.colon))
    }

    pub fn value<'h>(&self, bytes: &'h [u8]) -> &'h [u8] {
        slice(bytes, (self.value, self.value_end))
    }

    /// The field as rules read it.
    pub fn borrow<'h>(&self, bytes: &'h [u8]) -> Field<'h> {
        Field {
            name: self.name(bytes),
            value: self.value(bytes),
            kind: self.kind,
        }
    }

    /// Reads the line that begins at `start` and whose line end begins at `end`. `None`: it is no
    /// field line. Control characters in the value are the caller's to find.
    pub(super) fn read(bytes: &[u8], start: usize, end: usize) -> Option<HeadField> {
        let line = bytes.get(start..end)?;
        // A space before the colon fails here, as does a line that begins with one (obs-fold).
        let length = line.iter().position(|byte| !is_token(*byte))?;
        let (name, rest) = line.split_at(length);
        let raw = rest.strip_prefix(b":")?;
        if name.is_empty() {
            return None;
        }
        let value = raw.trim_ascii_start();
        let value_start = end - value.len();
        let value = value.trim_ascii_end();
        Some(HeadField {
            start: start as u32,
            colon: (start + length) as u32,
            value: value_start as u32,
            value_end: (value_start + value.len()) as u32,
            end: end as u32 + 2,
            kind: FieldKind::of(name),
        })
    }

    /// Continues the field with the line that begins at `start` and whose line end begins at `end`.
    pub(super) fn extend(&mut self, bytes: &[u8], start: usize, end: usize) {
        let line = bytes.get(start..end).unwrap_or_default();
        let text = line.trim_ascii();
        if !text.is_empty() {
            let begin = end - line.trim_ascii_start().len();
            if self.value == self.value_end {
                self.value = begin as u32;
            }
            self.value_end = (begin + text.len()) as u32;
        }
        self.end = end as u32 + 2;
    }
}

/// Takes an empty list of the worker's pool.
pub(super) fn take_list() -> Vec<HeadField> {
    let pooled = FREE.with_borrow_mut(Vec::pop);
    pooled.unwrap_or_else(|| Vec::with_capacity(INITIAL_CAPACITY))
}

/// Returns a list to the pool.
pub(super) fn give_list(mut list: Vec<HeadField>) {
    if list.capacity() < INITIAL_CAPACITY || list.capacity() > MAX_CAPACITY {
        return;
    }
    list.clear();
    FREE.with_borrow_mut(|free| {
        if free.len() < MAX_KEPT {
            free.push(list);
        }
    });
}

/// The bytes between two positions of a head.
pub(super) fn slice(bytes: &[u8], (start, end): (u32, u32)) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

/// What a `Connection` field says of its connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    /// It names a field.
    pub nominates: bool,
}

impl ConnectionOptions {
    /// Adds the options of one more field.
    pub(super) fn add(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if !option.is_empty() && !option.eq_ignore_ascii_case(b"upgrade") {
                self.nominates = true;
            }
        }
    }

    /// Whether the connection stays open after the message (RFC 9112, section 9.3).
    pub(super) fn persists(self, http_10: bool) -> bool {
        !self.close && (!http_10 || self.keep_alive)
    }
}

/// The number of control characters that no value may have. Sums of bytes let the compiler vectorize
/// the comparisons; the parts are small enough that none overflows.
pub(super) fn count_controls(bytes: &[u8]) -> usize {
    let is_control = |byte: u8| (byte < 0x20) & (byte != b'\t') | (byte == 0x7f);
    let count = |part: &[u8]| {
        let add = |sum, byte: &u8| sum + u8::from(is_control(*byte));
        usize::from(part.iter().fold(0_u8, add))
    };
    bytes.chunks(128).map(count).sum()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn line_is_read_without_the_space_around_its_value() {
        for (line, expected) in [
            ("Host: x", Some(("Host", "x"))),
            ("a:", Some(("a", ""))),
            ("a: \t ", Some(("a", ""))),
            ("a:\tb c \t", Some(("a", "b c"))),
            ("a: b:c", Some(("a", "b:c"))),
            ("a : b", None),
            (" a: b", None),
            (": b", None),
            ("a", None),
            ("", None),
            ("a(: b", None),
        ] {
            let bytes = format!("GET\r\n{line}\r\n");
            let field = HeadField::read(bytes.as_bytes(), 5, 5 + line.len());
            let found = field.map(|field| {
                assert_eq!(field.end as usize, bytes.len());
                let text = |bytes| std::str::from_utf8(bytes).unwrap();
                (
                    text(field.name(bytes.as_bytes())),
                    text(field.value(bytes.as_bytes())),
                )
            });
            assert_eq!(found, expected, "{line:?}");
        }
    }

    #[test]
    fn control_characters_are_counted() {
        for (text, count) in [
            (&b"a\tb \xe9~"[..], 0),
            (b"\r\n", 2),
            (b"\0\x1f\x7f", 3),
            (&[0; 1000], 1000),
        ] {
            assert_eq!(count_controls(text), count, "{text:?}");
        }
    }

    #[test]
    fn connection_options_are_distinguished_from_nominations() {
        for (value, close, keep_alive, nominates) in [
            ("close", true, false, false),
            ("Keep-Alive, Upgrade", false, true, false),
            (" , ,", false, false, false),
            ("X-A , close", true, false, true),
        ] {
            let mut options = ConnectionOptions::default();
            options.add(value.as_bytes());
            let expected = ConnectionOptions {
                close,
                keep_alive,
                nominates,
            };
            assert_eq!(options, expected, "{value:?}");
        }
    }
}
