//! Deterministic simulation of revocations.
//!
//! Real near caches run against a store, a network, faults and clocks that are simulated from a seed.
//! Time is simulated as well, and the same seed yields the same events.
//!
//! `PORTCULLIS_SEEDS` sets the number of runs (default 2,000); `PORTCULLIS_SEED` runs a single seed
//! and prints its events.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use gateway::Gateway;
use oracle::Oracle;
use statistics::Statistics;
use world::World;

mod batch;
mod gateway;
mod oracle;
mod requests;
mod scenario;
mod server;
mod statistics;
mod tracking;
mod world;

/// Simulated time or duration, in microseconds.
type Micros = u64;

const MS: Micros = 1_000;
const SECOND: Micros = 1_000 * MS;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    /// Elapsed time on the monotonic clock of the gateway that is running.
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Reads the monotonic clock of the gateway that is running.
fn simulated_now() -> Instant {
    *ORIGIN + ELAPSED.get()
}

fn env_number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn revocations_take_effect_in_time_despite_faults() {
    if let Some(seed) = env_number("PORTCULLIS_SEED") {
        let mut world = World::new(seed);
        let outcome = world.run();
        let log = world.oracle.log_lines.join("\n");
        assert_eq!(outcome, Ok(()), "seed {seed}:\n{log}");
        panic!("seed {seed} violates nothing:\n{log}");
    }
    let seeds = env_number("PORTCULLIS_SEEDS").unwrap_or(2_000);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let statistics: Vec<Statistics> = std::thread::scope(|scope| {
        let run = |first| move || run_every(first, threads, seeds);
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(run(n))).collect();
        let results = running.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    });
    Statistics::sum(&statistics).assert_coverage(seeds);
}

fn run_every(first: u64, step: u64, seeds: u64) -> Statistics {
    let mut statistics = Statistics::default();
    for seed in (first..seeds).step_by(step as usize) {
        let mut world = World::new(seed);
        let outcome = world.run();
        assert_eq!(outcome, Ok(()), "PORTCULLIS_SEED={seed} prints the events");
        statistics.add(&world.oracle.statistics);
    }
    statistics
}
