//! Copies of received fields.

use crate::pipeline::fields::{Field, KindSet};
use crate::proxy::connection::head::HeadLines;

/// Copies the fields that pass from the bytes in which they were received, in as few pieces as there
/// are gaps. Names keep their spelling. Fields of the `passing` kinds pass in any case.
pub(super) fn copy_fields(
    out: &mut Vec<u8>,
    lines: &HeadLines,
    passing: KindSet,
    passes: impl Fn(&Field<'_>) -> bool,
) {
    let (mut from, mut to) = (0, 0);
    let bytes = &*lines.bytes;
    for field in &lines.positions {
        if !passing.has(field.kind) && !passes(&field.borrow(bytes)) {
            continue;
        }
        if field.start as usize != to {
            out.extend_from_slice(bytes.get(from..to).unwrap_or_default());
            from = field.start as usize;
        }
        to = field.end as usize;
    }
    out.extend_from_slice(bytes.get(from..to).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::proxy::connection::head::response::ResponseHead;

    #[test]
    fn passing_fields_are_copied_as_received() {
        let text = "HTTP/1.1 200 OK\r\nA: 1\r\nB:2\r\nc:  3 \r\nD: 4\r\n\r\n";
        let mut head = ResponseHead::default();
        head.read(text.as_bytes()).unwrap();
        for (names, expected) in [
            (&b"ABcD"[..], "A: 1\r\nB:2\r\nc:  3 \r\nD: 4\r\n"),
            (b"AcD", "A: 1\r\nc:  3 \r\nD: 4\r\n"),
            (b"AB", "A: 1\r\nB:2\r\n"),
            (b"c", "c:  3 \r\n"),
            (b"", ""),
        ] {
            let mut out = Vec::new();
            copy_fields(&mut out, &head.lines, KindSet::NONE, |field| {
                names.contains(field.name.first().unwrap())
            });
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
