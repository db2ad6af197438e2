//! Strict reader of HTTP/1 message heads (RFC 9112, sections 2 to 6).
//!
//! It rejects what two readers could read differently: bare line feeds, a missing `Host`,
//! `Content-Length` beside `Transfer-Encoding`, spaces in the target. Later stages need not check
//! again. A head is read in one pass into a flat list of fields over its bytes.

use super::byte_class::is_token;
use crate::pipeline::fields::{FieldKind, FieldPosition, KindSet};
use crate::pipeline::hop_by_hop::WEBSOCKET;
use crate::proxy::http1::buffer_pool;
use crate::rejection::{Reason, Refusal};

mod fields;
mod host;
mod lines;
mod outline;
mod request;
pub mod response;
mod target;

use fields::have_only_line_ends;
pub use lines::HeadLines;
pub use outline::Outline;
pub use request::{BodyFraming, Head};
use target::Absolute;

/// Bytes of a field's name; `http::HeaderName` has no room for more.
const MAX_NAME: usize = 65_535;
/// Empty lines before a request line (RFC 9112, section 2.2); some clients send one after a body.
const MAX_EMPTY_LINES: u8 = 4;
/// The first line of the HTTP/2 preface.
const PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0";

/// Fields that [`HeadReader::framing`] reads.
const FRAMING: KindSet = KindSet::NONE
    .with(FieldKind::Connection)
    .with(FieldKind::ContentLength)
    .with(FieldKind::Expect)
    .with(FieldKind::Host)
    .with(FieldKind::TransferEncoding)
    .with(FieldKind::Upgrade);

/// Reads a request head line by line as its bytes arrive, each byte once.
#[derive(Debug, Default)]
pub struct HeadReader {
    head: Head,
    max_fields: usize,
    line_start: usize,
    scanned: usize,
    /// Lines before `line_start`, and the part of them that was checked for control characters.
    lines: usize,
    checked: (usize, usize),
    empty_lines: u8,
    /// Bytes removed from the head: empty lines before it, and the authority of its target.
    removed: usize,
    started: bool,
    is_get: bool,
    hosts: u8,
    content_lengths: u8,
    transfer_encodings: u8,
    upgrades: u8,
    expects: u8,
    /// Boxed: clients send it to proxies that they know of.
    absolute: Option<Box<Absolute>>,
}

/// The state of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Partial,
    Complete,
    /// The HTTP/2 connection preface (RFC 9113, section 3.4): not HTTP/1 at all.
    Http2Preface,
}

/// Why a head is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRejection {
    pub refusal: Refusal,
    pub reason: Reason,
}

impl HeadReader {
    /// Rejects a head with more fields than `max_fields`; Pingora rejects more than 256.
    pub fn new(max_fields: usize) -> HeadReader {
        HeadReader {
            max_fields,
            ..HeadReader::default()
        }
    }

