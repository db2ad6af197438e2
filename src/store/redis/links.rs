//! What all links of a process share: where the store is, how many links are up, what was logged.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::fault::Fault;
use crate::settings::RedisAddress;
use crate::telemetry::metrics::Metrics;

/// How often the log may say the same.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// How many links there are, and how many of them let nothing through. One that has not been tried
/// yet is not among the latter.
#[derive(Default)]
struct Gates {
    made: u64,
    shut: u64,
    told: Breaker,
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

impl Gates {
    fn breaker(&self) -> Breaker {
        match self.shut {
            0 => Breaker::Closed,
            shut if shut < self.made => Breaker::HalfOpen,
            _ => Breaker::Open,
        }
    }
}

pub(super) struct Links {
    pub address: RedisAddress,
    /// How long an operation may take.
    pub patience: Duration,
    metrics: Arc<Metrics>,
    up: AtomicI64,
    /// How many times a link has come up, or everything was said to have changed.
    risings: AtomicU64,
    gates: Mutex<Gates>,
    /// Told when a link has come up, to those that wait.
    risen: Notify,
    /// Told when what is there may not be what was there.
    doubted: Notify,
    started: Instant,
    /// When something was last logged, in milliseconds since `started`, plus one.
    logged: AtomicU64,
}

impl Links {
    pub(super) fn new(address: RedisAddress, patience: Duration, metrics: Arc<Metrics>) -> Links {
        Links {
            address,
            patience,
            metrics,
            up: AtomicI64::new(0),
            risings: AtomicU64::new(0),
            gates: Mutex::default(),
            risen: Notify::new(),
            doubted: Notify::new(),
            started: Instant::now(),
            logged: AtomicU64::new(0),
        }
    }

    pub(super) fn risings(&self) -> u64 {
        self.risings.load(Ordering::SeqCst)
    }

    /// How many there are, and how many of them are up.
    pub(super) fn count(&self) -> (u64, u64) {
        let up = self.up.load(Ordering::SeqCst).unsigned_abs();
        (self.gates.lock().made, up)
    }

    pub(super) fn made(&self) {
        self.gates(|gates| gates.made += 1);
    }

    /// One is gone, which may have let nothing through.
    pub(super) fn unmade(&self, shut: bool) {
        self.gates(|gates| {
            gates.made -= 1;
            gates.shut -= u64::from(shut);
        });
    }

    /// A link lets nothing through any more.
    pub(super) fn shut(&self) {
        self.gates(|gates| gates.shut += 1);
    }

    /// And does again.
    pub(super) fn opened(&self) {
        self.gates(|gates| gates.shut -= 1);
    }

    /// Changes the counts; the metric and the log follow.
    fn gates(&self, change: impl FnOnce(&mut Gates)) {
        let mut gates = self.gates.lock();
        change(&mut gates);
        let breaker = gates.breaker();
        if breaker == gates.told {
            return;
        }
        gates.told = breaker;
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
    pub(super) fn changed(&self, by: i64) {
        let up = self.up.fetch_add(by, Ordering::SeqCst) + by;
        self.metrics.store_up.set(i64::from(up > 0));
        if by > 0 {
            self.doubt();
            self.risen.notify_waiters();
        }
    }

    /// What is in the store may be older than what was.
    pub(super) fn doubt(&self) {
        self.risings.fetch_add(1, Ordering::SeqCst);
        self.doubted.notify_one();
    }

    /// Waits until that is so, or was since this was last waited for.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
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
