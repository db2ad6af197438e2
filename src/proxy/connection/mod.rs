//! A client connection, between the socket and Pingora.
//!
//! It gives Pingora no byte beyond the current request (a pipelined request stays buffered, and nothing
//! after an `Upgrade` passes before the upstream agrees); coalesces small writes; and can be closed
//! from outside while it is idle.

pub mod body_rate;
pub mod byte_class;
pub mod chunked;
pub mod head;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use super::connection::chunked::Chunks;
use super::connection::head::{BodyFraming, Head};
use super::open_streams::frame_boundary::FrameBoundary;
use super::open_streams::stream_control::{CloseReason, ReaderAction, StreamControl};

mod head_error;
mod http2_flow;
mod http2_frames;
mod transport;
pub mod write_coalescing;
mod write_deadline;

pub use head_error::{HeadError, HeadLimits, RefusalReport};
use http2_flow::Http2Flow;
pub use transport::Transport;
pub use write_deadline::WriteDeadline;

/// Writes are buffered up to this size.
const WRITE_BUFFER: usize = 16 * 1024;
/// Maximum number of bytes read ahead of the next request while the present one is served.
const READ_AHEAD: usize = 16 * 1024;
/// Maximum size of one read.
const READ_CHUNK: usize = 8 * 1024;

thread_local! {
    static SCRATCH: RefCell<[u8; READ_CHUNK]> = const { RefCell::new([0; READ_CHUNK]) };
}

/// The number of bytes on the connection that belong to the request that Pingora is reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    /// At most this many more bytes.
    Length(u64),
    /// Until the last chunk, which [`Chunks`] finds.
    Chunked,
    /// No byte until the upstream agrees to the upgrade, then all.
    Upgrade,
    /// All: HTTP/2 frames.
    Everything,
}

