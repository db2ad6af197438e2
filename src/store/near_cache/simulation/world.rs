//! Simulated time, randomness and network.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::server::Server;
use super::{ELAPSED, Gateway, MS, Micros, Oracle};
use crate::store::NearCache;

/// A change of the simulated world.
pub(super) type Action = Box<dyn FnOnce(&mut World)>;

/// An action and its time. Actions of the same time run in the order in which they were scheduled.
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

/// Deterministic random number generator.
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

    /// Returns true with this probability in percent.
    pub(super) fn percent(&mut self, probability: u64) -> bool {
        self.below(100) < probability
    }
}

/// Number of servers in a cluster.
pub(super) const SERVERS: usize = 3;

/// The two kinds of connection of a gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// Connections of the workers; requests may be reordered.
    Request,
    /// The tracking connection to one server; messages stay in order.
    Tracking(usize),
}

impl LinkKind {
    /// Index into [`Gateway::links`].
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
    /// Messages do not arrive before.
    pub(super) cut_until: Micros,
    /// End of a slow phase, and its longest delay.
    pub(super) slow: (Micros, Micros),
    /// Latest arrival, per server.
    last_arrival: [Micros; SERVERS],
}

pub(super) struct World {
    pub(super) now: Micros,
    pub(super) rng: SeededRng,
    pub(super) gateways: Vec<Gateway>,
    pub(super) server: Server,
    pub(super) oracle: Oracle,
    /// Whether all faults and slow phases are over.
    pub(super) faults_ended: bool,
    /// Whether sessions that were cached recently are accepted while the store is unavailable.
    pub(super) serves_cached: bool,
    /// Whether the store is a cluster, whose servers reply and send invalidations independently.
    pub(super) clustered: bool,
    events: BinaryHeap<Reverse<ScheduledAction>>,
    scheduled: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        // The previous run on this thread has left its clock here.
        ELAPSED.set(Duration::ZERO);
        let mut rng = SeededRng(seed);
        let gateways = rng.between(2, 4);
        let serves_cached = rng.percent(40);
        let clustered = rng.percent(40);
        let clock_origin = 1_700_000_000_000 + rng.below(1_000_000);
        let mut world = World {
            now: 0,
            rng,
            gateways: Vec::new(),
            server: Server::new(clock_origin),
            oracle: Oracle::new(gateways as usize, clock_origin),
            faults_ended: false,
            serves_cached,
            clustered,
            events: BinaryHeap::new(),
            scheduled: 0,
        };
        for _ in 0..gateways {
            let gateway = Gateway::new(&mut world.rng);
            world.gateways.push(gateway);
        }
        world
    }

    pub(super) fn after(&mut self, delay: Micros, action: impl FnOnce(&mut World) + 'static) {
        self.at(self.now + delay, action);
    }

    pub(super) fn at(&mut self, at: Micros, action: impl FnOnce(&mut World) + 'static) {
        self.scheduled += 1;
        self.events.push(Reverse(ScheduledAction {
            at,
            order: self.scheduled,
            action: Box::new(action),
        }));
    }

    /// Runs all actions up to `end`, or until one violates an expectation.
    pub(super) fn run_until(&mut self, end: Micros) -> Result<(), String> {
        while let Some(Reverse(next)) = self.events.peek()
            && next.at <= end
        {
            let Some(Reverse(due)) = self.events.pop() else {
                break;
            };
            self.now = due.at;
            (due.action)(self);
            if let Some(violation) = self.oracle.violation.take() {
                return Err(violation);
            }
        }
        self.now = end;
        Ok(())
    }

    /// The near cache of a gateway, after a switch to that gateway's clock.
    pub(super) fn near_cache(&self, g: usize) -> &NearCache {
        let gateway = &self.gateways[g];
        ELAPSED.set(gateway.elapsed(self.now));
        &gateway.near_cache
    }

    /// Sends a message to the server; it is dropped if the server has restarted on arrival.
    pub(super) fn send_to_server(
        &mut self,
        g: usize,
        link: LinkKind,
        action: impl FnOnce(&mut World) + 'static,
    ) {
        let Some(at) = self.arrival_time(g, link, Direction::ToServer) else {
            return;
        };
        let incarnation = self.server.incarnation;
        self.at(at, move |world| {
            if world.server.incarnation == incarnation && world.server.is_up {
                world.run_on_server(Box::new(action));
            }
        });
    }

    /// Sends a message to a gateway; it is dropped if the process has restarted on arrival.
    pub(super) fn send_to_gateway(
        &mut self,
        g: usize,
        link: LinkKind,
        action: impl FnOnce(&mut World) + 'static,
    ) {
        let Some(at) = self.arrival_time(g, link, Direction::ToGateway) else {
            return;
        };
        let incarnation = self.gateways[g].incarnation;
        self.at(at, move |world| {
            let gateway = &world.gateways[g];
            let is_running = gateway.incarnation == incarnation && gateway.is_up;
            if is_running && link != LinkKind::Request && gateway.stalled_until > world.now {
                // The message waits in the socket's buffer.
                let stall = gateway.stalled_until - world.now;
                world.later(g, stall, action);
            } else if is_running {
                action(world);
            }
        });
    }

    /// Arrival time of a message that is sent now; `None` if it is lost.
    fn arrival_time(&mut self, g: usize, link: LinkKind, direction: Direction) -> Option<Micros> {
        let mut delay = self.delay();
        let (slow_until, max_delay) = self.gateways[g].links[link.index()][direction as usize].slow;
        if self.now < slow_until {
            delay += self.rng.below(max_delay);
        }
        let lost_if_cut = self.rng.percent(50);
        let now = self.now;
        let state = &mut self.gateways[g].links[link.index()][direction as usize];
        let is_cut = state.cut_until > now;
        if is_cut && link == LinkKind::Request && lost_if_cut {
            return None;
        }
        let mut at = now.max(state.cut_until) + delay;
        if let LinkKind::Tracking(server) = link {
            at = at.max(state.last_arrival[server] + 1);
            state.last_arrival[server] = at;
        }
        Some(at)
    }

    fn delay(&mut self) -> Micros {
        let percentile = self.rng.below(100);
        match percentile {
            _ if self.faults_ended => self.rng.between(50, 2 * MS),
            0..90 => self.rng.between(50, MS),
            90..98 => self.rng.between(MS, 30 * MS),
            _ => self.rng.between(30 * MS, 200 * MS),
        }
    }
}
