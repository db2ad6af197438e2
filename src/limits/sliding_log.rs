//! The times of all admissions: exact. One admitted at *t* leaves at *t + window*; another is
//! admitted if fewer than `limit` remain.

use std::collections::VecDeque;

use super::state::{Micros, Rule};

/// The times of the admissions that still count, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlidingLog {
    times: VecDeque<Micros>,
}

impl SlidingLog {
    /// All of it spent one window before `whole_at`.
    pub(super) fn resumed(rule: Rule, spent: u64, whole_at: Micros) -> SlidingLog {
        let newest = whole_at.saturating_sub(rule.span());
        SlidingLog {
            times: (0..spent).map(|_| newest).collect(),
        }
    }

    pub(super) fn wait(&mut self, rule: Rule, now: Micros) -> Micros {
        let now = self.latest(now);
        while self
            .times
            .front()
            .is_some_and(|time| time + rule.span() <= now)
        {
            self.times.pop_front();
        }
        let count = self.times.len() as u64;
        if count < rule.limit {
            return 0;
        }
        // When this one has left, `limit - 1` remain.
        let blocking = usize::try_from(count - rule.limit).unwrap_or(usize::MAX);
        let leaves = self
            .times
            .get(blocking)
            .map_or(now, |time| time + rule.span());
        leaves - now
    }

    pub(super) fn spend(&mut self, now: Micros) {
        self.times.push_back(self.latest(now));
    }

    /// Drops the oldest: whichever were meant, those that stay are no older, so that no interval
    /// can come to admit more than the limit. What has left already is not given back.
    pub(super) fn give_back(&mut self, rule: Rule, now: Micros, many: u64, spent_at: Micros) {
        if spent_at + rule.span() > self.latest(now) {
            let many = usize::try_from(many).unwrap_or(usize::MAX);
            self.times.drain(..many.min(self.times.len()));
        }
    }

    pub(super) fn remaining(&self, rule: Rule) -> u64 {
        rule.limit.saturating_sub(self.times.len() as u64)
    }

    pub(super) fn reset_after(&self, rule: Rule, now: Micros) -> Micros {
        let now = self.latest(now);
        self.times
            .back()
            .map_or(0, |newest| newest + rule.span() - now)
    }

    pub(super) fn latest(&self, now: Micros) -> Micros {
        self.times.back().map_or(now, |newest| now.max(*newest))
    }
}
