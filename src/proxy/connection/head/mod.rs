//! Strict parser of HTTP/1 request heads, in front of Pingora's (RFC 9112, sections 2 to 6).
//!
//! Pingora's parser accepts heads that two readers could read differently: bare line feeds, a
//! missing `Host`, `Content-Length` beside `Transfer-Encoding`, spaces in the target. This parser
//! rejects them all, so later stages need not check again.

use bytes::{Buf, BytesMut};

use super::byte_class::{are_field_bytes, is_token};
use crate::pipeline::hop_by_hop::WEBSOCKET;
use crate::rejection::{Reason, Refusal};
use crate::routing::host_of;

mod outline;
mod target;

pub use outline::Outline;
use target::Absolute;

/// Bytes of a field's name; `http::HeaderName` has no room for more.
const MAX_NAME: usize = 65_535;
/// Empty lines before a request line (RFC 9112, section 2.2); some clients send one after a body.
const MAX_EMPTY_LINES: u8 = 4;

/// Parses a head line by line as its bytes arrive, each byte once.
#[derive(Debug, Default)]
pub struct HeadReader {
    line_start: usize,
    scanned: usize,
    fields: usize,
    empty_lines: u8,
    upgrades: usize,
    max_fields: usize,
    started: bool,
    head: Head,
}

/// The framing that a complete head declares.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Head {
    /// Length in bytes, with the blank line and the empty lines before the head.
    pub length: usize,
    pub body: BodyFraming,
    /// The request asks for an upgrade to WebSocket, the only supported protocol.
    pub upgrade: bool,
    /// The client may be waiting for `100 Continue`.
    pub expects_continue: bool,
    /// Bytes of the empty lines before the head.
    start: usize,
    absolute: Option<Absolute>,
    is_get: bool,
    hosts: usize,
    host: Vec<u8>,
    /// The host without its port, as `host_of` reads it.
    pub host_name: String,
    content_lengths: usize,
    transfer_encodings: usize,
    http_10: bool,
}

impl Head {
    /// The bytes of the head, from the request line on, with the target in origin form.
    pub fn in_origin_form(&self, mut bytes: BytesMut) -> BytesMut {
        bytes.advance(self.start);
        let Some(absolute) = &self.absolute else {
            return bytes;
        };
        let cut = absolute.cut.start - self.start..absolute.cut.end - self.start;
        let after = bytes.split_off(cut.end);
        bytes.truncate(cut.start);
        bytes.extend_from_slice(absolute.path);
        bytes.extend_from_slice(&after);
        bytes
    }
}

/// How the request's body is delimited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// The state of the parser.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Partial,
    Complete(Head),
    /// The HTTP/2 connection preface (RFC 9113, section 3.4): not HTTP/1 at all.
    Http2Preface,
}

/// Why a head is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRejection {
    pub refusal: Refusal,
    pub reason: Reason,
}

/// The first line of the HTTP/2 preface.
const PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0";

impl HeadReader {
    /// Rejects a head with more fields than `max_fields`; Pingora rejects more than 256.
    pub fn new(max_fields: usize) -> HeadReader {
        HeadReader {
            max_fields,
            ..HeadReader::default()
        }
    }

    /// Parses the new bytes in `buffer`, which holds the head from its first byte.
    ///
    /// # Errors
    /// The first violation, with its refusal: 400, 405 or 431.
    pub fn read(&mut self, buffer: &[u8]) -> Result<Progress, HeadRejection> {
        while let Some(at) = buffer
            .get(self.scanned..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let end = self.scanned + at;
            let line = buffer.get(self.line_start..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return bad("a line ends without a carriage return");
            };
            let start = self.line_start;
            self.scanned = end + 1;
            self.line_start = end + 1;
            if !self.started {
                if line.is_empty() && self.empty_lines < MAX_EMPTY_LINES {
                    self.empty_lines += 1;
                    continue;
                }
                if line == PREFACE_LINE && start == 0 {
                    return Ok(Progress::Http2Preface);
                }
                self.head.start = start;
                self.request_line(line)?;
                self.started = true;
            } else if line.is_empty() {
                return self.complete();
            } else {
                self.field(line)?;
            }
        }
        self.scanned = buffer.len();
        Ok(Progress::Partial)
    }

