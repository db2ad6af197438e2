//! The handle by which a request is closed from outside, idle or not.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

mod state;

use state::{Stage, State};

use super::RegistryEntry;
use super::idle_timer::IdleTimer;
use crate::proxy::connection::body_rate::BodyRate;

/// Why an open stream is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Its session or its token ended: WebSocket close code 1008, policy violation.
    Ended,
    /// The gateway is going away: WebSocket close code 1001.
    Drain,
}

impl CloseReason {
    /// The whole Close frame (RFC 6455, section 5.5.1), unmasked as a server's frames are.
    pub fn close_frame(self) -> [u8; 4] {
        let code: u16 = match self {
            CloseReason::Ended => 1008,
            CloseReason::Drain => 1001,
        };
        let [high, low] = code.to_be_bytes();
        [0x88, 2, high, low]
    }
}

/// What an engine that polls for it has to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// End it at once.
    Close(CloseReason),
    /// Stop waiting, and report why if a response is still possible.
    GiveUp,
}

/// State shared by a request, its connection and the registry of open streams. An HTTP/1 connection has
/// one for all its requests, of which it carries one at a time.
///
/// A request of HTTP/1.x polls for its end. A gRPC call is closed gracefully: its trailers report the
/// end. Any other request of HTTP/2 is closed hard: the future that serves it is dropped.
///
/// A stream that is being closed is in one stage at a time. Observations about it are independent
/// of the stage, and each is a flag with one writer.
#[derive(Debug, Default)]
pub struct StreamControl {
    /// A [`State`].
    state: AtomicU8,
    /// Woken when the stage becomes closing.
    closing: AtomicWaker,
    /// Woken when the stage becomes another than serving.
    server: AtomicWaker,
    /// The request that the registry closes.
    pub(super) entry: Mutex<RegistryEntry>,

    /// The upstream's idle time.
    pub idle_timer: IdleTimer,
    /// The rate at which the client sends its body.
    pub body_rate: BodyRate,
    /// The engine polls for interrupts: a response is possible after one.
    polled: AtomicBool,
    /// The connection speaks WebSocket.
    upgraded: AtomicBool,
    /// The client has closed its side.
    half_closed: AtomicBool,
    /// The client has sent data since this was last taken.
    client_sent: AtomicBool,
    response_finished: AtomicBool,
    stalled: AtomicBool,
}

impl StreamControl {
    /// Prepares the control for the next request of its connection. The registry closes it for none
    /// in between.
    pub fn reset(&self) {
        self.state.store(0, Ordering::Release);
        self.idle_timer.reset();
        self.body_rate.reset();
        let observations = [
            &self.polled,
            &self.upgraded,
            &self.half_closed,
            &self.client_sent,
            &self.response_finished,
            &self.stalled,
        ];
        for observation in observations {
            observation.store(false, Ordering::Relaxed);
        }
    }

    /// Closes the stream. `false`: it was closed before, and the first reason stays.
    pub fn close(&self, why: CloseReason) -> bool {
        self.transition(|state| state.close(why))
    }

    /// Resolves when the stream is closed. While a task waits for it, the request is not dropped.
    pub async fn close_requested(&self) {
        let mut wait = WaitGuard {
            control: self,
            done: false,
        };
        self.state.fetch_or(State::AWAITED, Ordering::AcqRel);
        poll_fn(|cx| {
            self.closing.register(cx.waker());
            match self.close_reason() {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
        .await;
        wait.done = true;
    }

    /// Why the stream was closed, if it was.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.state().close_reason()
    }

    /// Resolves when the request is to be dropped.
    pub async fn drop_requested(&self) {
        poll_fn(|cx| {
            self.server.register(cx.waker());
            match self.state().stage {
                Stage::Dropping(_) => Poll::Ready(()),
                Stage::Serving | Stage::Failing | Stage::Closing(_) => Poll::Pending,
            }
        })
        .await;
    }

    /// Returns the pending interrupt; the task is woken by a later one.
    pub fn poll_interrupt(&self, cx: &Context<'_>) -> Option<Interrupt> {
        self.server.register(cx.waker());
        match self.state().stage {
            Stage::Serving => None,
            Stage::Closing(why) | Stage::Dropping(why) => Some(Interrupt::Close(why)),
            Stage::Failing => Some(Interrupt::GiveUp),
        }
    }

    /// Gives up the upstream. An engine that polls can still respond; an HTTP/2 stream is reset.
    pub fn give_up(&self) {
        if self.polled.load(Ordering::Acquire) {
            self.transition(State::give_up);
        } else {
            self.close(CloseReason::Ended);
        }
    }

    /// Gives up the rest of the request body, and keeps a response possible where the protocol
    /// allows it.
    pub fn give_up_body(&self) {
        if self.polled.load(Ordering::Acquire) || !self.idle_timer.end_upstream() {
            self.give_up();
        }
    }

    fn state(&self) -> State {
        State::from_word(self.state.load(Ordering::Acquire))
    }

    /// Enters the next state, if there is one, and wakes the task that acts on it.
    fn transition(&self, next: impl Fn(State) -> Option<State>) -> bool {
        let mut entered = None;
        let changed = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                entered = next(State::from_word(word));
                entered.map(State::word)
            });
        match entered.map(|state| state.stage) {
            Some(Stage::Dropping(_)) => self.server.wake(),
            Some(Stage::Failing) => self.server.wake(),
            Some(Stage::Closing(_)) => self.closing.wake(),
            Some(Stage::Serving) | None => {}
        }
        changed.is_ok()
    }
}

