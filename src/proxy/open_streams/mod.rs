//! Registry of open streams: requests in progress, which are closed when their session or token
//! ends.

pub mod frame_boundary;
pub mod idle_timer;
pub mod stream_control;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use slab::Slab;

use super::open_streams::stream_control::{CloseReason, StreamControl};
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::clock;
use crate::sessions::{Revocation, UserHash, cut_off_covers, user_hash};
use crate::telemetry::metrics::Metrics;

mod report;
mod sweep;

/// A response that is open for longer counts as long-lived, whatever its type: a long poll, a
/// download.
const LONG_LIVED_AFTER: Duration = Duration::from_secs(5);
/// A request that is open for longer is included in the sweeps of ended sessions, even while it
/// waits for its response. With two sweeps and the store's deadline, it is closed within a second
/// of the end.
const CLOSABLE_AFTER: Duration = Duration::from_millis(100);

/// The media type of an event stream (HTML, section 9.2).
pub(super) const EVENT_STREAM: &[u8] = b"text/event-stream";

/// One admitted request with a credential.
#[derive(Debug)]
pub struct OpenStream {
    pub control: Arc<StreamControl>,
    pub session: Option<SessionId>,
    pub token: Option<Arc<Claims>>,
    /// The client's address, where it is known.
    address: Option<IpAddr>,
    since: Instant,
    kind: AtomicU8,
    /// A sweep found its session or token ended.
    marked_for_close: AtomicBool,
}

/// How long a response is expected to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StreamKind {
    /// Expected to end soon.
    Short = 0,
    /// May last long and ends by itself: a gRPC call.
    Call = 1,
    /// Has no end of its own: a WebSocket, an event stream.
    Endless = 2,
}

impl StreamKind {
    /// Derives the kind of a response from its media type. Case is insignificant (RFC 9110, section
    /// 8.3.1), and gRPC's may continue after a `+`.
    pub fn of_media_type(content: &[u8]) -> StreamKind {
        let begins = |name: &[u8]| {
            let start = content.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let rest = content.get(EVENT_STREAM.len()..).unwrap_or_default();
        let whole = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
        if begins(EVENT_STREAM) && whole {
            StreamKind::Endless
        } else if begins(b"application/grpc") {
            StreamKind::Call
        } else {
            StreamKind::Short
        }
    }
}

impl OpenStream {
    pub fn new(
        control: Arc<StreamControl>,
        since: Instant,
        session: Option<SessionId>,
        token: Option<Arc<Claims>>,
        address: Option<IpAddr>,
    ) -> OpenStream {
        OpenStream {
            control,
            session,
            token,
            address,
            since,
            kind: AtomicU8::new(StreamKind::Short as u8),
            marked_for_close: AtomicBool::new(false),
        }
    }

    /// Whether it counts as an open stream of its session. A client that has closed its side may be
    /// gone.
    fn is_long_lived(&self) -> bool {
        self.is_stream_or_older_than(LONG_LIVED_AFTER) && !self.control.is_half_closed()
    }

    /// Whether an end of its session or token closes it. A short response ends by itself.
    fn is_closable(&self) -> bool {
        self.is_stream_or_older_than(CLOSABLE_AFTER)
    }

    /// The blacklist key of its token.
    fn blacklist_key(&self) -> Option<&str> {
        Some(&self.token.as_ref()?.blacklist_key)
    }

    /// A token without a session: it has an expiry of its own, and its user's issued-before
    /// revocation.
    fn sessionless_token(&self) -> Option<&Claims> {
        self.token
            .as_deref()
            .filter(|claims| claims.session.is_none())
    }

    fn is_issued_before(&self, person: &UserHash, second: u64) -> bool {
        self.sessionless_token().is_some_and(|claims| {
            user_hash(&claims.user_key()) == *person
                && cut_off_covers(second, claims.issued_at_seconds())
        })
    }

    fn is_stream_or_older_than(&self, bound: Duration) -> bool {
        self.is_stream() || self.since.elapsed() > bound
    }

    fn is_stream(&self) -> bool {
        self.kind.load(Ordering::Relaxed) > StreamKind::Short as u8
    }
}

/// Every open request of this gateway, in one shard per worker so that workers do not contend.
#[derive(Debug)]
pub struct OpenStreams {
    /// The name of this process among the gateways of a fleet.
    gateway: Arc<str>,
    reported: Mutex<report::ReportedCounts>,
    /// The sessions of the streams that were open at the last sweep.
    watched: RwLock<HashSet<SessionId>>,
    shards: Vec<Mutex<Slab<Arc<OpenStream>>>>,
    metrics: Arc<Metrics>,
}

/// Keeps a request in the registry until it is dropped.
#[derive(Debug)]
pub struct StreamRegistration {
    registry: Arc<OpenStreams>,
    shard: usize,
    key: usize,
    stream: Arc<OpenStream>,
}

impl OpenStreams {
    pub fn new(workers: usize, metrics: Arc<Metrics>) -> OpenStreams {
        OpenStreams {
            gateway: gateway_name().into(),
            reported: Mutex::default(),
            watched: RwLock::default(),
            shards: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            metrics,
        }
    }

