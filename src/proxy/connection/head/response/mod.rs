//! Strict reader of response heads (RFC 9112, sections 4 to 6).
//!
//! What a client could delimit differently is an error. Forms that a proxy has to repair are
//! repaired in place, on a cold path: a space before a colon, and a field folded over several lines.

use super::fields::{self, ConnectionOptions, HeadField, count_controls, slice};
use crate::pipeline::fields::{Field, FieldKind, FieldList};
use crate::proxy::http1::buffer_pool;

/// Bytes of a head.
const MAX_SIZE: usize = 1024 * 1024;
/// Number of fields.
const MAX_FIELDS: usize = 256;
const NO_VERSION: &str = "the status line has no HTTP/1 version";
/// `HTTP/1.1 200`
const STATUS_END: usize = 12;

/// A response head, as it is read. Dropping it returns its buffers.
#[derive(Debug)]
pub struct ResponseHead {
    pub bytes: Vec<u8>,
    /// In order of arrival, without the repetitions of `Content-Length`.
    pub fields: Vec<HeadField>,
    /// 0: the status line has not arrived.
    pub status: u16,
    pub http_10: bool,
    connection: ConnectionOptions,
    framing: ResponseFraming,
    fields_start: u32,
    line_start: usize,
    scanned: usize,
    /// Lines before `line_start` that end with two control characters.
    lines: usize,
}

/// How the body of a response is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    None,
    Length(u64),
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// A response that is not valid, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedResponse(pub &'static str);

impl Default for ResponseHead {
    fn default() -> ResponseHead {
        ResponseHead {
            bytes: buffer_pool::take(),
            fields: fields::take_list(),
            status: 0,
            http_10: false,
            connection: ConnectionOptions::default(),
            framing: ResponseFraming::None,
            fields_start: 0,
            line_start: 0,
            scanned: 0,
            lines: 0,
        }
    }
}

impl ResponseHead {
    /// Adds bytes that have arrived, and reads them. Returns how many of them lie behind the head,
    /// once it is complete; they are not part of it.
    ///
    /// # Errors
    /// The response is not valid.
    pub fn read(&mut self, new: &[u8]) -> Result<Option<usize>, MalformedResponse> {
        self.bytes.extend_from_slice(new);
        while let Some(at) = self
            .bytes
            .get(self.scanned..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let line_end = self.scanned + at;
            let line = self.bytes.get(self.line_start..line_end);
            let Some([line @ .., b'\r']) = line else {
                return Err(MalformedResponse("a line ends without a carriage return"));
            };
            let (first, end) = (line.first().copied(), line_end - 1);
            if self.status == 0 {
                self.status_line(end)?;
            } else if first.is_none() {
                self.complete(line_end + 1)?;
                let more = self.bytes.len() - (line_end + 1);
                self.bytes.truncate(line_end + 1);
                return Ok(Some(more));
            } else if matches!(first, Some(b' ' | b'\t')) {
                self.unfold(end)?;
            } else {
                self.field(self.line_start, end)?;
            }
            self.lines += 1;
            self.scanned = line_end + 1;
            self.line_start = line_end + 1;
        }
        self.scanned = self.bytes.len();
        if self.status == 0 && !begins_alike(&self.bytes, b"HTTP/1.") {
            // Its end need not be waited for.
            return Err(MalformedResponse(NO_VERSION));
        }
        match self.scanned > MAX_SIZE {
            true => Err(MalformedResponse("the head of the response is too large")),
            false => Ok(None),
        }
    }

