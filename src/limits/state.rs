//! State of one counter under any algorithm, and the parameters of its limit.

use std::sync::Arc;
use std::time::Duration;

use super::sliding_log::SlidingLog;
use super::sliding_window::SlidingWindow;
use super::token_bucket::TokenBucket;
use super::{Algorithm, Decision, LeaseRequest, Limit};

/// Microseconds, as a duration or since the Unix epoch.
pub type Micros = u64;

/// Parameters of a limit, as the arithmetic uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub limit: u64,
    /// The window, in milliseconds.
    pub width: u64,
    /// Capacity of a token bucket; 0 for the other algorithms.
    pub burst: u64,
}

impl Rule {
    /// Extracts the parameters of a limit.
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

    /// Largest number of requests admitted at once.
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

/// State of a counter.
///
/// Time is an argument and never runs backward for a counter: a `now` before its latest recorded
/// time counts as that time. An update that spends nothing need not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterState {
    SlidingWindow(SlidingWindow),
    SlidingLog(SlidingLog),
    TokenBucket(TokenBucket),
}

impl CounterState {
    /// Creates a counter from which nothing has been spent.
    pub fn new(algorithm: Algorithm) -> CounterState {
        match algorithm {
            Algorithm::SlidingWindow => CounterState::SlidingWindow(SlidingWindow::default()),
            Algorithm::SlidingLog => CounterState::SlidingLog(SlidingLog::default()),
            Algorithm::TokenBucket { .. } => CounterState::TokenBucket(TokenBucket::default()),
        }
    }

    /// Restores a counter with `spent` requests that stop counting at `reset_at`.
    ///
    /// The requests are dated as late as `reset_at` allows.
    pub(super) fn resumed(
        algorithm: Algorithm,
        rule: Rule,
        spent: u64,
        (as_of, reset_at): (Micros, Micros),
    ) -> CounterState {
        match algorithm {
            Algorithm::SlidingWindow => {
                CounterState::SlidingWindow(SlidingWindow::resumed(rule, spent, reset_at))
            }
            Algorithm::SlidingLog => {
                CounterState::SlidingLog(SlidingLog::resumed(rule, spent, reset_at))
            }
            Algorithm::TokenBucket { .. } => {
                CounterState::TokenBucket(TokenBucket::resumed(rule, spent, as_of))
            }
        }
    }

    /// Advances the counter to `now` and returns the time until one more request is admitted.
    ///
    /// Zero: it is admitted at once.
    pub fn wait(&mut self, rule: Rule, now: Micros) -> Micros {
        match self {
            CounterState::SlidingWindow(state) => state.wait(rule, now),
            CounterState::SlidingLog(state) => state.wait(rule, now),
            CounterState::TokenBucket(state) => state.wait(rule, now),
        }
    }

    /// Spends one request, for which [`CounterState::wait`] has just returned zero.
    pub fn spend(&mut self, rule: Rule, now: Micros) {
        match self {
            CounterState::SlidingWindow(state) => state.spend(),
            CounterState::SlidingLog(state) => state.spend(now),
            CounterState::TokenBucket(state) => state.spend(rule),
        }
    }

    /// Refunds requests that were spent at `spent_at`, a time returned by [`CounterState::as_of`].
    pub fn refund(&mut self, rule: Rule, now: Micros, count: u64, spent_at: Micros) {
        self.wait(rule, now);
        match self {
            CounterState::SlidingWindow(state) => state.refund(rule, count, spent_at),
            CounterState::SlidingLog(state) => state.refund(rule, now, count, spent_at),
            CounterState::TokenBucket(state) => state.refund(rule, count, spent_at),
        }
    }

    /// Grants lease units to a gateway up to its fair share and returns their number.
    ///
    /// A gateway holds at most `remaining / divisor` units, or 1. Nothing is granted while
    /// [`CounterState::wait`] is above zero.
    pub fn grant(&mut self, rule: Rule, now: Micros, request: LeaseRequest, divisor: u64) -> u64 {
        if self.wait(rule, now) > 0 {
            return 0;
        }
        let fair = (self.remaining(rule) / divisor.max(1)).saturating_sub(request.held);
        let granted = request.want.min(fair).max(u64::from(request.held == 0));
        for _ in 0..granted {
            self.spend(rule, now);
        }
        granted
    }

    /// The time with which the counter dates a request spent now; never before its latest record.
    pub fn as_of(&self, rule: Rule, now: Micros) -> Micros {
        match self {
            CounterState::SlidingWindow(state) => state.as_of(rule),
            CounterState::SlidingLog(state) => state.latest(now),
            CounterState::TokenBucket(state) => state.as_of(),
        }
    }

    /// Number of requests that would be admitted as of the last [`CounterState::wait`].
    pub fn remaining(&self, rule: Rule) -> u64 {
        match self {
            CounterState::SlidingWindow(state) => state.remaining(rule),
            CounterState::SlidingLog(state) => state.remaining(rule),
            CounterState::TokenBucket(state) => state.remaining(rule),
        }
    }

    /// Number of requests that count as of the last [`CounterState::wait`], rounded up.
    pub fn spent(&self, rule: Rule) -> u64 {
        rule.quota().saturating_sub(self.remaining(rule))
    }

    /// Time until no spent request counts any more; zero: the counter may be dropped.
    pub fn reset_after(&self, rule: Rule, now: Micros) -> Micros {
        match self {
            CounterState::SlidingWindow(state) => state.reset_after(rule),
            CounterState::SlidingLog(state) => state.reset_after(rule, now),
            CounterState::TokenBucket(state) => state.reset_after(rule),
        }
    }

    /// Builds the decision; `wait` is the value from before the request was spent.
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
