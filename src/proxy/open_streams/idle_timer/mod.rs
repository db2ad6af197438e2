//! Idle timeouts of requests at an upstream.
//!
//! Pingora fixes its read timeout before a request is sent, but which timeout applies is known only
//! from the head of the response: `read`, or `stream_idle` for an upgrade and an event stream. So
//! idle time is measured here. An active request costs a flag per piece and no timer; a periodic
//! check of all of a worker's requests finds those that have been idle for too long.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;

use crate::proxy::pingora::get_tcp_info;
use crate::proxy::retry::Failure;

mod untaken;
mod upload;

pub use untaken::PendingChunk;
use upload::{Upload, peek_response};

/// Interval between checks; a deadline is overrun by up to two of them.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long an upstream that has responded may accept nothing of the rest of a request body before
/// the upload is ended. An error response ends the upload at once (RFC 9112, section 9.3).
const EARLY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// No limit.
const NONE: u64 = u64::MAX;
/// No connection.
const UNKNOWN: RawFd = -1;

/// The idle time of one request, from the moment when it has a connection to the upstream.
#[derive(Debug)]
pub struct IdleTimer {
    /// A piece has passed in either direction since the last check.
    was_active: AtomicBool,
    /// The client does not take what is ready for it: the upstream is not to blame.
    blocked: AtomicBool,
    /// Pieces of an HTTP/2 response that the client has not taken.
    pending_chunks: AtomicUsize,
    expired: AtomicBool,
    /// In milliseconds.
    limit: AtomicU64,
    /// The limit is `stream_idle`, not `read`.
    is_stream_idle: AtomicBool,
    upstream: AtomicI32,
    /// An [`Upload`].
    upload: AtomicU8,
    check_state: Mutex<CheckState>,
}

/// Observations of the checks.
#[derive(Debug, Default)]
struct CheckState {
    /// The first check after the last piece.
    since: Option<Instant>,
    /// The first check that found a response waiting to be read.
    early: Option<Instant>,
}

impl Default for IdleTimer {
    fn default() -> IdleTimer {
        IdleTimer {
            was_active: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            pending_chunks: AtomicUsize::new(0),
            expired: AtomicBool::new(false),
            limit: AtomicU64::new(NONE),
            is_stream_idle: AtomicBool::new(false),
            upstream: AtomicI32::new(UNKNOWN),
            upload: AtomicU8::new(Upload::None as u8),
            check_state: Mutex::default(),
        }
    }
}

impl IdleTimer {
    /// Prepares the timer for another request.
    pub fn reset(&self) {
        self.end();
        self.blocked.store(false, Ordering::Relaxed);
        self.pending_chunks.store(0, Ordering::Relaxed);
        self.expired.store(false, Ordering::Relaxed);
        self.is_stream_idle.store(false, Ordering::Relaxed);
        self.set_upload(Upload::None);
    }

    /// Starts measuring. `upstream` is the connection, if it carries only this request.
    pub fn begin(&self, limit: Option<Duration>, upstream: Option<RawFd>) {
        self.upstream
            .store(upstream.unwrap_or(UNKNOWN), Ordering::Release);
        self.set_upload(Upload::None);
        self.set_limit(limit);
    }

    /// Applies the timeout `read`; `None`: no limit.
    pub fn set_limit(&self, limit: Option<Duration>) {
        self.limit_to(limit, false);
    }

    /// Applies the timeout `stream_idle`; `None`: no limit.
    pub fn allow_idle(&self, limit: Option<Duration>) {
        self.limit_to(limit, true);
    }

    /// The failure that the timeout which applies, or has expired, stands for.
    pub(in crate::proxy) fn failure(&self) -> Failure {
        if self.is_stream_idle.load(Ordering::Relaxed) {
            Failure::StreamIdle
        } else {
            Failure::ReadTimeout
        }
    }

