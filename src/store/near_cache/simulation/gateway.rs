//! A gateway as a process: it has a replica, clocks, and it may die.

use std::time::{Duration, Instant};

use super::world::{LinkState, SERVERS, SeededRng, World};
use super::{MS, Micros, SECOND, steady};
use crate::auth::session::Millis;
use crate::store::invalidation::RefreshTask;
use crate::store::near_cache::NearCache;
use crate::store::near_cache::validity::Validity;

pub(super) struct Gateway {
    /// Counts its processes.
    pub(super) incarnation: u32,
    pub(super) is_up: bool,
    pub(super) near_cache: NearCache,
    /// By connection and direction.
    pub(super) links: [[LinkState; 2]; 2],
    /// How many millionths its steady clock counts in a millionth of real time.
    clock_rate: u64,
    /// By how much its own idea of the time of day is wrong.
    clock_offset: Millis,
    /// What the store's clock said when its own steady one began.
    store_clock_origin: Option<Millis>,
    /// Its listening connection, and the one that has been opened.
    pub(super) tracking_id: u64,
    pub(super) open_tracking_id: u64,
    /// Until then what listens gets no time to run.
    pub(super) stalled_until: Micros,
    /// For how long that will be so after the next proof.
    pub(super) next_stall: Option<Micros>,
    /// The proof that it waits for, by server.
    pub(super) pending_check: [u64; SERVERS],
    /// Up to when each server was heard.
    pub(super) confirmed_by: [Option<(Instant, Millis)>; SERVERS],
    /// What is to be looked at, and whether something is being looked at.
    pub(super) refresh_tasks: Vec<RefreshTask>,
    pub(super) is_refreshing: bool,
    /// Up to when it has confirmed, by the store's clock.
    pub(super) confirmed_up_to: Millis,
}

impl Gateway {
    pub(super) fn new(dice: &mut SeededRng) -> Gateway {
        Gateway {
            incarnation: 0,
            is_up: true,
            near_cache: NearCache::with_validity(Validity::with_clock(steady)),
            links: Default::default(),
            clock_rate: dice.between(999_000, 1_001_000),
            clock_offset: dice.below(10_000),
            store_clock_origin: None,
            tracking_id: 0,
            open_tracking_id: 0,
            stalled_until: 0,
            next_stall: None,
            pending_check: [0; SERVERS],
            confirmed_by: [None; SERVERS],
            refresh_tasks: Vec::new(),
            is_refreshing: false,
            confirmed_up_to: 0,
        }
    }

    pub(super) fn steady(&self, now: Micros) -> Duration {
        Duration::from_micros(now * self.clock_rate / 1_000_000)
    }

    pub(super) fn set_clock(&mut self, now: Micros, store: Millis) {
        self.store_clock_origin = Some(store - self.elapsed_millis(now));
    }

    fn elapsed_millis(&self, now: Micros) -> Millis {
        now * self.clock_rate / 1_000_000 / MS
    }
}

impl World {
    /// The store's clock as this gateway has it in mind.
    pub(super) fn clock(&self, g: usize) -> Millis {
        let gateway = &self.gateways[g];
        match gateway.store_clock_origin {
            None => self.server.clock(self.now) + gateway.clock_offset - 5_000,
            Some(began) => began + gateway.elapsed_millis(self.now),
        }
    }

    /// Does something later, if the process lives until then.
    pub(super) fn later(
        &mut self,
        g: usize,
        delay: Micros,
        deed: impl FnOnce(&mut World) + 'static,
    ) {
        let life = self.gateways[g].incarnation;
        self.after(delay, move |world| {
            if world.gateways[g].incarnation == life && world.gateways[g].is_up {
                deed(world);
            }
        });
    }

    /// Kills a gateway; the next process knows nothing.
    pub(super) fn crash_gateway(&mut self, g: usize, time: Micros) {
        // Its clock goes on counting.
        self.near_cache(g);
        let replica = NearCache::with_validity(Validity::with_clock(steady));
        let gateway = &mut self.gateways[g];
        gateway.incarnation += 1;
        gateway.is_up = false;
        gateway.near_cache = replica;
        gateway.store_clock_origin = None;
        gateway.tracking_id += 1;
        gateway.refresh_tasks.clear();
        gateway.is_refreshing = false;
        gateway.confirmed_up_to = 0;
        self.oracle.log(self.now, || format!("{g} is killed"));
        self.after(time.min(SECOND), move |world| {
            world.gateways[g].is_up = true;
            world.oracle.log(world.now, || format!("{g} is back"));
            world.open_tracking(g);
        });
    }
}
