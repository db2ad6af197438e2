//! Two weighted counters: the previous window counts by the share of it that is still inside.
//!
//! **Its error.** Windows are aligned to the store's clock. In an aligned window at most `limit`
//! requests are admitted. An interval of the window's length *W* that begins inside window *k-1*
//! reaches to an offset below *W* of window *k*. If window *k-1* admitted *P* (≤ limit), the last
//! request admitted at offset *e* of window *k* left at most `limit - P·(W-e)/W` there. Both
//! together are at most `limit + P·e/W`, which is below `2·limit`: **no interval of the window's
//! length ever admits more than `2·limit - 1`**. The worst case needs `limit` requests in the last
//! instant of a window; even traffic is limited exactly. In *n* windows' time at most
//! `(n+1)·limit - 1` pass, so over time the rate is the one configured.

use super::state::{Micros, Rule};

/// How many were admitted in the current window and the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlidingWindow {
    /// The number of the current window since the epoch.
    index: u64,
    previous: u64,
    current: u64,
    /// Milliseconds into the current window, as of the last look.
    offset: u64,
}

impl SlidingWindow {
    /// All of it spent in one window: the one that fades completely at `whole_at`.
    pub(super) fn resumed(rule: Rule, spent: u64, whole_at: Micros) -> SlidingWindow {
        let windows = (whole_at / 1000).saturating_add(rule.width / 2) / rule.width;
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
            // It fits once the previous window weighs little enough.
            let weight = ((limit - self.current - 1) * width) / self.previous.max(1);
            width - weight - self.offset
        } else {
            // Not in this window: in the next one, `current` is what fades.
            let weight = ((limit - 1) * width) / self.current;
            (width - self.offset) + (width - weight)
        };
        millis * 1000
    }

    pub(super) fn spend(&mut self) {
        self.current += 1;
    }

    /// Takes it from the window that it was spent in. What was spent just before the turn of a window is
    /// not found in the current one.
    pub(super) fn give_back(&mut self, rule: Rule, many: u64, spent_at: Micros) {
        let mut many = many;
        let window = spent_at / 1000 / rule.width;
        if window >= self.index {
            let here = many.min(self.current);
            self.current -= here;
            many -= here;
        }
        if window + 1 >= self.index {
            self.previous = self.previous.saturating_sub(many);
        }
    }

    /// How many requests count at the moment, rounded down.
    pub(super) fn count(&self, rule: Rule) -> u64 {
        self.weighted_use(rule) / rule.width
    }

    /// The time of the last look, in microseconds.
    pub(super) fn as_of(&self, rule: Rule) -> Micros {
        (self.index * rule.width + self.offset) * 1000
    }

    pub(super) fn remaining(&self, rule: Rule) -> u64 {
        let all = rule.limit.saturating_mul(rule.width);
        all.saturating_sub(self.weighted_use(rule)) / rule.width
    }

    pub(super) fn reset_after(&self, rule: Rule) -> Micros {
        let millis = match (self.current, self.previous) {
            (0, 0) => 0,
            (0, _) => rule.width - self.offset,
            (_, _) => 2 * rule.width - self.offset,
        };
        millis * 1000
    }

    /// What counts at the moment, in requests times milliseconds.
    fn weighted_use(&self, rule: Rule) -> u64 {
        let faded = self.previous.saturating_mul(rule.width - self.offset);
        faded.saturating_add(self.current.saturating_mul(rule.width))
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
