//! The way of a request to its upstream: the head that was written for it, then the client's body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::buffer_pool;
use super::client::Client;
use super::dial::UpstreamStream;
use super::request_body::RequestBody;
use crate::proxy::connection::chunked::{LAST_CHUNK, write_chunk};
use crate::proxy::connection::head::BodyFraming;
use crate::proxy::retry::Failure;

/// A request on its way to the upstream.
pub(super) struct Upload {
    source: Source,
    /// The upstream receives the body in chunks.
    is_chunked: bool,
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

/// Where more of the request comes from.
enum Source {
    Body(RequestBody),
    /// Whatever an upgraded client sends.
    Tunnel,
    /// Nothing more is sent: the upstream does not take it.
    Refused,
}

impl Upload {
    /// `head` is the head for the upstream, in a pooled buffer.
    pub(super) fn new(head: Vec<u8>, body: BodyFraming, max_body: u64) -> Upload {
        Upload {
            source: Source::Body(RequestBody::new(body)),
            is_chunked: body == BodyFraming::Chunked,
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
        self.source = Source::Tunnel;
    }

    /// Drops what is left: the upstream has ended the tunnel.
    pub(super) fn end_tunnel(&mut self) {
        self.source = Source::Refused;
        self.release();
    }

    /// Whether the whole request was sent.
    pub(super) fn is_complete(&self) -> bool {
        matches!(&self.source, Source::Body(body) if body.is_done()) && self.buffer.is_empty()
    }

    /// Whether more of the request is to be sent.
    pub(super) fn is_pending(&self) -> bool {
        !self.is_over() || !self.buffer.is_empty()
    }

    /// Whether nothing more is read from the client.
    pub(super) fn is_over(&self) -> bool {
        match &self.source {
            Source::Body(body) => body.is_done(),
            Source::Tunnel => false,
            Source::Refused => true,
        }
    }

    /// Whether a part of a body is missing.
    pub(super) fn expects_body(&self) -> bool {
        matches!(&self.source, Source::Body(body) if !body.is_done())
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
        Poll::Ready(self.take(client))
    }

    /// Resolves when the whole buffer is sent, or the upstream accepts no more: its response is read
    /// before its end is.
    fn poll_send(&mut self, cx: &mut Context<'_>, upstream: &mut UpstreamStream) -> Poll<()> {
        if self.buffer.is_empty() {
            return Poll::Ready(());
        }
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let Ok(sent @ 1..) = ready!(Pin::new(&mut *upstream).poll_write(cx, rest)) else {
                self.source = Source::Refused;
                break;
            };
            self.sent += sent;
            self.total_sent += sent as u64;
        }
        if ready!(Pin::new(upstream).poll_flush(cx)).is_err() {
            self.source = Source::Refused;
        }
        self.release();
        Poll::Ready(())
    }

    /// Gives the buffer back: a request that waits for its response holds none.
    fn release(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.buffer));
        self.sent = 0;
    }

    /// Moves what has arrived into the buffer.
    fn take(&mut self, client: &mut Client) -> Result<(), Failure> {
        let arrived = client.unread.len();
        if self.buffer.capacity() == 0 {
            self.buffer = buffer_pool::take();
        }
        let (buffer, is_chunked) = (&mut self.buffer, self.is_chunked);
        match &mut self.source {
            Source::Body(body) => {
                let taken = body.take(client, &mut |data| match is_chunked {
                    true => write_chunk(buffer, data),
                    false => buffer.extend_from_slice(data),
                });
                taken.map_err(|_| Failure::MalformedChunks)?;
                if is_chunked && body.is_done() {
                    buffer.extend_from_slice(LAST_CHUNK);
                }
                self.body_length = body.received;
                self.is_body_touched |= client.unread.len() < arrived;
                if self.body_length > self.max_body {
                    return Err(Failure::BodyTooLarge);
                }
            }
            Source::Tunnel => {
                buffer.extend_from_slice(&client.unread);
                self.body_length += arrived as u64;
                client.consume(arrived);
            }
            Source::Refused => {}
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.release();
    }
}
