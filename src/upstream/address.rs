//! One address of a server, with the connection settings that go with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use tokio::time::Instant;

/// How long an address that refused a connection is passed over while others of its server do not.
/// `localhost` is often two addresses of which only one is listened on.
const AVOIDED: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Address {
    pub(super) peer: HttpPeer,
    created_at: Instant,
    /// Milliseconds after `known_since`.
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
        let until = self.age(now + AVOIDED);
        self.avoided_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn mark_reachable(&self) {
        // Read first: a write that changes nothing would still take the cache line from others.
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
