//! Boundaries of WebSocket frames.

/// Follows the frames sent to a WebSocket client, so that a Close frame is inserted between two of
/// them and never into one (RFC 6455, section 5.2).
#[derive(Debug, Default)]
pub struct FrameBoundary {
    header: [u8; 10],
    header_len: usize,
    payload_left: u64,
    /// A Close frame has passed; none may follow.
    closed: bool,
}

impl FrameBoundary {
    /// Parses bytes on their way to the client.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skip = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= skip;
                bytes = bytes.get(skip as usize..).unwrap_or_default();
                continue;
            }
            let (Some((first, rest)), Some(slot)) =
                (bytes.split_first(), self.header.get_mut(self.header_len))
            else {
                return;
            };
            *slot = *first;
            self.header_len += 1;
            bytes = rest;
            if let Some(length) = self.payload_length() {
                self.closed |= self.header[0] & 0x0f == 8;
                self.payload_left = length;
                self.header_len = 0;
            }
        }
    }

    /// Whether a frame may begin here.
    pub fn may_close(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0 && !self.closed
    }

    /// The payload's length, once enough of the header has arrived. A server's frames carry no
    /// mask; in a masked frame the four bytes of the mask count as payload.
    fn payload_length(&self) -> Option<u64> {
        if self.header_len < 2 {
            return None;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let length = match self.header[1] & 0x7f {
            126 if self.header_len == 4 => {
                u64::from(u16::from_be_bytes([self.header[2], self.header[3]]))
            }
            127 if self.header_len == 10 => {
                let [_, _, a, b, c, d, e, f, g, h] = self.header;
                u64::from_be_bytes([a, b, c, d, e, f, g, h])
            }
            126 | 127 => return None,
            short => u64::from(short),
        };
        Some(length.saturating_add(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_fits_only_between_frames() {
        let mut frames = FrameBoundary::default();
        assert!(frames.may_close());
        frames.pass(&[0x81]);
        assert!(!frames.may_close());
        frames.pass(&[3, b'a', b'b']);
        assert!(!frames.may_close());
        frames.pass(b"c");
        assert!(frames.may_close());
    }

    #[test]
    fn long_lengths_are_followed_across_writes() {
        let mut frames = FrameBoundary::default();
        frames.pass(&[0x82, 126, 1]);
        frames.pass(&[0]);
        frames.pass(&[0; 255]);
        assert!(!frames.may_close());
        frames.pass(&[0]);
        assert!(frames.may_close());
        frames.pass(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        frames.pass(&vec![0; 65_536]);
        assert!(frames.may_close());
    }

    #[test]
    fn no_frame_follows_a_close_frame() {
        let mut frames = FrameBoundary::default();
        frames.pass(&[0x88, 2, 3, 0xe8]);
        assert!(!frames.may_close());
    }
}
