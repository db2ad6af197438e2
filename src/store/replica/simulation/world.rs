//! Time, chance and the network.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::server::Server;
use super::{Gateway, MS, Micros, STEADY, Witness};
use crate::store::Replica;

/// Something that happens at a moment.
pub(super) type Deed = Box<dyn FnOnce(&mut World)>;

/// A deed at its moment. Those of one moment happen in the order in which they were planned.
pub(super) struct Due {
    at: Micros,
    order: u64,
    deed: Deed,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Chance, which is the seed's.
pub(super) struct Dice(u64);

impl Dice {
    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn between(&mut self, first: u64, end: u64) -> u64 {
        first + self.below(end - first)
    }

    /// Happens so many times in a hundred.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// How many servers a cluster has.
pub(super) const SERVERS: usize = 3;

/// The two kinds of connection of a gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Several in fact, for each worker has one: what is asked later may arrive earlier.
    Asking,
    /// One to each server, on which nothing overtakes.
    Listening(usize),
}

impl Link {
    /// Where it is among [`Gateway::lines`].
    pub(super) fn place(self) -> usize {
        match self {
            Link::Asking => 0,
            Link::Listening(_) => 1,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Way {
    ToServer,
    ToGateway,
}

/// One direction of a connection.
#[derive(Clone, Copy, Default)]
pub(super) struct Line {
    /// Nothing arrives before.
    pub(super) cut_until: Micros,
    /// Until when it is slow, by up to how much.
    pub(super) slow: (Micros, Micros),
    /// By server.
    last_arrival: [Micros; SERVERS],
}

pub(super) struct World {
    pub(super) now: Micros,
    pub(super) dice: Dice,
    pub(super) gateways: Vec<Gateway>,
    pub(super) server: Server,
    pub(super) witness: Witness,
    /// Nothing fails and nothing is slow any more.
    pub(super) calm: bool,
    /// While the store is away, what was known lately is good enough.
    pub(super) cached: bool,
    /// The store is a cluster: its servers reply, and report changes, each at its own moment.
    pub(super) clustered: bool,
    events: BinaryHeap<Reverse<Due>>,
    planned: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        // The clock of a story before this one is nothing to it.
        STEADY.set(Duration::ZERO);
        let mut dice = Dice(seed);
        let count = dice.between(2, 4);
        let cached = dice.percent(40);
        let clustered = dice.percent(40);
        let clock = dice.below(1_000_000);
        let mut world = World {
            now: 0,
            dice,
            gateways: Vec::new(),
            server: Server::new(1_700_000_000_000 + clock),
            witness: Witness::new(count as usize, 1_700_000_000_000 + clock),
            calm: false,
            cached,
            clustered,
            events: BinaryHeap::new(),
            planned: 0,
        };
        for _ in 0..count {
            let gateway = Gateway::new(&mut world.dice);
            world.gateways.push(gateway);
        }
        world
    }

    pub(super) fn after(&mut self, delay: Micros, deed: impl FnOnce(&mut World) + 'static) {
        self.at(self.now + delay, deed);
    }

    pub(super) fn at(&mut self, at: Micros, deed: impl FnOnce(&mut World) + 'static) {
        self.planned += 1;
        self.events.push(Reverse(Due {
            at,
            order: self.planned,
            deed: Box::new(deed),
        }));
    }

    /// Lets everything happen that is planned until then, unless a promise is broken before.
    pub(super) fn run_until(&mut self, end: Micros) -> Result<(), String> {
        while let Some(Reverse(next)) = self.events.peek()
            && next.at <= end
        {
            let Some(Reverse(due)) = self.events.pop() else {
                break;
            };
            self.now = due.at;
            (due.deed)(self);
            if let Some(broken) = self.witness.broken.take() {
                return Err(broken);
            }
        }
        self.now = end;
        Ok(())
    }

    /// The replica of a gateway, with that gateway's clock.
    pub(super) fn replica(&self, g: usize) -> &Replica {
        let gateway = &self.gateways[g];
        STEADY.set(gateway.steady(self.now));
        &gateway.replica
    }

    /// Brings something to the server, if it is still the one it was sent to when it arrives.
    pub(super) fn bring_to_server(
        &mut self,
        g: usize,
        link: Link,
        deed: impl FnOnce(&mut World) + 'static,
    ) {
        let Some(at) = self.arrival(g, link, Way::ToServer) else {
            return;
        };
        let life = self.server.life;
        self.at(at, move |world| {
            if world.server.life == life && world.server.up {
                world.serve(Box::new(deed));
            }
        });
    }

    /// Brings something to a gateway, if it is still the process it was sent to when it arrives.
    pub(super) fn bring_to_gateway(
        &mut self,
        g: usize,
        link: Link,
        deed: impl FnOnce(&mut World) + 'static,
    ) {
        let Some(at) = self.arrival(g, link, Way::ToGateway) else {
            return;
        };
        let life = self.gateways[g].life;
        self.at(at, move |world| {
            let gateway = &world.gateways[g];
            let is_there = gateway.life == life && gateway.up;
            if is_there && link != Link::Asking && gateway.drowsy_until > world.now {
                // It lies in the socket.
                let awake = gateway.drowsy_until - world.now;
                world.later(g, awake, deed);
            } else if is_there {
                deed(world);
            }
        });
    }

    /// When something arrives that is sent now, if it does.
    fn arrival(&mut self, g: usize, link: Link, way: Way) -> Option<Micros> {
        let mut delay = self.delay();
        let (slow_until, slowness) = self.gateways[g].lines[link.place()][way as usize].slow;
        if self.now < slow_until {
            delay += self.dice.below(slowness);
        }
        let lost = self.dice.percent(50);
        let now = self.now;
        let line = &mut self.gateways[g].lines[link.place()][way as usize];
        let cut = line.cut_until > now;
        if cut && link == Link::Asking && lost {
            return None;
        }
        let mut at = now.max(line.cut_until) + delay;
        if let Link::Listening(server) = link {
            at = at.max(line.last_arrival[server] + 1);
            line.last_arrival[server] = at;
        }
        Some(at)
    }

    fn delay(&mut self) -> Micros {
        let kind = self.dice.below(100);
        match kind {
            _ if self.calm => self.dice.between(50, 2 * MS),
            0..90 => self.dice.between(50, MS),
            90..98 => self.dice.between(MS, 30 * MS),
            _ => self.dice.between(30 * MS, 200 * MS),
        }
    }
}
