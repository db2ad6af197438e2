//! Progress of a request body, and a response that waits in the socket meanwhile.

use std::os::fd::RawFd;

use nix::sys::socket::{MsgFlags, recv};

/// The progress of a request body. While Pingora waits for an HTTP/1.1 upstream to accept more of
/// it, it reads nothing of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Upload {
    None = 0,
    /// No response has been read yet.
    Sending = 1,
    /// The head of a successful response has been read.
    AfterResponse = 2,
    /// The head of another response has been read.
    AfterError = 3,
    Over = 4,
}

/// Whether a part of a response waits in the socket, and whether it is a successful one. The bytes
/// are not consumed; those of TLS do not reveal whether they are a response.
pub(super) fn peek_response(socket: RawFd, upload: Upload) -> Option<bool> {
    let mut start = [0; b"HTTP/1.1 4".len()];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let count = recv(socket, &mut start, flags).unwrap_or(0);
    success_of(upload, start.get(..count).unwrap_or_default())
}

fn success_of(upload: Upload, start: &[u8]) -> Option<bool> {
    match upload {
        Upload::AfterResponse | Upload::AfterError if start.is_empty() => None,
        Upload::AfterResponse => Some(true),
        Upload::AfterError => Some(false),
        Upload::None | Upload::Sending | Upload::Over => {
            match start.strip_prefix(b"HTTP/1.")?.get(2)? {
                b'2' => Some(true),
                b'3'..=b'5' => Some(false),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_response_is_recognized() {
        for (upload, start, expected) in [
            (Upload::Sending, &b"HTTP/1.1 413"[..], Some(false)),
            (Upload::Sending, b"HTTP/1.1 200", Some(true)),
            (Upload::Sending, b"HTTP/1.1 100", None),
            (Upload::Sending, b"\x17\x03\x03\x00\x20abcde", None),
            (Upload::AfterError, b"body", Some(false)),
            (Upload::AfterResponse, b"body", Some(true)),
            (Upload::AfterError, b"", None),
        ] {
            assert_eq!(success_of(upload, start), expected, "{upload:?} {start:?}");
        }
    }
}
