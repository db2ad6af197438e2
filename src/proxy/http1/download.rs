//! The way of a response to its client.

use std::io::ErrorKind;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::accounting::response_kind;
use super::buffer_pool::with_scratch;
use super::exchange::Exchange;
use super::response_body::ResponseBody;
use super::response_writer::{self, Framing};
use super::upstream::Piece;
use crate::pipeline::client_response::framing::ResponseFraming;
use crate::proxy::connection::chunked::{LAST_CHUNK, write_chunk};
use crate::proxy::connection::head::response::ResponseHead;
use crate::proxy::open_streams::frame_boundary::FrameBoundary;
use crate::proxy::retry::Failure;

/// While more than this waits for the client, nothing is read from the upstream.
const HIGH_WATER: usize = 64 * 1024;
/// Interim responses before a final one. A server that works for long may send one every second.
const MAX_INTERIM: usize = 1000;

/// A response on its way to the client.
pub(super) struct Download {
    unread: UnreadResponse,
    /// Bytes read so far.
    pub total_read: u64,
    /// When the head was read, if that was in this poll.
    pub head_read_at: Option<Instant>,
    /// The client receives a body in chunks.
    is_chunked: bool,
    /// Number of interim responses.
    interim: usize,
}

/// The part of the response that was not read from the upstream.
enum UnreadResponse {
    /// The head, of which a part may have arrived.
    Head(Option<ResponseHead>),
    Body(ResponseBody),
    None,
}

impl Download {
    pub(super) fn new() -> Download {
        Download {
            unread: UnreadResponse::Head(None),
            total_read: 0,
            head_read_at: None,
            is_chunked: false,
            interim: 0,
        }
    }

    /// Passes on all that the upstream sends from now on.
    pub(super) fn begin_tunnel(&mut self) {
        self.unread = UnreadResponse::Body(ResponseBody::Tunnel(FrameBoundary::default()));
    }

    pub(super) fn is_tunnel(&self) -> bool {
        matches!(self.unread, UnreadResponse::Body(ResponseBody::Tunnel(_)))
    }

    /// Whether a Close frame fits behind what was passed on.
    pub(super) fn may_close(&self) -> bool {
        match &self.unread {
            UnreadResponse::Body(ResponseBody::Tunnel(frames)) => frames.may_close(),
            _ => false,
        }
    }

    /// Whether the whole response was written.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.unread, UnreadResponse::None)
    }

    /// Whether no final response has begun.
    pub(super) fn is_head_pending(&self) -> bool {
        matches!(self.unread, UnreadResponse::Head(_))
    }
}

