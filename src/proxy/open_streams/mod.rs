//! Registry of open streams: requests in progress, which are closed when their session or token
//! ends.

pub mod frame_boundary;
pub mod idle_timer;
pub mod stream_control;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock};

use self::stream_control::{CloseReason, StreamControl};
use crate::auth::api_key::PresentedApiKey;
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::clock;
use crate::sessions::{Revocation, UserHash, cut_off_covers, user_hash};
use crate::telemetry::metrics::Metrics;

mod report;
mod stream_kind;
mod sweep;

pub(super) use stream_kind::EVENT_STREAM;
pub use stream_kind::StreamKind;

/// A response that is open for longer counts as long-lived, whatever its type: a long poll, a
/// download.
const LONG_LIVED_AFTER: Duration = Duration::from_secs(5);
/// A request that is open for longer is included in the sweeps of ended sessions, even while it
/// waits for its response. With two sweeps and the store's deadline, it is closed within a second
/// of the end.
const CLOSABLE_AFTER: Duration = Duration::from_millis(100);

/// An admitted request, for as long as it is served.
#[derive(Debug)]
pub struct OpenStream {
    session: Option<SessionId>,
    token: Option<Arc<Claims>>,
    api_key: Option<PresentedApiKey>,
    /// The client's address, where it is known.
    address: Option<IpAddr>,
    since: Instant,
    kind: StreamKind,
    /// A sweep found its session or token ended.
    is_marked: bool,
}

impl OpenStream {
    pub fn new(
        since: Instant,
        session: Option<SessionId>,
        token: Option<Arc<Claims>>,
        address: Option<IpAddr>,
    ) -> OpenStream {
        OpenStream {
            session,
            token,
            api_key: None,
            address,
            since,
            kind: StreamKind::Short,
            is_marked: false,
        }
    }

    /// The same stream, opened by an API key.
    #[must_use]
    pub fn by_api_key(self, api_key: Option<PresentedApiKey>) -> OpenStream {
        OpenStream { api_key, ..self }
    }

    /// Whether it counts as an open stream of its session. A client that has closed its side may be
    /// gone.
    fn is_long_lived(&self, control: &StreamControl) -> bool {
        self.is_stream_or_older_than(LONG_LIVED_AFTER) && !control.is_half_closed()
    }

    /// Whether an end of its session or token closes it. A short response ends by itself.
    fn is_closable(&self) -> bool {
        self.is_stream_or_older_than(CLOSABLE_AFTER)
    }

    /// The blacklist key of its token.
    fn blacklist_key(&self) -> Option<&str> {
        Some(&self.token.as_ref()?.blacklist_key)
    }

    /// The API key that opened it, and the address that it came from.
    fn presented_api_key(&self) -> Option<(PresentedApiKey, IpAddr)> {
        Some((self.api_key?, self.address?))
    }

    /// A token without a session: it has an expiry of its own, and its user's issued-before
    /// revocation.
    fn sessionless_token(&self) -> Option<&Claims> {
        self.token
            .as_deref()
            .filter(|claims| claims.session.is_none())
    }

    /// Whether a revocation ends it.
    fn is_ended_by(&self, revocation: &Revocation) -> bool {
        match revocation {
            Revocation::Session(id) => self.session == Some(*id),
            Revocation::Token(key) => self.blacklist_key() == Some(key),
            Revocation::IssuedBefore(person, second) => self.is_issued_before(person, *second),
        }
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
        self.kind > StreamKind::Short
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
    /// A control stays registered from request to request of its connection, and is removed by the
    /// next check that finds it without one. Locked before the entry of a control.
    shards: Vec<Mutex<Vec<Arc<StreamControl>>>>,
    metrics: Arc<Metrics>,
}

/// What the registry knows of a control. A stream is closed under the lock of its entry, so that none is
/// closed for a request that is over.
#[derive(Debug, Default)]
struct RegistryEntry {
    stream: Option<OpenStream>,
    is_registered: bool,
}

/// Keeps a request open to be closed from outside until it is dropped.
#[derive(Debug)]
pub struct StreamRegistration(Arc<StreamControl>);

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

    /// Opens a request to be closed from outside by its control, which carries no other one.
    pub fn register(
        &self,
        worker: usize,
        control: &Arc<StreamControl>,
        stream: OpenStream,
    ) -> StreamRegistration {
        let is_registered = {
            let mut entry = control.entry.lock();
            entry.stream = Some(stream);
            entry.is_registered
        };
        // Now that it carries a request, no check removes it.
        if !is_registered && let Some(mut shard) = self.shard(worker) {
            control.entry.lock().is_registered = true;
            shard.push(Arc::clone(control));
        }
        StreamRegistration(Arc::clone(control))
    }

