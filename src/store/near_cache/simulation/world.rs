//! Time, chance and the network.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::server::Server;
use super::{Gateway, MS, Micros, Oracle, STEADY};
use crate::store::NearCache;

/// Something that happens at a moment.
pub(super) type Action = Box<dyn FnOnce(&mut World)>;

/// A deed at its moment. Those of one moment happen in the order in which they were planned.
pub(super) struct ScheduledAction {
    at: Micros,
    order: u64,
    action: Action,
}

impl PartialEq for ScheduledAction {
    fn eq(&self, other: &ScheduledAction) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for ScheduledAction {}

impl PartialOrd for ScheduledAction {
    fn partial_cmp(&self, other: &ScheduledAction) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ScheduledAction {
    fn cmp(&self, other: &ScheduledAction) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Chance, which is the seed's.
pub(super) struct SeededRng(u64);

impl SeededRng {
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
pub(super) enum LinkKind {
    /// Several in fact, for each worker has one: what is asked later may arrive earlier.
    Request,
    /// One to each server, on which nothing overtakes.
    Tracking(usize),
}

impl LinkKind {
    /// Where it is among [`Gateway::links`].
    pub(super) fn index(self) -> usize {
        match self {
            LinkKind::Request => 0,
            LinkKind::Tracking(_) => 1,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Direction {
    ToServer,
    ToGateway,
}

/// One direction of a connection.
#[derive(Clone, Copy, Default)]
pub(super) struct LinkState {
    /// Nothing arrives before.
    pub(super) cut_until: Micros,
    /// Until when it is slow, by up to how much.
    pub(super) slow: (Micros, Micros),
    /// By server.
    last_arrival: [Micros; SERVERS],
}

pub(super) struct World {
    pub(super) now: Micros,
    pub(super) rng: SeededRng,
    pub(super) gateways: Vec<Gateway>,
    pub(super) server: Server,
    pub(super) oracle: Oracle,
    /// Nothing fails and nothing is slow any more.
    pub(super) faults_ended: bool,
    /// While the store is away, what was known lately is good enough.
    pub(super) serves_cached: bool,
    /// The store is a cluster: its servers reply, and report changes, each at its own moment.
    pub(super) clustered: bool,
    events: BinaryHeap<Reverse<ScheduledAction>>,
    planned: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        // The clock of a story before this one is nothing to it.
        STEADY.set(Duration::ZERO);
        let mut dice = SeededRng(seed);
        let count = dice.between(2, 4);
        let cached = dice.percent(40);
        let clustered = dice.percent(40);
        let clock = dice.below(1_000_000);
        let mut world = World {
            now: 0,
            rng: dice,
            gateways: Vec::new(),
            server: Server::new(1_700_000_000_000 + clock),
            oracle: Oracle::new(count as usize, 1_700_000_000_000 + clock),
            faults_ended: false,
            serves_cached: cached,
            clustered,
            events: BinaryHeap::new(),
            planned: 0,
        };
        for _ in 0..count {
            let gateway = Gateway::new(&mut world.rng);
            world.gateways.push(gateway);
        }
        world
    }

    pub(super) fn after(&mut self, delay: Micros, deed: impl FnOnce(&mut World) + 'static) {
        self.at(self.now + delay, deed);
    }

    pub(super) fn at(&mut self, at: Micros, deed: impl FnOnce(&mut World) + 'static) {
        self.planned += 1;
        self.events.push(Reverse(ScheduledAction {
            at,
            order: self.planned,
            action: Box::new(deed),
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
            (due.action)(self);
            if let Some(broken) = self.oracle.violation.take() {
                return Err(broken);
            }
        }
        self.now = end;
        Ok(())
    }

    /// The replica of a gateway, with that gateway's clock.
    pub(super) fn near_cache(&self, g: usize) -> &NearCache {
        let gateway = &self.gateways[g];
        STEADY.set(gateway.steady(self.now));
        &gateway.near_cache
    }

    /// Brings something to the server, if it is still the one it was sent to when it arrives.
    pub(super) fn send_to_server(
        &mut self,
        g: usize,
        link: LinkKind,
        deed: impl FnOnce(&mut World) + 'static,
    ) {
        let Some(at) = self.arrival_time(g, link, Direction::ToServer) else {
            return;
        };
        let life = self.server.incarnation;
        self.at(at, move |world| {
            if world.server.incarnation == life && world.server.is_up {
                world.run_on_server(Box::new(deed));
            }
        });
    }

    /// Brings something to a gateway, if it is still the process it was sent to when it arrives.
    pub(super) fn send_to_gateway(
        &mut self,
        g: usize,
        link: LinkKind,
        deed: impl FnOnce(&mut World) + 'static,
    ) {
        let Some(at) = self.arrival_time(g, link, Direction::ToGateway) else {
            return;
        };
        let life = self.gateways[g].incarnation;
        self.at(at, move |world| {
            let gateway = &world.gateways[g];
            let is_there = gateway.incarnation == life && gateway.is_up;
            if is_there && link != LinkKind::Request && gateway.stalled_until > world.now {
                // It lies in the socket.
                let awake = gateway.stalled_until - world.now;
                world.later(g, awake, deed);
            } else if is_there {
                deed(world);
            }
        });
    }

    /// When something arrives that is sent now, if it does.
    fn arrival_time(&mut self, g: usize, link: LinkKind, way: Direction) -> Option<Micros> {
        let mut delay = self.delay();
        let (slow_until, slowness) = self.gateways[g].links[link.index()][way as usize].slow;
        if self.now < slow_until {
            delay += self.rng.below(slowness);
        }
        let lost = self.rng.percent(50);
        let now = self.now;
        let line = &mut self.gateways[g].links[link.index()][way as usize];
        let cut = line.cut_until > now;
        if cut && link == LinkKind::Request && lost {
            return None;
        }
        let mut at = now.max(line.cut_until) + delay;
        if let LinkKind::Tracking(server) = link {
            at = at.max(line.last_arrival[server] + 1);
            line.last_arrival[server] = at;
        }
        Some(at)
    }

    fn delay(&mut self) -> Micros {
        let kind = self.rng.below(100);
        match kind {
            _ if self.faults_ended => self.rng.between(50, 2 * MS),
            0..90 => self.rng.between(50, MS),
            90..98 => self.rng.between(MS, 30 * MS),
            _ => self.rng.between(30 * MS, 200 * MS),
        }
    }
}
