//! Token bucket, as its mirror image: requests fill it, and it drains at `limit` per window.
//!
//! It has room for `burst` requests. One request is as many units as the window has milliseconds, so
//! that `limit` units drain per millisecond and all values are integers.

use super::state::{Micros, Rule};

/// Fill level of the bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenBucket {
    level: u64,
    /// Time of the level, in milliseconds since the epoch.
    at: u64,
}

impl TokenBucket {
    /// Creates a bucket filled by `spent` requests at `as_of`.
    pub(super) fn resumed(rule: Rule, spent: u64, as_of: Micros) -> TokenBucket {
        TokenBucket {
            level: spent.saturating_mul(rule.width),
            at: as_of / 1000,
        }
    }

    pub(super) fn wait(&mut self, rule: Rule, now: Micros) -> Micros {
        let now = (now / 1000).max(self.at);
        let drained = (now - self.at).saturating_mul(rule.limit);
        self.level = self.level.saturating_sub(drained);
        self.at = now;
        let capacity = rule.burst.saturating_mul(rule.width);
        let excess = self
            .level
            .saturating_add(rule.width)
            .saturating_sub(capacity);
        excess.div_ceil(rule.limit) * 1000
    }

    pub(super) fn spend(&mut self, rule: Rule) {
        self.level += rule.width;
    }

    /// Refunds requests, less the amount that may have drained since they were spent.
    pub(super) fn refund(&mut self, rule: Rule, count: u64, spent_at: Micros) {
        let elapsed = self.at.saturating_sub(spent_at / 1000);
        let drained = elapsed.saturating_mul(rule.limit);
        let refunded = count.saturating_mul(rule.width).saturating_sub(drained);
        self.level = self.level.saturating_sub(refunded);
    }

    /// Time of the last update, in microseconds.
    pub(super) fn as_of(&self) -> Micros {
        self.at * 1000
    }

    pub(super) fn remaining(&self, rule: Rule) -> u64 {
        let capacity = rule.burst.saturating_mul(rule.width);
        capacity.saturating_sub(self.level) / rule.width
    }

    pub(super) fn reset_after(&self, rule: Rule) -> Micros {
        self.level.div_ceil(rule.limit) * 1000
    }
}
