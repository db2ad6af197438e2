//! The way of a request to its upstream: the head that was written for it, then the client's body.

use std::task::{Context, Poll, ready};

use super::buffer_pool;
use super::client::Client;
use super::request_body::RequestBody;
use super::upstream::Upstream;
use crate::proxy::connection::chunked::{LAST_CHUNK, write_chunk};
use crate::proxy::connection::head::BodyFraming;
use crate::proxy::retry::{BodyProgress, Failure};

/// Bytes of a body that are kept, in case that a server declares the request unprocessed.
const MAX_KEPT: usize = 64 * 1024;

/// A request on its way to the upstream.
pub(super) struct Upload {
    source: Source,
    /// The upstream takes no more.
    is_refused: bool,
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
    is_body_touched: bool,
    /// The data that was taken, as long as the request may be sent again.
    kept: Option<Vec<u8>>,
}

/// A body of which an attempt has taken a part that is still at hand.
pub(super) struct BegunBody {
    rest: RequestBody,
    taken: Vec<u8>,
}

/// Where more of the request comes from.
enum Source {
    Body(RequestBody),
    /// Whatever an upgraded client sends.
    Tunnel,
}

impl Upload {
    /// `head` is the head for the upstream, in a pooled buffer, if it is sent with the body. `begun` is
    /// the body if an attempt has taken a part of it before.
    pub(super) fn new(
        head: Vec<u8>,
        body: BodyFraming,
        begun: Option<Box<BegunBody>>,
        upstream: &Upstream,
        max_body: u64,
    ) -> Upload {
        let is_shared = matches!(upstream, Upstream::Http2(_));
        let mut upload = Upload {
            source: Source::Body(RequestBody::new(body)),
            is_refused: false,
            is_chunked: body == BodyFraming::Chunked && !is_shared,
            buffer: head,
            sent: 0,
            total_sent: 0,
            body_length: 0,
            max_body,
            is_body_touched: false,
            kept: is_shared.then(Vec::new),
        };
        if let Some(begun) = begun {
            upload.resume(*begun);
        }
        upload
    }

    /// Sends again what was taken from the client before.
    fn resume(&mut self, begun: BegunBody) {
        write_data(&mut self.buffer, &begun.taken, self.is_chunked);
        if self.is_chunked && begun.rest.is_done() {
            self.buffer.extend_from_slice(LAST_CHUNK);
        }
        self.body_length = begun.rest.received;
        self.is_body_touched = true;
        self.kept = self.kept.is_some().then_some(begun.taken);
        self.source = Source::Body(begun.rest);
    }

    /// How much of the body was taken from the client.
    pub(super) fn body_progress(&self) -> BodyProgress {
        match (self.is_body_touched, &self.kept) {
            (false, _) => BodyProgress::Untouched,
            (true, Some(_)) => BodyProgress::Buffered,
            (true, None) => BodyProgress::Lost,
        }
    }

    /// Gives up the body, for another attempt.
    pub(super) fn take_begun(&mut self) -> Option<Box<BegunBody>> {
        let Source::Body(rest) = &mut self.source else {
            return None;
        };
        let taken = self.kept.take().filter(|_| self.is_body_touched)?;
        let rest = std::mem::replace(rest, RequestBody::new(BodyFraming::None));
        Some(Box::new(BegunBody { rest, taken }))
    }

    /// Keeps nothing more: the request is not sent again.
    pub(super) fn settle(&mut self) {
        self.kept = None;
    }

    /// Passes on all that the client sends from now on.
    pub(super) fn begin_tunnel(&mut self) {
        self.source = Source::Tunnel;
    }

    /// Drops what is left: the upstream has ended the tunnel.
    pub(super) fn end_tunnel(&mut self) {
        self.is_refused = true;
        self.release();
    }

    /// Whether the whole request was sent.
    pub(super) fn is_complete(&self) -> bool {
        !self.is_refused && self.is_body_read() && self.buffer.is_empty()
    }

    /// Whether more of the request is to be sent.
    pub(super) fn is_pending(&self) -> bool {
        !self.is_over() || !self.buffer.is_empty()
    }

    /// Whether nothing more is read from the client.
    pub(super) fn is_over(&self) -> bool {
        self.is_refused || self.is_body_read()
    }

    /// Whether a part of a body is missing.
    pub(super) fn expects_body(&self) -> bool {
        let Source::Body(body) = &self.source else {
            return false;
        };
        !self.is_refused && !body.is_done()
    }

    fn is_body_read(&self) -> bool {
        matches!(&self.source, Source::Body(body) if body.is_done())
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
        upstream: &mut Upstream,
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
        let taken = self.take(client);
        if taken.is_ok() && self.is_complete() {
            // The framing of the client's body ended it: there is nothing more to send before its end.
            upstream.finish();
        }
        Poll::Ready(taken)
    }

    /// Resolves when the whole buffer is sent, or the upstream accepts no more: its response is read
    /// before its end is.
    fn poll_send(&mut self, cx: &mut Context<'_>, upstream: &mut Upstream) -> Poll<()> {
        if !self.buffer.is_empty() {
            while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
                let Ok(sent @ 1..) = ready!(upstream.poll_write(cx, rest)) else {
                    self.is_refused = true;
                    break;
                };
                self.sent += sent;
                self.total_sent += sent as u64;
            }
            if ready!(upstream.poll_flush(cx)).is_err() {
                self.is_refused = true;
            }
            self.release();
        }
        if self.is_body_read() {
            upstream.finish();
        }
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
        let (buffer, kept, is_chunked) = (&mut self.buffer, &mut self.kept, self.is_chunked);
        match &mut self.source {
            Source::Body(body) => {
                let taken = body.take(client, &mut |data| {
                    write_data(buffer, data, is_chunked);
                    keep(kept, data);
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
        }
        Ok(())
    }
}

fn write_data(buffer: &mut Vec<u8>, data: &[u8], is_chunked: bool) {
    match is_chunked {
        true => write_chunk(buffer, data),
        false => buffer.extend_from_slice(data),
    }
}

/// Keeps data with what was kept before, unless that is too much.
fn keep(kept: &mut Option<Vec<u8>>, data: &[u8]) {
    if let Some(kept) = kept
        .as_mut()
        .filter(|kept| kept.len() + data.len() <= MAX_KEPT)
    {
        kept.extend_from_slice(data);
    } else {
        *kept = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_kept_up_to_its_bound() {
        let mut kept = Some(Vec::new());
        keep(&mut kept, &[0; MAX_KEPT - 1]);
        keep(&mut kept, b"x");
        assert_eq!(kept.as_ref().map(Vec::len), Some(MAX_KEPT));
        keep(&mut kept, b"x");
        assert_eq!(kept, None);
        keep(&mut kept, b"x");
        assert_eq!(kept, None);
    }
}
