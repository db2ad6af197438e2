//! How long the far side of a request may be silent.
//!
//! Pingora fixes its read timeout before a request is sent, but which timeout holds is known only
//! when the answer's head is there: `read`, or `stream_idle` for an upgrade and an event stream. So
//! the silence is measured here. A request that goes on costs a flag for each piece and no timer; one
//! look now and then at all of a worker's requests finds those that have been silent for too long.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;
use pingora::protocols::l4::ext::get_tcp_info;

use super::control::Control;

/// How often silences are looked at; by up to two of these a deadline is overrun.
pub const LOOK: Duration = Duration::from_millis(100);

/// No limit.
const NONE: u64 = u64::MAX;
/// No connection.
const UNKNOWN: RawFd = -1;

/// The silence of one request, from when its connection to the upstream is there.
#[derive(Debug)]
pub struct Silence {
    /// A piece has passed, either way, since the last look.
    heard: AtomicBool,
    /// The client does not take what is there for it: the upstream is not the silent one.
    blocked: AtomicBool,
    /// Pieces of an HTTP/2 response that the client has not taken.
    untaken: AtomicUsize,
    late: AtomicBool,
    /// Milliseconds.
    limit: AtomicU64,
    upstream: AtomicI32,
    /// The first look after the last piece.
    since: Mutex<Option<Instant>>,
}

impl Default for Silence {
    fn default() -> Silence {
        Silence {
            heard: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            untaken: AtomicUsize::new(0),
            late: AtomicBool::new(false),
            limit: AtomicU64::new(NONE),
            upstream: AtomicI32::new(UNKNOWN),
            since: Mutex::default(),
        }
    }
}

impl Silence {
    /// Begins to measure. `upstream` is the connection, if it carries nothing but this request.
    pub fn begin(&self, limit: Option<Duration>, upstream: Option<RawFd>) {
        self.upstream
            .store(upstream.unwrap_or(UNKNOWN), Ordering::Release);
        self.allow(limit);
    }

    /// Changes what is allowed; `None`: any silence.
    pub fn allow(&self, limit: Option<Duration>) {
        let limit = limit.map_or(NONE, |limit| {
            u64::try_from(limit.as_millis()).unwrap_or(NONE)
        });
        self.limit.store(limit, Ordering::Release);
        self.hear();
    }

    /// Takes note of a piece, either way.
    pub fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Takes note of whether the client takes what is written to it.
    pub fn set_blocked(&self, blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.blocked.store(blocked, Ordering::Relaxed);
            self.hear();
        }
    }

    /// Takes note of a piece on its way to an HTTP/2 client.
    fn hand_over(&self) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
        self.set_blocked(true);
    }

    /// Takes note that the client has taken a piece.
    fn take_over(&self) {
        if self.untaken.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.set_blocked(false);
        }
    }

    /// Whether the client does not take what is written to it.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Ends the measuring. It has to come before the connection may serve another request: its
    /// descriptor is somebody else's from then on.
    pub fn end(&self) {
        self.upstream.store(UNKNOWN, Ordering::Release);
        self.limit.store(NONE, Ordering::Release);
    }

    /// Whether the upstream does not take what is sent to it.
    pub fn is_upstream_behind(&self) -> bool {
        let upstream = self.upstream.load(Ordering::Acquire);
        upstream != UNKNOWN && get_tcp_info(upstream).is_ok_and(|it| it.tcpi_notsent_bytes > 0)
    }

    /// Ends the upstream's connection, so that whatever waits for it sees an end. `false`: it is not
    /// this request's own.
    pub fn end_upstream(&self) -> bool {
        let upstream = self.upstream.load(Ordering::Acquire);
        self.end();
        if upstream != UNKNOWN {
            // The upstream may have closed it this moment, which is as good.
            let _ = shutdown(upstream, Shutdown::Both);
        }
        upstream != UNKNOWN
    }

    /// Whether the far side was silent for longer than allowed.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// Looks at the silence, on the thread that serves the request. When it has lasted too long, ends
    /// the upstream's connection, so that whoever waits for it sees an end. `true`: it is not this
    /// request's own, and the request has to be ended otherwise.
    pub fn look(&self, now: Instant) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        if limit == NONE {
            return false;
        }
        let mut since = self.since.lock();
        if self.heard.swap(false, Ordering::Relaxed) || self.blocked.load(Ordering::Relaxed) {
            *since = Some(now);
            return false;
        }
        let silent = now.saturating_duration_since(*since.get_or_insert(now));
        if silent < Duration::from_millis(limit) {
            return false;
        }
        self.late.store(true, Ordering::Release);
        !self.end_upstream()
    }
}

/// A piece of a response on its way to an HTTP/2 client. Pingora and h2 keep it until it has been
/// written to the socket; until then it is not the upstream that is silent.
pub struct Untaken {
    piece: Bytes,
    control: Arc<Control>,
}

impl Untaken {
    /// Wraps a piece.
    pub fn wrap(piece: Bytes, control: &Arc<Control>) -> Bytes {
        control.silence.hand_over();
        Bytes::from_owner(Untaken {
            piece,
            control: Arc::clone(control),
        })
    }
}

impl AsRef<[u8]> for Untaken {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.control.silence.take_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Option<Duration> = Some(Duration::from_secs(1));

    /// Looks every 100 ms from 0 to 3 s; tells at which it was late. `piece` says when one passes.
    fn late_at(silence: &Silence, piece: impl Fn(u64) -> bool) -> Option<u64> {
        let start = Instant::now();
        (0..=30).map(|tenth| tenth * 100).find(|ms| {
            if piece(*ms) {
                silence.hear();
            }
            silence.look(start + Duration::from_millis(*ms));
            silence.is_late()
        })
    }

    #[test]
    fn silence_counts_from_the_last_piece() {
        let silence = Silence::default();
        silence.begin(READ, None);
        assert_eq!(late_at(&silence, |_| false), Some(1000));
        let silence = Silence::default();
        silence.begin(READ, None);
        assert_eq!(late_at(&silence, |ms| ms <= 1500), Some(2500));
    }

    #[test]
    fn what_may_be_silent_or_waits_for_the_client_is_never_late() {
        let silence = Silence::default();
        assert_eq!(late_at(&silence, |_| false), None, "not begun");
        silence.begin(READ, None);
        silence.allow(None);
        assert_eq!(late_at(&silence, |_| false), None, "a stream");
        let silence = Silence::default();
        silence.begin(READ, None);
        silence.set_blocked(true);
        assert_eq!(late_at(&silence, |_| false), None, "blocked");
        silence.set_blocked(false);
        silence.end();
        assert_eq!(late_at(&silence, |_| false), None, "over");
    }

    #[test]
    fn the_upstream_is_not_silent_while_a_piece_waits_for_the_client() {
        let control = Arc::<Control>::default();
        control.silence.begin(READ, None);
        let piece = Untaken::wrap(Bytes::from_static(b"piece"), &control);
        let mut rest = Untaken::wrap(Bytes::from_static(b"rest"), &control);
        drop(piece);
        // h2 sends a piece in parts.
        drop(rest.split_to(2));
        assert_eq!(late_at(&control.silence, |_| false), None);
        drop(rest);
        assert_eq!(late_at(&control.silence, |_| false), Some(1000));
    }
}