    /// The name of this process among the gateways of a fleet.
    pub fn gateway(&self) -> &Arc<str> {
        &self.gateway
    }

    /// Registers a request; dropping the registration removes it.
    pub fn register(self: &Arc<Self>, worker: usize, open: OpenStream) -> StreamRegistration {
        let shard = worker % self.shards.len();
        let open = Arc::new(open);
        let shelf = self.shards.get(shard);
        let key = shelf.map_or(0, |shelf| shelf.lock().insert(Arc::clone(&open)));
        StreamRegistration {
            registry: Arc::clone(self),
            shard,
            key,
            stream: open,
        }
    }

    /// The number of long-lived streams of a session on this gateway.
    pub fn count_for_session(&self, session: SessionId) -> usize {
        self.collect(|open| open.is_long_lived() && open.session == Some(session))
            .len()
    }

    /// Whether a stream of this session has been open for a while.
    pub fn is_watched(&self, session: SessionId) -> bool {
        self.watched.read().contains(&session)
    }

    /// Closes the streams that a revocation ends; returns their sessions.
    pub fn close_revoked(&self, revocation: &Revocation) -> HashSet<SessionId> {
        close(self.collect(|open| {
            open.is_closable()
                && match revocation {
                    Revocation::Session(id) => open.session == Some(*id),
                    Revocation::Token(key) => open.blacklist_key() == Some(key),
                    Revocation::IssuedBefore(person, second) => {
                        open.is_issued_before(person, *second)
                    }
                }
        }))
    }

    /// Closes every endless stream because the gateway is going away; all others may finish.
    pub fn drain(&self) {
        let endless =
            |open: &OpenStream| open.kind.load(Ordering::Relaxed) == StreamKind::Endless as u8;
        for open in self.collect(endless) {
            open.control.close(CloseReason::Drain);
        }
    }

    /// Checks the idle timers of one worker's requests, forever. It has to run on that worker, so
    /// that no request makes progress meanwhile.
    pub async fn watch_timeouts(self: Arc<Self>, worker: usize) {
        let mut tick = tokio::time::interval(idle_timer::CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let Some(shard) = self.shards.get(worker % self.shards.len()) else {
            return;
        };
        loop {
            tick.tick().await;
            let now = clock::monotonic();
            for (_, open) in shard.lock().iter() {
                let control = &open.control;
                control.check_reader();
                if control.idle_timer.check(now) {
                    control.give_up();
                }
                let excused = || control.idle_timer.is_upstream_behind();
                if control.body_rate.check(now, excused) {
                    control.give_up_body();
                }
            }
        }
    }

    fn collect(&self, wanted: impl Fn(&OpenStream) -> bool) -> Vec<Arc<OpenStream>> {
        self.shards
            .iter()
            .flat_map(|shard| {
                shard
                    .lock()
                    .iter()
                    .map(|(_, open)| open)
                    .filter(|open| wanted(open))
                    .cloned()
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

/// The name of this machine and a random number.
fn gateway_name() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = machine.trim();
    let machine = if machine.is_empty() {
        "gateway"
    } else {
        machine
    };
    format!("{machine}-{:08x}", rand::random::<u32>())
}

/// Closes streams whose session or token ended; returns the sessions of those that were still open.
/// Other responses have until the next sweep to finish: one of them may be the response to the very
/// request that ended the session.
fn close(ended: Vec<Arc<OpenStream>>) -> HashSet<SessionId> {
    let closed = ended.into_iter().filter(|open| {
        let due = open.is_stream() || open.marked_for_close.swap(true, Ordering::Relaxed);
        due && open.control.close(CloseReason::Ended)
    });
    closed.filter_map(|open| open.session).collect()
}

impl StreamRegistration {
    /// Records how long the response is expected to last.
    pub fn set_kind(&self, kind: StreamKind) {
        self.stream.kind.store(kind as u8, Ordering::Relaxed);
    }
}

impl Drop for StreamRegistration {
    fn drop(&mut self) {
        if let Some(shard) = self.registry.shards.get(self.shard) {
            shard.lock().try_remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_kind_follows_the_media_type() {
        for (content, kind) in [
            ("text/event-stream", StreamKind::Endless),
            ("Text/Event-Stream;charset=UTF-8", StreamKind::Endless),
            ("TEXT/EVENT-STREAM ; charset=utf-8", StreamKind::Endless),
            ("text/event-streams", StreamKind::Short),
            ("text/event", StreamKind::Short),
            ("application/grpc", StreamKind::Call),
            ("Application/GRPC+proto", StreamKind::Call),
            ("application/json", StreamKind::Short),
            ("", StreamKind::Short),
        ] {
            assert_eq!(
                StreamKind::of_media_type(content.as_bytes()),
                kind,
                "{content}"
            );
        }
    }
}