    fn limit_to(&self, limit: Option<Duration>, is_stream_idle: bool) {
        self.is_stream_idle.store(is_stream_idle, Ordering::Relaxed);
        let limit = limit.map_or(NONE, |limit| {
            u64::try_from(limit.as_millis()).unwrap_or(NONE)
        });
        self.limit.store(limit, Ordering::Release);
        self.record_activity();
    }

    /// Records that a part of the request body is passed on; `end` marks the last one.
    pub fn record_upload(&self, end: bool) {
        match self.upload() {
            Upload::None => self.set_upload(Upload::Sending),
            Upload::AfterResponse | Upload::AfterError if end => self.set_upload(Upload::Over),
            Upload::Sending | Upload::AfterResponse | Upload::AfterError | Upload::Over => {}
        }
    }

    /// Records that the head of a final response has been read; `uploading`: the request body is
    /// incomplete.
    pub fn record_response(&self, success: bool, uploading: bool) {
        self.set_upload(match (uploading, success) {
            (true, true) => Upload::AfterResponse,
            (true, false) => Upload::AfterError,
            (false, _) => Upload::Over,
        });
    }

    /// Whether the upstream rejected the request before all of it was sent.
    pub fn is_upload_rejected(&self) -> bool {
        self.upload() == Upload::AfterError
    }

    fn upload(&self) -> Upload {
        match self.upload.load(Ordering::Relaxed) {
            0 => Upload::None,
            1 => Upload::Sending,
            2 => Upload::AfterResponse,
            3 => Upload::AfterError,
            _ => Upload::Over,
        }
    }

    fn set_upload(&self, upload: Upload) {
        self.upload.store(upload as u8, Ordering::Relaxed);
    }

    /// Records a piece in either direction.
    pub fn record_activity(&self) {
        self.was_active.store(true, Ordering::Relaxed);
    }

    /// Records whether the client takes what is written to it.
    pub fn set_blocked(&self, blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.blocked.store(blocked, Ordering::Relaxed);
            self.record_activity();
        }
    }

    /// Counts a piece on its way to an HTTP/2 client.
    fn add_pending_chunk(&self) {
        self.pending_chunks.fetch_add(1, Ordering::Relaxed);
        self.set_blocked(true);
    }

    /// Uncounts a piece that the client has taken.
    fn remove_pending_chunk(&self) {
        if self.pending_chunks.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.set_blocked(false);
        }
    }

    /// Whether the client does not take what is written to it.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Stops measuring. This must happen before the connection can serve another request, which
    /// then owns the descriptor.
    pub fn end(&self) {
        self.upstream.store(UNKNOWN, Ordering::Release);
        self.limit.store(NONE, Ordering::Release);
    }

    /// Whether the upstream does not accept what is sent to it.
    pub fn is_upstream_behind(&self) -> bool {
        let upstream = self.upstream.load(Ordering::Acquire);
        upstream != UNKNOWN && get_tcp_info(upstream).is_ok_and(|it| it.tcpi_notsent_bytes > 0)
    }

    /// Shuts the upstream's connection down, so that a pending read or write ends. `false`: the
    /// connection is shared with other requests.
    pub fn end_upstream(&self) -> bool {
        let upstream = self.upstream.load(Ordering::Acquire);
        self.end();
        if upstream != UNKNOWN {
            // The upstream may just have closed it, which has the same effect.
            let _ = shutdown(upstream, Shutdown::Both);
        }
        upstream != UNKNOWN
    }

    /// Whether the upstream was idle for longer than allowed.
    pub fn has_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    /// Checks the idle time, on the thread that serves the request. On expiry, shuts the upstream's
    /// connection down, so that a pending read or write ends. `true`: the connection is shared, and
    /// the request has to be ended in another way.
    pub fn check(&self, now: Instant) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        if limit == NONE {
            return false;
        }
        let mut checks = self.check_state.lock();
        if self.was_active.swap(false, Ordering::Relaxed) || self.blocked.load(Ordering::Relaxed) {
            *checks = CheckState {
                since: Some(now),
                early: None,
            };
            return false;
        }
        self.end_refused_upload(now, &mut checks);
        let silent = now.saturating_duration_since(*checks.since.get_or_insert(now));
        if silent < Duration::from_millis(limit) {
            return false;
        }
        self.expired.store(true, Ordering::Release);
        !self.end_upstream()
    }
}

