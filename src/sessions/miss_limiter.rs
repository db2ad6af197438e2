//! Limit of look-ups by one address that find nothing: without it, a client that invents IDs would have the
//! database search for each.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use quick_cache::sync::Cache;

use crate::clock;
use crate::limits::subscriber_network;

/// Misses of one address, per second and in a burst. Beyond that, the address is blocked for a while.
const MISSES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
const MISS_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
const BLOCK_TIME: Duration = Duration::from_secs(1);
/// Number of tracked addresses above which quiet ones are removed.
const MAX_TRACKED_ADDRESSES: usize = 10_000;

/// Counts misses by address; of IPv6, by network.
pub(in crate::sessions) struct MissLimiter {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    blocked: Cache<IpAddr, Instant>,
}

impl Default for MissLimiter {
    fn default() -> MissLimiter {
        let quota = Quota::per_second(MISSES_PER_SECOND).allow_burst(MISS_BURST);
        MissLimiter {
            limiter: RateLimiter::keyed(quota),
            blocked: Cache::new(MAX_TRACKED_ADDRESSES),
        }
    }
}

impl MissLimiter {
    /// Whether nothing is to be looked up for an address now.
    pub(in crate::sessions) fn is_blocked(&self, address: IpAddr) -> bool {
        let since = self.blocked.get(&subscriber_network(address));
        since.is_some_and(|since| since.elapsed() < BLOCK_TIME)
    }

    /// Counts a look-up that found nothing.
    pub(in crate::sessions) fn count_miss(&self, address: IpAddr) {
        let address = subscriber_network(address);
        if self.limiter.len() > MAX_TRACKED_ADDRESSES {
            self.limiter.retain_recent();
        }
        if self.limiter.check_key(&address).is_err() {
            self.blocked.insert(address, clock::monotonic());
        }
    }
}