    /// Adds bytes that have arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.head.lines.bytes.extend_from_slice(bytes);
    }

    /// The bytes that have arrived.
    pub fn bytes(&self) -> &[u8] {
        &self.head.lines.bytes
    }

    /// The size of what was read of the head as the client sent it.
    pub fn size(&self) -> usize {
        let read = if self.head.length > 0 {
            self.head.length
        } else {
            self.head.lines.bytes.len()
        };
        read + self.removed
    }

    /// Whether nothing of a request has arrived yet, apart from empty lines.
    pub fn is_waiting(&self) -> bool {
        !self.started && matches!(*self.head.lines.bytes, [] | [b'\r'])
    }

    /// Returns the complete head, and the bytes behind it.
    pub fn finish(mut self) -> (Head, Vec<u8>) {
        let mut rest = Vec::new();
        if let Some(more @ [_, ..]) = self.head.lines.bytes.get(self.head.length..) {
            rest = buffer_pool::take();
            rest.extend_from_slice(more);
            self.head.lines.bytes.truncate(self.head.length);
        }
        (self.head, rest)
    }

    /// Returns the bytes of what is no head.
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.head.lines.bytes)
    }

    /// Reads the lines that are new.
    ///
    /// # Errors
    /// The first violation, with its refusal: 400, 405 or 431.
    pub fn read(&mut self) -> Result<Progress, HeadRejection> {
        let outcome = self.read_lines();
        if outcome != Ok(Progress::Http2Preface) {
            self.check_controls()?;
        }
        outcome
    }

    fn read_lines(&mut self) -> Result<Progress, HeadRejection> {
        while let Some(at) = self
            .head
            .lines
            .bytes
            .get(self.scanned..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let line_end = self.scanned + at;
            let line = self.head.lines.bytes.get(self.line_start..line_end);
            let Some([line @ .., b'\r']) = line else {
                return bad("a line ends without a carriage return");
            };
            if line.is_empty() && !self.started && self.empty_lines < MAX_EMPTY_LINES {
                self.empty_lines += 1;
                self.removed += 2;
                self.head.lines.bytes.drain(..2);
                self.scanned = 0;
                continue;
            }
            let is_last = line.is_empty() && self.started;
            let end = line_end - 1;
            if self.started && !is_last {
                self.field(end)?;
            } else if !self.started {
                if line == PREFACE_LINE && self.empty_lines == 0 {
                    return Ok(Progress::Http2Preface);
                }
                self.request_line(end)?;
            }
            // An absolute target has become shorter.
            let next = if self.started {
                line_end + 1
            } else {
                self.head.lines.first_end as usize
            };
            self.started = true;
            self.lines += 1;
            self.scanned = next;
            self.line_start = next;
            if is_last {
                self.head.length = next;
                return self.complete();
            }
        }
        self.scanned = self.head.lines.bytes.len();
        Ok(Progress::Partial)
    }

    /// Checks all values at once: the complete lines have the two control characters at their ends,
    /// and no other.
    fn check_controls(&mut self) -> Result<(), HeadRejection> {
        let (bytes, lines) = self.checked;
        let new = self.head.lines.bytes.get(bytes..self.line_start);
        if !have_only_line_ends(new.unwrap_or_default(), self.lines - lines) {
            return bad("a header value has a control character");
        }
        self.checked = (self.line_start, self.lines);
        Ok(())
    }

    fn request_line(&mut self, end: usize) -> Result<(), HeadRejection> {
        let line = self.head.lines.bytes.get(..end).unwrap_or_default();
        let [method, target, version] = target::split_request_line(line)?;
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return bad("the method is not a token");
        }
        let path_length = target::check(target)?;
        let path_form = matches!(target.first(), Some(b'/')) || target == b"*";
        let mut absolute = None;
        if !path_form && method != b"CONNECT" {
            let read = target::absolute(target, method.len() + 1, method == b"OPTIONS")?;
            absolute = Some(Box::new(read));
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.head.lines.http_10 = true,
            _ => return bad("the version is not HTTP/1.1 or HTTP/1.0"),
        }
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(HeadRejection {
                refusal: Refusal::MethodNotAllowed,
                reason: Reason::Head("CONNECT and TRACE are not served"),
            });
        }
        self.is_get = method == b"GET";
        self.head.method_end = method.len() as u32;
        self.head.path_length = path_length as u32;
        self.head.target_end = (method.len() + 1 + target.len()) as u32;
        self.head.lines.first_end = end as u32 + 2;
        if let Some(absolute) = absolute {
            self.rewrite_target(absolute);
        }
        Ok(())
    }

    /// Brings an absolute target into origin form.
    #[cold]
    fn rewrite_target(&mut self, absolute: Box<Absolute>) {
        let shorter = absolute.cut.len() - absolute.path.len();
        let path = absolute.path.iter().copied();
        self.head.lines.bytes.splice(absolute.cut.clone(), path);
        self.head.path_length -= shorter as u32;
        self.head.target_end -= shorter as u32;
        self.head.lines.first_end -= shorter as u32;
        self.removed += shorter;
        self.absolute = Some(absolute);
    }

    fn field(&mut self, end: usize) -> Result<(), HeadRejection> {
        if self.head.lines.positions.len() >= self.max_fields {
            return too_large(Reason::TooManyFields);
        }
        let bytes = &self.head.lines.bytes;
        let Some(field) = fields::read(bytes, self.line_start, end) else {
            return field_fault(bytes.get(self.line_start..end).unwrap_or_default());
        };
        if (field.colon - field.start) as usize > MAX_NAME {
            return too_large(Reason::Head("the name of a header is too long"));
        }
        if FRAMING.has(field.kind) {
            self.framing(&field)?;
        }
        self.head.lines.push(field);
        Ok(())
    }

    fn framing(&mut self, field: &FieldPosition) -> Result<(), HeadRejection> {
        let head = &mut self.head;
        let value = field.value(&head.lines.bytes);
        match field.kind {
            FieldKind::Host => {
                self.hosts = self.hosts.saturating_add(1);
                head.host = (field.value, field.value_end);
            }
            FieldKind::Expect => {
                self.expects = self.expects.saturating_add(1);
                // Another form of it, or another expectation, may be read as none by a server
                // that then waits for the body.
                if self.expects > 1 || !value.eq_ignore_ascii_case(b"100-continue") {
                    return bad("Expect is not 100-continue alone");
                }
            }
            FieldKind::Upgrade => {
                self.upgrades = self.upgrades.saturating_add(1);
                head.upgrade =
                    self.upgrades == 1 && value.eq_ignore_ascii_case(WEBSOCKET.as_bytes());
            }
            FieldKind::ContentLength => {
                self.content_lengths = self.content_lengths.saturating_add(1);
                head.body = BodyFraming::Length(parse_length(value)?);
            }
            FieldKind::TransferEncoding => {
                self.transfer_encodings = self.transfer_encodings.saturating_add(1);
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return bad("the transfer coding is not chunked");
                }
            }
            FieldKind::Connection => head.lines.connection.add(value),
            _ => {}
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<Progress, HeadRejection> {
        let head = &mut self.head;
        if self.hosts != 1 {
            return bad("there is not exactly one Host");
        }
        let host = head.host();
        let Ok(name) = host::read(host) else {
            return bad("the Host is not one");
        };
        let other = |absolute: &Absolute| !absolute.names(host);
        if self.absolute.as_deref().is_some_and(other) {
            return bad("the target names another host than the Host");
        }
        head.host_name = name;
        if self.content_lengths > 1 {
            return bad("there is more than one Content-Length");
        }
        if self.transfer_encodings > 0 {
            if self.transfer_encodings > 1 || self.content_lengths > 0 || head.lines.http_10 {
                return bad("Transfer-Encoding does not stand alone");
            }
            head.body = BodyFraming::Chunked;
        }
        if head.body == BodyFraming::Length(0) {
            head.body = BodyFraming::None;
        }
        head.upgrade &= self.is_get && !head.lines.http_10 && head.body == BodyFraming::None;
        // A client that speaks HTTP/1.0 understands no interim response (RFC 9110, section 10.1.1).
        head.expects_continue = self.expects > 0 && !head.lines.http_10;
        Ok(Progress::Complete)
    }
}

/// Why a line is no field.
#[cold]
fn field_fault<T>(line: &[u8]) -> Result<T, HeadRejection> {
    match memchr::memchr(b':', line) {
        None => bad("a header line has no colon"),
        Some(colon) if colon > MAX_NAME => {
            too_large(Reason::Head("the name of a header is too long"))
        }
        Some(_) => bad("a header name is not a token"),
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
