//! Selection of the server that receives the next request.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use pingora::lb::Backend;
use pingora::lb::selection::{BackendIter, BackendSelection, Consistent, Random, RoundRobin};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use sha2::{Digest, Sha256};

use super::server::ServerState;
use crate::settings::Balance;

/// The largest weight after scaling; bounds the hash rings and lists that are built from weights.
const MAX_WEIGHT: usize = 256;
/// Draws from the selection algorithm, per server, before any untried server is taken.
const DRAWS_PER_SERVER: usize = 8;

/// The servers in rotation with their selection algorithm. Rebuilt when the set changes.
pub(super) struct ServerRotation {
    members: Vec<usize>,
    selector: Selector,
}

enum Selector {
    RoundRobin(Arc<RoundRobin>),
    Random(Arc<Random>),
    Consistent(Arc<Consistent>),
    LeastRequests,
}

impl ServerRotation {
    /// `members` are indices into `servers`.
    pub(super) fn new(
        balance: &Balance,
        servers: &[ServerState],
        members: Vec<usize>,
    ) -> ServerRotation {
        let backends = backends(servers, &members);
        let selector = match balance {
            Balance::RoundRobin => Selector::RoundRobin(Arc::new(RoundRobin::build(&backends))),
            Balance::Random => Selector::Random(Arc::new(Random::build(&backends))),
            Balance::ConsistentHash(_) => {
                Selector::Consistent(Arc::new(Consistent::build(&backends)))
            }
            Balance::LeastRequests => Selector::LeastRequests,
        };
        ServerRotation { members, selector }
    }

    pub(super) fn members(&self) -> &[usize] {
        &self.members
    }

    /// Selects the next server that is not in `tried`.
    pub(super) fn pick(
        &self,
        servers: &[ServerState],
        hash: Option<&[u8]>,
        tried: &[usize],
    ) -> Option<usize> {
        if let [only] = self.members.as_slice() {
            return Some(*only).filter(|only| !tried.contains(only));
        }
        let selected = match &self.selector {
            Selector::LeastRequests => return self.least_requests(servers, tried, rand::random()),
            Selector::RoundRobin(cycle) => self.next_untried(cycle.iter(&[]), tried),
            Selector::Random(cycle) => self.next_untried(cycle.iter(&[]), tried),
            Selector::Consistent(ring) => {
                let random_key = rand::random::<u64>().to_le_bytes();
                self.next_untried(ring.iter(hash.unwrap_or(&random_key)), tried)
            }
        };
        selected.or_else(|| {
            self.members
                .iter()
                .copied()
                .find(|index| !tried.contains(index))
        })
    }

    fn next_untried(&self, mut draws: impl BackendIter, tried: &[usize]) -> Option<usize> {
        for _ in 0..self.members.len().saturating_mul(DRAWS_PER_SERVER) {
            let index = *draws.next()?.ext.get::<usize>()?;
            if !tried.contains(&index) {
                return Some(index);
            }
        }
        None
    }

    /// Selects the server with the fewest requests relative to its weight, at random among equals.
    fn least_requests(
        &self,
        servers: &[ServerState],
        tried: &[usize],
        random: u64,
    ) -> Option<usize> {
        let count = self.members.len().max(1);
        let start = usize::try_from(random % count as u64).unwrap_or(0);
        let (front, back) = self.members.split_at_checked(start)?;
        let mut best: Option<(usize, usize, usize)> = None;
        for index in back.iter().chain(front) {
            let Some(server) = servers.get(*index).filter(|_| !tried.contains(index)) else {
                continue;
            };
            let load = server.in_flight().saturating_add(1);
            let weight = server.settings.weight.max(1);
            // load / weight < best_load / best_weight, without division.
            let better = best.is_none_or(|(_, best_load, best_weight)| {
                load.saturating_mul(best_weight) < best_load.saturating_mul(weight)
            });
            if better {
                best = Some((*index, load, weight));
            }
        }
        best.map(|(index, ..)| index)
    }
}

/// Describes the servers to the selection algorithms, under synthetic addresses.
///
/// An address depends only on the configured URL, so all gateways of a fleet hash alike. A changed
/// address of a name moves no keys, and an added or removed server moves only its own.
fn backends(servers: &[ServerState], members: &[usize]) -> BTreeSet<Backend> {
    let weights = members.iter().filter_map(|index| servers.get(*index));
    let max_weight = weights
        .map(|server| server.settings.weight)
        .max()
        .unwrap_or(1);
    let scale = max_weight.div_ceil(MAX_WEIGHT).max(1);
    let mut backends = BTreeSet::new();
    for index in members {
        let Some(server) = servers.get(*index) else {
            continue;
        };
        let before = servers.iter().take(*index);
        let occurrence = before
            .filter(|other| other.settings.url == server.settings.url)
            .count();
        let mut backend = Backend {
            addr: PingoraAddr::Inet(synthetic_address(&server.settings.url, occurrence)),
            // Pingora's hash ring panics on a weight of zero.
            weight: (server.settings.weight / scale).max(1),
            ext: http::Extensions::new(),
        };
        backend.ext.insert(*index);
        backends.insert(backend);
    }
    backends
}

fn synthetic_address(url: &str, occurrence: usize) -> SocketAddr {
    let mut hasher = Sha256::new();
    hasher.update(occurrence.to_le_bytes());
    hasher.update(url.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let address = digest.first_chunk::<16>().copied().unwrap_or_default();
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)), 1)
}

impl std::fmt::Debug for ServerRotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerRotation")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}
