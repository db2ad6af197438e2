//! Strict decoder of chunked bodies (RFC 9112, section 7.1), and the writer of chunks.
//!
//! It rejects what another reader could take for different chunks, and finds where the body ends and
//! the next message begins. Extensions and trailers are validated and dropped.

use super::byte_class::{are_field_bytes, is_field_byte, is_token};

/// Bytes of a chunk-size line, extensions included.
const LINE_MAX: usize = 256;
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Bytes of all trailer fields.
const TRAILERS_MAX: usize = 8 * 1024;

/// The last chunk of a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The state of the decoder.
#[derive(Debug, Default)]
pub struct Chunks {
    state: ChunkState,
    line: Vec<u8>,
    trailers: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Data(u64),
    /// After a chunk's data: its line end.
    DataEnd,
    Trailer,
    Done,
}

/// A body that could be read in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Chunks {
    /// Decodes further bytes: passes their data on, and returns how many of them belong to the body.
    ///
    /// # Errors
    /// The framing is malformed.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != ChunkState::Done {
            if let ChunkState::Data(left) = self.state {
                let taken = left.min(rest.len() as u64);
                let (ours, after) = rest.split_at(taken as usize);
                data(ours);
                rest = after;
                self.state = match left - taken {
                    0 => ChunkState::DataEnd,
                    left => ChunkState::Data(left),
                };
                continue;
            }
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (part, after) = rest.split_at(end);
            rest = after;
            if self.line.is_empty() && part.last() == Some(&b'\n') {
                self.line(part.strip_suffix(b"\r\n").ok_or(Malformed)?)?;
                continue;
            }
            self.line.extend_from_slice(part);
            if self.line.len() > LINE_MAX.max(TRAILERS_MAX) {
                return Err(Malformed);
            }
            if part.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.line);
                self.line(line.strip_suffix(b"\r\n").ok_or(Malformed)?)?;
            } else if !self.may_begin_line() {
                return Err(Malformed);
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether what has arrived of a line may become a valid one: the rest need not be waited for.
    fn may_begin_line(&self) -> bool {
        match self.state {
            ChunkState::Size => {
                self.line.len() <= LINE_MAX && self.line.first().is_some_and(u8::is_ascii_hexdigit)
            }
            ChunkState::DataEnd => self.line == b"\r",
            ChunkState::Data(_) | ChunkState::Trailer | ChunkState::Done => true,
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.state = match self.state {
            ChunkState::Size => match size(line)? {
                0 => ChunkState::Trailer,
                size => ChunkState::Data(size),
            },
            ChunkState::DataEnd if line.is_empty() => ChunkState::Size,
            ChunkState::Trailer if line.is_empty() => ChunkState::Done,
            ChunkState::Trailer => {
                self.trailers += line.len() + 2;
                if self.trailers > TRAILERS_MAX || !is_field(line) {
                    return Err(Malformed);
                }
                ChunkState::Trailer
            }
            ChunkState::DataEnd | ChunkState::Data(_) | ChunkState::Done => return Err(Malformed),
        };
        Ok(())
    }
}

/// `chunk-size [ chunk-ext ]`
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, extensions) = line.split_at(digits);
    if !(1..=15).contains(&digits) || line.len() > LINE_MAX || !are_extensions(extensions) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(size).map_err(|_| Malformed)?;
    u64::from_str_radix(text, 16).map_err(|_| Malformed)
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`. BWS is white space that has to
/// be parsed (RFC 9112, section 7.1.1).
fn are_extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let name = without_space(text).strip_prefix(b";").map(without_space);
        let Some(rest) = name.and_then(token) else {
            return false;
        };
        let value = without_space(rest).strip_prefix(b"=").map(without_space);
        text = match value {
            None => rest,
            Some(value) => match token(value).or_else(|| quoted(value)) {
                Some(rest) => rest,
                None => return false,
            },
        };
    }
    true
}

/// The rest of `text` after spaces and tabs.
fn without_space(text: &[u8]) -> &[u8] {
    let space = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let length = text.iter().take_while(space).count();
    text.get(length..).unwrap_or_default()
}

/// The rest of `text` after a token of at least one character.
fn token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|byte| is_token(**byte)).count();
    (length > 0).then(|| text.get(length..)).flatten()
}

/// The rest of `text` after a quoted string.
fn quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        let (first, after) = rest.split_first()?;
        rest = match first {
            b'"' => return Some(after),
            b'\\' => {
                after
                    .split_first()
                    .filter(|(byte, _)| is_field_byte(**byte))?
                    .1
            }
            byte if is_field_byte(*byte) => after,
            _ => return None,
        };
    }
}

/// Writes a chunk with this data, and nothing without data: an empty chunk would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut length = data.len();
    let mut digits = [0; 16];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = HEX.get(length & 15).copied().unwrap_or_default();
        start -= 1;
        length >>= 4;
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn is_field(line: &[u8]) -> bool {
    token(line)
        .and_then(|rest| rest.strip_prefix(b":"))
        .is_some_and(are_field_bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn decode(body: &str) -> Result<usize, Malformed> {
        Chunks::default().decode(body.as_bytes(), |_| ())
    }

    proptest! {
        /// Data that is written in chunks and read in pieces of any size is the same data.
        #[test]
        fn written_chunks_are_read_back(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cut in 1..40_usize,
        ) {
            let mut body = Vec::new();
            for piece in &pieces {
                write_chunk(&mut body, piece);
            }
            body.extend_from_slice(LAST_CHUNK);
            let length = body.len();
            body.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let (mut chunks, mut data, mut taken) = (Chunks::default(), Vec::new(), 0);
            for part in body.chunks(cut) {
                taken += chunks.decode(part, |more| data.extend_from_slice(more)).unwrap();
            }
            prop_assert!(chunks.is_done());
            prop_assert_eq!((taken, data), (length, pieces.concat()));
        }
    }

    #[test]
    fn body_end_is_found_for_any_split() {
        let body = b"5;a=b;c=\"d \\\" e\"\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
        let mut text = body.to_vec();
        text.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let mut whole = Chunks::default();
        assert_eq!(whole.decode(&text, |_| ()), Ok(body.len()));
        assert!(whole.is_done());
        let mut by_byte = Chunks::default();
        for at in 0..body.len() {
            assert!(!by_byte.is_done());
            assert_eq!(by_byte.decode(&body[at..=at], |_| ()), Ok(1));
        }
        assert!(by_byte.is_done());
    }

    #[test]
    fn whitespace_around_extension_delimiters_is_accepted() {
        for extension in [
            ";a",
            " ;a",
            "\t; a",
            " ; a = b",
            ";a =\"b\" ;\tc",
            "; a= b;c",
        ] {
            let body = format!("5{extension}\r\nhello\r\n0\r\n\r\n");
            let mut chunks = Chunks::default();
            assert_eq!(
                chunks.decode(body.as_bytes(), |_| ()),
                Ok(body.len()),
                "{body:?}"
            );
            assert!(chunks.is_done(), "{body:?}");
        }
    }

    #[test]
    fn ambiguous_chunks_are_rejected() {
        for body in [
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5;\r\nhello\r\n0\r\n\r\n",
            "5;a \r\nhello\r\n0\r\n\r\n",
            "5; \r\nhello\r\n0\r\n\r\n",
            "5;a = \r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "5;a=\r\nhello\r\n0\r\n\r\n",
            "5;a\0\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;\"\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "-1\r\nhello\r\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0\r\nnot a field\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX: y\n\r\n",
            // It need not be complete.
            "5\r\nhelloXX",
            "XX",
        ] {
            assert_eq!(decode(body), Err(Malformed), "{body:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = format!("5;{}\r\n", "a".repeat(LINE_MAX));
        assert_eq!(decode(&long), Err(Malformed));
        let endless = "a".repeat(LINE_MAX + 1);
        assert_eq!(decode(&endless), Err(Malformed));
        let trailers = format!("0\r\n{}", "X: y\r\n".repeat(TRAILERS_MAX / 4));
        assert_eq!(decode(&trailers), Err(Malformed));
    }
}
