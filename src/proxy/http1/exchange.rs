//! One request and its response on an established connection or stream: both directions in one task.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::client::Client;
use super::download::Download;
use super::http2_request;
use super::quiet_limit::QuietLimit;
use super::request::CONTINUE;
use super::request_writer;
use super::upload::Upload;
use super::upstream::Upstream;
use crate::proxy::connection::head::{BodyFraming, Head};
use crate::proxy::open_streams::stream_control::Interrupt;
use crate::proxy::request_context::{Admitted, RequestContext};
use crate::proxy::retry::Failure;
use crate::settings::Timeouts;

/// One request and its response.
pub(super) struct Exchange<'a> {
    pub client: &'a mut Client,
    pub request: &'a mut Head,
    pub ctx: &'a mut RequestContext,
    pub admitted: &'a Admitted,
    pub upstream: &'a mut Upstream,
    pub upload: Upload,
    pub download: Download,
    pub quiet: QuietLimit,
    /// The client connection can carry another request.
    pub keep_client: bool,
    /// The upstream connection can carry another request.
    pub keep_upstream: bool,
}

/// How an exchange ended without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The whole response was written.
    Complete,
    /// The session or the gateway ended the exchange, or the client ended a stream.
    Closed,
}

/// Writes the head for the upstream, and returns it if it is sent with the body.
///
/// # Errors
/// It cannot be written.
pub(super) fn begin(
    client: &mut Client,
    request: &Head,
    ctx: &mut RequestContext,
    admitted: &Admitted,
    upstream: &mut Upstream,
) -> Result<Vec<u8>, Failure> {
    let Upstream::Http2(stream) = upstream else {
        return request_writer::write(request, ctx, admitted);
    };
    let head = http2_request::make(request, ctx, admitted)?;
    stream.send_head(head, request.body == BodyFraming::None);
    let expects = request.expects_continue && request.body != BodyFraming::None;
    if expects && admitted.attempts.sent == 1 {
        // That of the server is not read.
        client.out().extend_from_slice(CONTINUE);
    }
    Ok(Vec::new())
}

impl<'a> Exchange<'a> {
    /// `upload` is the request behind its head, which [`begin`] has returned.
    pub(super) fn new(
        client: &'a mut Client,
        request: &'a mut Head,
        ctx: &'a mut RequestContext,
        admitted: &'a Admitted,
        upstream: &'a mut Upstream,
        upload: Upload,
        timeouts: &Timeouts,
    ) -> Exchange<'a> {
        Exchange {
            upload,
            download: Download::new(),
            quiet: QuietLimit::new(timeouts),
            keep_client: request.lines.persists(),
            keep_upstream: true,
            client,
            request,
            ctx,
            admitted,
            upstream,
        }
    }

    /// Lets the registry of open streams measure the rate of the body. A client that waits for
    /// `100 Continue` is not late before the interim response.
    fn watch_body(&self) {
        if self.request.body == BodyFraming::None {
            return;
        }
        let control = &self.ctx.arrival.control;
        control.set_polled();
        // An upstream that does not take the body excuses its client.
        control.idle_timer.begin(None, self.upstream.descriptor());
        if !self.awaits_continue() {
            self.expect_body();
        }
    }

    /// Whether the client may be waiting for the upstream's `100 Continue`.
    pub(super) fn awaits_continue(&self) -> bool {
        self.request.expects_continue && self.upstream.has_interim_responses()
    }

    /// Starts to measure the rate of the body.
    pub(super) fn expect_body(&self) {
        if let (true, Some((listener, _))) = (self.upload.expects_body(), self.ctx.listener()) {
            let rate = &self.ctx.arrival.control.body_rate;
            rate.begin(listener.limits.body_rate);
        }
    }
}

impl Exchange<'_> {
    /// Runs the exchange to its end.
    pub(super) async fn run(&mut self) -> Result<Ending, Failure> {
        self.watch_body();
        let ended = poll_fn(|cx| self.poll(cx)).await;
        self.client.deadline.disarm();
        ended
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ending, Failure>> {
        match self.ctx.arrival.control.poll_interrupt(cx) {
            Some(Interrupt::Close(why)) => {
                if self.download.is_tunnel() {
                    self.end_tunnel(cx, why);
                }
                return Poll::Ready(Ok(Ending::Closed));
            }
            Some(Interrupt::GiveUp) => return Poll::Ready(Err(Failure::BodyTooSlow)),
            None => {}
        }
        let moved = self.bytes_moved();
        self.download.head_read_at = None;
        loop {
            let sent = self.poll_upload(cx)?;
            let read = self.poll_download(cx)?;
            if self.is_complete() {
                self.ctx.ended_at = self.download.head_read_at;
                return Poll::Ready(Ok(Ending::Complete));
            }
            if sent.is_pending() && read.is_pending() {
                break;
            }
        }
        if self.bytes_moved() != moved {
            self.arm();
        }
        self.poll_quiet(cx)
    }

    /// Whether nothing is left to do. The rest of a body is sent after an early success, as long as the
    /// upstream takes it, and not after an early rejection.
    fn is_complete(&self) -> bool {
        let is_rejected = self.ctx.forwarded.status >= 300;
        self.download.is_done() && (is_rejected || !self.upload.is_pending())
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let before = self.upload.body_length;
        let sent = self.upload.poll(cx, self.client, self.upstream);
        let new = self.upload.body_length - before;
        if new > 0 {
            if before == 0 {
                // Also for a client that sends without waiting for `100 Continue`.
                self.expect_body();
            }
            let control = &self.ctx.arrival.control;
            control.note_client_data();
            control.body_rate.count(new as usize);
            self.ctx.body_received = self.upload.body_length;
        }
        if !self.upload.expects_body() {
            self.ctx.arrival.control.body_rate.end();
        }
        sent
    }

    fn bytes_moved(&self) -> u64 {
        self.upload.total_sent + self.download.total_read
    }
}
