//! One request on a stream of a shared HTTP/2 connection to an upstream server.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::SendStream;
use http::request::Parts;
use tokio::time::timeout;

use super::dial::Http2Session;
use super::upstream::Piece;
use crate::proxy::connection::head::response::ResponseHead;
use crate::proxy::pingora::{http2_cause_of, is_unprocessed};
use crate::proxy::retry::Failure;

/// How long a server may take to end a stream after the whole response.
const END_TIMEOUT: Duration = Duration::from_millis(250);

/// A stream of an HTTP/2 connection. Dropping it resets the stream, unless both sides have ended.
pub(super) struct Http2Stream {
    session: Http2Session,
    /// The way of the body, until its end is sent.
    body: Option<SendStream<Bytes>>,
    error: Option<StreamError>,
}

/// Why a stream has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamError {
    pub failure: Failure,
    /// The server has declared that it did not process the request.
    pub is_unprocessed: bool,
    /// The whole connection ends.
    pub ends_connection: bool,
}

impl Http2Stream {
    pub(super) fn new(session: Http2Session) -> Http2Stream {
        Http2Stream {
            session,
            body: None,
            error: None,
        }
    }

    /// Sends the head of the request; `is_whole`: there is no body. A failure is reported in place of
    /// the response.
    pub(super) fn send_head(&mut self, head: Parts, is_whole: bool) {
        let sent = self
            .session
            .write_request_header(Box::new(head.into()), is_whole);
        match sent {
            Ok(()) if is_whole => {}
            Ok(()) => self.body = self.session.take_request_body_writer(),
            Err(error) => {
                let cause = http2_cause_of(&error);
                self.error = Some(cause.map_or(StreamError::INVALID_REQUEST, StreamError::of));
            }
        }
    }

    /// Sends a part of the body, as far as the server has room for it. An error means that it takes no
    /// more; the response says why.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let closed = || Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        let Some(body) = &mut self.body else {
            return closed();
        };
        if body.capacity() == 0 {
            body.reserve_capacity(bytes.len());
            if !matches!(ready!(body.poll_capacity(cx)), Some(Ok(_))) {
                return closed();
            }
        }
        let part = bytes.get(..body.capacity().min(bytes.len()));
        let part = Bytes::copy_from_slice(part.unwrap_or_default());
        let length = part.len();
        match body.send_data(part, false) {
            Ok(()) => Poll::Ready(Ok(length)),
            Err(_) => closed(),
        }
    }

    /// Sends the end of the body, once.
    pub(super) fn finish(&mut self) {
        if let Some(mut body) = self.body.take() {
            // A stream that has failed reports it in place of the response.
            let _ = body.send_data(Bytes::new(), true);
        }
    }

    /// Reads a further piece of the response.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Piece<'static>> {
        if let Some(error) = self.error {
            return Poll::Ready(Piece::Failed(error.failure));
        }
        if self.session.response_header().is_none() {
            return match ready!(self.session.poll_read_response_header(cx)) {
                Ok(()) => Poll::Ready(self.head()),
                Err(error) => Poll::Ready(self.fail(&error)),
            };
        }
        match ready!(self.session.poll_read_response_body(cx)) {
            Some(Ok(data)) => Poll::Ready(Piece::Data(data)),
            Some(Err(error)) => Poll::Ready(self.fail(&error)),
            // Trailers are dropped.
            None => Poll::Ready(Piece::End { is_clean: true }),
        }
    }

    fn head(&self) -> Piece<'static> {
        let Some(received) = self.session.response_header() else {
            return Piece::Failed(Failure::Internal);
        };
        match ResponseHead::of_http2(received.status, &received.headers) {
            Ok(head) => Piece::Head {
                head,
                is_whole: self.session.response_finished(),
            },
            Err(malformed) => Piece::Malformed(malformed.0),
        }
    }

    /// Waits in the background for the end of a stream whose response is complete by its head or length.
    /// A server counts streams that are reset, and ends the connection of a client that resets many.
    pub(super) fn await_end(mut self: Box<Self>) {
        // Only a reset ends a request of which the rest is not sent.
        if self.body.is_some() || poll_fn(|cx| self.poll_end(cx)).now_or_never().is_some() {
            return;
        }
        tokio::spawn(async move {
            // A stream that has not ended by then is reset.
            let _ = timeout(END_TIMEOUT, poll_fn(|cx| self.poll_end(cx))).await;
        });
    }

    /// Resolves when the stream has ended, or has data that belongs to no response.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Piece::Data(data) = ready!(self.poll_read(cx)) {
            if !data.is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }

    fn fail(&mut self, error: &h2::Error) -> Piece<'static> {
        let error = StreamError::of(error);
        self.error = Some(error);
        Piece::Failed(error.failure)
    }

    pub(super) fn error(&self) -> Option<StreamError> {
        self.error
    }

    /// Keeps further requests off a connection that may be dead.
    pub(super) fn retire_connection(&self) {
        self.session.conn.mark_shutdown();
    }
}

impl StreamError {
    const INVALID_REQUEST: StreamError = StreamError {
        failure: Failure::InvalidRequest,
        is_unprocessed: false,
        ends_connection: false,
    };

    fn of(error: &h2::Error) -> StreamError {
        StreamError {
            failure: if error.is_io() {
                Failure::ConnectionEnded
            } else if error.is_remote() {
                Failure::StreamReset
            } else {
                Failure::InvalidResponse
            },
            is_unprocessed: is_unprocessed(error),
            ends_connection: error.is_go_away(),
        }
    }
}
