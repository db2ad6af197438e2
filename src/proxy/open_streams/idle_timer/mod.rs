//! How long the far side of a request may be silent.
//!
//! Pingora fixes its read timeout before a request is sent, but which timeout holds is known only
//! when the answer's head is there: `read`, or `stream_idle` for an upgrade and an event stream. So
//! the silence is measured here. A request that goes on costs a flag for each piece and no timer; one
//! look now and then at all of a worker's requests finds those that have been silent for too long.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use parking_lot::Mutex;

use crate::proxy::pingora::get_tcp_info;
use crate::rejection::Reason;

mod untaken;

pub use untaken::PendingChunk;

/// How often silences are looked at; by up to two of these a deadline is overrun.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long an upstream that has responded may take nothing of the rest of a request body before it is
/// sent no more of it. An error response ends the upload at once (RFC 9112, section 9.3).
const EARLY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// No limit.
const NONE: u64 = u64::MAX;
/// No connection.
const UNKNOWN: RawFd = -1;

/// The silence of one request, from when its connection to the upstream is there.
#[derive(Debug)]
pub struct IdleTimer {
    /// A piece has passed, either way, since the last look.
    was_active: AtomicBool,
    /// The client does not take what is there for it: the upstream is not the silent one.
    blocked: AtomicBool,
    /// Pieces of an HTTP/2 response that the client has not taken.
    pending_chunks: AtomicUsize,
    expired: AtomicBool,
    /// Milliseconds.
    limit: AtomicU64,
    /// The limit is `stream_idle`, not `read`.
    is_stream_idle: AtomicBool,
    upstream: AtomicI32,
    /// An [`Upload`].
    upload: AtomicU8,
    check_state: Mutex<CheckState>,
}

/// How far a request body is. While Pingora waits for an HTTP/1.1 upstream to take more of it, it reads
/// nothing of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Upload {
    None = 0,
    /// No response has been read.
    Sending = 1,
    /// The head of a successful response has been read.
    AfterResponse = 2,
    /// The head of another response has been read.
    AfterError = 3,
    Over = 4,
}

/// What the looks have found.
#[derive(Debug, Default)]
struct CheckState {
    /// The first look after the last piece.
    since: Option<Instant>,
    /// The first look that found a response waiting to be read.
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
    /// Begins to measure. `upstream` is the connection, if it carries nothing but this request.
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

