//! The time for which nothing may move in an exchange, and what it means when it has passed.

use std::task::{Context, Poll};
use std::time::Duration;

use super::exchange::{Ending, Exchange};
use super::timer_wheel::Ticks;
use crate::proxy::retry::Failure;
use crate::settings::Timeouts;

/// How long an upstream that has responded may take nothing of the rest of a body.
const EARLY_RESPONSE: Ticks = Ticks::of(Duration::from_secs(1));

/// How long both sides may be quiet while the gateway waits for the upstream or for the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuietLimit {
    read: Ticks,
    /// For an upstream that does not take the request.
    write: Ticks,
    stream_idle: Option<Ticks>,
    is_stream: bool,
}

impl QuietLimit {
    pub(super) fn new(timeouts: &Timeouts) -> QuietLimit {
        let ticks = |timeout: Duration| Ticks::of(timeout);
        QuietLimit {
            read: ticks(timeouts.read),
            write: ticks(timeouts.write.min(timeouts.read)),
            stream_idle: timeouts.stream_idle.map(ticks),
            is_stream: false,
        }
    }

    /// The response is a stream that may be quiet for longer.
    pub(super) fn allow_stream(&mut self) {
        self.is_stream = true;
    }
}

impl Exchange<'_> {
    /// Watches a client from which nothing more is expected, and the time in which nothing moves.
    pub(super) fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ending, Failure>> {
        if self.upload.is_over() && !self.client.has_ended {
            match self.client.poll_watch(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                // It may still read.
                Poll::Ready(Ok(())) => self.ctx.arrival.control.set_half_closed(),
                Poll::Pending => {}
            }
        }
        if self.client.has_ended && self.quiet.is_stream {
            // The end of a stream cannot be reported to a client that has gone.
            return Poll::Ready(Ok(Ending::Closed));
        }
        let deadline = &self.client.deadline;
        if self.client.unsent_len() > 0 {
            // The client is the slow one, and has a deadline of its own.
            deadline.disarm();
            return Poll::Pending;
        }
        if deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(match self.download.is_done() {
                true => Ok(Ending::Complete),
                false => Err(self.timeout()),
            });
        }
        if !deadline.is_armed() {
            self.arm();
        }
        Poll::Pending
    }

    pub(super) fn arm(&self) {
        let quiet = &self.quiet;
        let limit = match quiet.is_stream {
            true => quiet.stream_idle,
            false if !self.upload.is_blocked() => Some(quiet.read),
            false if self.download.is_done() => Some(EARLY_RESPONSE),
            false => Some(quiet.write),
        };
        match limit {
            Some(limit) => self.client.deadline.arm(limit),
            None => self.client.deadline.disarm(),
        }
    }

    /// Which side has been quiet for too long. A client that waits for `100 Continue` is not late.
    fn timeout(&self) -> Failure {
        let awaits_continue = self.awaits_continue()
            && self.upload.body_length == 0
            && self.download.is_head_pending();
        if self.quiet.is_stream {
            Failure::StreamIdle
        } else if self.upload.expects_body() && !self.upload.is_blocked() && !awaits_continue {
            Failure::BodyStalled
        } else if self.upload.is_blocked() {
            Failure::WriteTimeout
        } else {
            Failure::ReadTimeout
        }
    }
}
