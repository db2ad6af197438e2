//! Tests of heads that are accepted, rewritten and rejected.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;

use super::target::MAX_TARGET;
use super::*;

const MAX_FIELDS: usize = 200;

fn read(text: &str) -> Result<Progress, HeadRejection> {
    let mut reader = HeadReader::new(MAX_FIELDS);
    reader.extend(text.as_bytes());
    reader.read()
}

/// Reads a complete head, and the bytes behind it.
fn whole(text: &str) -> (Head, Vec<u8>) {
    let mut reader = HeadReader::new(MAX_FIELDS);
    reader.extend(text.as_bytes());
    assert_eq!(reader.read(), Ok(Progress::Complete), "{text:?}");
    let (mut head, rest) = reader.finish();
    head.settle();
    (head, rest)
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
    let (head, rest) = whole(text);
    assert_eq!(head.body, BodyFraming::Length(12));
    assert_eq!(rest, b"body");
    assert_eq!((head.method(), head.target()), (&b"POST"[..], "/a?b"));
    assert_eq!(head.host_and_name(), Some(("x", "x")));
    assert!(head.expects_continue && !head.upgrade);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let text = b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let mut reader = HeadReader::new(MAX_FIELDS);
    for byte in &text[..text.len() - 1] {
        reader.extend(&[*byte]);
        assert_eq!(reader.read(), Ok(Progress::Partial));
    }
    reader.extend(b"\n");
    assert_eq!(reader.read(), Ok(Progress::Complete));
    let (head, rest) = reader.finish();
    assert_eq!(head.body, BodyFraming::Chunked);
    assert_eq!((&*head.lines.bytes, &*rest), (&text[..], &b""[..]));
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
        "GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue, a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nExpect: y 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nExpect:\r\n\r\n",
        // A control character is found before the head is complete, and before later faults.
        "GET / HTTP/1.1\r\nA: b\x01c\r\nHost: x",
    ] {
        refused(text, Refusal::BadRequest);
    }
}

/// Returns the bytes of a head as they are passed on.
fn passed(text: &str) -> String {
    String::from_utf8(whole(text).0.lines.bytes.clone()).unwrap()
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
            let (head, _) = whole(&text);
            let (path, query) = head.path_and_query();
            let split = head.target().split_once('?');
            let expected = split.map_or((head.target(), None), |(path, query)| (path, Some(query)));
            assert_eq!((path, query), expected, "{text:?}");
        }
    }
}

#[test]
fn an_empty_line_before_a_request_is_ignored() {
    let mut reader = HeadReader::new(MAX_FIELDS);
    for part in ["", "\r", "\n", "\r"] {
        reader.extend(part.as_bytes());
        assert_eq!(reader.read(), Ok(Progress::Partial));
        assert!(reader.is_waiting(), "{part:?}");
    }
    reader.extend(b"\nG");
    assert_eq!(reader.read(), Ok(Progress::Partial));
    assert!(!reader.is_waiting());
    let head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(passed(&format!("\r\n\r\n{head}")), head);
}

