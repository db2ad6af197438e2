//! Free loopback ports. Concurrent test processes never get the same one: each claims blocks of
//! ports by listening on a block's first port while it runs.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use parking_lot::Mutex;

/// Below the range from which Linux takes ports for outgoing connections, so that nothing else on
/// the machine takes one between our look and the gateway's bind.
static PORTS: Mutex<Ports> = Mutex::new(Ports::new(12_000, 190, 100));

/// Finds a loopback port that is free now and that no other test was given.
pub fn free() -> SocketAddr {
    let port = PORTS.lock().next(is_free);
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A range of ports, in blocks.
pub(crate) struct Ports {
    first: u16,
    blocks: u16,
    size: u16,
    /// The listener on its first port claims a block.
    claimed: Vec<(TcpListener, u16)>,
    /// How many ports were taken of the claimed blocks.
    taken: usize,
}

impl Ports {
    pub(crate) const fn new(first: u16, blocks: u16, size: u16) -> Ports {
        Ports {
            first,
            blocks,
            size,
            claimed: Vec::new(),
            taken: 0,
        }
    }

    /// The next port of this process's blocks that is free. Once every block of the range is claimed,
    /// the process starts again with its own.
    pub(crate) fn next(&mut self, is_free: impl Fn(u16) -> bool) -> u16 {
        let of_a_block = usize::from(self.size - 1);
        for _ in 0..2 * usize::from(self.blocks) * of_a_block {
            if self.taken == self.claimed.len() * of_a_block && !self.claim() {
                self.taken = 0;
            }
            let block = self.claimed[self.taken / of_a_block].1;
            let port = block + 1 + (self.taken % of_a_block) as u16;
            self.taken += 1;
            if is_free(port) {
                return port;
            }
        }
        panic!("no free port from {} on", self.first);
    }

    fn claim(&mut self) -> bool {
        // Processes that start at once mostly look at different blocks.
        let start = (std::process::id() % u32::from(self.blocks)) as u16;
        for step in 0..self.blocks {
            let first = self.first + (start + step) % self.blocks * self.size;
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) {
                self.claimed.push((listener, first));
                return true;
            }
        }
        assert!(!self.claimed.is_empty(), "other tests have every port");
        false
    }
}
