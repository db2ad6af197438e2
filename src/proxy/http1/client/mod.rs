//! A client connection: reads heads and bodies, sends responses.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::buffer_pool;
use super::timer_wheel::{Deadline, Ticks};
use crate::proxy::connection::head::{Head, HeadReader, Outline, Progress};
use crate::proxy::connection::{
    DownstreamConnection, HeadError, HeadLimits, Transport, WriteDeadline,
};
use crate::proxy::listener::{Peer, drain};
use crate::proxy::open_streams::stream_control::StreamControl;

/// Maximum number of bytes read ahead of the next request while the present one is served. They fit a
/// pooled buffer.
const READ_AHEAD: usize = 4 * 1024;
/// Number of sent bytes that are kept in front of those that wait.
const MAX_SENT: usize = 64 * 1024;
/// How long bytes from the client are drained after the last response.
const LINGER: Ticks = Ticks::of(Duration::from_millis(500));
/// How long a connection may be idle while the gateway drains.
const DRAIN: Ticks = Ticks::of(drain::IDLE);

/// A client connection.
#[derive(Debug)]
pub struct Client {
    pub transport: Transport,
    /// Bytes read and not yet used.
    pub unread: Vec<u8>,
    /// The one deadline of its present state: for a head, for a body, or for an upstream.
    pub deadline: Deadline,
    /// The client has closed its side.
    pub has_ended: bool,
    pub peer: Arc<Peer>,
    /// The control of its requests.
    pub control: Arc<StreamControl>,
    /// Bytes of responses, of which the first have been sent.
    unsent: Vec<u8>,
    sent: usize,
    write_deadline: WriteDeadline,
}

impl Client {
    /// Takes over a transport. A client that takes nothing for `write_timeout` is cut off.
    pub fn new(transport: Transport, peer: Arc<Peer>, write_timeout: Duration) -> Client {
        Client {
            transport,
            unread: Vec::new(),
            deadline: Deadline::default(),
            has_ended: false,
            peer,
            control: Arc::default(),
            unsent: Vec::new(),
            sent: 0,
            write_deadline: WriteDeadline::new(write_timeout),
        }
    }

    /// Reads one request head. A connection that waits for one holds no buffer. While the gateway
    /// drains, it waits for a short time only.
    ///
    /// # Errors
    /// See [`HeadError`]. An oversized head is a 431, a late one a 408.
    pub async fn read_head(
        &mut self,
        limits: &HeadLimits,
        idle: Ticks,
        stop: &watch::Receiver<bool>,
    ) -> Result<Head, HeadError> {
        let (mut reader, mut is_begun) = (None, false);
        self.deadline.arm(idle);
        if !self.unread.is_empty() {
            let new: &mut HeadReader = reader.insert(HeadReader::new(limits.fields));
            new.extend(&self.unread);
            self.consume(self.unread.len());
        }
        let read = poll_fn(|cx| {
            let is_begun = &mut is_begun;
            self.poll_head(cx, &mut reader, is_begun, limits, stop)
        });
        let read = read.await;
        self.deadline.disarm();
        let Some(reader) = reader else {
            return Err(HeadError::Closed);
        };
        if let Err(error) = read {
            self.unread = reader.into_bytes();
            return Err(error);
        }
        let (head, rest) = reader.finish();
        self.unread = rest;
        Ok(head)
    }

