//! Simulated gateway process with a near cache and clocks; it may crash.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::world::{LinkState, SERVERS, SeededRng, World};
use super::{MS, Micros, SECOND, simulated_now};
use crate::auth::session::Millis;
use crate::store::invalidation::RefreshTask;
use crate::store::near_cache::validity::Validity;
use crate::store::near_cache::{NearCache, ValidEntries};

pub(super) struct Gateway {
    /// Number of restarts.
    pub(super) incarnation: u32,
    pub(super) is_up: bool,
    pub(super) near_cache: NearCache,
    /// Entries by which the near cache has accepted a credential.
    pub(super) accepted_by: HashMap<usize, ValidEntries>,
    /// By connection and direction.
    pub(super) links: [[LinkState; 2]; 2],
    /// Microseconds of the monotonic clock per second of real time.
    clock_rate: u64,
    /// Error of the gateway's wall clock.
    clock_offset: Millis,
    /// The store's time at the start of the gateway's monotonic clock.
    store_clock_origin: Option<Millis>,
    /// The latest tracking connection, and the latest that was opened.
    pub(super) tracking_id: u64,
    pub(super) open_tracking_id: u64,
    /// End of a phase in which the tracking task is not scheduled.
    pub(super) stalled_until: Micros,
    /// Duration of such a phase after the next confirmation.
    pub(super) next_stall: Option<Micros>,
    /// Pending heartbeat, per server.
    pub(super) pending_check: [u64; SERVERS],
    /// Time of the last confirmation, per server.
    pub(super) confirmed_by: [Option<(Instant, Millis)>; SERVERS],
    /// Pending refreshes, and whether a batch of them is running.
    pub(super) refresh_tasks: Vec<RefreshTask>,
    pub(super) is_refreshing: bool,
    /// Time up to which the gateway has announced its confirmation, by the store's clock.
    pub(super) confirmed_up_to: Millis,
}

impl Gateway {
    pub(super) fn new(rng: &mut SeededRng) -> Gateway {
        Gateway {
            incarnation: 0,
            is_up: true,
            near_cache: NearCache::with_validity(Validity::with_clock(simulated_now)),
            accepted_by: HashMap::new(),
            links: Default::default(),
            clock_rate: rng.between(999_000, 1_001_000),
            clock_offset: rng.below(10_000),
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

    pub(super) fn elapsed(&self, now: Micros) -> Duration {
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
    /// The store's time as this gateway estimates it.
    pub(super) fn clock(&self, g: usize) -> Millis {
        let gateway = &self.gateways[g];
        match gateway.store_clock_origin {
            None => self.server.clock(self.now) + gateway.clock_offset - 5_000,
            Some(origin) => origin + gateway.elapsed_millis(self.now),
        }
    }

    /// Schedules an action of a gateway; it is dropped if the process has restarted by then.
    pub(super) fn later(
        &mut self,
        g: usize,
        delay: Micros,
        action: impl FnOnce(&mut World) + 'static,
    ) {
        let incarnation = self.gateways[g].incarnation;
        self.after(delay, move |world| {
            if world.gateways[g].incarnation == incarnation && world.gateways[g].is_up {
                action(world);
            }
        });
    }

    /// Kills a gateway; it restarts with an empty cache.
    pub(super) fn crash_gateway(&mut self, g: usize, time: Micros) {
        // The monotonic clock continues across restarts.
        self.near_cache(g);
        let near_cache = NearCache::with_validity(Validity::with_clock(simulated_now));
        let gateway = &mut self.gateways[g];
        gateway.incarnation += 1;
        gateway.is_up = false;
        gateway.near_cache = near_cache;
        gateway.accepted_by.clear();
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
