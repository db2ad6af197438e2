//! One address of a server, with the connection settings that go with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use tokio::time::Instant;

/// How long an address that refused a connection is skipped while its server has others.
/// `localhost` often resolves to two addresses of which only one has a listener.
const AVOIDANCE: Duration = Duration::from_secs(60);

/// One address of a server.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) peer: HttpPeer,
    created_at: Instant,
    /// Milliseconds after `created_at`; 0 when the address is not avoided.
    avoided_until: AtomicU64,
}

impl Address {
    pub(super) fn new(peer: HttpPeer) -> Address {
        Address {
            peer,
            created_at: Instant::now(),
            avoided_until: AtomicU64::new(0),
        }
    }

    pub(super) fn mark_refused(&self, now: Instant) {
        let until = self.age(now + AVOIDANCE);
        self.avoided_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn mark_reachable(&self) {
        // Read first: a store of the same value would still invalidate the cache line of other cores.
        if self.avoided_until.load(Ordering::Relaxed) != 0 {
            self.avoided_until.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        match self.avoided_until.load(Ordering::Relaxed) {
            0 => false,
            until => self.age(now) < until,
        }
    }

    fn age(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.created_at);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }
}
