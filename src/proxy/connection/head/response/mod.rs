//! Strict reader of response heads (RFC 9112, sections 4 to 6).
//!
//! What a client could delimit differently is an error. Forms that a proxy has to repair are
//! repaired in place, on a cold path: a space before a colon, and a field folded over several lines.

use http::Version;

use super::HeadLines;
use super::fields::{self, ConnectionOptions, have_only_line_ends};
use crate::pipeline::client_response::framing::{self, LengthAction, ResponseFraming};
use crate::pipeline::fields::{FieldKind, FieldPosition};

/// Bytes of a head.
const MAX_SIZE: usize = 1024 * 1024;
/// Bytes that are read at once.
const PIECE: usize = 512;
/// Number of fields.
const MAX_FIELDS: usize = 256;
const TOO_LARGE: &str = "the head of the response is too large";
const NO_VERSION: &str = "the status line has no HTTP/1 version";
/// `HTTP/1.1 200`
const STATUS_END: usize = 12;

/// A response head, as it is read.
#[derive(Debug)]
pub struct ResponseHead {
    /// Without the repetitions of `Content-Length`.
    pub lines: HeadLines,
    /// 0: the status line has not arrived.
    pub status: u16,
    is_http2: bool,
    framing: ResponseFraming,
    line_start: usize,
    scanned: usize,
    /// Lines before `line_start` that end with two control characters.
    complete_lines: usize,
}

/// A response that is not valid, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedResponse(pub &'static str);

