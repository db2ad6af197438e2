//! The strict reading of an HTTP/1 request head, before Pingora sees it (RFC 9112, sections 2 to 6).
//!
//! Pingora's parser forgives what two readers could read differently: bare line feeds, a missing
//! `Host`, `Content-Length` beside `Transfer-Encoding`, spaces in the target. None of it is forgiven
//! here, so nothing behind this point has to wonder.

use super::octets::{are_field_bytes, is_token};
use crate::refusal::Refusal;
use crate::routing::host_of;

/// Header fields in one request; Pingora's own cap is 256.
const MAX_FIELDS: usize = 200;

/// Reads a head line by line as its bytes arrive, each byte once.
#[derive(Debug, Default)]
pub struct HeadReader {
    line_start: usize,
    scanned: usize,
    fields: usize,
    started: bool,
    head: Head,
}

/// What a complete head says about its framing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes, the blank line included.
    pub length: usize,
    pub body: Body,
    pub upgrade: bool,
    /// The client may be waiting for `100 Continue`.
    pub expects_continue: bool,
    hosts: usize,
    /// The target's authority, when it is in absolute form; it has to be the `Host`.
    authority: Option<Vec<u8>>,
    host: Vec<u8>,
    /// The host without its port, as `host_of` reads it.
    pub name: String,
    content_lengths: usize,
    transfer_encodings: usize,
    http_10: bool,
}

/// How the request's body is delimited.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// Where the reading stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Partial,
    Complete(Head),
    /// The HTTP/2 connection preface (RFC 9113, section 3.4): not HTTP/1 at all.
    Http2Preface,
}

/// Why a head is refused; the sentence is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub refusal: Refusal,
    pub reason: &'static str,
}

/// The first line of the HTTP/2 preface.
const PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0";

impl HeadReader {
    /// Reads what is new in `buffer`, which holds the head from its first byte.
    ///
    /// # Errors
    /// The first thing that is wrong, with its refusal: 400, 405 or 431.
    pub fn read(&mut self, buffer: &[u8]) -> Result<Progress, Fault> {
        while let Some(at) = buffer
            .get(self.scanned..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let end = self.scanned + at;
            let line = buffer.get(self.line_start..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return bad("a line ends without a carriage return");
            };
            self.scanned = end + 1;
            self.line_start = end + 1;
            if !self.started {
                if line == PREFACE_LINE {
                    return Ok(Progress::Http2Preface);
                }
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

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return bad("the request line has not three parts");
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return bad("the method is not a token");
        }
        // A fragment never belongs on the wire, and what cuts it off reads another path.
        let legal = |byte: &u8| matches!(byte, 0x21..=0x7e) && *byte != b'#';
        if target.is_empty() || !target.iter().all(legal) {
            return bad("the target has an illegal byte");
        }
        self.head.authority = authority_of(target).map(<[u8]>::to_vec);
        let known_form = matches!(target.first(), Some(b'/')) || target == b"*";
        if !known_form && self.head.authority.is_none() && method != b"CONNECT" {
            return bad("the target is neither a path nor absolute");
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.head.http_10 = true,
            _ => return bad("the version is not HTTP/1.1 or HTTP/1.0"),
        }
        if matches!(method, b"CONNECT" | b"TRACE") {
            return Err(Fault {
                refusal: Refusal::MethodNotAllowed,
                reason: "CONNECT and TRACE are not served",
            });
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Fault {
                refusal: Refusal::HeadersTooLarge,
                reason: "too many header fields",
            });
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return bad("a header line has no colon");
        };
        let (name, value) = (
            line.get(..colon).unwrap_or_default(),
            line.get(colon + 1..).unwrap_or_default(),
        );
        // A line that begins with a space (obs-fold) or a space before the colon fails here too.
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return bad("a header name is not a token");
        }
        if !are_field_bytes(value) {
            return bad("a header value has a control character");
        }
        self.framing(name, value.trim_ascii())
    }

    fn framing(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
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
            7 if is(b"upgrade") => self.head.upgrade = true,
            14 if is(b"content-length") => {
                self.head.content_lengths += 1;
                self.head.body = Body::Length(parse_length(value)?);
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

    fn complete(&mut self) -> Result<Progress, Fault> {
        let mut head = std::mem::take(&mut self.head);
        head.length = self.scanned;
        if head.hosts != 1 {
            return bad("there is not exactly one Host");
        }
        let host = std::str::from_utf8(&head.host).unwrap_or_default();
        let Ok(name) = host_of(host) else {
            return bad("the Host is not one");
        };
        head.name = name.into_owned();
        let other = |authority: &Vec<u8>| !authority.eq_ignore_ascii_case(&head.host);
        if head.authority.as_ref().is_some_and(other) {
            return bad("the target names another host than the Host");
        }
        if head.content_lengths > 1 {
            return bad("there is more than one Content-Length");
        }
        if head.transfer_encodings > 0 {
            if head.transfer_encodings > 1 || head.content_lengths > 0 || head.http_10 {
                return bad("Transfer-Encoding does not stand alone");
            }
            head.body = Body::Chunked;
        }
        if head.body == Body::Length(0) {
            head.body = Body::None;
        }
        Ok(Progress::Complete(head))
    }
}

/// The authority of a target in absolute form (RFC 9112, section 3.2.2).
fn authority_of(target: &[u8]) -> Option<&[u8]> {
    let scheme_end = memchr::memmem::find(target, b"://")?;
    let rest = target.get(scheme_end + 3..)?;
    if target.first() == Some(&b'/') {
        return None;
    }
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    rest.get(..end.unwrap_or(rest.len()))
}

fn parse_length(value: &[u8]) -> Result<u64, Fault> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
        .ok_or(Fault {
            refusal: Refusal::BadRequest,
            reason: "Content-Length is not a number",
        })
}

fn bad<T>(reason: &'static str) -> Result<T, Fault> {
    Err(Fault {
        refusal: Refusal::BadRequest,
        reason,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> Result<Progress, Fault> {
        HeadReader::default().read(text.as_bytes())
    }

    fn refused(text: &str, refusal: Refusal) {
        match read(text) {
            Err(fault) => assert_eq!(fault.refusal, refusal, "{text:?}"),
            other => panic!("{text:?} was read as {other:?}"),
        }
    }

    #[test]
    fn an_ordinary_head_is_read_with_its_framing() {
        let text = "POST /a?b HTTP/1.1\r\nHost: x\r\ncontent-length: 12\r\nExpect: 100-Continue\r\n\r\nbody";
        let Ok(Progress::Complete(head)) = read(text) else {
            panic!("not complete")
        };
        assert_eq!(head.body, Body::Length(12));
        assert_eq!(text.len() - head.length, 4);
        assert!(head.expects_continue && !head.upgrade);
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let mut reader = HeadReader::default();
        for end in 1..text.len() {
            assert_eq!(reader.read(&text[..end]).unwrap(), Progress::Partial);
        }
        let Progress::Complete(head) = reader.read(text).unwrap() else {
            panic!("not complete")
        };
        assert_eq!((head.body, head.length), (Body::Chunked, text.len()));
    }

    #[test]
    fn the_http2_preface_is_told_apart() {
        assert_eq!(
            read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Ok(Progress::Http2Preface)
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
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
            "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
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

    #[test]
    fn tunnels_and_traces_are_not_served() {
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
}