impl IdleTimer {
    /// Ends the upload of a request body when the upstream has responded and accepts no more:
    /// Pingora then reads the response, and does not reuse the connection.
    fn end_refused_upload(&self, now: Instant, checks: &mut CheckState) {
        let upstream = self.upstream.load(Ordering::Acquire);
        let upload = self.upload();
        if upstream == UNKNOWN || matches!(upload, Upload::None | Upload::Over) {
            return;
        }
        let Some(success) = peek_response(upstream, upload) else {
            checks.early = None;
            return;
        };
        // A response that has just arrived will be read: it has to be seen by two checks.
        let Some(early) = checks.early else {
            checks.early = Some(now);
            return;
        };
        if !success || now.saturating_duration_since(early) >= EARLY_RESPONSE_TIMEOUT {
            self.set_upload(Upload::Over);
            // The upstream may just have closed it, which has the same effect.
            let _ = shutdown(upstream, Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::stream_control::StreamControl;
    use super::*;

    #[test]
    fn upload_finishes_after_its_end_and_a_response() {
        let timer = IdleTimer::default();
        timer.record_response(false, true);
        assert_eq!(timer.upload(), Upload::AfterError);
        timer.record_upload(false);
        assert!(timer.is_upload_rejected());
        timer.record_upload(true);
        assert_eq!(timer.upload(), Upload::Over);
        timer.begin(READ, None);
        timer.record_upload(true);
        assert_eq!(timer.upload(), Upload::Sending, "it may not be sent yet");
        timer.record_response(true, false);
        assert_eq!(timer.upload(), Upload::Over);
    }

    const READ: Option<Duration> = Some(Duration::from_secs(1));

    /// Checks every 100 ms from 0 to 3 s, and returns the time at which the timer expired. `piece`:
    /// whether a piece passes at that time.
    fn expires_at(timer: &IdleTimer, piece: impl Fn(u64) -> bool) -> Option<u64> {
        let start = Instant::now();
        (0..=30).map(|tenth| tenth * 100).find(|ms| {
            if piece(*ms) {
                timer.record_activity();
            }
            timer.check(start + Duration::from_millis(*ms));
            timer.has_expired()
        })
    }

    #[test]
    fn idle_time_counts_from_the_last_chunk() {
        let timer = IdleTimer::default();
        timer.begin(READ, None);
        assert_eq!(expires_at(&timer, |_| false), Some(1000));
        let timer = IdleTimer::default();
        timer.begin(READ, None);
        assert_eq!(expires_at(&timer, |ms| ms <= 1500), Some(2500));
    }

    #[test]
    fn unlimited_or_client_blocked_timer_never_expires() {
        let timer = IdleTimer::default();
        assert_eq!(expires_at(&timer, |_| false), None, "not begun");
        timer.begin(READ, None);
        timer.set_limit(None);
        assert_eq!(expires_at(&timer, |_| false), None, "a stream");
        let timer = IdleTimer::default();
        timer.begin(READ, None);
        timer.set_blocked(true);
        assert_eq!(expires_at(&timer, |_| false), None, "blocked");
        timer.set_blocked(false);
        timer.end();
        assert_eq!(expires_at(&timer, |_| false), None, "over");
    }

    #[test]
    fn timer_pauses_while_a_chunk_waits_for_the_client() {
        let control = Arc::<StreamControl>::default();
        control.idle_timer.begin(READ, None);
        let piece = PendingChunk::wrap(Bytes::from_static(b"piece"), &control);
        let mut rest = PendingChunk::wrap(Bytes::from_static(b"rest"), &control);
        drop(piece);
        // h2 sends a piece in parts.
        drop(rest.split_to(2));
        assert_eq!(expires_at(&control.idle_timer, |_| false), None);
        drop(rest);
        assert_eq!(expires_at(&control.idle_timer, |_| false), Some(1000));
    }
}
