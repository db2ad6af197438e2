//! Tests of heads that are accepted, rewritten and rejected.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
use bytes::BytesMut;

use super::target::MAX_TARGET;
use super::*;

const MAX_FIELDS: usize = 200;

fn read(text: &str) -> Result<Progress, HeadRejection> {
    HeadReader::new(MAX_FIELDS).read(text.as_bytes())
}

fn refused(text: &str, refusal: Refusal) {
    match read(text) {
        Err(fault) => assert_eq!(fault.refusal, refusal, "{text:?}"),
        other => panic!("{text:?} was read as {other:?}"),
    }
}

#[test]
fn an_ordinary_head_is_read_with_its_framing() {
    let text =
        "POST /a?b HTTP/1.1\r\nHost: x\r\ncontent-length: 12\r\nExpect: 100-Continue\r\n\r\nbody";
    let Ok(Progress::Complete(head)) = read(text) else {
        panic!("not complete")
    };
    assert_eq!(head.body, BodyFraming::Length(12));
    assert_eq!(text.len() - head.length, 4);
    assert!(head.expects_continue && !head.upgrade);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let text = b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let mut reader = HeadReader::new(MAX_FIELDS);
    for end in 1..text.len() {
        assert_eq!(reader.read(&text[..end]).unwrap(), Progress::Partial);
    }
    let Progress::Complete(head) = reader.read(text).unwrap() else {
        panic!("not complete")
    };
    assert_eq!((head.body, head.length), (BodyFraming::Chunked, text.len()));
}

#[test]
fn http2_preface_is_recognized() {
    assert_eq!(
        read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Ok(Progress::Http2Preface)
    );
}

#[test]
fn ambiguous_heads_are_rejected() {
    for text in [
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n a: folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET a/b HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
        "GE(T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /a<b HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a>b HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a`b HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a?\"b\" HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a?<b> HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET ://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://u@x/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x:81/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET https://x:80/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET x:80/a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1,1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        refused(text, Refusal::BadRequest);
    }
}

/// Returns the bytes of a head that Pingora receives.
fn passed(text: &str) -> String {
    let Ok(Progress::Complete(head)) = read(text) else {
        panic!("{text:?} is refused")
    };
    let mut bytes = BytesMut::from(text);
    let bytes = head.in_origin_form(bytes.split_to(head.length));
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn absolute_form_is_rewritten_to_origin_form() {
    for (line, host, origin) in [
        ("GET http://x/a?b HTTP/1.1", "x", "GET /a?b HTTP/1.1"),
        ("GET HTTP://X/a HTTP/1.1", "x", "GET /a HTTP/1.1"),
        ("GET http://x:80/a HTTP/1.1", "x", "GET /a HTTP/1.1"),
        ("GET http://x/a HTTP/1.1", "X:80", "GET /a HTTP/1.1"),
        ("GET http://x:/a HTTP/1.1", "x", "GET /a HTTP/1.1"),
        ("GET https://x:443/a HTTP/1.1", "x", "GET /a HTTP/1.1"),
        ("GET http://x:81/a HTTP/1.1", "x:81", "GET /a HTTP/1.1"),
        ("GET http://[::1]:80/ HTTP/1.1", "[::1]", "GET / HTTP/1.1"),
        ("GET http://x HTTP/1.1", "x", "GET / HTTP/1.1"),
        ("GET http://x?b HTTP/1.1", "x", "GET /?b HTTP/1.1"),
        ("OPTIONS http://x HTTP/1.1", "x", "OPTIONS * HTTP/1.1"),
        ("OPTIONS http://x/ HTTP/1.1", "x", "OPTIONS / HTTP/1.1"),
        (
            "GET /a?b=http://y/ HTTP/1.1",
            "x",
            "GET /a?b=http://y/ HTTP/1.1",
        ),
    ] {
        for before in ["", "\r\n"] {
            let rest = format!("\r\nHost: {host}\r\n\r\n");
            let text = format!("{before}{line}{rest}");
            assert_eq!(passed(&text), format!("{origin}{rest}"), "{text:?}");
        }
    }
}

#[test]
fn an_empty_line_before_a_request_is_ignored() {
    let mut reader = HeadReader::new(MAX_FIELDS);
    for part in ["", "\r", "\r\n", "\r\n\r"] {
        assert_eq!(reader.read(part.as_bytes()), Ok(Progress::Partial));
        assert!(reader.is_waiting(part.as_bytes()), "{part:?}");
    }
    assert_eq!(reader.read(b"\r\n\r\nG"), Ok(Progress::Partial));
    assert!(!reader.is_waiting(b"\r\n\r\nG"));
    let head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(passed(&format!("\r\n\r\n{head}")), head);
}

#[test]
fn only_a_websocket_is_an_upgrade() {
    let upgrade = |method: &str, version: &str, fields: &str| {
        let text = format!("{method} / {version}\r\nHost: x\r\n{fields}\r\n");
        let Ok(Progress::Complete(head)) = read(&text) else {
            panic!("{text:?} is refused")
        };
        head.upgrade
    };
    let websocket = "Upgrade: WebSocket\r\n";
    assert!(upgrade("GET", "HTTP/1.1", websocket));
    for (method, version, fields) in [
        ("GET", "HTTP/1.1", "Upgrade: h2c\r\n"),
        ("GET", "HTTP/1.1", "Upgrade: websocket, h2c\r\n"),
        ("GET", "HTTP/1.1", "Upgrade: websocket\r\nUpgrade: h2c\r\n"),
        ("GET", "HTTP/1.1", "Upgrade: h2c\r\nUpgrade: websocket\r\n"),
        (
            "GET",
            "HTTP/1.1",
            "Upgrade: websocket\r\nContent-Length: 1\r\n",
        ),
        (
            "GET",
            "HTTP/1.1",
            "Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("POST", "HTTP/1.1", websocket),
        ("GET", "HTTP/1.0", websocket),
    ] {
        assert!(
            !upgrade(method, version, fields),
            "{method} {version} {fields}"
        );
    }
}

#[test]
fn oversized_target_or_field_name_is_rejected() {
    let path = "a".repeat(MAX_TARGET);
    refused(
        &format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        Refusal::HeadersTooLarge,
    );
    let name = "a".repeat(MAX_NAME + 1);
    refused(
        &format!("GET / HTTP/1.1\r\nHost: x\r\n{name}: y\r\n\r\n"),
        Refusal::HeadersTooLarge,
    );
}

#[test]
fn connect_and_trace_are_rejected() {
    refused(
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        Refusal::MethodNotAllowed,
    );
    refused(
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        Refusal::MethodNotAllowed,
    );
}

#[test]
fn fields_are_counted() {
    let text = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "A: b\r\n".repeat(MAX_FIELDS)
    );
    refused(&text, Refusal::HeadersTooLarge);
}
