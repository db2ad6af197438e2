//! The writing side of a connection of HTTP/2: small writes are sent together.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::sleep;

use super::DownstreamConnection;

/// Writes are buffered up to this size.
const WRITE_BUFFER: usize = 16 * 1024;

/// How long bytes from the client are drained after the last response.
const LINGER: Duration = Duration::from_millis(500);

impl DownstreamConnection {
    /// Sends the whole buffer, and what TLS holds of it.
    pub(super) fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        self.apply_write_deadline(flushed, cx)
    }

    /// Passes on the result of a write, or ends the connection of a client that takes nothing.
    fn apply_write_deadline<T>(
        &mut self,
        sent: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        self.control.idle_timer.set_blocked(sent.is_pending());
        let blocked = sent.is_pending();
        let socket = self.transport.as_raw_fd();
        let sent = self.write_deadline.observe(sent, cx, socket);
        if blocked && sent.is_ready() {
            self.control.set_stalled();
        }
        sent
    }

    /// Closes: sends the rest, then the end of the stream, and drains what the client still sends
    /// of its request.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(self.poll_flush_all(cx))?;
            ready!(Pin::new(&mut self.transport).poll_shutdown(cx))?;
        }
        self.poll_linger(cx)
    }

    /// Drains incoming bytes, briefly: requests may cross the GOAWAY, and unread bytes would turn the
    /// close into a reset, which could overtake the last responses.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let linger = &mut self.linger;
        let linger = linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while let Ok(1..) = ready!(self.poll_read_more(cx)) {
            self.unread.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the whole buffer.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = Pin::new(&mut self.transport).poll_write(cx, &self.unsent);
            let sent = ready!(self.apply_write_deadline(sent, cx))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        // An idle connection keeps no buffer.
        self.unsent = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DownstreamConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut taken = bytes.len();
        if this.unsent.len() + bytes.len() > WRITE_BUFFER {
            ready!(this.poll_send(cx))?;
            if bytes.len() > WRITE_BUFFER {
                let sent = Pin::new(&mut this.transport).poll_write(cx, bytes);
                taken = ready!(this.apply_write_deadline(sent, cx))?;
            } else {
                this.unsent.extend_from_slice(bytes);
            }
        } else {
            this.unsent.extend_from_slice(bytes);
        }
        this.flow.sent(bytes.get(..taken).unwrap_or_default());
        for _ in 0..this.flow.take_bare_refusals() {
            if let Some(report) = &this.refusals {
                report.send();
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.flow.watch(cx)?;
        for reset in this.flow.resets() {
            this.unsent.extend_from_slice(&reset);
        }
        let sent = this.poll_flush_all(cx);
        if this.flow.is_stalled() {
            this.control.idle_timer.set_blocked(true);
        }
        sent
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::proxy::connection::Transport;

    const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

    /// A connection, and its client.
    async fn pair() -> (DownstreamConnection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let transport = Transport::Plain(accepted.unwrap().0);
        let connection = DownstreamConnection::new(transport, &[], WRITE_TIMEOUT);
        (connection, client.unwrap())
    }

    #[tokio::test]
    async fn sending_client_receives_everything_without_reset() {
        let (mut connection, mut client) = pair().await;
        client.write_all(&[b'a'; 32 * 1024]).await.unwrap();
        connection.write_all(b"finish").await.unwrap();
        connection.flush().await.unwrap();
        let closing = async {
            AsyncWriteExt::shutdown(&mut connection).await.unwrap();
            drop(connection);
        };
        // It keeps sending until it has the last frame.
        let sending = async {
            let (mut last, mut rest) = ([0; 6], Vec::new());
            client.read_exact(&mut last).await.unwrap();
            client.write_all(&[b'a'; 32 * 1024]).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut rest).await.unwrap();
            assert_eq!((&last, rest), (b"finish", vec![]));
        };
        tokio::join!(closing, sending);
    }

    #[tokio::test]
    async fn stalled_client_fails_every_write() {
        let (mut connection, _client) = pair().await;
        let failed = loop {
            if let Err(error) = connection.write_all(&[0; 64 * 1024]).await {
                break error;
            }
        };
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!(connection.control().is_stalled());
        connection.unsent.extend_from_slice(b"finish");
        let delivered = connection.flush().await;
        assert_eq!(delivered.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let closed = AsyncWriteExt::shutdown(&mut connection).await;
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
