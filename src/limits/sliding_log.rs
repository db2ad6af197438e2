//! Sliding log: the times of all admissions; exact.
//!
//! An admission at *t* expires at *t + window*; a request is admitted if fewer than `limit` remain.

use std::collections::VecDeque;

use super::state::{Micros, Rule};

/// Times of the admissions that still count, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlidingLog {
    times: VecDeque<Micros>,
}

impl SlidingLog {
    /// Dates all spent requests one window before `reset_at`.
    pub(super) fn resumed(rule: Rule, spent: u64, reset_at: Micros) -> SlidingLog {
        let newest = reset_at.saturating_sub(rule.span());
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
        // When this admission has expired, `limit - 1` remain.
        let blocking = usize::try_from(count - rule.limit).unwrap_or(usize::MAX);
        let expires_at = self
            .times
            .get(blocking)
            .map_or(now, |time| time + rule.span());
        expires_at - now
    }

    pub(super) fn spend(&mut self, now: Micros) {
        self.times.push_back(self.latest(now));
    }

    /// Refunds requests by dropping the oldest admissions; expired ones are not refunded.
    ///
    /// Whichever admissions are refunded, the remaining ones are no older, so that no interval
    /// admits more than the limit.
    pub(super) fn refund(&mut self, rule: Rule, now: Micros, count: u64, spent_at: Micros) {
        if spent_at + rule.span() > self.latest(now) {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            self.times.drain(..count.min(self.times.len()));
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
