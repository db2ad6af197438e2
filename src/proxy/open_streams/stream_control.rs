//! The handle by which a request is closed from outside, idle or not.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

use super::idle_timer::IdleTimer;
use crate::proxy::connection::body_rate::BodyRate;

/// Why an open answer is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// Its session or its token ended: WebSocket close code 1008, policy violation.
    Ended = 1,
    /// The gateway is going away: WebSocket close code 1001.
    Drain = 2,
}

impl CloseReason {
    /// The whole Close frame (RFC 6455, section 5.5.1), unmasked as a server's frames are.
    pub fn close_frame(self) -> [u8; 4] {
        let code: u16 = match self {
            CloseReason::Ended => 1008,
            CloseReason::Drain => 1001,
        };
        let [high, low] = code.to_be_bytes();
        [0x88, 2, high, low]
    }
}

/// Shared by the request, its connection and the registry of open answers.
///
/// An upgraded connection is closed softly: its reader sees the end of the stream after a Close
/// frame was written. So is a gRPC call, whose trailers report the end. Anything else is closed hard: the future that serves it is dropped.
#[derive(Debug, Default)]
pub struct StreamControl {
    close_reason: AtomicU8,
    upgraded: AtomicBool,
    malformed: AtomicBool,
    half_closed: AtomicBool,
    /// The client has sent data since this was last looked at.
    client_sent: AtomicBool,
    /// An HTTP/1 connection reads for this request, and for no other.
    own_reader: AtomicBool,
    given_up: AtomicBool,
    /// The last look found the request given up, and its reader had not failed.
    unread: AtomicBool,
    response_finished: AtomicBool,
    stalled: AtomicBool,
    /// How long the upstream has been silent.
    pub idle_timer: IdleTimer,
    /// How fast the client sends its body.
    pub body_rate: BodyRate,
    reader: AtomicWaker,
    /// A gRPC call waits for [`StreamControl::close_requested`] and reports the end itself.
    has_waiter: AtomicBool,
    dropping: AtomicBool,
    server: AtomicWaker,
}

impl StreamControl {
    /// Asks for the end; tells whether nobody did before. The first reason stays.
    pub fn close(&self, why: CloseReason) -> bool {
        let first = self
            .close_reason
            .compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if !first {
            return false;
        }
        if self.is_upgraded() || self.has_waiter.load(Ordering::Acquire) {
            self.reader.wake();
        } else {
            self.drop_server();
        }
        true
    }

    fn drop_server(&self) {
        self.dropping.store(true, Ordering::Release);
        self.server.wake();
    }

    /// Resolves when the end is asked for. While something waits for it, the request is not dropped.
    pub async fn close_requested(&self) {
        let mut attention = WaiterGuard {
            control: self,
            done: false,
        };
        self.has_waiter.store(true, Ordering::Release);
        poll_fn(|cx| {
            self.reader.register(cx.waker());
            match self.close_reason() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
        .await;
        attention.done = true;
    }

    /// Why the end was asked for, if it was.
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.close_reason.load(Ordering::Acquire) {
            1 => Some(CloseReason::Ended),
            2 => Some(CloseReason::Drain),
            _ => None,
        }
    }

    /// Resolves when the request is to be dropped.
    pub async fn drop_requested(&self) {
        poll_fn(|cx| {
            self.server.register(cx.waker());
            match self.dropping.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Notes that the connection now speaks WebSocket.
    pub fn set_upgraded(&self) {
        self.upgraded.store(true, Ordering::Release);
        // Bytes may be waiting that the reader was not allowed to see before.
        self.reader.wake();
    }

    pub fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// Notes that the request's body cannot be read to the letter.
    pub fn set_malformed(&self) {
        self.malformed.store(true, Ordering::Release);
    }

    pub fn is_malformed(&self) -> bool {
        self.malformed.load(Ordering::Acquire)
    }

    /// Notes that the connection's reader is this request's own.
    pub fn set_own_reader(&self) {
        self.own_reader.store(true, Ordering::Release);
    }

    /// Waits for the upstream no longer. An HTTP/1 reader fails, so that there is still an answer; an
    /// HTTP/2 stream is reset.
    pub fn give_up(&self) {
        if !self.own_reader.load(Ordering::Acquire) {
            self.close(CloseReason::Ended);
            return;
        }
        self.given_up.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Drops a request whose reader does not fail although it was given up: Pingora reads nothing from
    /// the client while an HTTP/2 upstream does not take the request body.
    pub fn drop_unread(&self) {
        if self.given_up.load(Ordering::Acquire) && self.unread.swap(true, Ordering::Relaxed) {
            self.drop_server();
        }
    }

    /// Waits for the rest of the body no longer, in such a way that there is still a response where
    /// that is possible.
    pub fn give_up_body(&self) {
        if self.own_reader.load(Ordering::Acquire) || !self.idle_timer.end_upstream() {
            self.give_up();
        }
    }

    /// Whether the reader has to fail, once.
    pub fn take_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire) && self.given_up.swap(false, Ordering::AcqRel)
    }

    /// Notes that the answer is about to be written to its end: nothing but sending it is left.
    pub fn set_response_finished(&self) {
        self.response_finished.store(true, Ordering::Release);
    }

    pub fn is_response_finished(&self) -> bool {
        self.response_finished.load(Ordering::Acquire)
    }

    /// Notes that the client took nothing of the response for the write timeout.
    pub fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Notes that the client has closed its side: it may still read, or be gone.
    pub fn set_half_closed(&self) {
        self.half_closed.store(true, Ordering::Release);
    }

    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Acquire)
    }

    /// Notes data from the client.
    pub fn note_client_data(&self) {
        self.client_sent.store(true, Ordering::Relaxed);
    }

    /// Whether the client has sent data since this was last asked.
    pub fn take_client_data(&self) -> bool {
        self.client_sent.swap(false, Ordering::Relaxed)
    }

    /// Registers the task that reads the connection, to be woken by [`StreamControl::close`].
    pub fn register_reader(&self, waker: &std::task::Waker) {
        self.reader.register(waker);
    }
}

/// The time for which something waits for [`StreamControl::close_requested`].
struct WaiterGuard<'a> {
    control: &'a StreamControl,
    done: bool,
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.control.has_waiter.store(false, Ordering::Release);
        // The end was asked for at this moment, and what waited is gone.
        if !self.done && self.control.close_reason().is_some() {
            self.control.drop_server();
        }
    }
}

/// Follows the frames that go to a WebSocket client, so that a Close frame is put between two of
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
    /// Takes note of bytes on their way to the client.
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

    /// The payload's length, once enough of the header is there. A server's frames carry no mask;
    /// should one do, its four bytes count as payload.
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
