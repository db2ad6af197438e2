//! An HTTP/2 client that sends exactly the given frames (RFC 9113), in clear.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::client::connect_socket;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A connection whose preface and empty SETTINGS have gone out.
pub struct Frames {
    socket: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How the other side ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOutcome {
    /// A response: its status, and whether the stream was then ended or reset.
    Status(u16),
    Reset,
    /// The whole connection: GOAWAY, or just closed.
    ConnectionClosed,
}

impl Frames {
    pub fn connect(address: SocketAddr) -> Frames {
        let mut frames = Frames {
            socket: connect_socket(address).unwrap(),
            buffer: Vec::new(),
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        frames.socket.write_all(preface).unwrap();
        frames.send(SETTINGS, 0, 0, b"").unwrap();
        frames
    }

    /// Sends one frame; an error when the connection is gone.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.socket.write_all(&frame(kind, flags, stream, payload))
    }

    /// Sends bytes that hold frames.
    pub fn send_all(&mut self, frames: &[u8]) -> io::Result<()> {
        self.socket.write_all(frames)
    }

    /// Gives up writing after this long.
    pub fn set_write_timeout(&self, patience: Duration) {
        self.socket.set_write_timeout(Some(patience)).unwrap();
    }

    /// Gives up reading after this long: [`Frames::next`] is `None` then.
    pub fn set_read_timeout(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    /// Waits for the settings of the other side, puts them into force and returns them.
    pub fn accept_settings(&mut self) -> Vec<(u16, u32)> {
        let mut frame = self.next().unwrap();
        while frame.kind != SETTINGS || frame.payload.is_empty() {
            frame = self.next().unwrap();
        }
        self.send(SETTINGS, ACK, 0, b"").unwrap();
        let pair = |pair: &[u8]| {
            let value = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
            (u16::from_be_bytes([pair[0], pair[1]]), value)
        };
        frame.payload.chunks(6).map(pair).collect()
    }

    /// The next frame; `None` when the connection has ended.
    pub fn next(&mut self) -> Option<Frame> {
        while self.buffer.len() < 9 || self.buffer.len() < 9 + payload_length(&self.buffer) {
            let mut chunk = [0; 16 * 1024];
            match self.socket.read(&mut chunk) {
                Ok(count @ 1..) => self.buffer.extend_from_slice(&chunk[..count]),
                _ => return None,
            }
        }
        let rest = self.buffer.split_off(9 + payload_length(&self.buffer));
        let whole = std::mem::replace(&mut self.buffer, rest);
        Some(Frame {
            kind: whole[3],
            flags: whole[4],
            stream: u32::from_be_bytes([whole[5], whole[6], whole[7], whole[8]]),
            payload: whole[9..].to_vec(),
        })
    }

    /// What became of a stream.
    pub fn stream_outcome(&mut self, stream: u32) -> StreamOutcome {
        while let Some(frame) = self.next() {
            match frame.kind {
                GOAWAY => return StreamOutcome::ConnectionClosed,
                RST_STREAM if frame.stream == stream => return StreamOutcome::Reset,
                HEADERS if frame.stream == stream => {
                    return StreamOutcome::Status(status_of_block(&frame.payload));
                }
                _ => {}
            }
        }
        StreamOutcome::ConnectionClosed
    }

    /// Reads until the other side has ended a stream in an orderly way.
    pub fn read_until_end_of(&mut self, stream: u32) {
        let ends = |frame: &Frame| {
            let kind = frame.kind == HEADERS || frame.kind == DATA;
            kind && frame.stream == stream && frame.flags & END_STREAM != 0
        };
        let ended = std::iter::from_fn(|| self.next()).any(|frame| ends(&frame));
        assert!(ended, "stream {stream} has ended");
    }

    /// Whether the other side has closed the connection in an orderly way.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.socket.read(&mut [0]), Ok(0))
    }

    /// Whether the connection ends within `deadline`, by GOAWAY or a close.
    pub fn ends_within(&mut self, deadline: Duration) -> bool {
        let start = Instant::now();
        self.socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut chunk = [0; 64 * 1024];
        while start.elapsed() < deadline {
            match self.socket.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => return true,
            }
        }
        false
    }
}

/// The bytes of one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block without compression: each field a literal that is not indexed (RFC 7541, 6.2.2).
pub fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        assert!(name.len() < 127 && value.len() < 127);
        bytes.push(0);
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.push(value.len() as u8);
        bytes.extend(value.as_bytes());
    }
    bytes
}

/// The pseudo-headers of a request, and more.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
    ];
    fields.extend(more);
    header_block(&fields)
}

fn payload_length(buffer: &[u8]) -> usize {
    u32::from_be_bytes([0, buffer[0], buffer[1], buffer[2]]) as usize
}

/// The status is the first field of a response: an entry of the static table, or a literal.
pub fn status_of_block(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // A literal whose name is that of static entry 8, its value Huffman coded or plain.
        [_, length, value @ ..] if length & 0x80 != 0 => huffman_digits(value),
        [_, length, value @ ..] => {
            let digits = &value[..usize::from(*length)];
            std::str::from_utf8(digits).unwrap().parse().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// Three digits in the Huffman code of RFC 7541, appendix B: 5 bits for 0 to 2, else 6.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let value = |bits: &[u8]| {
        bits.iter()
            .fold(0_u16, |all, bit| all << 1 | u16::from(*bit))
    };
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = value(&bits[at..at + 5]);
        let digit = if short < 3 {
            at += 5;
            short
        } else {
            at += 6;
            value(&bits[at - 6..at]) - 0x19 + 3
        };
        number = number * 10 + digit;
    }
    number
}
