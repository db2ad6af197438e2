//! What all links of a process share: where the store is, how many links are up, what was logged.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::fault::Fault;
use crate::metrics::Metrics;
use crate::settings::RedisAddress;

/// How often the log may say the same.
const LOG_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Links {
    pub address: RedisAddress,
    metrics: Arc<Metrics>,
    up: AtomicI64,
    /// How many times a link has come up.
    risings: AtomicU64,
    made: AtomicI64,
    /// Told when a link has come up, to those that wait.
    risen: Notify,
    started: Instant,
    /// When something was last logged, in milliseconds since `started`, plus one.
    logged: AtomicU64,
}

impl Links {
    pub(super) fn new(address: RedisAddress, metrics: Arc<Metrics>) -> Links {
        Links {
            address,
            metrics,
            up: AtomicI64::new(0),
            risings: AtomicU64::new(0),
            made: AtomicI64::new(0),
            risen: Notify::new(),
            started: Instant::now(),
            logged: AtomicU64::new(0),
        }
    }

    pub(super) fn risings(&self) -> u64 {
        self.risings.load(Ordering::SeqCst)
    }

    /// How many there are, and how many of them are up.
    pub(super) fn count(&self) -> (u64, u64) {
        let read = |count: &AtomicI64| count.load(Ordering::SeqCst).unsigned_abs();
        (read(&self.made), read(&self.up))
    }

    pub(super) fn made(&self) {
        self.made.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn unmade(&self) {
        self.made.fetch_sub(1, Ordering::SeqCst);
    }

    /// A link has come up (1) or gone down (-1).
    pub(super) fn changed(&self, by: i64) {
        let up = self.up.fetch_add(by, Ordering::SeqCst) + by;
        self.metrics.store_up.set(i64::from(up > 0));
        if by > 0 {
            self.risings.fetch_add(1, Ordering::SeqCst);
            self.risen.notify_waiters();
        }
    }

    /// Waits until a link comes up.
    pub(super) async fn risen(&self) {
        self.risen.notified().await;
    }

    /// Milliseconds since the process has had links.
    pub(super) fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn warn(&self, server: &dyn Display, what: &str, fault: &Fault) {
        let now = self.elapsed();
        let last = self.logged.load(Ordering::Relaxed);
        let due = last == 0 || now + 1 >= last + LOG_EVERY.as_millis() as u64;
        let ours = || {
            self.logged
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
