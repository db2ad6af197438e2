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
use pingora::protocols::l4::ext::get_tcp_info;

mod untaken;

pub use untaken::Untaken;

/// How often silences are looked at; by up to two of these a deadline is overrun.
pub const LOOK: Duration = Duration::from_millis(100);

/// How long an upstream that has responded may take nothing of the rest of a request body before it is
/// sent no more of it. An error response ends the upload at once (RFC 9112, section 9.3).
const EARLY_PATIENCE: Duration = Duration::from_secs(1);

/// The reason in the log for an upstream that has exceeded the timeout `read`.
pub const READ_TIMEOUT: &str = "the upstream sent nothing for timeouts.read";

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
    /// The limit is `stream_idle`, not `read`.
    is_stream_idle: AtomicBool,
    upstream: AtomicI32,
    /// An [`Upload`].
    upload: AtomicU8,
    looks: Mutex<Looks>,
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
struct Looks {
    /// The first look after the last piece.
    since: Option<Instant>,
    /// The first look that found a response waiting to be read.
    early: Option<Instant>,
}

impl Default for Silence {
    fn default() -> Silence {
        Silence {
            heard: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            untaken: AtomicUsize::new(0),
            late: AtomicBool::new(false),
            limit: AtomicU64::new(NONE),
            is_stream_idle: AtomicBool::new(false),
            upstream: AtomicI32::new(UNKNOWN),
            upload: AtomicU8::new(Upload::None as u8),
            looks: Mutex::default(),
        }
    }
}

impl Silence {
    /// Begins to measure. `upstream` is the connection, if it carries nothing but this request.
    pub fn begin(&self, limit: Option<Duration>, upstream: Option<RawFd>) {
        self.upstream
            .store(upstream.unwrap_or(UNKNOWN), Ordering::Release);
        self.set_upload(Upload::None);
        self.allow(limit);
    }

    /// Applies the timeout `read`; `None`: no limit.
    pub fn allow(&self, limit: Option<Duration>) {
        self.limit_to(limit, false);
    }

    /// Applies the timeout `stream_idle`; `None`: no limit.
    pub fn allow_idle(&self, limit: Option<Duration>) {
        self.limit_to(limit, true);
    }

    /// The timeout that applies or has passed, as a reason for the log.
    pub fn timeout_reason(&self) -> &'static str {
        if self.is_stream_idle.load(Ordering::Relaxed) {
            "no data passed for timeouts.stream_idle"
        } else {
            READ_TIMEOUT
        }
    }

    fn limit_to(&self, limit: Option<Duration>, is_stream_idle: bool) {
        self.is_stream_idle.store(is_stream_idle, Ordering::Relaxed);
        let limit = limit.map_or(NONE, |limit| {
            u64::try_from(limit.as_millis()).unwrap_or(NONE)
        });
        self.limit.store(limit, Ordering::Release);
        self.hear();
    }

    /// Notes that a part of the request body is passed on; `end` is the last one.
    pub fn pass_upload(&self, end: bool) {
        match self.upload() {
            Upload::None => self.set_upload(Upload::Sending),
            Upload::AfterResponse | Upload::AfterError if end => self.set_upload(Upload::Over),
            Upload::Sending | Upload::AfterResponse | Upload::AfterError | Upload::Over => {}
        }
    }

    /// Notes that the head of a final response has been read, while the request body goes on or not.
    pub fn pass_response(&self, success: bool, uploading: bool) {
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
        let mut looks = self.looks.lock();
        if self.heard.swap(false, Ordering::Relaxed) || self.blocked.load(Ordering::Relaxed) {
            *looks = Looks {
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
        self.late.store(true, Ordering::Release);
        !self.end_upstream()
    }
}

impl Silence {
    /// Sends no more of a request body when the upstream has responded and takes nothing more: Pingora
    /// then reads the response, and does not use the connection again.
    fn end_refused_upload(&self, now: Instant, looks: &mut Looks) {
        let upstream = self.upstream.load(Ordering::Acquire);
        let upload = self.upload();
        if upstream == UNKNOWN || matches!(upload, Upload::None | Upload::Over) {
            return;
        }
        let Some(success) = waiting(upstream, upload) else {
            looks.early = None;
            return;
        };
        // What came this moment will be read: it has to be there at two looks.
        let Some(early) = looks.early else {
            looks.early = Some(now);
            return;
        };
        if !success || now.saturating_duration_since(early) >= EARLY_PATIENCE {
            self.set_upload(Upload::Over);
            // The upstream may have closed it this moment, which is as good.
            let _ = shutdown(upstream, Shutdown::Write);
        }
    }
}

/// Whether a part of a response waits in the socket, and whether it is that of a successful one. The
/// bytes stay there; those of TLS do not show whether they are a response.
fn waiting(socket: RawFd, upload: Upload) -> Option<bool> {
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

    use super::super::control::Control;
    use super::*;

    #[test]
    fn a_response_that_waits_is_recognized() {
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
    fn an_upload_is_over_when_its_end_and_a_response_have_passed() {
        let silence = Silence::default();
        silence.pass_response(false, true);
        assert_eq!(silence.upload(), Upload::AfterError);
        silence.pass_upload(false);
        assert!(silence.is_upload_rejected());
        silence.pass_upload(true);
        assert_eq!(silence.upload(), Upload::Over);
        silence.begin(READ, None);
        silence.pass_upload(true);
        assert_eq!(silence.upload(), Upload::Sending, "it may not be sent yet");
        silence.pass_response(true, false);
        assert_eq!(silence.upload(), Upload::Over);
    }

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
