//! Connections of clients: the reading of HTTP/1.x, and those of HTTP/2 as Pingora sees them. These hold
//! small writes back until Pingora has written all there is, and reset a stream whose client takes
//! nothing.

pub mod body_rate;
pub mod byte_class;
pub mod chunked;
pub mod head;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use super::open_streams::stream_control::StreamControl;

mod head_error;
mod http2_flow;
mod http2_frames;
mod transport;
mod write_deadline;
mod writer;

pub use head_error::{HeadError, HeadLimits, RefusalReport};
use http2_flow::Http2Flow;
pub use transport::Transport;
pub use write_deadline::WriteDeadline;

/// Maximum size of one read before the preface has arrived.
const READ_CHUNK: usize = 1024;

/// A connection of an HTTP/2 client as Pingora sees it.
#[derive(Debug)]
pub struct DownstreamConnection {
    pub(super) transport: Transport,
    /// Bytes read and not yet passed on.
    unread: BytesMut,
    /// Bytes written and not yet sent.
    unsent: BytesMut,
    flow: Http2Flow,
    write_deadline: WriteDeadline,
    control: Arc<StreamControl>,
    /// Receives the requests that Pingora rejects without a hook.
    refusals: Option<RefusalReport>,
    /// How long further bytes are drained. Set once the end of the stream was sent.
    linger: Option<Pin<Box<Sleep>>>,
}

impl DownstreamConnection {
    /// Takes over a socket whose handshakes are done; `unread` was read beyond them. A client that
    /// takes nothing for `write_timeout` is cut off.
    pub fn new(
        transport: Transport,
        unread: &[u8],
        write_timeout: Duration,
    ) -> DownstreamConnection {
        DownstreamConnection {
            transport,
            unread: BytesMut::from(unread),
            unsent: BytesMut::new(),
            flow: Http2Flow::new(write_timeout),
            write_deadline: WriteDeadline::new(write_timeout),
            control: Arc::default(),
            refusals: None,
            linger: None,
        }
    }

    /// Reports HTTP/2 requests that Pingora rejects without a hook.
    pub fn report_refusals(&mut self, report: RefusalReport) {
        self.refusals = Some(report);
    }

    /// Reads the HTTP/2 preface ahead, so that a client cannot hold the connection without one.
    /// `false`: other bytes arrived.
    pub async fn read_preface(&mut self) -> bool {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        loop {
            let seen = self.unread.len().min(PREFACE.len());
            if self.unread.get(..seen) != PREFACE.get(..seen) {
                return false;
            }
            if seen == PREFACE.len() {
                return true;
            }
            if !matches!(poll_fn(|cx| self.poll_read_more(cx)).await, Ok(1..)) {
                return false;
            }
        }
    }

    /// The control of the connection.
    pub fn control(&self) -> Arc<StreamControl> {
        Arc::clone(&self.control)
    }

    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut chunk = [0; READ_CHUNK];
        let mut read = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut read))?;
        self.unread.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Passes on buffered bytes, at most this many.
    fn give_unread(&mut self, most: usize, buffer: &mut ReadBuf<'_>) {
        let give = most.min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(give));
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
    }
}

impl AsyncRead for DownstreamConnection {
    /// Passes on frames as they arrive, or the reset of a stream whose client takes nothing of the
    /// response.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // A read means that Pingora has written all there is for now. Flushing here delivers a slow
        // response as it is produced.
        if !this.unsent.is_empty()
            && let Poll::Ready(sent) = this.poll_flush_all(cx)
        {
            sent?;
        }
        if this.unread.is_empty()
            && let Some(reset) = this.flow.poll_reset(cx)?
        {
            this.unread.extend_from_slice(&reset);
        }
        let room = buffer.remaining().min(this.flow.room());
        let before = buffer.filled().len();
        if this.unread.is_empty() {
            ready!(this.transport.poll_read_some(cx, room, buffer))?;
        } else {
            this.give_unread(room, buffer);
        }
        let new = buffer.filled().get(before..);
        this.flow.received(new.unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}