    /// The timeout that applies or has passed, as a reason for the log.
    pub fn timeout_reason(&self) -> Reason {
        if self.is_stream_idle.load(Ordering::Relaxed) {
            Reason::StreamIdle
        } else {
            Reason::ReadTimeout
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

    /// Notes that a part of the request body is passed on; `end` is the last one.
    pub fn record_upload(&self, end: bool) {
        match self.upload() {
            Upload::None => self.set_upload(Upload::Sending),
            Upload::AfterResponse | Upload::AfterError if end => self.set_upload(Upload::Over),
            Upload::Sending | Upload::AfterResponse | Upload::AfterError | Upload::Over => {}
        }
    }

    /// Notes that the head of a final response has been read, while the request body goes on or not.
    pub fn record_response(&self, success: bool, uploading: bool) {
        self.set_upload(match (uploading, success) {
            (true, true) => Upload::AfterResponse,
            (true, false) => Upload::AfterError,
            (false, _) => Upload::Over,
        });
    }

    /// Whether the upstream has rejected the request before it was sent whole.
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

    /// Takes note of a piece, either way.
    pub fn record_activity(&self) {
        self.was_active.store(true, Ordering::Relaxed);
    }

    /// Takes note of whether the client takes what is written to it.
    pub fn set_blocked(&self, blocked: bool) {
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.blocked.store(blocked, Ordering::Relaxed);
            self.record_activity();
        }
    }

    /// Takes note of a piece on its way to an HTTP/2 client.
    fn add_pending_chunk(&self) {
        self.pending_chunks.fetch_add(1, Ordering::Relaxed);
        self.set_blocked(true);
    }

    /// Takes note that the client has taken a piece.
    fn remove_pending_chunk(&self) {
        if self.pending_chunks.fetch_sub(1, Ordering::Relaxed) == 1 {
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
    pub fn has_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    /// Looks at the silence, on the thread that serves the request. When it has lasted too long, ends
    /// the upstream's connection, so that whoever waits for it sees an end. `true`: it is not this
    /// request's own, and the request has to be ended otherwise.
    pub fn check(&self, now: Instant) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        if limit == NONE {
            return false;
        }
        let mut looks = self.check_state.lock();
        if self.was_active.swap(false, Ordering::Relaxed) || self.blocked.load(Ordering::Relaxed) {
            *looks = CheckState {
                since: Some(now),
                early: None,
            };
            return false;
        }
        self.end_refused_upload(now, &mut looks);
        let silent = now.saturating_duration_since(*looks.since.get_or_insert(now));
        if silent < Duration::from_millis(limit) {
            return false;
        }
        self.expired.store(true, Ordering::Release);
        !self.end_upstream()
    }
}

impl IdleTimer {
    /// Sends no more of a request body when the upstream has responded and takes nothing more: Pingora
    /// then reads the response, and does not use the connection again.
    fn end_refused_upload(&self, now: Instant, looks: &mut CheckState) {
        let upstream = self.upstream.load(Ordering::Acquire);
        let upload = self.upload();
        if upstream == UNKNOWN || matches!(upload, Upload::None | Upload::Over) {
            return;
        }
        let Some(success) = peek_response(upstream, upload) else {
            looks.early = None;
            return;
        };
        // What came this moment will be read: it has to be there at two looks.
        let Some(early) = looks.early else {
            looks.early = Some(now);
            return;
        };
        if !success || now.saturating_duration_since(early) >= EARLY_RESPONSE_TIMEOUT {
            self.set_upload(Upload::Over);
            // The upstream may have closed it this moment, which is as good.
            let _ = shutdown(upstream, Shutdown::Write);
        }
    }
}

/// Whether a part of a response waits in the socket, and whether it is that of a successful one. The
/// bytes stay there; those of TLS do not show whether they are a response.
fn peek_response(socket: RawFd, upload: Upload) -> Option<bool> {
    let mut start = [0; b"HTTP/1.1 4".len()];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let count = recv(socket, &mut start, flags).unwrap_or(0);
    success_of(upload, start.get(..count).unwrap_or_default())
}

fn success_of(upload: Upload, start: &[u8]) -> Option<bool> {
    match upload {
        Upload::AfterResponse | Upload::AfterError if start.is_empty() => None,
        Upload::AfterResponse => Some(true),
        Upload::AfterError => Some(false),
        Upload::None | Upload::Sending | Upload::Over => {
            match start.strip_prefix(b"HTTP/1.")?.get(2)? {
                b'2' => Some(true),
                b'3'..=b'5' => Some(false),
                _ => None,
            }
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
    fn pending_response_is_recognized() {
        for (upload, start, expected) in [
            (Upload::Sending, &b"HTTP/1.1 413"[..], Some(false)),
            (Upload::Sending, b"HTTP/1.1 200", Some(true)),
            (Upload::Sending, b"HTTP/1.1 100", None),
            (Upload::Sending, b"\x17\x03\x03\x00\x20abcde", None),
            (Upload::AfterError, b"body", Some(false)),
            (Upload::AfterResponse, b"body", Some(true)),
            (Upload::AfterError, b"", None),
        ] {
            assert_eq!(success_of(upload, start), expected, "{upload:?} {start:?}");
        }
    }

    #[test]
    fn upload_finishes_after_its_end_and_a_response() {
        let silence = IdleTimer::default();
        silence.record_response(false, true);
        assert_eq!(silence.upload(), Upload::AfterError);
        silence.record_upload(false);
        assert!(silence.is_upload_rejected());
        silence.record_upload(true);
        assert_eq!(silence.upload(), Upload::Over);
        silence.begin(READ, None);
        silence.record_upload(true);
        assert_eq!(silence.upload(), Upload::Sending, "it may not be sent yet");
        silence.record_response(true, false);
        assert_eq!(silence.upload(), Upload::Over);
    }

    const READ: Option<Duration> = Some(Duration::from_secs(1));

    /// Looks every 100 ms from 0 to 3 s; tells at which it was late. `piece` says when one passes.
    fn expires_at(silence: &IdleTimer, piece: impl Fn(u64) -> bool) -> Option<u64> {
        let start = Instant::now();
        (0..=30).map(|tenth| tenth * 100).find(|ms| {
            if piece(*ms) {
                silence.record_activity();
            }
            silence.check(start + Duration::from_millis(*ms));
            silence.has_expired()
        })
    }

    #[test]
    fn idle_time_counts_from_the_last_chunk() {
        let silence = IdleTimer::default();
        silence.begin(READ, None);
        assert_eq!(expires_at(&silence, |_| false), Some(1000));
        let silence = IdleTimer::default();
        silence.begin(READ, None);
        assert_eq!(expires_at(&silence, |ms| ms <= 1500), Some(2500));
    }

    #[test]
    fn unlimited_or_client_blocked_timer_never_expires() {
        let silence = IdleTimer::default();
        assert_eq!(expires_at(&silence, |_| false), None, "not begun");
        silence.begin(READ, None);
        silence.set_limit(None);
        assert_eq!(expires_at(&silence, |_| false), None, "a stream");
        let silence = IdleTimer::default();
        silence.begin(READ, None);
        silence.set_blocked(true);
        assert_eq!(expires_at(&silence, |_| false), None, "blocked");
        silence.set_blocked(false);
        silence.end();
        assert_eq!(expires_at(&silence, |_| false), None, "over");
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
