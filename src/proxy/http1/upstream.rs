//! The upstream's side of an exchange: a connection of its own, or a stream of a shared one.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::UpstreamStream;
use super::http2_stream::{Http2Stream, StreamError};
use crate::proxy::connection::head::response::ResponseHead;
use crate::proxy::retry::Failure;

/// What carries one request to a server.
pub(super) enum Upstream {
    Http1(UpstreamStream),
    Http2(Box<Http2Stream>),
}

/// A piece of a response.
pub(super) enum Piece<'b> {
    /// Bytes of HTTP/1.1.
    Bytes(&'b [u8]),
    /// `is_whole`: the response ends with it.
    Head {
        head: ResponseHead,
        is_whole: bool,
    },
    /// Data of a body without framing.
    Data(Bytes),
    /// The end of the connection or of the stream; `is_clean`: it is not an error.
    End {
        is_clean: bool,
    },
    /// The response is not valid, and why.
    Malformed(&'static str),
    Failed(Failure),
}

impl Upstream {
    /// The connection, if it carries this request alone.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Upstream::Http1(stream) => Some(stream.as_raw_fd()),
            Upstream::Http2(_) => None,
        }
    }

    /// Whether interim responses are read; Pingora's client of HTTP/2 drops them.
    pub(super) fn has_interim_responses(&self) -> bool {
        matches!(self, Upstream::Http1(_))
    }

    /// Sends bytes of the request.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Upstream::Http1(stream) => Pin::new(stream).poll_write(cx, bytes),
            Upstream::Http2(stream) => stream.poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Upstream::Http1(stream) => Pin::new(stream).poll_flush(cx),
            // By the task of the connection.
            Upstream::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the request. In HTTP/1.1 its framing has done so.
    pub(super) fn finish(&mut self) {
        if let Upstream::Http2(stream) = self {
            stream.finish();
        }
    }

    /// Reads a further piece of the response.
    pub(super) fn poll_read<'b>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'b mut [u8],
    ) -> Poll<Piece<'b>> {
        match self {
            Upstream::Http1(stream) => {
                let mut read = ReadBuf::new(buffer);
                let ended = ready!(Pin::new(stream).poll_read(cx, &mut read));
                let length = read.filled().len();
                Poll::Ready(match length {
                    0 => Piece::End {
                        is_clean: ended.is_ok(),
                    },
                    _ => Piece::Bytes(buffer.get(..length).unwrap_or_default()),
                })
            }
            Upstream::Http2(stream) => stream.poll_read(cx),
        }
    }

    /// Keeps further requests off a shared connection that may be dead.
    pub(super) fn retire(&self) {
        if let Upstream::Http2(stream) = self {
            stream.retire_connection();
        }
    }

    /// Why the stream has failed, if it is one.
    pub(super) fn stream_error(&self) -> Option<StreamError> {
        match self {
            Upstream::Http1(_) => None,
            Upstream::Http2(stream) => stream.error(),
        }
    }
}
