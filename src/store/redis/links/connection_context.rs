//! What all links of a process share: where the store is, how many links are up, what was logged.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::exchange_error::ExchangeError;
use crate::clock;
use crate::settings::RedisAddress;
use crate::telemetry::metrics::Metrics;

/// How often the log may say the same.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How many links there are, and how many of them let nothing through. One that has not been tried
/// yet is not among the latter.
#[derive(Default)]
struct BreakerCounts {
    connections: u64,
    open_breakers: u64,
    reported: Breaker,
}

/// What `portcullis_store_breaker` says, by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Breaker {
    /// Every link lets questions through.
    #[default]
    Closed = 0,
    /// Some do.
    HalfOpen = 1,
    /// None does: all fail at once, and only the probes ask.
    Open = 2,
}

impl BreakerCounts {
    fn breaker(&self) -> Breaker {
        match self.open_breakers {
            0 => Breaker::Closed,
            shut if shut < self.connections => Breaker::HalfOpen,
            _ => Breaker::Open,
        }
    }
}

pub(in crate::store::redis) struct ConnectionContext {
    pub address: RedisAddress,
    /// How long an operation may take.
    pub timeout: Duration,
    metrics: Arc<Metrics>,
    up_count: AtomicI64,
    /// How many times a link has come up, or everything was said to have changed.
    reconnects: AtomicU64,
    breaker_counts: Mutex<BreakerCounts>,
    /// Told when a link has come up, to those that wait.
    reconnected: Notify,
    /// Told when what is there may not be what was there.
    data_may_have_changed: Notify,
    started: Instant,
    /// When something was last logged, in milliseconds since `started`, plus one.
    last_logged: AtomicU64,
}

impl ConnectionContext {
    pub(in crate::store::redis) fn new(
        address: RedisAddress,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> ConnectionContext {
        ConnectionContext {
            address,
            timeout,
            metrics,
            up_count: AtomicI64::new(0),
            reconnects: AtomicU64::new(0),
            breaker_counts: Mutex::default(),
            reconnected: Notify::new(),
            data_may_have_changed: Notify::new(),
            started: clock::monotonic(),
            last_logged: AtomicU64::new(0),
        }
    }

    pub(in crate::store::redis) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::SeqCst)
    }

    /// How many there are, and how many of them are up.
    pub(in crate::store::redis) fn count(&self) -> (u64, u64) {
        let up = self.up_count.load(Ordering::SeqCst).unsigned_abs();
        (self.breaker_counts.lock().connections, up)
    }

    pub(in crate::store::redis) fn connection_created(&self) {
        self.update_breaker_counts(|gates| gates.connections += 1);
    }

    /// One is gone, which may have let nothing through.
    pub(in crate::store::redis) fn connection_dropped(&self, shut: bool) {
        self.update_breaker_counts(|gates| {
            gates.connections -= 1;
            gates.open_breakers -= u64::from(shut);
        });
    }

    /// A link lets nothing through any more.
    pub(in crate::store::redis) fn breaker_opened(&self) {
        self.update_breaker_counts(|gates| gates.open_breakers += 1);
    }

    /// And does again.
    pub(in crate::store::redis) fn breaker_closed(&self) {
        self.update_breaker_counts(|gates| gates.open_breakers -= 1);
    }

    /// Changes the counts; the metric and the log follow.
    fn update_breaker_counts(&self, change: impl FnOnce(&mut BreakerCounts)) {
        let mut gates = self.breaker_counts.lock();
        change(&mut gates);
        let breaker = gates.breaker();
        if breaker == gates.reported {
            return;
        }
        gates.reported = breaker;
        self.metrics.store_breaker.set(breaker as i64);
        let server = &self.address.topology;
        match breaker {
            Breaker::Closed => tracing::info!(%server, state = "closed", "the store's breaker"),
            Breaker::HalfOpen => {
                tracing::warn!(%server, state = "half_open", "the store's breaker")
            }
            Breaker::Open => tracing::warn!(%server, state = "open", "the store's breaker"),
        }
    }

    /// A link has come up (1) or gone down (-1).
    pub(in crate::store::redis) fn up_count_changed(&self, by: i64) {
        let up = self.up_count.fetch_add(by, Ordering::SeqCst) + by;
        self.metrics.store_up.set(i64::from(up > 0));
        if by > 0 {
            self.notify_data_may_have_changed();
            self.reconnected.notify_waiters();
        }
    }

    /// What is in the store may be older than what was.
    pub(in crate::store::redis) fn notify_data_may_have_changed(&self) {
        self.reconnects.fetch_add(1, Ordering::SeqCst);
        self.data_may_have_changed.notify_one();
    }

    /// Waits until that is so, or was since this was last waited for.
    pub(in crate::store::redis) async fn data_may_have_changed(&self) {
        self.data_may_have_changed.notified().await;
    }

    /// Waits until a link comes up.
    pub(in crate::store::redis) async fn reconnected(&self) {
        self.reconnected.notified().await;
    }

    /// Milliseconds since the process has had links.
    pub(in crate::store::redis) fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(in crate::store::redis) fn warn(
        &self,
        server: &dyn Display,
        what: &str,
        fault: &ExchangeError,
    ) {
        let now = self.elapsed();
        let last = self.last_logged.load(Ordering::Relaxed);
        let due = last == 0 || now + 1 >= last + LOG_INTERVAL.as_millis() as u64;
        let ours = || {
            self.last_logged
                .compare_exchange(last, now + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if due && ours() {
            tracing::warn!(
                %server,
                code = fault.code,
                "{what}: {}",
                fault.error
            );
        }
    }
}
