//! One counter's state, whatever its algorithm, and the numbers that rule it.

use std::sync::Arc;
use std::time::Duration;

use super::sliding_log::SlidingLog;
use super::sliding_window::SlidingWindow;
use super::token_bucket::TokenBucket;
use super::{Algorithm, Decision, LeaseRequest, Limit};

/// Microseconds since the Unix epoch, or between two moments.
pub type Micros = u64;

/// The numbers of a limit, as the arithmetic reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub limit: u64,
    /// The window, in milliseconds.
    pub width: u64,
    /// What a token bucket holds; 0 for the others.
    pub burst: u64,
}

impl Rule {
    /// Reads the numbers of a limit.
    pub fn of(limit: &Limit) -> Rule {
        let burst = match limit.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            Algorithm::SlidingWindow | Algorithm::SlidingLog => 0,
        };
        Rule {
            limit: limit.limit.max(1),
            width: u64::try_from(limit.window.as_millis())
                .unwrap_or(u64::MAX)
                .max(1),
            burst: burst.max(u64::from(matches!(
                limit.algorithm,
                Algorithm::TokenBucket { .. }
            ))),
        }
    }

    /// The greatest number of requests that may come at once.
    fn quota(&self) -> u64 {
        if self.burst > 0 {
            self.burst
        } else {
            self.limit
        }
    }

    /// The window, in microseconds.
    pub(super) fn span(&self) -> Micros {
        self.width.saturating_mul(1000)
    }
}

/// What a counter remembers. Time is an argument and never runs backwards for a counter: an
/// earlier `now` than it has kept counts as the latest that it has kept. A look that spends nothing
/// need not be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterState {
    SlidingWindow(SlidingWindow),
    SlidingLog(SlidingLog),
    TokenBucket(TokenBucket),
}

impl CounterState {
    /// Starts a counter that nothing was spent from.
    pub fn new(algorithm: Algorithm) -> CounterState {
        match algorithm {
            Algorithm::SlidingWindow => CounterState::SlidingWindow(SlidingWindow::default()),
            Algorithm::SlidingLog => CounterState::SlidingLog(SlidingLog::default()),
            Algorithm::TokenBucket { .. } => CounterState::TokenBucket(TokenBucket::default()),
        }
    }

    /// Resumes a counter of which is known how many requests were `spent` at a moment, and when
    /// nothing of them will count any more: as if all had been spent as late as this allows.
    pub(super) fn resumed(
        algorithm: Algorithm,
        rule: Rule,
        spent: u64,
        (as_of, whole_at): (Micros, Micros),
    ) -> CounterState {
        match algorithm {
            Algorithm::SlidingWindow => {
                CounterState::SlidingWindow(SlidingWindow::resumed(rule, spent, whole_at))
            }
            Algorithm::SlidingLog => {
                CounterState::SlidingLog(SlidingLog::resumed(rule, spent, whole_at))
            }
            Algorithm::TokenBucket { .. } => {
                CounterState::TokenBucket(TokenBucket::resumed(rule, spent, as_of))
            }
        }
    }

    /// Brings the counter to `now`, and tells how long until one more request is admitted: zero
    /// if it is admitted at once.
    pub fn wait(&mut self, rule: Rule, now: Micros) -> Micros {
        match self {
            CounterState::SlidingWindow(state) => state.wait(rule, now),
            CounterState::SlidingLog(state) => state.wait(rule, now),
            CounterState::TokenBucket(state) => state.wait(rule, now),
        }
    }

    /// Spends one request, which [`CounterState::wait`] has just found to be admitted.
    pub fn spend(&mut self, rule: Rule, now: Micros) {
        match self {
            CounterState::SlidingWindow(state) => state.spend(),
            CounterState::SlidingLog(state) => state.spend(now),
            CounterState::TokenBucket(state) => state.spend(rule),
        }
    }

    /// Gives requests back that were spent at a moment that [`CounterState::as_of`] told.
    pub fn give_back(&mut self, rule: Rule, now: Micros, many: u64, spent_at: Micros) {
        self.wait(rule, now);
        match self {
            CounterState::SlidingWindow(state) => state.give_back(rule, many, spent_at),
            CounterState::SlidingLog(state) => state.give_back(rule, now, many, spent_at),
            CounterState::TokenBucket(state) => state.give_back(rule, many, spent_at),
        }
    }

    /// Spends what a gateway asks for, as far as it is fair: what it holds then is one part of what
    /// is left, or 1. Nothing is spent where [`CounterState::wait`] says to wait.
    pub fn grant(&mut self, rule: Rule, now: Micros, ask: LeaseRequest, parts: u64) -> u64 {
        if self.wait(rule, now) > 0 {
            return 0;
        }
        let fair = (self.remaining(rule) / parts.max(1)).saturating_sub(ask.held);
        let granted = ask.want.min(fair).max(u64::from(ask.held == 0));
        for _ in 0..granted {
            self.spend(rule, now);
        }
        granted
    }

    /// The moment by which the counter dates what is spent now: never one before it has kept.
    pub fn as_of(&self, rule: Rule, now: Micros) -> Micros {
        match self {
            CounterState::SlidingWindow(state) => state.as_of(rule),
            CounterState::SlidingLog(state) => state.latest(now),
            CounterState::TokenBucket(state) => state.as_of(),
        }
    }

    /// How many requests would be admitted at the time of the last [`CounterState::wait`].
    pub fn remaining(&self, rule: Rule) -> u64 {
        match self {
            CounterState::SlidingWindow(state) => state.remaining(rule),
            CounterState::SlidingLog(state) => state.remaining(rule),
            CounterState::TokenBucket(state) => state.remaining(rule),
        }
    }

    /// How many requests count against the limit at the time of the last [`CounterState::wait`], rounded up.
    pub fn spent(&self, rule: Rule) -> u64 {
        rule.quota().saturating_sub(self.remaining(rule))
    }

    /// How long until nothing of what was spent counts any more; zero: it may be forgotten.
    pub fn reset_after(&self, rule: Rule, now: Micros) -> Micros {
        match self {
            CounterState::SlidingWindow(state) => state.reset_after(rule),
            CounterState::SlidingLog(state) => state.reset_after(rule, now),
            CounterState::TokenBucket(state) => state.reset_after(rule),
        }
    }

    /// Puts the numbers into words, `wait` being what was found before anything was spent.
    pub fn decision(&self, limit: &Arc<Limit>, wait: Micros, now: Micros) -> Decision {
        let rule = Rule::of(limit);
        Decision {
            limit: Arc::clone(limit),
            allowed: wait == 0,
            remaining: self.remaining(rule),
            reset_after: Duration::from_micros(self.reset_after(rule, now)),
            retry_after: Duration::from_micros(wait),
            degraded: false,
        }
    }
}