    /// Whether nothing of a request has arrived yet, apart from empty lines.
    pub fn is_waiting(&self, buffer: &[u8]) -> bool {
        !self.started && matches!(buffer.get(self.line_start..), None | Some(b"" | b"\r"))
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), HeadRejection> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return bad("the request line has not three parts");
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return bad("the method is not a token");
        }
        target::check(target)?;
        let path_form = matches!(target.first(), Some(b'/')) || target == b"*";
        if !path_form && method != b"CONNECT" {
            let at = self.head.start + method.len() + 1;
            self.head.absolute = Some(target::absolute(target, at, method == b"OPTIONS")?);
        }
        self.head.is_get = method == b"GET";
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.head.http_10 = true,
            _ => return bad("the version is not HTTP/1.1 or HTTP/1.0"),
        }
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(HeadRejection {
                refusal: Refusal::MethodNotAllowed,
                reason: Reason::Head("CONNECT and TRACE are not served"),
            });
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), HeadRejection> {
        self.fields += 1;
        if self.fields > self.max_fields {
            return too_large(Reason::TooManyFields);
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return bad("a header line has no colon");
        };
        let (name, value) = (
            line.get(..colon).unwrap_or_default(),
            line.get(colon + 1..).unwrap_or_default(),
        );
        if name.len() > MAX_NAME {
            return too_large(Reason::Head("the name of a header is too long"));
        }
        // A line that begins with a space (obs-fold) or a space before the colon fails here too.
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return bad("a header name is not a token");
        }
        if !are_field_bytes(value) {
            return bad("a header value has a control character");
        }
        self.framing(name, value.trim_ascii())
    }

    fn framing(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadRejection> {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        // Most names differ in length from all of these.
        match name.len() {
            4 if is(b"host") => {
                self.head.hosts += 1;
                self.head.host = value.to_vec();
            }
            6 if is(b"expect") => {
                self.head.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if is(b"upgrade") => {
                self.upgrades += 1;
                self.head.upgrade =
                    self.upgrades == 1 && value.eq_ignore_ascii_case(WEBSOCKET.as_bytes());
            }
            14 if is(b"content-length") => {
                self.head.content_lengths += 1;
                self.head.body = BodyFraming::Length(parse_length(value)?);
            }
            17 if is(b"transfer-encoding") => {
                self.head.transfer_encodings += 1;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return bad("the transfer coding is not chunked");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<Progress, HeadRejection> {
        let mut head = std::mem::take(&mut self.head);
        head.length = self.scanned;
        if head.hosts != 1 {
            return bad("there is not exactly one Host");
        }
        let host = std::str::from_utf8(&head.host).unwrap_or_default();
        let Ok(name) = host_of(host) else {
            return bad("the Host is not one");
        };
        head.host_name = name.into_owned();
        let other = |absolute: &Absolute| !absolute.names(host);
        if head.absolute.as_ref().is_some_and(other) {
            return bad("the target names another host than the Host");
        }
        if head.content_lengths > 1 {
            return bad("there is more than one Content-Length");
        }
        if head.transfer_encodings > 0 {
            if head.transfer_encodings > 1 || head.content_lengths > 0 || head.http_10 {
                return bad("Transfer-Encoding does not stand alone");
            }
            head.body = BodyFraming::Chunked;
        }
        if head.body == BodyFraming::Length(0) {
            head.body = BodyFraming::None;
        }
        head.upgrade &= head.is_get && !head.http_10 && head.body == BodyFraming::None;
        Ok(Progress::Complete(head))
    }
}

fn parse_length(value: &[u8]) -> Result<u64, HeadRejection> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
        .ok_or(HeadRejection {
            refusal: Refusal::BadRequest,
            reason: Reason::Head("Content-Length is not a number"),
        })
}

fn too_large<T>(reason: Reason) -> Result<T, HeadRejection> {
    Err(HeadRejection {
        refusal: Refusal::HeadersTooLarge,
        reason,
    })
}

fn bad<T>(reason: &'static str) -> Result<T, HeadRejection> {
    Err(HeadRejection {
        refusal: Refusal::BadRequest,
        reason: Reason::Head(reason),
    })
}

#[cfg(test)]
mod tests;