    fn shard(&self, worker: usize) -> Option<MutexGuard<'_, Vec<Arc<StreamControl>>>> {
        Some(self.shards.get(worker % self.shards.len())?.lock())
    }

    /// The number of long-lived streams of a session on this gateway.
    pub fn count_for_session(&self, session: SessionId) -> usize {
        let mut count = 0;
        self.visit(|control, stream| {
            count += usize::from(stream.session == Some(session) && stream.is_long_lived(control));
        });
        count
    }

    /// Whether a stream of this session has been open for a while.
    pub fn is_watched(&self, session: SessionId) -> bool {
        self.watched.read().contains(&session)
    }

    /// Closes the streams that a revocation ends; returns their sessions.
    pub fn close_revoked(&self, revocation: &Revocation) -> HashSet<SessionId> {
        self.close_ended(|stream| stream.is_ended_by(revocation))
    }

    /// Closes every endless stream because the gateway is going away; all others may finish.
    pub fn drain(&self) {
        self.visit(|control, stream| {
            if stream.kind == StreamKind::Endless {
                control.close(CloseReason::Drain);
            }
        });
    }

    /// Closes every request because the grace period of the drain is over.
    pub fn close_all(&self) {
        self.visit(|control, _| {
            control.close(CloseReason::Drain);
        });
    }

    /// Checks the idle timers of one worker's requests, forever. It has to run on that worker, so
    /// that no request makes progress meanwhile.
    pub async fn watch_timeouts(self: Arc<Self>, worker: usize) {
        let mut tick = tokio::time::interval(idle_timer::CHECK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = clock::monotonic();
            if let Some(mut shard) = self.shard(worker) {
                shard.retain(|control| check(control, now));
            }
        }
    }

    /// Closes the streams whose session or token has ended; returns the sessions of those that were
    /// still open. Other responses have until the next sweep to finish: one of them may be the
    /// response to the very request that ended the session.
    fn close_ended(&self, is_ended: impl Fn(&OpenStream) -> bool) -> HashSet<SessionId> {
        let mut closed = HashSet::new();
        self.visit(|control, stream| {
            if !stream.is_closable() || !is_ended(stream) {
                return;
            }
            let was_marked = std::mem::replace(&mut stream.is_marked, true);
            if (was_marked || stream.is_stream()) && control.close(CloseReason::Ended) {
                closed.extend(stream.session);
            }
        });
        closed
    }

    /// The number of requests that are open.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        self.visit(|_, _| count += 1);
        count
    }

    fn visit(&self, mut visit: impl FnMut(&StreamControl, &mut OpenStream)) {
        for shard in &self.shards {
            for control in shard.lock().iter() {
                if let Some(stream) = &mut control.entry.lock().stream {
                    visit(control, stream);
                }
            }
        }
    }
}

/// Checks the timers of a request. `false`: the control carries none.
fn check(control: &StreamControl, now: Instant) -> bool {
    let mut entry = control.entry.lock();
    entry.is_registered = entry.stream.is_some();
    if entry.is_registered {
        if control.idle_timer.check(now) {
            control.give_up();
        }
        let excused = || control.idle_timer.is_upstream_behind();
        if control.body_rate.check(now, excused) {
            control.give_up_body();
        }
    }
    entry.is_registered
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

impl StreamRegistration {
    /// Records how long the response is expected to last.
    pub fn set_kind(&self, kind: StreamKind) {
        if let Some(stream) = &mut self.0.entry.lock().stream {
            stream.kind = kind;
        }
    }
}

impl Drop for StreamRegistration {
    fn drop(&mut self) {
        self.0.entry.lock().stream = None;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const ONE: SessionId = SessionId([1; 32]);
    const TWO: SessionId = SessionId([2; 32]);

    fn stream(session: SessionId) -> OpenStream {
        let since = Instant::now().checked_sub(2 * CLOSABLE_AFTER);
        OpenStream::new(since.unwrap(), Some(session), None, None)
    }

    #[test]
    fn control_is_closed_for_its_present_request_alone() {
        let streams = OpenStreams::new(1, Arc::new(Metrics::new().unwrap()));
        let control = Arc::<StreamControl>::default();
        let open = |session| {
            control.reset();
            streams.register(0, &control, stream(session))
        };
        let end = |session| streams.close_revoked(&Revocation::Session(session));
        // A short response has until the second search to finish; the next request is not marked.
        for _ in 0..2 {
            let _first = open(ONE);
            assert!(end(ONE).is_empty() && end(TWO).is_empty());
        }
        // No request is open.
        assert!(end(ONE).is_empty());
        let second = open(TWO);
        second.set_kind(StreamKind::Endless);
        assert!(end(ONE).is_empty() && control.close_reason().is_none());
        assert_eq!(end(TWO), HashSet::from([TWO]));
        assert_eq!(control.close_reason(), Some(CloseReason::Ended));
        drop(second);
        let _third = open(ONE);
        assert!(end(ONE).is_empty() && control.close_reason().is_none());
        assert_eq!(end(ONE), HashSet::from([ONE]));
    }

    #[test]
    fn idle_control_is_removed_and_entered_again_once() {
        let streams = OpenStreams::new(1, Arc::new(Metrics::new().unwrap()));
        let control = Arc::<StreamControl>::default();
        let registered = || {
            streams
                .shards
                .iter()
                .map(|shard| shard.lock().len())
                .sum::<usize>()
        };
        let check_all = || {
            let mut shard = streams.shard(0).unwrap();
            shard.retain(|control| check(control, Instant::now()));
        };
        for _ in 0..2 {
            for _ in 0..3 {
                let open = streams.register(0, &control, stream(ONE));
                check_all();
                assert_eq!((registered(), streams.count_for_session(ONE)), (1, 0));
                open.set_kind(StreamKind::Endless);
                assert_eq!(streams.count_for_session(ONE), 1);
            }
            assert_eq!((registered(), streams.count_for_session(ONE)), (1, 0));
            check_all();
            assert_eq!(registered(), 0);
        }
    }
}
