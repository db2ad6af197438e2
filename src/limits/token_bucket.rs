//! A bucket that requests fill and time drains, `limit` a window, with room for `burst`. One
//! request is as many units as the window has milliseconds, so that `limit` units drain each
//! millisecond and everything stays an integer.

use super::state::{Micros, Rule};

/// How full the bucket is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenBucket {
    level: u64,
    /// Milliseconds since the epoch, as of which the level holds.
    at: u64,
}

impl TokenBucket {
    /// Filled by that much at `as_of`.
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
        let room = rule.burst.saturating_mul(rule.width);
        let over = self.level.saturating_add(rule.width).saturating_sub(room);
        over.div_ceil(rule.limit) * 1000
    }

    pub(super) fn spend(&mut self, rule: Rule) {
        self.level += rule.width;
    }

    /// What may have drained since is not given back a second time.
    pub(super) fn give_back(&mut self, rule: Rule, many: u64, spent_at: Micros) {
        let since = self.at.saturating_sub(spent_at / 1000);
        let drained = since.saturating_mul(rule.limit);
        let back = many.saturating_mul(rule.width).saturating_sub(drained);
        self.level = self.level.saturating_sub(back);
    }

    /// The time of the last look, in microseconds.
    pub(super) fn as_of(&self) -> Micros {
        self.at * 1000
    }

    pub(super) fn remaining(&self, rule: Rule) -> u64 {
        let room = rule.burst.saturating_mul(rule.width);
        room.saturating_sub(self.level) / rule.width
    }

    pub(super) fn reset_after(&self, rule: Rule) -> Micros {
        self.level.div_ceil(rule.limit) * 1000
    }
}