impl Exchange<'_> {
    /// Sends what was written to the client, then reads a further piece of the response. `Ready`:
    /// there was progress.
    pub(super) fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.client.unsent_len() > 0 {
            match self.client.poll_send(cx) {
                Poll::Ready(Err(error)) => {
                    if error.kind() == ErrorKind::TimedOut {
                        self.ctx.arrival.control.set_stalled();
                    }
                    return Poll::Ready(Err(Failure::ClientGone));
                }
                Poll::Pending if self.client.unsent_len() > HIGH_WATER => return Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if self.download.is_done() {
            return Poll::Pending;
        }
        with_scratch(|scratch| {
            Poll::Ready(match ready!(self.upstream.poll_read(cx, scratch)) {
                Piece::Bytes(bytes) => self.take(bytes),
                Piece::Head { head, is_whole } => self.take_head(&head, is_whole),
                Piece::Data(data) => self.take_data(&data),
                Piece::End { is_clean } => self.end(is_clean),
                Piece::Malformed(why) => Err(self.reject(why)),
                Piece::Failed(failure) => Err(failure),
            })
        })
    }

    /// Handles the head of an HTTP/2 response; `is_whole`: nothing follows.
    fn take_head(&mut self, head: &ResponseHead, is_whole: bool) -> Result<(), Failure> {
        self.download.total_read += head.lines.bytes.len() as u64;
        let framing = head.framing(self.request.method() == b"HEAD");
        if is_whole && matches!(framing, ResponseFraming::Length(1..)) {
            return Err(self.reject("the response has a Content-Length and no body"));
        }
        self.begin(head)
    }

    /// Handles data of an HTTP/2 response.
    fn take_data(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.download.total_read += data.len() as u64;
        self.take_body(data)
    }

    /// Handles the end of the upstream connection; `is_clean`: it is not an error.
    fn end(&mut self, is_clean: bool) -> Result<(), Failure> {
        self.keep_upstream = false;
        match self.download.unread {
            UnreadResponse::Body(ResponseBody::Tunnel(_)) => self.upload.end_tunnel(),
            UnreadResponse::Body(ResponseBody::UntilClose) if is_clean => {}
            _ => return Err(Failure::ConnectionEnded),
        }
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        if self.download.is_chunked {
            self.client.out().extend_from_slice(LAST_CHUNK);
        }
        self.download.unread = UnreadResponse::None;
    }

    /// Handles bytes from the upstream.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.download.total_read += bytes.len() as u64;
        while let UnreadResponse::Head(begun) = &mut self.download.unread {
            let mut head = begun.take().unwrap_or_default();
            let read = head.read(bytes).map_err(|fault| self.reject(fault.0))?;
            let Some(rest) = read else {
                self.download.unread = UnreadResponse::Head(Some(head));
                return Ok(());
            };
            bytes = bytes.get(bytes.len() - rest..).unwrap_or_default();
            self.begin(&head)?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
        self.take_body(bytes)
    }

    /// Handles a complete head.
    fn begin(&mut self, head: &ResponseHead) -> Result<(), Failure> {
        if head.status < 200 {
            return self.begin_interim(head);
        }
        let framing = head.framing(self.request.method() == b"HEAD");
        let has_length = !matches!(
            framing,
            ResponseFraming::Chunked | ResponseFraming::UntilClose
        );
        self.download.is_chunked = !has_length && !self.request.lines.http_10;
        // A response before the end of the request costs both connections.
        let is_sent = self.upload.is_complete();
        self.keep_upstream &=
            is_sent && head.lines.persists() && framing != ResponseFraming::UntilClose;
        self.keep_client &= is_sent && (has_length || !self.request.lines.http_10);
        self.upload.settle();
        let body = ResponseBody::new(framing);
        self.download.unread = body.map_or(UnreadResponse::None, UnreadResponse::Body);
        self.record_response(head, response_kind(head));
        let framing = Framing::Final {
            is_http_10: self.request.lines.http_10,
            is_chunked: self.download.is_chunked,
            keep: self.keep_client,
        };
        let permit = &self.admitted.permit;
        response_writer::write(self.client.out(), head, self.ctx, permit, framing);
        self.ctx.forwarded.status = head.status;
        Ok(())
    }

    fn begin_interim(&mut self, head: &ResponseHead) -> Result<(), Failure> {
        self.download.interim += 1;
        if self.download.interim > MAX_INTERIM {
            return Err(self.reject("the response has too many interim responses"));
        }
        match head.status {
            100 => self.expect_body(),
            101 => return self.begin_tunnel(head),
            _ => {}
        }
        if self.request.lines.http_10 {
            return Ok(());
        }
        let permit = &self.admitted.permit;
        response_writer::write(self.client.out(), head, self.ctx, permit, Framing::Interim);
        Ok(())
    }

    fn take_body(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let (out, sent) = (self.client.out(), &mut self.ctx.body_sent);
        let is_chunked = self.download.is_chunked;
        let (taken, is_done) = match &mut self.download.unread {
            UnreadResponse::Body(body) => {
                let taken = body.take(bytes, |data| {
                    *sent += data.len() as u64;
                    match is_chunked {
                        true => write_chunk(out, data),
                        false => out.extend_from_slice(data),
                    }
                });
                taken.map_err(|_| Failure::InvalidResponse)?
            }
            UnreadResponse::None | UnreadResponse::Head(_) => (0, false),
        };
        // Bytes behind a response belong to no request.
        self.keep_upstream &= taken == bytes.len();
        if is_done {
            self.finish();
        }
        Ok(())
    }
}