    fn status_line(&mut self, end: usize) -> Result<(), MalformedResponse> {
        let line = self.bytes.get(..end).unwrap_or_default();
        let (start, reason) = line.split_at(STATUS_END.min(line.len()));
        let status = match start {
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'1',
                b'.',
                minor @ (b'0' | b'1'),
                b' ',
                digits @ ..,
            ] => {
                self.http_10 = *minor == b'0';
                digits
            }
            _ => return Err(MalformedResponse(NO_VERSION)),
        };
        let digits = matches!(status, [b'1'..=b'9', _, _]) && status.iter().all(u8::is_ascii_digit);
        if !digits || !matches!(reason, [] | [b' ', ..]) {
            return Err(MalformedResponse("the status line has no status"));
        }
        let add = |sum: u16, digit: &u8| sum * 10 + u16::from(digit - b'0');
        self.status = status.iter().fold(0, add);
        self.fields_start = end as u32 + 2;
        Ok(())
    }

    fn field(&mut self, start: usize, end: usize) -> Result<(), MalformedResponse> {
        if self.fields.len() >= MAX_FIELDS {
            return Err(MalformedResponse("the response has too many fields"));
        }
        let field = match HeadField::read(&self.bytes, start, end) {
            Some(field) => field,
            None => self.close_up(start, end)?,
        };
        self.fields.push(field);
        Ok(())
    }

    /// Moves the colon of a line to the end of the name (RFC 9112, section 5.1).
    #[cold]
    fn close_up(&mut self, start: usize, end: usize) -> Result<HeadField, MalformedResponse> {
        let line = self.bytes.get_mut(start..end).unwrap_or_default();
        if let Some(colon) = memchr::memchr(b':', line) {
            let name = line.get(..colon).unwrap_or_default();
            let is_name = |byte: &u8| !matches!(byte, b' ' | b'\t');
            let length = name.iter().rposition(is_name).map_or(0, |last| last + 1);
            if length < colon {
                line.get_mut(length..=colon).unwrap_or_default().fill(b' ');
                if let Some(at) = line.get_mut(length) {
                    *at = b':';
                }
            }
        }
        let read = HeadField::read(&self.bytes, start, end);
        read.ok_or(MalformedResponse("a header name is not a token"))
    }

    /// Joins a folded line with the field before it (RFC 9112, section 5.2). Only the new line is read:
    /// a field may be folded many thousand times.
    #[cold]
    fn unfold(&mut self, end: usize) -> Result<(), MalformedResponse> {
        let Some(field) = self.fields.last_mut() else {
            return Err(MalformedResponse("the first field is folded"));
        };
        let fold = self.line_start.saturating_sub(2)..self.line_start;
        self.bytes.get_mut(fold).unwrap_or_default().fill(b' ');
        // One line less has a line end.
        self.lines -= 1;
        field.extend(&self.bytes, self.line_start, end);
        Ok(())
    }

    fn complete(&mut self, end: usize) -> Result<(), MalformedResponse> {
        // All values at once: nothing but line ends.
        let bytes = self.bytes.get(..end).unwrap_or_default();
        if count_controls(bytes) != 2 * (self.lines + 1) {
            return Err(MalformedResponse("a header value has a control character"));
        }
        let (mut length, mut lengths, mut codings) = (None, 0, 0);
        for field in &self.fields {
            let value = field.value(&self.bytes);
            match field.kind {
                FieldKind::ContentLength => {
                    lengths += 1;
                    length = one_length(value, length)?;
                }
                FieldKind::TransferEncoding => {
                    codings += 1;
                    if codings > 1 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(MalformedResponse(
                            "the response has a transfer coding other than one chunked",
                        ));
                    }
                }
                FieldKind::Connection => self.connection.add(value),
                _ => {}
            }
        }
        self.frame(length, codings > 0)?;
        if let Some(length) = length {
            self.settle_length(length, lengths);
        }
        Ok(())
    }

    /// Applies RFC 9112, section 6.
    fn frame(&mut self, length: Option<u64>, is_chunked: bool) -> Result<(), MalformedResponse> {
        let has_no_content = self.has_no_content();
        self.framing = match (length, is_chunked) {
            (Some(_), true) => {
                return Err(MalformedResponse(
                    "the response has both Content-Length and Transfer-Encoding",
                ));
            }
            (None, true) if self.http_10 => {
                return Err(MalformedResponse(
                    "the response has a transfer coding in HTTP/1.0",
                ));
            }
            (None, true) if has_no_content => {
                return Err(MalformedResponse(
                    "the response has a transfer coding although it has no content",
                ));
            }
            (Some(1..), false) if has_no_content => {
                return Err(MalformedResponse(
                    "the response has a Content-Length although it has no content",
                ));
            }
            _ if has_no_content || self.status == 304 => ResponseFraming::None,
            (None, true) => ResponseFraming::Chunked,
            (Some(length), false) => ResponseFraming::Length(length),
            (None, false) => ResponseFraming::UntilClose,
        };
        Ok(())
    }

    /// Whether the status excludes content. A 304 may have the length of what it stands for.
    fn has_no_content(&self) -> bool {
        self.status < 200 || self.status == 204
    }

    /// Leaves one `Content-Length`, and none where the response cannot have content: several frameworks
    /// send it with a 204.
    fn settle_length(&mut self, length: u64, count: usize) {
        let keep = usize::from(!self.has_no_content());
        let mut seen = 0;
        let bytes = &mut self.bytes;
        self.fields.retain(|field| {
            if field.kind != FieldKind::ContentLength {
                return true;
            }
            seen += 1;
            if seen == keep && (count > 1 || field.value(bytes).contains(&b',')) {
                write_length(bytes, field, length);
            }
            seen <= keep
        });
    }

    /// The status line, with its line end.
    pub fn status_line_bytes(&self) -> &[u8] {
        slice(&self.bytes, (0, self.fields_start))
    }

    /// Where the first field begins.
    pub fn fields_start(&self) -> usize {
        self.fields_start as usize
    }

    pub fn name(&self, field: &HeadField) -> &[u8] {
        field.name(&self.bytes)
    }

    /// Without the whitespace around it.
    pub fn value(&self, field: &HeadField) -> &[u8] {
        field.value(&self.bytes)
    }

    /// The fields as rules read them.
    pub fn list(&self) -> FieldList<'_> {
        let fields = self.fields.iter();
        fields.map(|field| field.borrow(&self.bytes)).collect()
    }

    /// The first field of a kind.
    pub fn first(&self, kind: FieldKind) -> Option<Field<'_>> {
        let field = self.fields.iter().find(|field| field.kind == kind)?;
        Some(field.borrow(&self.bytes))
    }

    /// How the body is delimited; the response to a HEAD has none.
    pub fn framing(&self, to_head: bool) -> ResponseFraming {
        match to_head {
            true => ResponseFraming::None,
            false => self.framing,
        }
    }

    /// Whether the connection stays open after the response, as far as the upstream is concerned.
    pub fn persists(&self) -> bool {
        self.connection.persists(self.http_10)
    }

    /// Whether `Connection` names a field.
    pub fn nominates(&self) -> bool {
        self.connection.nominates
    }
}