#[test]
fn only_a_websocket_is_an_upgrade() {
    let upgrade = |method: &str, version: &str, fields: &str| {
        let text = format!("{method} / {version}\r\nHost: x\r\n{fields}\r\n");
        whole(&text).0.upgrade
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

#[test]
fn fields_are_listed_with_their_kinds() {
    let (head, _) =
        whole("GET / HTTP/1.1\r\nhost:\tX:80 \r\nX-B: b c\r\nCONNECTION: close, x-a\r\n\r\n");
    let found: Vec<_> = head
        .lines
        .fields()
        .iter()
        .map(|it| (it.name, it.value, it.kind))
        .collect();
    let expected: [(&[u8], &[u8], FieldKind); 3] = [
        (b"host", b"X:80", FieldKind::Host),
        (b"X-B", b"b c", FieldKind::Other),
        (b"CONNECTION", b"close, x-a", FieldKind::Connection),
    ];
    assert_eq!(found, expected);
    assert_eq!(head.host_and_name().map(|(_, name)| name), Some("x"));
    assert!(!head.lines.persists() && head.lines.nominates());
    assert_eq!(head.lines.first_line(), b"GET / HTTP/1.1\r\n");
    let runs: Vec<u8> = head
        .lines
        .positions
        .iter()
        .flat_map(|it| &head.lines.bytes[it.start as usize..it.end as usize])
        .copied()
        .collect();
    let (bytes, start) = (&head.lines.bytes, head.lines.first_line().len());
    assert_eq!(runs, &bytes[start..bytes.len() - 2]);
}

#[test]
fn fields_about_the_connection_are_removed() {
    for (fields, left) in [
        ("X-A: b\r\n", "Host X-A"),
        ("Keep-Alive: timeout=5\r\nX-A: b\r\n", "Host X-A"),
        ("HTTP2-Settings: AAA\r\n", "Host"),
        ("Upgrade: h2c\r\nConnection: upgrade\r\n", "Host Connection"),
        (
            "Upgrade: websocket\r\nConnection: upgrade\r\n",
            "Host Upgrade Connection",
        ),
        (
            "X-A: b\r\nX-B: c\r\nConnection: x-a, host\r\n",
            "Host X-B Connection",
        ),
    ] {
        let (head, _) = whole(&format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
        let fields = head.lines.fields();
        let names: Vec<_> = fields
            .iter()
            .map(|it| String::from_utf8_lossy(it.name))
            .collect();
        assert_eq!(names.join(" "), left);
        assert_eq!(fields.has(FieldKind::Upgrade), head.upgrade);
    }
}

#[test]
fn persistence_follows_version_and_connection() {
    for (head, persists) in [
        ("GET / HTTP/1.1\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: Close\r\n", false),
        (
            "GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: x, close\r\n",
            false,
        ),
        ("GET / HTTP/1.0\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n", true),
    ] {
        let (read, _) = whole(&format!("{head}Host: x\r\n\r\n"));
        assert_eq!(read.lines.persists(), persists, "{head:?}");
    }
}

/// Pieces of which heads are composed, valid and not.
const PIECES: [&str; 24] = [
    "GET / HTTP/1.1\r\n",
    "POST /a?b=c HTTP/1.1\r\n",
    "GET http://x/a HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "Host: x\r\n",
    "host:x:80\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "A: b c\t\r\n",
    "x_y.z: \u{e9}\r\n",
    "A : b\r\n",
    " a: b\r\n",
    "A:\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\0",
    "\r",
    ":",
    " ",
    "\x7f",
];

proptest! {
    /// `httparse` reads every head that the reader accepts as the same method, target, version and
    /// fields.
    #[test]
    fn accepted_heads_are_read_alike(
        line in 0..4_usize,
        parts in prop::collection::vec((4..PIECES.len(), 0..6_u8), 0..7),
        cut in 1..80_usize,
    ) {
        // Faults are rare, so that many heads are accepted.
        let parts = parts.iter().map(|(part, rare)| match (*part, *rare) {
            (13.., 1..) => PIECES[11],
            (part, _) => PIECES[part],
        });
        let text = format!("{}Host: x\r\n{}\r\n", PIECES[line], parts.collect::<String>());
        let mut reader = HeadReader::new(MAX_FIELDS);
        let mut outcome = Ok(Progress::Partial);
        let mut rest = text.as_bytes();
        while outcome == Ok(Progress::Partial) && !rest.is_empty() {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            rest = after;
            reader.extend(part);
            outcome = reader.read();
        }
        prop_assert_eq!(outcome, read(&text), "in pieces");
        prop_assume!(outcome == Ok(Progress::Complete));
        let (mut head, _) = reader.finish();
        head.settle();
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        prop_assert!(request.parse(&head.lines.bytes).unwrap().is_complete());
        prop_assert_eq!(request.method.unwrap().as_bytes(), head.method());
        prop_assert_eq!(request.path.unwrap(), head.target());
        prop_assert_eq!(request.version, Some(u8::from(!head.lines.http_10)));
        // It is removed from a request that is not an upgrade.
        let stays = |name: &str| head.upgrade || !name.eq_ignore_ascii_case("upgrade");
        let theirs = request.headers.iter().filter(|it| stays(it.name));
        let theirs: Vec<_> = theirs.map(|it| (it.name.as_bytes(), it.value)).collect();
        let ours: Vec<_> = head.lines.fields().iter().map(|it| (it.name, it.value)).collect();
        prop_assert_eq!(ours, theirs);
    }
}
