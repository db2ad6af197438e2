//! Driver of a pipelined connection: writes the commands and reads the replies.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use redis::{RedisError, Value, ValueCodec};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::codec::Decoder;

use super::request_queue::RETAINED_CAPACITY;
use super::{SharedQueue, closed};

/// Least capacity for a read, in bytes.
const READ_CAPACITY: usize = 16 << 10;
/// Largest unparsed part of a reply, in bytes.
const MAX_UNPARSED: usize = 64 << 20;

/// Completes when the connection has ended.
pub(super) struct Driver<S> {
    stream: S,
    shared: Arc<SharedQueue>,
    outgoing: Vec<u8>,
    /// Number of bytes of `outgoing` that have been written.
    written: usize,
    needs_flush: bool,
    incoming: BytesMut,
    codec: ValueCodec,
    /// Callers whose replies are complete. Woken without the lock.
    completed: Vec<Waker>,
}

impl<S> Driver<S> {
    pub(super) fn new(stream: S, shared: Arc<SharedQueue>) -> Driver<S> {
        Driver {
            stream,
            shared,
            outgoing: Vec::new(),
            written: 0,
            needs_flush: false,
            incoming: BytesMut::new(),
            codec: ValueCodec::default(),
            completed: Vec::new(),
        }
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.shared.end(closed());
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        // Both, also if one is blocked: a server may stop reading until its replies are read.
        let progress = driver.read(context).and_then(|()| driver.write(context));
        let Err(error) = progress else {
            return Poll::Pending;
        };
        driver.shared.end(connection_error(error));
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Reads and delivers the replies that have arrived.
    fn read(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.incoming.is_empty() && self.incoming.capacity() > RETAINED_CAPACITY {
                self.incoming = BytesMut::new();
            }
            self.incoming.reserve(READ_CAPACITY);
            match pin!(self.stream.read_buf(&mut self.incoming)).poll(context)? {
                Poll::Ready(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(_) => self.deliver()?,
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn deliver(&mut self) -> io::Result<()> {
        let outcome = self.parse();
        self.completed.drain(..).for_each(Waker::wake);
        outcome
    }

    fn parse(&mut self) -> io::Result<()> {
        let mut state = self.shared.state();
        let was_full = state.queue.is_full();
        while !self.incoming.is_empty() {
            let reply = self.codec.decode(&mut self.incoming);
            match reply.map_err(|_| io::Error::other("a malformed reply"))? {
                Some(Value::Push { .. }) => return Err(io::Error::other("a push message")),
                Some(reply) => self.completed.extend(state.queue.accept(reply)?),
                None if self.incoming.len() > MAX_UNPARSED => {
                    return Err(io::Error::other("too large a reply"));
                }
                None => break,
            }
        }
        drop(state);
        if was_full {
            self.shared.has_room.notify_waiters();
        }
        Ok(())
    }

    /// Writes the queued commands, as far as the connection accepts them.
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let rest = self.outgoing.get(self.written..).unwrap_or_default();
            if rest.is_empty() && !self.take_unsent(context) {
                break;
            }
            let rest = self.outgoing.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(context, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => self.written += count,
                Poll::Pending => return Ok(()),
            }
            self.needs_flush = true;
        }
        if self.needs_flush && Pin::new(&mut self.stream).poll_flush(context)?.is_ready() {
            self.needs_flush = false;
        }
        Ok(())
    }

    /// Refills the buffer; if there are no commands, returns false and is woken by the next one.
    fn take_unsent(&mut self, context: &Context<'_>) -> bool {
        self.written = 0;
        self.outgoing.clear();
        self.outgoing.shrink_to(RETAINED_CAPACITY);
        let mut state = self.shared.state();
        let was_full = state.queue.is_full();
        state.queue.take_unsent(&mut self.outgoing);
        if self.outgoing.is_empty() {
            state.driver = Some(context.waker().clone());
        }
        drop(state);
        if was_full {
            self.shared.has_room.notify_waiters();
        }
        !self.outgoing.is_empty()
    }
}

/// The error that pending requests fail with. A timeout of the connection is none of a request.
fn connection_error(error: io::Error) -> RedisError {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => closed(),
        _ => error.into(),
    }
}
