//! A gateway as a process: it has a replica, clocks, and it may die.

use std::time::{Duration, Instant};

use super::world::{Dice, Line, SERVERS, World};
use super::{MS, Micros, SECOND, steady};
use crate::auth::session::Millis;
use crate::store::news::Told;
use crate::store::replica::Replica;
use crate::store::replica::guard::Guard;

pub(super) struct Gateway {
    /// Counts its processes.
    pub(super) life: u32,
    pub(super) up: bool,
    pub(super) replica: Replica,
    /// By connection and direction.
    pub(super) lines: [[Line; 2]; 2],
    /// How many millionths its steady clock counts in a millionth of real time.
    rate: u64,
    /// By how much its own idea of the time of day is wrong.
    ahead: Millis,
    /// What the store's clock said when its own steady one began.
    store_began: Option<Millis>,
    /// Its listening connection, and the one that has been opened.
    pub(super) ear: u64,
    pub(super) open: u64,
    /// Until then what listens gets no time to run.
    pub(super) drowsy_until: Micros,
    /// For how long that will be so after the next proof.
    pub(super) drowsy_soon: Option<Micros>,
    /// The proof that it waits for, by server.
    pub(super) proof: [u64; SERVERS],
    /// Up to when each server was heard.
    pub(super) proven: [Option<(Instant, Millis)>; SERVERS],
    /// What is to be looked at, and whether something is being looked at.
    pub(super) told: Vec<Told>,
    pub(super) looking: bool,
    /// Up to when it has confirmed, by the store's clock.
    pub(super) heard: Millis,
}

impl Gateway {
    pub(super) fn new(dice: &mut Dice) -> Gateway {
        Gateway {
            life: 0,
            up: true,
            replica: Replica::with(Guard::by(steady)),
            lines: Default::default(),
            rate: dice.between(999_000, 1_001_000),
            ahead: dice.below(10_000),
            store_began: None,
            ear: 0,
            open: 0,
            drowsy_until: 0,
            drowsy_soon: None,
            proof: [0; SERVERS],
            proven: [None; SERVERS],
            told: Vec::new(),
            looking: false,
            heard: 0,
        }
    }

    pub(super) fn steady(&self, now: Micros) -> Duration {
        Duration::from_micros(now * self.rate / 1_000_000)
    }

    pub(super) fn set_clock(&mut self, now: Micros, store: Millis) {
        self.store_began = Some(store - self.counted(now));
    }

    fn counted(&self, now: Micros) -> Millis {
        now * self.rate / 1_000_000 / MS
    }
}

impl World {
    /// The store's clock as this gateway has it in mind.
    pub(super) fn clock(&self, g: usize) -> Millis {
        let gateway = &self.gateways[g];
        match gateway.store_began {
            None => self.server.clock(self.now) + gateway.ahead - 5_000,
            Some(began) => began + gateway.counted(self.now),
        }
    }

    /// Does something later, if the process lives until then.
    pub(super) fn later(
        &mut self,
        g: usize,
        delay: Micros,
        deed: impl FnOnce(&mut World) + 'static,
    ) {
        let life = self.gateways[g].life;
        self.after(delay, move |world| {
            if world.gateways[g].life == life && world.gateways[g].up {
                deed(world);
            }
        });
    }

    /// Kills a gateway; the next process knows nothing.
    pub(super) fn crash_gateway(&mut self, g: usize, time: Micros) {
        // Its clock goes on counting.
        self.replica(g);
        let replica = Replica::with(Guard::by(steady));
        let gateway = &mut self.gateways[g];
        gateway.life += 1;
        gateway.up = false;
        gateway.replica = replica;
        gateway.store_began = None;
        gateway.ear += 1;
        gateway.told.clear();
        gateway.looking = false;
        gateway.heard = 0;
        self.witness.tell(self.now, || format!("{g} is killed"));
        self.after(time.min(SECOND), move |world| {
            world.gateways[g].up = true;
            world.witness.tell(world.now, || format!("{g} is back"));
            world.listen(g);
        });
    }
}
