//! State shared by all connections of a process: address, counts, breaker metric and log throttle.

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

/// Shortest interval between two warnings.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Number of connections, and of those with an open breaker. A new connection's breaker is closed.
#[derive(Default)]
struct BreakerCounts {
    connections: u64,
    open_breakers: u64,
    reported: Breaker,
}

/// State of the store's breaker; the values are those of `portcullis_store_breaker`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Breaker {
    /// No connection's breaker is open.
    #[default]
    Closed = 0,
    /// Some connections' breakers are open.
    HalfOpen = 1,
    /// All are open: operations fail at once, and only probes are sent.
    Open = 2,
}

impl BreakerCounts {
    fn breaker(&self) -> Breaker {
        match self.open_breakers {
            0 => Breaker::Closed,
            open if open < self.connections => Breaker::HalfOpen,
            _ => Breaker::Open,
        }
    }
}

/// State shared by all connections of a process.
pub(in crate::store::redis) struct ConnectionContext {
    pub address: RedisAddress,
    /// Timeout of an operation.
    pub timeout: Duration,
    metrics: Arc<Metrics>,
    up_count: AtomicI64,
    /// Number of new connections and of reported flushes.
    reconnects: AtomicU64,
    breaker_counts: Mutex<BreakerCounts>,
    /// Notified when a connection has come up.
    reconnected: Notify,
    /// Notified when the store's data may have been replaced by an older state.
    data_may_have_changed: Notify,
    started: Instant,
    /// Time of the last warning, in milliseconds since `started`, plus one.
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

    /// Number of connections, and of those that are up.
    pub(in crate::store::redis) fn count(&self) -> (u64, u64) {
        let up = self.up_count.load(Ordering::SeqCst).unsigned_abs();
        (self.breaker_counts.lock().connections, up)
    }

    pub(in crate::store::redis) fn connection_created(&self) {
        self.update_breaker_counts(|counts| counts.connections += 1);
    }

    /// Removes a connection, whose breaker may have been open.
    pub(in crate::store::redis) fn connection_dropped(&self, breaker_was_open: bool) {
        self.update_breaker_counts(|counts| {
            counts.connections -= 1;
            counts.open_breakers -= u64::from(breaker_was_open);
        });
    }

    pub(in crate::store::redis) fn breaker_opened(&self) {
        self.update_breaker_counts(|counts| counts.open_breakers += 1);
    }

    pub(in crate::store::redis) fn breaker_closed(&self) {
        self.update_breaker_counts(|counts| counts.open_breakers -= 1);
    }

    /// Changes the counts, and updates the metric and the log.
    fn update_breaker_counts(&self, change: impl FnOnce(&mut BreakerCounts)) {
        let mut counts = self.breaker_counts.lock();
        change(&mut counts);
        let breaker = counts.breaker();
        if breaker == counts.reported {
            return;
        }
        counts.reported = breaker;
        self.metrics.store_breaker.set(breaker as i64);
        let server = &self.address.topology;
        match breaker {
            Breaker::Closed => tracing::info!(%server, state = "closed", "store breaker changed"),
            Breaker::HalfOpen => {
                tracing::warn!(%server, state = "half_open", "store breaker changed")
            }
            Breaker::Open => tracing::warn!(%server, state = "open", "store breaker changed"),
        }
    }

    /// Records that a connection has come up (1) or gone down (-1).
    pub(in crate::store::redis) fn up_count_changed(&self, by: i64) {
        let up = self.up_count.fetch_add(by, Ordering::SeqCst) + by;
        self.metrics.store_up.set(i64::from(up > 0));
        if by > 0 {
            self.notify_data_may_have_changed();
            self.reconnected.notify_waiters();
        }
    }

    /// Reports that the store's data may have been replaced by an older state.
    pub(in crate::store::redis) fn notify_data_may_have_changed(&self) {
        self.reconnects.fetch_add(1, Ordering::SeqCst);
        self.data_may_have_changed.notify_one();
    }

    /// Waits for such a report, including one since the last wait.
    pub(in crate::store::redis) async fn data_may_have_changed(&self) {
        self.data_may_have_changed.notified().await;
    }

    /// Waits until a connection comes up.
    pub(in crate::store::redis) async fn reconnected(&self) {
        self.reconnected.notified().await;
    }

    /// Milliseconds since the context was created.
    pub(in crate::store::redis) fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Logs a warning, unless another one was logged within [`LOG_INTERVAL`].
    pub(in crate::store::redis) fn warn(
        &self,
        server: &dyn Display,
        message: &str,
        error: &ExchangeError,
    ) {
        let now = self.elapsed();
        let last = self.last_logged.load(Ordering::Relaxed);
        let is_due = last == 0 || now + 1 >= last + LOG_INTERVAL.as_millis() as u64;
        let is_first = || {
            self.last_logged
                .compare_exchange(last, now + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if is_due && is_first() {
            tracing::warn!(
                %server,
                code = error.code,
                "{message}: {}",
                error.error
            );
        }
    }
}
