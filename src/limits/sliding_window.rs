//! Sliding window: two counters, the previous one weighted by the share that still counts.
//!
//! **Error bound.** Windows are aligned to the store's clock. An aligned window admits at most
//! `limit` requests. An interval of the window's length *W* that begins inside window *k-1* ends at
//! an offset below *W* in window *k*. If window *k-1* admitted *P* (≤ `limit`) requests, then window
//! *k* has admitted at most `limit - P·(W-e)/W` when it admits its last one, at offset *e*. The sum
//! is at most `limit + P·e/W`, which is below `2·limit`: **no interval of the window's length admits
//! more than `2·limit - 1` requests**. The worst case needs `limit` requests in the last instant of
//! a window; even traffic is limited exactly. *n* windows admit at most `(n+1)·limit - 1` requests,
//! so the long-term rate is the configured one.

use super::state::{Micros, Rule};

/// Admissions in the current window and the previous one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlidingWindow {
    /// The number of the current window since the epoch.
    index: u64,
    previous: u64,
    current: u64,
    /// Milliseconds into the current window at the last update.
    offset: u64,
}

impl SlidingWindow {
    /// Attributes all spent requests to the one window that stops counting at `reset_at`.
    pub(super) fn resumed(rule: Rule, spent: u64, reset_at: Micros) -> SlidingWindow {
        let windows = (reset_at / 1000).saturating_add(rule.width / 2) / rule.width;
        SlidingWindow {
            index: windows.saturating_sub(2),
            current: spent,
            ..SlidingWindow::default()
        }
    }

    pub(super) fn wait(&mut self, rule: Rule, now: Micros) -> Micros {
        self.advance(rule, now / 1000);
        let (width, limit) = (rule.width, rule.limit);
        if self.weighted_use(rule).saturating_add(width) <= limit.saturating_mul(width) {
            return 0;
        }
        let millis = if self.current < limit {
            // The request fits once the previous window's weight is low enough.
            let weight = ((limit - self.current - 1) * width) / self.previous.max(1);
            width - weight - self.offset
        } else {
            // This window is full; in the next one, `current` decays.
            let weight = ((limit - 1) * width) / self.current;
            (width - self.offset) + (width - weight)
        };
        millis * 1000
    }

    pub(super) fn spend(&mut self) {
        self.current += 1;
    }

    /// Refunds requests to the window in which they were spent.
    ///
    /// Requests that were spent just before a window boundary are refunded to the previous window.
    pub(super) fn refund(&mut self, rule: Rule, count: u64, spent_at: Micros) {
        let mut left = count;
        let window = spent_at / 1000 / rule.width;
        if window >= self.index {
            let refunded = left.min(self.current);
            self.current -= refunded;
            left -= refunded;
        }
        if window + 1 >= self.index {
            self.previous = self.previous.saturating_sub(left);
        }
    }

    /// Number of requests that count at the moment, rounded down.
    pub(super) fn count(&self, rule: Rule) -> u64 {
        self.weighted_use(rule) / rule.width
    }

    /// Time of the last update, in microseconds.
    pub(super) fn as_of(&self, rule: Rule) -> Micros {
        (self.index * rule.width + self.offset) * 1000
    }

    pub(super) fn remaining(&self, rule: Rule) -> u64 {
        let capacity = rule.limit.saturating_mul(rule.width);
        capacity.saturating_sub(self.weighted_use(rule)) / rule.width
    }

    pub(super) fn reset_after(&self, rule: Rule) -> Micros {
        let millis = match (self.current, self.previous) {
            (0, 0) => 0,
            (0, _) => rule.width - self.offset,
            (_, _) => 2 * rule.width - self.offset,
        };
        millis * 1000
    }

    /// Use that counts at the moment, in requests times milliseconds.
    fn weighted_use(&self, rule: Rule) -> u64 {
        let previous = self.previous.saturating_mul(rule.width - self.offset);
        previous.saturating_add(self.current.saturating_mul(rule.width))
    }

    fn advance(&mut self, rule: Rule, now: u64) {
        let (index, offset) = (now / rule.width, now % rule.width);
        if index < self.index {
            self.offset = 0;
            return;
        }
        if index > self.index {
            self.previous = if index == self.index + 1 {
                self.current
            } else {
                0
            };
            self.current = 0;
            self.index = index;
        }
        self.offset = offset;
    }
}
