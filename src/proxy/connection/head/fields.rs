//! Field lines of a message head (RFC 9112, section 5): positions in the received bytes.

use std::cell::RefCell;

use super::super::byte_class::is_token;
use crate::pipeline::fields::{FieldKind, FieldPosition};

/// Number of lists that a worker keeps.
const MAX_KEPT: usize = 256;
/// A longer list is freed instead.
const MAX_CAPACITY: usize = 256;
const INITIAL_CAPACITY: usize = 24;

thread_local! {
    static FREE: RefCell<Vec<Vec<FieldPosition>>> = const { RefCell::new(Vec::new()) };
}

/// Reads the line that begins at `start` and whose line end begins at `end`. `None`: it is no field
/// line. Control characters in the value are the caller's to find.
pub(super) fn read(bytes: &[u8], start: usize, end: usize) -> Option<FieldPosition> {
    let line = bytes.get(start..end)?;
    // Also the bytes behind the line, so that a name is not cut within a word.
    let (mut length, mut kind) = FieldKind::at_start(bytes.get(start..)?);
    if line.get(length) != Some(&b':') {
        // Another character of a token. A space before the colon fails here, as does a line that begins
        // with one (obs-fold).
        length = line.iter().position(|byte| !is_token(*byte))?;
        kind = FieldKind::Irregular;
    }
    let raw = line.get(length..)?.strip_prefix(b":")?;
    if length == 0 {
        return None;
    }
    let value = match raw {
        // What most clients send.
        [b' ', value @ ..] => value,
        _ => raw,
    };
    let value = match value {
        [b' ' | b'\t', ..] => value.trim_ascii_start(),
        _ => value,
    };
    let value_start = end - value.len();
    let value = match value {
        [.., b' ' | b'\t'] => value.trim_ascii_end(),
        _ => value,
    };
    Some(FieldPosition {
        start: start as u32,
        colon: (start + length) as u32,
        value: value_start as u32,
        value_end: (value_start + value.len()) as u32,
        end: end as u32 + 2,
        kind,
    })
}

/// Continues a field with the line that begins at `start` and whose line end begins at `end`.
pub(super) fn fold(field: &mut FieldPosition, bytes: &[u8], start: usize, end: usize) {
    let line = bytes.get(start..end).unwrap_or_default();
    let text = line.trim_ascii();
    if !text.is_empty() {
        let begin = end - line.trim_ascii_start().len();
        if field.value == field.value_end {
            field.value = begin as u32;
        }
        field.value_end = (begin + text.len()) as u32;
    }
    field.end = end as u32 + 2;
}

/// Takes an empty list of the worker's pool.
pub(super) fn take_list() -> Vec<FieldPosition> {
    let pooled = FREE.with_borrow_mut(Vec::pop);
    pooled.unwrap_or_else(|| Vec::with_capacity(INITIAL_CAPACITY))
}

/// Returns a list to the pool.
pub(super) fn give_list(mut list: Vec<FieldPosition>) {
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
        if value == b"keep-alive" {
            self.keep_alive = true;
            return;
        }
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

/// Whether complete lines have no control characters but the two at the end of each, and tabs.
pub(super) fn have_only_line_ends(bytes: &[u8], lines: usize) -> bool {
    let controls = count_controls(bytes);
    // Few heads have tabs.
    controls == 2 * lines || controls - memchr::memchr_iter(b'\t', bytes).count() == 2 * lines
}

const PART: usize = 64;

/// The number of control characters. Parts of a constant size and sums of bytes let the compiler
/// vectorize the comparisons.
fn count_controls(bytes: &[u8]) -> usize {
    let (parts, rest) = bytes.as_chunks();
    let mut last = [b' '; PART];
    if let Some(start) = last.get_mut(..rest.len()) {
        start.copy_from_slice(rest);
    }
    let counts = parts.iter().map(count_in_part);
    counts.sum::<usize>() + count_in_part(&last)
}

fn count_in_part(part: &[u8; PART]) -> usize {
    let is_control = |byte: u8| (byte < 0x20) | (byte == 0x7f);
    let add = |sum, byte: &u8| sum + u8::from(is_control(*byte));
    usize::from(part.iter().fold(0_u8, add))
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
            let field = read(bytes.as_bytes(), 5, 5 + line.len());
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
            (&b"a b \xe9~"[..], 0),
            (b"\r\n\t", 3),
            (b"\0\x1f\x7f", 3),
            (&[0; 10_000], 10_000),
        ] {
            assert_eq!(count_controls(text), count, "{text:?}");
        }
    }

    #[test]
    fn lines_have_no_other_control_characters() {
        for (text, lines, expected) in [
            (&b"a\tb \xe9~\r\n\r\n"[..], 2, true),
            (b"", 0, true),
            (b"a\0\r\n", 1, false),
            (b"a\t\x7f\r\n", 1, false),
            (b"\t\r\n", 2, false),
        ] {
            assert_eq!(have_only_line_ends(text, lines), expected, "{text:?}");
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
