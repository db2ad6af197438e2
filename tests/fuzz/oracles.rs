//! What holds for any bytes that are read as a message: none leads to a panic, pieces read as the whole,
//! and a message that is accepted means the same to other readers.

use std::io::Cursor;

use bytes::BytesMut;
use futures_util::FutureExt;
use http::{HeaderMap, Version};
use pingora::protocols::http::v1::client::HttpSession as ResponseSession;
use pingora::protocols::http::v1::server::HttpSession as RequestSession;
use portcullis::pipeline::client_response::framing::ResponseFraming;
use portcullis::proxy::connection::chunked::{Chunks, LAST_CHUNK, write_chunk};
use portcullis::proxy::connection::head::response::ResponseHead;
use portcullis::proxy::connection::head::{BodyFraming, Head, HeadReader, Progress};
use redis::ValueCodec;
use tokio_util::codec::Decoder;

const MAX_FIELDS: usize = 64;
/// Lengths of the pieces in which an input is read again.
const PIECES: [usize; 3] = [1, 2, 7];

/// A message head, as a reader understands it.
#[derive(Debug, PartialEq)]
struct Reading {
    /// Method and target, or the status.
    start: [String; 2],
    is_http10: bool,
    fields: Vec<Field>,
}

/// Name and value.
type Field = (String, Vec<u8>);

/// Reads bytes as the head of a request.
pub fn request_head(input: &[u8]) {
    let whole = read_request(input, input.len().max(1));
    let reading = whole
        .as_ref()
        .map(|(head, rest)| (reading_of_request(head), head.body, rest));
    for piece in PIECES {
        let pieces = read_request(input, piece);
        let pieces = pieces.as_ref();
        let pieces = pieces.map(|(head, rest)| (reading_of_request(head), head.body, rest));
        assert_eq!(pieces, reading, "in pieces of {piece}");
    }
    let Some((mut ours, framing, _)) = reading else {
        return;
    };
    let bytes = &whole.as_ref().unwrap().0.lines.bytes;
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut theirs = httparse::Request::new(&mut fields);
    let parsed = theirs.parse(bytes).expect("httparse accepts it");
    assert_eq!(parsed, httparse::Status::Complete(bytes.len()));
    let theirs = Reading {
        start: [theirs.method, theirs.path].map(|part| part.unwrap().to_owned()),
        is_http10: theirs.version == Some(0),
        fields: fields_of_httparse(theirs.headers),
    };
    assert_eq!(framing, framing_of_request(&theirs.fields));
    add_connection_fields(&mut ours.fields, &theirs.fields);
    assert_eq!(ours, theirs, "httparse");
    assert_pingora_reads_request(bytes, ours, framing);
}

/// Adds the fields that are about the client's connection: the reader leaves them out.
fn add_connection_fields(ours: &mut Vec<Field>, all: &[Field]) {
    let nominations = values(all, "connection").join(",");
    let mut kept = std::mem::take(ours).into_iter().peekable();
    for field in all {
        if kept.next_if_eq(field).is_none() {
            let name = field.0.to_ascii_lowercase();
            let is_nominated = nominations.split(',').any(|it| it.trim() == name);
            let is_known = ["keep-alive", "upgrade", "http2-settings"].contains(&&*name);
            assert!(is_nominated || is_known, "{name} is missing");
            let is_framing = ["host", "content-length", "transfer-encoding"].contains(&&*name);
            assert!(!is_framing, "{name} is missing");
        }
        ours.push(field.clone());
    }
    assert_eq!(kept.next(), None);
}

/// Returns a head that is accepted, and the number of bytes behind it.
fn read_request(input: &[u8], piece: usize) -> Option<(Head, usize)> {
    let mut reader = HeadReader::new(MAX_FIELDS);
    let mut pieces = input.chunks(piece);
    for new in &mut pieces {
        reader.extend(new);
        if reader.read().ok()? == Progress::Complete {
            let (head, rest) = reader.finish();
            return Some((head, rest.len() + pieces.map(<[u8]>::len).sum::<usize>()));
        }
    }
    None
}