impl Drop for ResponseHead {
    fn drop(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.bytes));
        fields::give_list(std::mem::take(&mut self.fields));
    }
}

/// Whether one of them is the beginning of the other.
fn begins_alike(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

/// Reads a list of lengths that all are the same.
fn one_length(value: &[u8], before: Option<u64>) -> Result<Option<u64>, MalformedResponse> {
    let mut length = before;
    for part in value.split(|byte| *byte == b',') {
        let part = part.trim_ascii();
        let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(part).ok().filter(|_| digits);
        let Some(found) = text.and_then(|text| text.parse().ok()) else {
            return Err(MalformedResponse("the Content-Length is not a number"));
        };
        if length.is_some_and(|length| length != found) {
            return Err(MalformedResponse(
                "the response has several values of Content-Length",
            ));
        }
        length = Some(found);
    }
    Ok(length)
}

/// Writes a length in place of a value that has at least as many characters.
#[cold]
fn write_length(bytes: &mut [u8], field: &HeadField, length: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(length).as_bytes();
    let value = bytes.get_mut(field.value as usize..field.value_end as usize);
    let value = value.unwrap_or_default();
    value.fill(b' ');
    if let Some(start) = value.get_mut(..digits.len()) {
        start.copy_from_slice(digits);
    }
}

#[cfg(test)]
mod tests;
