//! Revocation, played through: real replicas, and a store, a network, faults and clocks that are made
//! up from a seed. The same seed is the same story, event by event, in a time that costs none.
//!
//! `PORTCULLIS_SEEDS` says how many stories are played (2,000 without it), `PORTCULLIS_SEED` plays a
//! single one and prints it.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use gateway::Gateway;
use tally::Tally;
use witness::Witness;
use world::World;

mod asking;
mod batch;
mod gateway;
mod listening;
mod server;
mod story;
mod tally;
mod witness;
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

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn what_is_revoked_is_refused_in_time_whatever_fails() {
    if let Some(seed) = number("PORTCULLIS_SEED") {
        let mut world = World::new(seed);
        let outcome = world.play();
        let told = world.witness.told.join("\n");
        assert_eq!(outcome, Ok(()), "seed {seed}:\n{told}");
        panic!("seed {seed} breaks nothing:\n{told}");
    }
    let seeds = number("PORTCULLIS_SEEDS").unwrap_or(2_000);
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let play = |first| move || play_every(first, threads, seeds);
        let playing: Vec<_> = (0..threads).map(|n| scope.spawn(play(n))).collect();
        let tallies = playing.into_iter().map(|thread| thread.join().unwrap());
        tallies.collect()
    });
    Tally::sum(&tallies).is_rich(seeds);
}

fn play_every(first: u64, step: u64, seeds: u64) -> Tally {
    let mut tally = Tally::default();
    for seed in (first..seeds).step_by(step as usize) {
        let mut world = World::new(seed);
        let outcome = world.play();
        assert_eq!(outcome, Ok(()), "PORTCULLIS_SEED={seed} tells the story");
        tally.add(&world.witness.tally);
    }
    tally
}