fn reading_of_request(head: &Head) -> Reading {
    let fields = head.lines.fields();
    Reading {
        start: [text(head.method()), head.target().to_owned()],
        is_http10: head.lines.http_10,
        fields: fields
            .iter()
            .map(|it| (text(it.name), it.value.to_vec()))
            .collect(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn fields_of_httparse(headers: &[httparse::Header<'_>]) -> Vec<Field> {
    let fields = headers.iter();
    fields
        .map(|it| (it.name.to_owned(), it.value.to_vec()))
        .collect()
}

/// The values of all fields with a name, in lower case.
fn values(fields: &[Field], name: &str) -> Vec<String> {
    let named = fields.iter().filter(|it| it.0.eq_ignore_ascii_case(name));
    named
        .map(|it| String::from_utf8_lossy(&it.1).to_ascii_lowercase())
        .collect()
}

/// The framing by RFC 9112, section 6.3, of the only forms about which no two readers disagree.
fn framing_of_request(fields: &[Field]) -> BodyFraming {
    assert_eq!(values(fields, "host").len(), 1);
    let codings = values(fields, "transfer-encoding");
    let lengths = values(fields, "content-length");
    match (&*codings, &*lengths) {
        ([], []) => BodyFraming::None,
        ([], [length]) => match length.parse().unwrap() {
            0 => BodyFraming::None,
            length => BodyFraming::Length(length),
        },
        ([coding], []) if coding == "chunked" => BodyFraming::Chunked,
        ambiguous => panic!("{ambiguous:?}"),
    }
}

fn assert_pingora_reads_request(bytes: &[u8], ours: Reading, framing: BodyFraming) {
    let mut session = RequestSession::new(Box::new(Cursor::new(bytes.to_vec())));
    let read = session.read_request().now_or_never();
    let read = read
        .expect("all bytes are there")
        .expect("Pingora accepts it");
    assert_eq!(read, Some(bytes.len()));
    let request = session.req_header();
    let theirs = Reading {
        start: [request.method.to_string(), text(request.raw_path())],
        is_http10: request.version == Version::HTTP_10,
        fields: fields_of_map(&request.headers),
    };
    let upgrades = request.headers.contains_key(http::header::UPGRADE);
    assert_eq!(by_name(ours), theirs, "Pingora");
    // It leaves the bytes of an upgrade without a frame.
    let is_empty = framing == BodyFraming::None;
    assert!(
        upgrades || session.is_body_empty() == is_empty,
        "{framing:?}"
    );
}

/// Fields in the order in which a map has them, which keeps the order of those with the same name.
fn by_name(mut reading: Reading) -> Reading {
    for (name, _) in &mut reading.fields {
        name.make_ascii_lowercase();
    }
    reading.fields.sort_by(|one, other| one.0.cmp(&other.0));
    reading
}

fn fields_of_map(headers: &HeaderMap) -> Vec<Field> {
    let fields = headers.iter();
    let mut fields: Vec<Field> = fields
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// Reads bytes as the head of a response.
pub fn response_head(input: &[u8]) {
    let whole = read_response(input, input.len().max(1));
    let reading = |read: &Option<(ResponseHead, usize)>| {
        let (head, rest) = read.as_ref()?;
        Some((reading_of_response(head), head.framing(false), *rest))
    };
    for piece in PIECES {
        let pieces = read_response(input, piece);
        assert_eq!(reading(&pieces), reading(&whole), "in pieces of {piece}");
    }
    let Some((head, _)) = whole else {
        return;
    };
    let ours = reading_of_response(&head);
    assert_eq!(
        head.framing(false),
        framing_of_response(head.status, &ours.fields)
    );
    assert_eq!(head.framing(true), ResponseFraming::None);
    // As it is passed on: repaired, and with one length at most.
    let mut bytes = head.lines.first_line().to_vec();
    for field in &head.lines.positions {
        let line = field.start as usize..field.end as usize;
        bytes.extend_from_slice(&head.lines.bytes[line]);
    }
    bytes.extend_from_slice(b"\r\n");
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut theirs = httparse::Response::new(&mut fields);
    let parsed = theirs.parse(&bytes).expect("httparse accepts it");
    assert_eq!(parsed, httparse::Status::Complete(bytes.len()));
    let theirs = Reading {
        start: [theirs.code.unwrap().to_string(), String::new()],
        is_http10: theirs.version == Some(0),
        fields: fields_of_httparse(theirs.headers),
    };
    assert_eq!(ours, theirs, "httparse");
    let mut session = ResponseSession::new(Box::new(Cursor::new(bytes.clone())));
    let read = session.read_response().now_or_never();
    let read = read
        .expect("all bytes are there")
        .expect("Pingora accepts it");
    assert_eq!(read, bytes.len());
    let response = session.resp_header().unwrap();
    let theirs = Reading {
        start: [response.status.as_str().to_owned(), String::new()],
        is_http10: response.version == Version::HTTP_10,
        fields: fields_of_map(&response.headers),
    };
    assert_eq!(by_name(ours), theirs, "Pingora");
}

/// Returns a head that is accepted, and the number of bytes behind it.
fn read_response(input: &[u8], piece: usize) -> Option<(ResponseHead, usize)> {
    let mut head = ResponseHead::default();
    let mut pieces = input.chunks(piece);
    for new in &mut pieces {
        if let Some(rest) = head.read(new).ok()? {
            let has_room = head.lines.positions.len() <= MAX_FIELDS;
            let rest = rest + pieces.map(<[u8]>::len).sum::<usize>();
            return has_room.then_some((head, rest));
        }
    }
    None
}

fn reading_of_response(head: &ResponseHead) -> Reading {
    let fields = head.lines.fields();
    // A length that replaces a longer list of lengths leaves spaces behind it.
    Reading {
        start: [head.status.to_string(), String::new()],
        is_http10: head.lines.http_10,
        fields: fields
            .iter()
            .map(|it| (text(it.name), it.value.trim_ascii_end().to_vec()))
            .collect(),
    }
}

fn framing_of_response(status: u16, fields: &[Field]) -> ResponseFraming {
    let codings = values(fields, "transfer-encoding");
    let lengths = values(fields, "content-length");
    match (&*codings, &*lengths) {
        ([], []) if status < 200 || matches!(status, 204 | 304) => ResponseFraming::None,
        ([], []) => ResponseFraming::UntilClose,
        ([], [_]) if status == 304 => ResponseFraming::None,
        ([], [length]) if status >= 200 && status != 204 => {
            ResponseFraming::Length(length.parse().unwrap())
        }
        ([coding], []) if coding == "chunked" && status >= 200 && status != 204 => match status {
            304 => ResponseFraming::None,
            _ => ResponseFraming::Chunked,
        },
        ambiguous => panic!("{status} {ambiguous:?}"),
    }
}

/// Reads bytes as a body in chunks.
pub fn chunked(input: &[u8]) {
    let whole = decode(input, input.len().max(1));
    for piece in PIECES {
        assert_eq!(decode(input, piece), whole, "in pieces of {piece}");
    }
    let Some((data, Some(length))) = whole else {
        return;
    };
    assert_eq!(decode_simply(&input[..length]), Some(data.clone()));
    let mut written = Vec::new();
    for part in data.chunks(3) {
        write_chunk(&mut written, part);
    }
    written.extend_from_slice(LAST_CHUNK);
    let length = written.len();
    written.extend_from_slice(b"rest");
    assert_eq!(decode(&written, written.len()), Some((data, Some(length))));
}

/// Returns the data, and the length of the body if it has ended. `None`: it is malformed.
fn decode(input: &[u8], piece: usize) -> Option<(Vec<u8>, Option<usize>)> {
    let (mut chunks, mut data, mut length) = (Chunks::default(), Vec::new(), 0);
    for new in input.chunks(piece) {
        length += chunks
            .decode(new, |part| data.extend_from_slice(part))
            .ok()?;
    }
    Some((data, chunks.is_done().then_some(length)))
}

/// The data of a complete body, as another reader finds it.
fn decode_simply(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(body).ok()?
        else {
            return None;
        };
        body = &body[start..];
        if size == 0 {
            break;
        }
        let (part, rest) = body.split_at_checked(size as usize)?;
        data.extend_from_slice(part);
        body = rest.strip_prefix(b"\r\n")?;
    }
    let mut trailers = [httparse::EMPTY_HEADER; 2048];
    let parsed = httparse::parse_headers(body, &mut trailers).ok()?;
    matches!(parsed, httparse::Status::Complete((length, _)) if length == body.len())
        .then_some(data)
}

/// Reads bytes as replies of Redis.
pub fn replies(input: &[u8]) {
    let (replies, is_malformed) = read_replies(input, input.len().max(1));
    for piece in PIECES {
        let mut pieces = read_replies(input, piece);
        if is_malformed {
            // The codec skips a byte of no type if no other has arrived behind it.
            pieces.0.truncate(replies.len());
            pieces.1 = true;
        }
        assert_eq!(
            pieces,
            (replies.clone(), is_malformed),
            "in pieces of {piece}"
        );
    }
}

/// Returns the replies up to the first malformed one, as text: a number that is none differs from
/// itself. Also whether there is a malformed one.
fn read_replies(input: &[u8], piece: usize) -> (Vec<String>, bool) {
    let (mut codec, mut replies) = (ValueCodec::default(), Vec::new());
    let mut incoming = BytesMut::new();
    for new in input.chunks(piece) {
        incoming.extend_from_slice(new);
        while !incoming.is_empty() {
            match codec.decode(&mut incoming) {
                Ok(Some(reply)) => replies.push(format!("{reply:?}")),
                Ok(None) => break,
                Err(_) => return (replies, true),
            }
        }
    }
    (replies, false)
}
