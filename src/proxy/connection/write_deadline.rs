//! Deadline for a client that takes nothing of what is written to it.

use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::proxy::pingora::get_tcp_info;

/// Number of checks of a blocked socket within the deadline.
const CHECKS_PER_TIMEOUT: u32 = 8;

/// Measures how long a socket has accepted nothing. A successful write costs a flag, a blocked one
/// a timer that fires a few times within the deadline.
#[derive(Debug)]
pub struct WriteDeadline {
    timeout: Duration,
    /// When the client last took data; `None`: no write is blocked.
    since: Option<Instant>,
    /// Bytes that the client's kernel had acknowledged at the last check.
    acknowledged: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl WriteDeadline {
    pub fn new(timeout: Duration) -> WriteDeadline {
        WriteDeadline {
            timeout,
            since: None,
            acknowledged: 0,
            timer: None,
        }
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Passes on the outcome of a write, or returns an error once the deadline has passed.
    pub fn observe<T>(
        &mut self,
        sent: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
        socket: RawFd,
    ) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.since = None;
            return sent;
        }
        match self.poll_passed(cx, || acknowledged(socket)) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Resolves when the client has taken nothing for the whole deadline. Bytes taken from the
    /// kernel's buffer count as progress: a socket becomes writable again only when a good part of
    /// the buffer is free.
    fn poll_passed(&mut self, cx: &mut Context<'_>, acknowledged: impl Fn() -> u64) -> Poll<()> {
        let step = self.timeout / CHECKS_PER_TIMEOUT;
        let since = self.since.get_or_insert_with(Instant::now);
        let timer = &mut self.timer;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(*since + step)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let so_far = acknowledged();
            if so_far != self.acknowledged {
                self.acknowledged = so_far;
                *since = now;
            } else if now.saturating_duration_since(*since) >= self.timeout {
                return Poll::Ready(());
            }
            timer.as_mut().reset(now + step);
        }
        Poll::Pending
    }
}

/// Bytes that the peer has acknowledged so far; 0 where the kernel does not report it.
fn acknowledged(socket: RawFd) -> u64 {
    get_tcp_info(socket).map_or(0, |info| info.tcpi_bytes_acked)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    async fn passes(deadline: &mut WriteDeadline, acknowledged: impl Fn() -> u64) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| deadline.poll_passed(cx, &acknowledged)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_client_times_out() {
        let mut deadline = WriteDeadline::new(TIMEOUT);
        let took = passes(&mut deadline, || 0).await;
        assert!((TIMEOUT..TIMEOUT * 4 / 3).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledged_bytes_count_as_progress() {
        let mut deadline = WriteDeadline::new(TIMEOUT);
        let start = Instant::now();
        // A byte per second, for ten minutes.
        let taken = || start.elapsed().as_secs().min(600);
        let took = passes(&mut deadline, taken).await;
        let after = took.saturating_sub(Duration::from_secs(600));
        assert!((TIMEOUT / 2..TIMEOUT * 4 / 3).contains(&after), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn completed_write_restarts_the_deadline() {
        let mut deadline = WriteDeadline::new(TIMEOUT);
        let first = passes(&mut deadline, || 0);
        let waited = tokio::time::timeout(TIMEOUT / 2, first).await;
        assert!(waited.is_err());
        let _ = poll_fn(|cx| deadline.observe(Poll::Ready(Ok(())), cx, -1)).await;
        let took = passes(&mut deadline, || 0).await;
        assert!((TIMEOUT..TIMEOUT * 4 / 3).contains(&took), "{took:?}");
    }
}
