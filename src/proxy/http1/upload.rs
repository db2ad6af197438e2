//! The way of a request to its upstream: the head that was written for it, then the client's body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::buffer_pool;
use super::client::Client;
use super::dial::UpstreamStream;
use crate::proxy::connection::chunked::{Chunks, LAST_CHUNK, write_chunk};
use crate::proxy::connection::head::BodyFraming;
use crate::proxy::retry::Failure;

/// A request on its way to the upstream.
pub(super) struct Upload {
    unread: UnreadBody,
    /// The head, then pieces of the body.
    buffer: Vec<u8>,
    /// Bytes of the buffer that were sent.
    sent: usize,
    /// Bytes sent so far.
    pub total_sent: u64,
    /// Bytes of the body so far, without framing.
    pub body_length: u64,
    max_body: u64,
    /// A part of the body was taken from the client.
    pub is_body_touched: bool,
}

/// The part of the body that was not read from the client.
enum UnreadBody {
    None,
    Length(u64),
    Chunked(Chunks),
    /// The upstream accepts no more of the request.
    Refused,
    /// Whatever an upgraded client sends.
    Tunnel,
}

impl Upload {
    /// `head` is the head for the upstream, in a pooled buffer.
    pub(super) fn new(head: Vec<u8>, body: BodyFraming, max_body: u64) -> Upload {
        Upload {
            unread: match body {
                BodyFraming::None => UnreadBody::None,
                BodyFraming::Length(length) => UnreadBody::Length(length),
                BodyFraming::Chunked => UnreadBody::Chunked(Chunks::default()),
            },
            buffer: head,
            sent: 0,
            total_sent: 0,
            body_length: 0,
            max_body,
            is_body_touched: false,
        }
    }

    /// Passes on all that the client sends from now on.
    pub(super) fn begin_tunnel(&mut self) {
        self.unread = UnreadBody::Tunnel;
    }

    /// Drops what is left: the upstream has ended the tunnel.
    pub(super) fn end_tunnel(&mut self) {
        self.unread = UnreadBody::Refused;
        self.buffer.clear();
        self.sent = 0;
    }

    /// Whether the whole request was sent.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.unread, UnreadBody::None) && self.buffer.is_empty()
    }

    /// Whether more of the request is to be sent.
    pub(super) fn is_pending(&self) -> bool {
        !self.is_over() || !self.buffer.is_empty()
    }

    /// Whether nothing more is read from the client.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.unread, UnreadBody::None | UnreadBody::Refused)
    }

    /// Whether a part of a body is missing.
    pub(super) fn expects_body(&self) -> bool {
        matches!(self.unread, UnreadBody::Length(_) | UnreadBody::Chunked(_))
    }

    /// Whether the upstream does not take what is sent to it.
    pub(super) fn is_blocked(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Sends what was read, then reads a further piece from the client. `Ready`: there was progress.
    ///
    /// # Errors
    /// The client went away; its body is malformed or larger than allowed.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        upstream: &mut UpstreamStream,
    ) -> Poll<Result<(), Failure>> {
        ready!(self.poll_send(cx, upstream));
        if self.is_over() {
            return Poll::Pending;
        }
        if client.unread.is_empty() {
            match ready!(client.poll_read_more(cx)) {
                Ok(1..) => {}
                // Either side's end is the end of a tunnel.
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::ClientGone)),
            }
        }
        Poll::Ready(self.take_body(client))
    }

    /// Resolves when the whole buffer is sent, or the upstream accepts no more: its response is read
    /// before its end is.
    fn poll_send(&mut self, cx: &mut Context<'_>, upstream: &mut UpstreamStream) -> Poll<()> {
        if self.buffer.is_empty() {
            return Poll::Ready(());
        }
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let Ok(sent @ 1..) = ready!(Pin::new(&mut *upstream).poll_write(cx, rest)) else {
                self.unread = UnreadBody::Refused;
                break;
            };
            self.sent += sent;
            self.total_sent += sent as u64;
        }
        if ready!(Pin::new(upstream).poll_flush(cx)).is_err() {
            self.unread = UnreadBody::Refused;
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(())
    }

    /// Moves the part of the body that has arrived into the buffer.
    fn take_body(&mut self, client: &mut Client) -> Result<(), Failure> {
        let taken = match &mut self.unread {
            UnreadBody::Length(left) => {
                let taken = usize::try_from(*left)
                    .map_or(client.unread.len(), |left| left.min(client.unread.len()));
                let piece = client.unread.get(..taken).unwrap_or_default();
                self.buffer.extend_from_slice(piece);
                self.body_length += taken as u64;
                *left -= taken as u64;
                if *left == 0 {
                    self.unread = UnreadBody::None;
                }
                taken
            }
            UnreadBody::Chunked(chunks) => {
                let (buffer, length) = (&mut self.buffer, &mut self.body_length);
                let taken = chunks.decode(&client.unread, |data| {
                    *length += data.len() as u64;
                    write_chunk(buffer, data);
                });
                let taken = taken.map_err(|_| Failure::MalformedChunks)?;
                if chunks.is_done() {
                    self.buffer.extend_from_slice(LAST_CHUNK);
                    self.unread = UnreadBody::None;
                }
                taken
            }
            UnreadBody::Tunnel => {
                self.buffer.extend_from_slice(&client.unread);
                self.body_length += client.unread.len() as u64;
                client.consume(client.unread.len());
                return Ok(());
            }
            UnreadBody::None | UnreadBody::Refused => 0,
        };
        client.consume(taken);
        self.is_body_touched |= taken > 0;
        match self.body_length > self.max_body {
            true => Err(Failure::BodyTooLarge),
            false => Ok(()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.buffer));
    }
}
