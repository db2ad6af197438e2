//! HTTP/2 frames, as far as flow control needs them (RFC 9113, section 4.1).

pub(super) const RST_STREAM: u8 = 3;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const HEAD: usize = 9;
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE: usize = 24;

/// The content of a frame that flow control depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameEvent {
    /// The header of a frame; its payload may not have arrived yet.
    Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        length: u32,
    },
    Setting {
        name: u16,
        value: u32,
    },
    WindowUpdate {
        stream: u32,
        increment: u32,
    },
}

/// Parses the frames in a byte stream that arrives in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    /// Bytes of the preface or of a payload that are skipped.
    skip: usize,
    head: [u8; HEAD],
    head_filled: usize,
    /// Bytes left of the payload of a parsed frame, a multiple of its unit.
    left: usize,
    unit: [u8; 6],
    unit_filled: usize,
    in_header_block: bool,
}

impl FrameReader {
    /// Parses a client's bytes, which begin with the preface.
    pub(super) fn after_preface() -> FrameReader {
        FrameReader {
            skip: PREFACE,
            ..FrameReader::default()
        }
    }

    /// Whether another frame may begin here; not within a header block (RFC 9113, section 6.10).
    pub(super) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.head_filled == 0 && self.left == 0 && !self.in_header_block
    }

    /// The number of bytes to the end of the frame or of its header, whichever comes first.
    pub(super) fn until_next_part(&self) -> usize {
        match self.skip + self.left {
            0 => HEAD - self.head_filled,
            payload => payload,
        }
    }

    /// Parses further bytes, and reports their frames.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut report: impl FnMut(FrameEvent)) {
        while let [first, rest @ ..] = bytes {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            bytes = rest;
            if self.left > 0 {
                self.read_payload(*first, &mut report);
            } else if let Some(slot) = self.head.get_mut(self.head_filled) {
                *slot = *first;
                self.head_filled += 1;
                if self.head_filled == HEAD {
                    self.begin(&mut report);
                }
            }
        }
    }

    fn begin(&mut self, report: &mut impl FnMut(FrameEvent)) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.in_header_block = match kind {
            HEADERS | CONTINUATION => flags & END_HEADERS == 0,
            _ => self.in_header_block,
        };
        match kind {
            SETTINGS if flags & ACK == 0 => self.left = length as usize,
            WINDOW_UPDATE => self.left = length as usize,
            _ => self.skip = length as usize,
        }
        self.unit_filled = 0;
        if self.left == 0 {
            self.head_filled = 0;
        }
        let stream = self.stream();
        report(FrameEvent::Frame {
            kind,
            flags,
            stream,
            length,
        });
    }

    fn read_payload(&mut self, byte: u8, report: &mut impl FnMut(FrameEvent)) {
        if let Some(slot) = self.unit.get_mut(self.unit_filled) {
            *slot = byte;
        }
        self.unit_filled += 1;
        self.left -= 1;
        let [a, b, c, d, e, f] = self.unit;
        match (self.head[3], self.unit_filled) {
            (SETTINGS, 6) => {
                self.unit_filled = 0;
                report(FrameEvent::Setting {
                    name: u16::from_be_bytes([a, b]),
                    value: u32::from_be_bytes([c, d, e, f]),
                });
            }
            (WINDOW_UPDATE, 4) => report(FrameEvent::WindowUpdate {
                stream: self.stream(),
                increment: u32::from_be_bytes([a & 0x7f, b, c, d]),
            }),
            _ => {}
        }
        if self.left == 0 {
            self.head_filled = 0;
        }
    }

    fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.head;
        u32::from_be_bytes([a & 0x7f, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_are_read_for_any_split() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9, 0, 4, 0, 1, 0, 0]));
        bytes.extend(frame(SETTINGS, ACK, 0, &[]));
        bytes.extend(frame(0, 1, 5, &[7; 300]));
        bytes.extend(frame(WINDOW_UPDATE, 0, 5, &[0x80, 0, 1, 2]));
        let head = |kind, flags, stream, length| FrameEvent::Frame {
            kind,
            flags,
            stream,
            length,
        };
        let expected = [
            head(SETTINGS, 0, 0, 12),
            FrameEvent::Setting { name: 3, value: 9 },
            FrameEvent::Setting {
                name: 4,
                value: 65_536,
            },
            head(SETTINGS, ACK, 0, 0),
            head(0, 1, 5, 300),
            head(WINDOW_UPDATE, 0, 5, 4),
            FrameEvent::WindowUpdate {
                stream: 5,
                increment: 258,
            },
        ];
        for size in [1, 2, 7, 23, 24, 25, 1000] {
            let (mut reader, mut seen) = (FrameReader::after_preface(), Vec::new());
            for piece in bytes.chunks(size) {
                reader.read(piece, |event| seen.push(event));
            }
            assert_eq!(seen, expected, "{size}");
            assert!(reader.is_between_frames(), "{size}");
        }
    }

    #[test]
    fn no_frame_fits_into_a_frame_or_a_header_block() {
        let mut reader = FrameReader::default();
        assert!(reader.is_between_frames());
        for (bytes, between) in [
            (frame(HEADERS, 0, 1, &[1]), false),
            (frame(CONTINUATION, 0, 1, &[1]), false),
            (frame(CONTINUATION, END_HEADERS, 1, &[1]), true),
            (frame(0, 0, 1, &[0; 20]), true),
            (vec![0, 0, 1], false),
        ] {
            reader.read(&bytes, |_| {});
            assert_eq!(reader.is_between_frames(), between, "{bytes:?}");
        }
    }

    #[test]
    fn malformed_lengths_are_skipped() {
        let mut reader = FrameReader::default();
        let mut seen = 0;
        for bytes in [
            frame(SETTINGS, 0, 0, &[0; 7]),
            frame(WINDOW_UPDATE, 0, 0, &[0; 9]),
            frame(WINDOW_UPDATE, 0, 0, &[]),
        ] {
            reader.read(&bytes, |_| seen += 1);
            assert!(reader.is_between_frames());
        }
        assert_eq!(seen, 5);
    }
}
