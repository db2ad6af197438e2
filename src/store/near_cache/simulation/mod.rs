//! Revocation, played through: real replicas, and a store, a network, faults and clocks that are made
//! up from a seed. The same seed is the same story, event by event, in a time that costs none.
//!
//! `PORTCULLIS_SEEDS` says how many stories are played (2,000 without it), `PORTCULLIS_SEED` plays a
//! single one and prints it.

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

/// A time of the simulation, and a length of it, in microseconds.
type Micros = u64;

const MS: Micros = 1_000;
const SECOND: Micros = 1_000 * MS;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    /// What the steady clock of the gateway that acts has counted.
    static STEADY: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The steady clock of the gateway that acts.
fn steady() -> Instant {
    *ORIGIN + STEADY.get()
}

fn env_number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn revocations_take_effect_in_time_despite_faults() {
    if let Some(seed) = env_number("PORTCULLIS_SEED") {
        let mut world = World::new(seed);
        let outcome = world.run();
        let told = world.oracle.log_lines.join("\n");
        assert_eq!(outcome, Ok(()), "seed {seed}:\n{told}");
        panic!("seed {seed} breaks nothing:\n{told}");
    }
    let seeds = env_number("PORTCULLIS_SEEDS").unwrap_or(2_000);
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    let tallies: Vec<Statistics> = std::thread::scope(|scope| {
        let play = |first| move || run_every(first, threads, seeds);
        let playing: Vec<_> = (0..threads).map(|n| scope.spawn(play(n))).collect();
        let tallies = playing.into_iter().map(|thread| thread.join().unwrap());
        tallies.collect()
    });
    Statistics::sum(&tallies).assert_coverage(seeds);
}

fn run_every(first: u64, step: u64, seeds: u64) -> Statistics {
    let mut tally = Statistics::default();
    for seed in (first..seeds).step_by(step as usize) {
        let mut world = World::new(seed);
        let outcome = world.run();
        assert_eq!(outcome, Ok(()), "PORTCULLIS_SEED={seed} tells the story");
        tally.add(&world.oracle.statistics);
    }
    tally
}