/// Observations.
impl StreamControl {
    /// Records that the engine polls for interrupts.
    pub fn set_polled(&self) {
        self.polled.store(true, Ordering::Release);
    }

    /// Records that the connection now speaks WebSocket.
    pub fn set_upgraded(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    pub fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// Records that the response is about to be written completely: only sending it is left.
    pub fn set_response_finished(&self) {
        self.response_finished.store(true, Ordering::Release);
    }

    pub fn is_response_finished(&self) -> bool {
        self.response_finished.load(Ordering::Acquire)
    }

    /// Records that the client took nothing of the response for the write timeout.
    pub fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Records that the client has closed its side: it may still read, or be gone.
    pub fn set_half_closed(&self) {
        self.half_closed.store(true, Ordering::Release);
    }

    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Acquire)
    }

    /// Records data from the client.
    pub fn note_client_data(&self) {
        self.client_sent.store(true, Ordering::Relaxed);
    }

    /// Whether the client has sent data since the last call.
    pub fn take_client_data(&self) -> bool {
        self.client_sent.swap(false, Ordering::Relaxed)
    }
}

/// The time for which a task waits for [`StreamControl::close_requested`].
struct WaitGuard<'a> {
    control: &'a StreamControl,
    done: bool,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        let control = self.control;
        control.state.fetch_and(!State::AWAITED, Ordering::AcqRel);
        // From now on a close is a hard one; an earlier one found the waiting task.
        if !self.done {
            control.transition(State::abandon_wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use futures_util::{FutureExt, poll};

    use super::*;

    fn is_dropping(control: &StreamControl) -> bool {
        control.drop_requested().now_or_never().is_some()
    }

    #[test]
    fn first_reason_to_close_stays() {
        let control = StreamControl::default();
        assert!(control.close(CloseReason::Ended) && is_dropping(&control));
        assert!(!control.close(CloseReason::Drain));
        assert_eq!(control.close_reason(), Some(CloseReason::Ended));
    }

    #[tokio::test]
    async fn close_ends_a_wait_and_an_abandoned_wait_drops() {
        for abandoned in [false, true] {
            let control = StreamControl::default();
            {
                let mut wait = pin!(control.close_requested());
                assert!(poll!(&mut wait).is_pending());
                assert!(control.close(CloseReason::Ended) && !is_dropping(&control));
                assert!(abandoned || poll!(&mut wait).is_ready());
            }
            assert_eq!(is_dropping(&control), abandoned);
        }
        let control = StreamControl::default();
        assert!(control.close_requested().now_or_never().is_none());
        assert!(control.close(CloseReason::Ended) && is_dropping(&control));
    }

    #[test]
    fn polling_engine_sees_every_interrupt() {
        let cx = Context::from_waker(Waker::noop());
        let control = StreamControl::default();
        control.set_polled();
        assert_eq!(control.poll_interrupt(&cx), None);
        control.give_up();
        assert_eq!(control.poll_interrupt(&cx), Some(Interrupt::GiveUp));
        assert!(control.close(CloseReason::Drain));
        let close = Some(Interrupt::Close(CloseReason::Drain));
        assert_eq!(control.poll_interrupt(&cx), close);
    }

    #[test]
    fn given_up_request_that_nothing_polls_is_closed() {
        let control = StreamControl::default();
        control.give_up();
        assert_eq!(control.close_reason(), Some(CloseReason::Ended));
    }
}