    /// The parts of a rejected head that could be parsed.
    pub fn outline(&self) -> Outline {
        Outline::read(&self.unread)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Option<HeadReader>,
        is_begun: &mut bool,
        limits: &HeadLimits,
        stop: &watch::Receiver<bool>,
    ) -> Poll<Result<(), HeadError>> {
        loop {
            let mut is_waiting = true;
            if let Some(reader) = reader {
                let progress = reader.read().map_err(HeadError::Rejected)?;
                if progress == Progress::Http2Preface {
                    return Poll::Ready(Err(HeadError::Http2));
                }
                if reader.size() > limits.size {
                    return Poll::Ready(Err(HeadError::too_large()));
                }
                if progress == Progress::Complete {
                    return Poll::Ready(Ok(()));
                }
                is_waiting = reader.is_waiting();
                if !is_waiting && !*is_begun {
                    *is_begun = true;
                    // The timeout runs from the first byte.
                    self.deadline.arm(limits.timeout);
                }
            }
            let read = buffer_pool::with_scratch(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
                let new = buffer.filled();
                if !new.is_empty() {
                    let reader = reader.get_or_insert_with(|| HeadReader::new(limits.fields));
                    reader.extend(new);
                }
                Poll::Ready(io::Result::Ok(new.len()))
            });
            match read {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if !is_waiting => {
                    return Poll::Ready(Err(HeadError::broken_off()));
                }
                Poll::Ready(_) => return Poll::Ready(Err(HeadError::Closed)),
                Poll::Pending => {
                    if is_waiting && *stop.borrow() {
                        self.deadline.arm_sooner(DRAIN);
                    }
                    ready!(self.deadline.poll_passed(cx));
                    return Poll::Ready(Err(match is_waiting {
                        true => HeadError::Closed,
                        false => HeadError::late(),
                    }));
                }
            }
        }
    }

    /// Reads into `unread`, by way of the worker's read buffer. 0: the client has closed its side.
    pub fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_read_some(cx, usize::MAX)
    }

    /// Reads up to `most` bytes into `unread`.
    fn poll_read_some(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        buffer_pool::with_scratch(|scratch| {
            let most = most.min(scratch.len());
            let mut buffer = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
            // A read that fills only a part of the buffer clears the readiness of the socket:
            // otherwise every request would cost a system call that finds no data.
            ready!(Pin::new(&mut self.transport).poll_read(cx, &mut buffer))?;
            let new = buffer.filled();
            self.has_ended |= new.is_empty();
            if !new.is_empty() && self.unread.capacity() == 0 {
                self.unread = buffer_pool::take();
            }
            self.unread.extend_from_slice(new);
            Poll::Ready(Ok(new.len()))
        })
    }

    /// Drops the first bytes of `unread`.
    pub fn consume(&mut self, bytes: usize) {
        if bytes < self.unread.len() {
            self.unread.drain(..bytes);
        } else {
            buffer_pool::give(std::mem::take(&mut self.unread));
        }
    }

    /// Reads ahead while a request is served, so that the end of the connection is seen. Ready: the
    /// client has closed its side.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.has_ended {
            let more = READ_AHEAD.saturating_sub(self.unread.len());
            if more == 0 {
                return Poll::Pending;
            }
            ready!(self.poll_read_some(cx, more))?;
        }
        Poll::Ready(Ok(()))
    }

    /// The buffer to which a response is written.
    pub fn out(&mut self) -> &mut Vec<u8> {
        if self.unsent.capacity() == 0 {
            self.unsent = buffer_pool::take();
        } else if self.sent >= MAX_SENT {
            // There may always be a rest that a slow client has not taken.
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.unsent
    }

    /// The number of bytes that wait to be sent.
    pub fn unsent_len(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Drops what has not been sent: the response cannot be completed.
    pub fn discard_unsent(&mut self) {
        self.sent = 0;
        buffer_pool::give(std::mem::take(&mut self.unsent));
    }

    /// Sends the whole buffer, and what TLS holds of it.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let socket = self.transport.as_raw_fd();
        while let Some(rest @ [_, ..]) = self.unsent.get(self.sent..) {
            let sent = Pin::new(&mut self.transport).poll_write(cx, rest);
            match ready!(self.write_deadline.observe(sent, cx, socket))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        ready!(self.write_deadline.observe(flushed, cx, socket))?;
        // An idle connection holds no buffer.
        self.discard_unsent();
        Poll::Ready(Ok(()))
    }

    /// Sends a complete response after every other ready task has run: responses sent back to back
    /// wake their readers once instead of one by one.
    ///
    /// # Errors
    /// The client went away, or took nothing for the listener's write timeout.
    pub async fn flush_coalesced(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        yield_once().await;
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Closes: sends the rest, then the end of the stream. `sends`: the client may still send bytes
    /// of its request, which are drained for a moment: unread bytes would turn the close into a
    /// reset, and the reset could overtake the response (RFC 9112, section 9.6).
    pub async fn close(&mut self, sends: bool) {
        if self.flush_coalesced().await.is_err() {
            return;
        }
        let socket = self.transport.as_raw_fd();
        // TLS sends what it holds first.
        let ended = poll_fn(|cx| {
            let ended = Pin::new(&mut self.transport).poll_shutdown(cx);
            self.write_deadline.observe(ended, cx, socket)
        });
        let ended = ended.await;
        if !sends || ended.is_err() {
            return;
        }
        self.deadline.arm(LINGER);
        poll_fn(|cx| {
            while let Poll::Ready(read) = self.poll_read_more(cx) {
                self.unread.clear();
                if !matches!(read, Ok(1..)) {
                    return Poll::Ready(());
                }
            }
            self.deadline.poll_passed(cx)
        })
        .await;
    }
}

impl Client {
    /// Gives up the transport of a client that speaks HTTP/2, with the bytes that were read from it.
    pub fn into_http2(mut self) -> DownstreamConnection {
        let transport = std::mem::replace(&mut self.transport, Transport::Moved);
        let timeout = self.write_deadline.timeout();
        DownstreamConnection::new(transport, &self.unread, timeout)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        buffer_pool::give(std::mem::take(&mut self.unread));
        buffer_pool::give(std::mem::take(&mut self.unsent));
    }
}

/// Lets other ready tasks run first. Tokio's `yield_now` would also poll for new events, which
/// costs a system call per response.
async fn yield_once() {
    let mut gave = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
pub(super) mod tests;