impl Default for ResponseHead {
    fn default() -> ResponseHead {
        ResponseHead {
            lines: HeadLines::default(),
            status: 0,
            is_http2: false,
            framing: ResponseFraming::None,
            line_start: 0,
            scanned: 0,
            complete_lines: 0,
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
        // Most heads fit into the first piece: the body behind it is not copied with it.
        let mut behind = new.len();
        for piece in new.chunks(PIECE) {
            behind -= piece.len();
            if let Some(more) = self.read_piece(piece)? {
                return Ok(Some(more + behind));
            }
        }
        Ok(None)
    }

    fn read_piece(&mut self, new: &[u8]) -> Result<Option<usize>, MalformedResponse> {
        self.lines.bytes.extend_from_slice(new);
        while let Some(at) = self
            .lines
            .bytes
            .get(self.scanned..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let line_end = self.scanned + at;
            let line = self.lines.bytes.get(self.line_start..line_end);
            let Some([line @ .., b'\r']) = line else {
                return Err(MalformedResponse("a line ends without a carriage return"));
            };
            let (first, end) = (line.first().copied(), line_end - 1);
            if self.status == 0 {
                self.status_line(end)?;
            } else if first.is_none() {
                self.complete(line_end + 1)?;
                let more = self.lines.bytes.len() - (line_end + 1);
                self.lines.bytes.truncate(line_end + 1);
                return Ok(Some(more));
            } else if matches!(first, Some(b' ' | b'\t')) {
                self.unfold(end)?;
            } else {
                self.field(self.line_start, end)?;
            }
            self.complete_lines += 1;
            self.scanned = line_end + 1;
            self.line_start = line_end + 1;
        }
        self.scanned = self.lines.bytes.len();
        if self.status == 0 && !begins_alike(&self.lines.bytes, b"HTTP/1.") {
            // Its end need not be waited for.
            return Err(MalformedResponse(NO_VERSION));
        }
        match self.scanned > MAX_SIZE {
            true => Err(MalformedResponse(TOO_LARGE)),
            false => Ok(None),
        }
    }

    fn status_line(&mut self, end: usize) -> Result<(), MalformedResponse> {
        let line = self.lines.bytes.get(..end).unwrap_or_default();
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
                self.lines.http_10 = *minor == b'0';
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
        self.lines.first_end = end as u32 + 2;
        Ok(())
    }

    fn field(&mut self, start: usize, end: usize) -> Result<(), MalformedResponse> {
        if self.lines.positions.len() >= MAX_FIELDS {
            return Err(MalformedResponse("the response has too many fields"));
        }
        let field = match fields::read(&self.lines.bytes, start, end) {
            Some(field) => field,
            None => self.close_up(start, end)?,
        };
        self.lines.push(field);
        Ok(())
    }

    /// Moves the colon of a line to the end of the name (RFC 9112, section 5.1).
    #[cold]
    fn close_up(&mut self, start: usize, end: usize) -> Result<FieldPosition, MalformedResponse> {
        let line = self.lines.bytes.get_mut(start..end).unwrap_or_default();
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
        let read = fields::read(&self.lines.bytes, start, end);
        read.ok_or(MalformedResponse("a header name is not a token"))
    }

    /// Joins a folded line with the field before it (RFC 9112, section 5.2). Only the new line is read:
    /// a field may be folded many thousand times.
    #[cold]
    fn unfold(&mut self, end: usize) -> Result<(), MalformedResponse> {
        let Some(field) = self.lines.positions.last_mut() else {
            return Err(MalformedResponse("the first field is folded"));
        };
        let fold = self.line_start.saturating_sub(2)..self.line_start;
        self.lines
            .bytes
            .get_mut(fold)
            .unwrap_or_default()
            .fill(b' ');
        // One line less has a line end.
        self.complete_lines -= 1;
        fields::fold(field, &self.lines.bytes, self.line_start, end);
        Ok(())
    }

    fn complete(&mut self, end: usize) -> Result<(), MalformedResponse> {
        // All values at once: nothing but line ends.
        let bytes = self.lines.bytes.get(..end).unwrap_or_default();
        if !have_only_line_ends(bytes, self.complete_lines + 1) {
            return Err(MalformedResponse("a header value has a control character"));
        }
        let fields = self.lines.fields();
        let mut options = ConnectionOptions::default();
        for value in fields.all(FieldKind::Connection) {
            options.add(value);
        }
        let checked = framing::check(self.status, self.lines.http_10, fields);
        let (framing, action) = checked.map_err(MalformedResponse)?;
        self.framing = framing;
        self.lines.connection = options;
        match action {
            LengthAction::Keep => {}
            LengthAction::Collapse(length) => self.settle_length(Some(length)),
            LengthAction::Remove => self.settle_length(None),
        }
        Ok(())
    }

    /// Leaves this length once, or no `Content-Length`.
    #[cold]
    fn settle_length(&mut self, mut length: Option<u64>) {
        let mut kept = fields::take_list();
        for field in &self.lines.positions {
            if field.kind == FieldKind::ContentLength {
                let Some(length) = length.take() else {
                    continue;
                };
                write_length(&mut self.lines.bytes, field, length);
            }
            kept.push(*field);
        }
        self.lines.replace_fields(kept);
    }

    /// How the body is delimited; the response to a HEAD has none.
    pub fn framing(&self, to_head: bool) -> ResponseFraming {
        match to_head {
            true => ResponseFraming::None,
            false => self.framing,
        }
    }

    /// The version in which the upstream sent the response.
    pub fn version(&self) -> Version {
        match (self.is_http2, self.lines.http_10) {
            (true, _) => Version::HTTP_2,
            (false, true) => Version::HTTP_10,
            (false, false) => Version::HTTP_11,
        }
    }
}

/// Whether one of them is the beginning of the other.
fn begins_alike(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

/// Writes a length in place of a value that has at least as many characters.
#[cold]
fn write_length(bytes: &mut [u8], field: &FieldPosition, length: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(length).as_bytes();
    let value = bytes.get_mut(field.value as usize..field.value_end as usize);
    let value = value.unwrap_or_default();
    value.fill(b' ');
    if let Some(start) = value.get_mut(..digits.len()) {
        start.copy_from_slice(digits);
    }
}

mod http2;
#[cfg(test)]
mod tests;