/// A client connection as Pingora sees it.
#[derive(Debug)]
pub struct DownstreamConnection {
    pub(super) transport: Transport,
    /// Bytes read and not yet passed on.
    unread: BytesMut,
    /// Bytes written and not yet sent.
    unsent: BytesMut,
    window: Window,
    chunks: Chunks,
    /// HTTP/2 was chosen by ALPN or by the preface.
    http2: Option<Box<Http2Flow>>,
    write_timeout: Duration,
    write_deadline: WriteDeadline,
    control: Arc<StreamControl>,
    frames: FrameBoundary,
    /// The request has no body, and nothing of its response has gone out.
    is_coalescable: bool,
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
            window: Window::Length(0),
            chunks: Chunks::default(),
            http2: None,
            write_timeout,
            write_deadline: WriteDeadline::new(write_timeout),
            control: Arc::default(),
            frames: FrameBoundary::default(),
            is_coalescable: false,
            refusals: None,
            linger: None,
        }
    }

    /// Reports HTTP/2 requests that Pingora rejects without a hook.
    pub fn report_refusals(&mut self, report: RefusalReport) {
        self.refusals = Some(report);
    }

    /// Whether ALPN or the preface chose HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// Expects HTTP/2 frames.
    pub fn set_http2(&mut self) {
        self.window = Window::Everything;
        self.http2 = Some(Box::new(Http2Flow::new(self.write_timeout)));
    }

    /// Gives up the transport, with the bytes that are not used.
    pub fn take_transport(&mut self) -> (Transport, BytesMut) {
        let transport = std::mem::replace(&mut self.transport, Transport::Moved);
        (transport, std::mem::take(&mut self.unread))
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
            if !matches!(self.read_more().await, Ok(1..)) {
                return false;
            }
        }
    }

    /// Binds the connection to the request that is served next.
    pub fn attach(&mut self, control: Arc<StreamControl>, head: &Head) {
        control.set_own_reader();
        self.control = control;
        self.frames = FrameBoundary::default();
        self.expect_body(head);
    }

    /// Returns the control of the current request.
    pub fn control(&self) -> Arc<StreamControl> {
        Arc::clone(&self.control)
    }

    fn expect_body(&mut self, head: &Head) {
        self.chunks = Chunks::default();
        // While the client still sends, Pingora may have stopped reading, and then never polls this
        // connection again.
        self.is_coalescable =
            matches!(head.body, BodyFraming::None | BodyFraming::Length(0)) && !head.upgrade;
        self.window = match head.body {
            BodyFraming::Length(length) => Window::Length(length),
            BodyFraming::Chunked => Window::Chunked,
            BodyFraming::None if head.upgrade => Window::Upgrade,
            BodyFraming::None => Window::Length(0),
        };
    }

    /// Reads into `unread`, by way of a buffer that all connections of the thread share, so that an
    /// idle connection holds none.
    async fn read_more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read_more(cx)).await
    }

    /// Uses `poll_read`, which clears readiness after a short read; otherwise every request would
    /// cost another system call that finds no data.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.transport).poll_read(cx, &mut read))?;
            self.unread.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// The number of bytes that the present request may still read.
    fn allowance(&self) -> usize {
        match self.window {
            Window::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Window::Chunked | Window::Everything => usize::MAX,
            Window::Upgrade if self.control.is_upgraded() => usize::MAX,
            Window::Upgrade => 0,
        }
    }

    fn consume(&mut self, bytes: usize) {
        if let Window::Length(left) = &mut self.window {
            *left = left.saturating_sub(bytes as u64);
        }
    }

    /// Passes on the bytes of a chunked body, and none after it.
    fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() && ready!(self.poll_read_more(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = self.unread.len().min(buffer.remaining());
        let Ok(ours) = self
            .chunks
            .decode(self.unread.get(..most).unwrap_or_default(), |_| ())
        else {
            self.control.set_malformed();
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        buffer.put_slice(&self.unread.split_to(ours));
        if self.chunks.is_done() {
            self.window = Window::Length(0);
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on buffered bytes, up to `allowance`.
    fn give_unread(&mut self, allowance: usize, buffer: &mut ReadBuf<'_>) -> usize {
        let give = allowance.min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(give));
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        give
    }

    /// Passes on HTTP/2 frames as they arrive, or the reset of a stream whose client takes nothing
    /// of the response.
    fn poll_read_frames(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut room = buffer.remaining();
        if let Some(flow) = &mut self.http2 {
            if self.unread.is_empty()
                && let Some(reset) = flow.poll_reset(cx)?
            {
                self.unread.extend_from_slice(&reset);
            }
            room = room.min(flow.room());
        }
        let before = buffer.filled().len();
        if self.unread.is_empty() {
            ready!(self.transport.poll_read_some(cx, room, buffer))?;
        } else {
            self.give_unread(room, buffer);
        }
        if let Some(flow) = &mut self.http2 {
            flow.received(buffer.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the end of a connection whose request has been read completely; bytes that arrive
    /// meanwhile belong to the next request.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.len() < READ_AHEAD {
            if ready!(self.poll_read_more(cx))? == 0 {
                // Requests that arrived before the end are served before it is reported.
                self.control.set_half_closed();
                return match self.unread.is_empty() {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                };
            }
        }
        Poll::Pending
    }

    /// Ends an upgraded connection gracefully: a Close frame at a frame boundary, then the end of
    /// the stream.
    fn poll_close(&mut self, cx: &mut Context<'_>, why: CloseReason) -> Poll<io::Result<()>> {
        if self.control.is_upgraded() && self.frames.may_close() {
            let frame = why.close_frame();
            self.frames.pass(&frame);
            self.unsent.extend_from_slice(&frame);
        }
        let _ = self.poll_send(cx);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for DownstreamConnection {
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
        if this.http2.is_some() {
            return this.poll_read_frames(cx, buffer);
        }
        this.control.register_reader(cx.waker());
        match this.control.reader_action() {
            ReaderAction::Read => {}
            ReaderAction::Close(why) => return this.poll_close(cx, why),
            ReaderAction::Fail => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
        let allowance = this.allowance().min(buffer.remaining());
        if allowance == 0 {
            return this.poll_read_ahead(cx);
        }
        if this.window == Window::Chunked {
            return this.poll_chunks(cx, buffer);
        }
        if !this.unread.is_empty() {
            let given = this.give_unread(allowance, buffer);
            this.consume(given);
            return Poll::Ready(Ok(()));
        }
        let read = ready!(this.transport.poll_read_some(cx, allowance, buffer))?;
        this.consume(read);
        Poll::Ready(Ok(()))
    }
}
