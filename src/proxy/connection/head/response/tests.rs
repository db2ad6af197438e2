#![expect(clippy::unwrap_used, reason = "tests")]
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::pipeline::fields::slice;

fn read(text: &str) -> Result<ResponseHead, MalformedResponse> {
    let mut head = ResponseHead::default();
    let more = head.read(text.as_bytes())?;
    assert_eq!(more, Some(0), "{text:?}");
    Ok(head)
}

/// What the fields of a head make up, with their line ends.
fn fields_of(head: &ResponseHead) -> String {
    let lines = head.lines.positions.iter();
    let lines = lines.map(|field| slice(&head.lines.bytes, field.start, field.end));
    String::from_utf8(lines.collect::<Vec<_>>().concat()).unwrap()
}

#[test]
fn framing_follows_status_and_fields() {
    use ResponseFraming::*;
    for (status, fields, framing, left) in [
        (200, "", UntilClose, ""),
        (
            200,
            "Content-Length: 5\r\n",
            Length(5),
            "Content-Length: 5\r\n",
        ),
        (
            200,
            "Transfer-Encoding: Chunked\r\n",
            Chunked,
            "Transfer-Encoding: Chunked\r\n",
        ),
        (304, "Content-Length: 5\r\n", None, "Content-Length: 5\r\n"),
        (304, "", None, ""),
        (
            200,
            "Content-Length: 5, 5\r\n",
            Length(5),
            "Content-Length: 5   \r\n",
        ),
        (
            200,
            "Content-Length: 05,5\r\nA: b\r\n",
            Length(5),
            "Content-Length: 5   \r\nA: b\r\n",
        ),
        (
            200,
            "Content-Length: 15\r\nA: b\r\ncontent-length: 015\r\n",
            Length(15),
            "Content-Length: 15\r\nA: b\r\n",
        ),
        (204, "Content-Length: 0\r\nA: b\r\n", None, "A: b\r\n"),
        (103, "Content-Length: 0\r\n", None, ""),
        (100, "", None, ""),
    ] {
        let head = read(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n")).unwrap();
        assert_eq!(head.framing(false), framing, "{status} {fields:?}");
        assert_eq!(head.framing(true), None);
        assert_eq!(fields_of(&head), left);
        assert_eq!(head.status, status);
    }
}

#[test]
fn malformed_responses_are_errors() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        "HTTP/1.1 200 O\x01K\r\n\r\n",
        "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\x0b: b\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert!(read(text).is_err(), "{text:?}");
    }
}

#[test]
fn space_before_a_colon_and_folds_are_repaired() {
    for (fields, repaired) in [
        ("A : b\r\n", "A:  b\r\n"),
        ("A \t: b\r\nC: d\r\n", "A:   b\r\nC: d\r\n"),
        ("A: b\r\n c\r\n", "A: b   c\r\n"),
        ("A: b\r\n\tc\r\n d\r\nE: f\r\n", "A: b  \tc   d\r\nE: f\r\n"),
        ("Content-Length : 5\r\n", "Content-Length:  5\r\n"),
        ("A:\r\n \r\n", "A:   \r\n"),
    ] {
        let head = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap();
        assert_eq!(fields_of(&head), repaired, "{fields:?}");
    }
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n";
    assert_eq!(read(text).unwrap().framing(false), ResponseFraming::Chunked);
    // Only spaces and tabs are removed.
    for name in [
        "Content-Length\r",
        "Content-Length\x0c",
        "Content-Length \r ",
    ] {
        let head = read(&format!("HTTP/1.1 200 OK\r\n{name}: 5\r\n\r\n"));
        assert!(head.is_err(), "{name:?}");
    }
}

#[test]
fn folded_value_begins_and_ends_with_its_text() {
    for (fields, value) in [
        ("A:\r\n \r\n", ""),
        ("A:\r\n \r\n b\r\n \r\n", "b"),
        ("A: b\r\n \t\r\n c \r\n\t\r\n", "b   \t   c"),
    ] {
        let head = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap();
        let field = head.lines.positions.first().unwrap();
        assert_eq!(
            field.value(&head.lines.bytes),
            value.as_bytes(),
            "{fields:?}"
        );
    }
}

#[test]
fn field_of_many_folds_is_read_in_linear_time() {
    let folds = " \r\n".repeat(300_000);
    let since = Instant::now();
    let head = read(&format!("HTTP/1.1 200 OK\r\nA:\r\n{folds}\r\n")).unwrap();
    assert_eq!(head.lines.positions.len(), 1);
    // In quadratic time it would be minutes.
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[test]
fn persistence_follows_version_and_connection() {
    for (head, persists) in [
        ("HTTP/1.1 200 OK\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n", false),
        ("HTTP/1.0 200 OK\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: X, Keep-Alive\r\n", true),
    ] {
        assert_eq!(
            read(&format!("{head}\r\n")).unwrap().lines.persists(),
            persists
        );
    }
}

#[test]
fn other_protocol_is_recognized_at_once() {
    for (bytes, valid) in [
        ("", true),
        ("HTTP/", true),
        ("SSH-2.0-", false),
        ("HTTP/2", false),
    ] {
        let read = ResponseHead::default().read(bytes.as_bytes());
        assert_eq!(read.is_ok(), valid, "{bytes:?}");
    }
}

#[test]
fn head_is_bounded() {
    let mut head = ResponseHead::default();
    let field = format!("A: {}\r\n", "b".repeat(8000));
    head.read(b"HTTP/1.1 200 OK\r\n").unwrap();
    let count = (0..300).find(|_| head.read(field.as_bytes()).is_err());
    assert!(matches!(count, Some(100..200)), "{count:?}");
    let many = "A: b\r\n".repeat(MAX_FIELDS + 1);
    assert!(read(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
}

const PIECES: [&str; 12] = [
    "A: b",
    "A : b",
    " folded",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "HTTP/1.1 200 OK\r\n",
    "\r\n\r\n",
    "Connection: close, x",
];

proptest! {
    /// A head cut into pieces at any byte reads as in one piece.
    #[test]
    fn pieces_read_as_the_whole(
        parts in prop::collection::vec(0..PIECES.len(), 0..12),
        cut in 1..20_usize,
    ) {
        let parts = parts.into_iter().filter_map(|part| PIECES.get(part).copied());
        let text = format!("HTTP/1.1 200 OK\r\n{}\r\n\r\nmore", parts.collect::<String>());
        let mut whole = ResponseHead::default();
        let expected = whole.read(text.as_bytes());
        let mut head = ResponseHead::default();
        let mut found = Ok(None);
        let mut rest = text.as_bytes();
        while let (Ok(None), false) = (&found, rest.is_empty()) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            rest = after;
            found = head.read(piece);
        }
        prop_assert_eq!(found.is_err(), expected.is_err());
        if let (Ok(found), Ok(expected)) = (found, expected) {
            prop_assert_eq!(found.map(|more| more + rest.len()), expected);
            prop_assert_eq!(fields_of(&head), fields_of(&whole));
            prop_assert_eq!(head.framing(false), whole.framing(false));
        }
    }
}
