//! Metrics that each worker changes in memory of its own and a scrape adds up, because a cell that
//! all workers write travels between their processors with every request.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{LazyLock, OnceLock};
use std::thread::available_parallelism;

use prometheus::core::{Atomic, GenericCounter, GenericCounterVec, GenericGauge};

/// A counter of requests or of their parts.
pub type ShardedCounter = GenericCounter<ShardedInteger>;
/// Sharded counters of one metric, by their labels.
pub type ShardedCounterVec = GenericCounterVec<ShardedInteger>;
/// A gauge that changes with every request.
pub type ShardedGauge = GenericGauge<ShardedInteger>;

/// The shard of all threads that have none of their own.
const COMMON: usize = 0;

/// The number of shards: one for each worker that can run at a time, and the common one.
static SHARDS: LazyLock<usize> =
    LazyLock::new(|| 1 + available_parallelism().map_or(1, Into::into));

/// The next shard that no thread owns.
static NEXT: AtomicUsize = AtomicUsize::new(COMMON + 1);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(COMMON) };
}

/// Gives the current thread shards of its own, until the process ends. Without free ones, it shares
/// those of other threads.
pub fn claim_shards() {
    let shard = NEXT.fetch_add(1, Relaxed);
    if shard < *SHARDS {
        SHARD.set(shard);
    }
}

/// How the current thread may change the cells of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// No other thread writes, so a load and a store are enough.
    Exclusive,
    Shared,
}

impl Access {
    pub(super) fn add(self, cell: &AtomicI64, delta: i64) {
        match self {
            Access::Exclusive => cell.store(cell.load(Relaxed).wrapping_add(delta), Relaxed),
            Access::Shared => {
                cell.fetch_add(delta, Relaxed);
            }
        }
    }

    /// Adds to a cell that holds the bits of a floating-point number.
    pub(super) fn add_float(self, cell: &AtomicU64, delta: f64) {
        let sum = |bits: u64| (f64::from_bits(bits) + delta).to_bits();
        match self {
            Access::Exclusive => cell.store(sum(cell.load(Relaxed)), Relaxed),
            Access::Shared => {
                // The update always returns a value.
                let _ = cell.fetch_update(Relaxed, Relaxed, |bits| Some(sum(bits)));
            }
        }
    }
}

/// Cells of one series, allocated by the thread that first uses its shard.
#[derive(Debug)]
pub(super) struct Shards<T>(Box<[OnceLock<Box<T>>]>);

impl<T> Default for Shards<T> {
    fn default() -> Shards<T> {
        Shards((0..*SHARDS).map(|_| OnceLock::new()).collect())
    }
}

impl<T: Default> Shards<T> {
    /// Calls `change` with the cells of the current thread.
    pub(super) fn change(&self, change: impl FnOnce(&T, Access)) {
        let shard = SHARD.get();
        let access = match shard {
            COMMON => Access::Shared,
            _ => Access::Exclusive,
        };
        if let Some(cells) = self.0.get(shard) {
            change(cells.get_or_init(Box::default), access);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(OnceLock::get).map(Box::as_ref)
    }
}

/// An integer as the sum of its shards.
#[derive(Debug)]
pub struct ShardedInteger(Shards<AtomicI64>);

impl Atomic for ShardedInteger {
    type T = i64;

    fn new(value: i64) -> ShardedInteger {
        let integer = ShardedInteger(Shards::default());
        integer.set(value);
        integer
    }

    fn set(&self, value: i64) {
        match value.wrapping_sub(self.get()) {
            0 => {}
            delta => self.inc_by(delta),
        }
    }

    fn get(&self) -> i64 {
        let cells = self.0.iter();
        cells.fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }

    fn inc_by(&self, delta: i64) {
        self.0.change(|cell, access| access.add(cell, delta));
    }

    fn dec_by(&self, delta: i64) {
        self.inc_by(delta.wrapping_neg());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn threads_with_and_without_shards_add_up() {
        const ROUNDS: i64 = 10_000;
        let counter = ShardedCounter::new("c", "Counter.").unwrap();
        let gauge = ShardedGauge::new("g", "Gauge.").unwrap();
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (counter, gauge) = (counter.clone(), gauge.clone());
                std::thread::spawn(move || {
                    if n % 2 == 0 {
                        claim_shards();
                    }
                    for _ in 0..ROUNDS {
                        counter.inc();
                        gauge.dec();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((counter.get(), gauge.get()), (8 * ROUNDS, -8 * ROUNDS));
        gauge.set(3);
        counter.reset();
        assert_eq!((counter.get(), gauge.get()), (0, 3));
    }
}
