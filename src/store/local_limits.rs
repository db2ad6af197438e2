//! Cached counter states, and local limits while the store is unavailable.
//!
//! During an outage each gateway enforces its share of a limit, starting from its share of the last
//! state that the store reported. Its admissions are recorded and reported to the store later. A
//! cached refusal is returned without a query for as long as it holds.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use crate::limits::{
    Algorithm, Charge, Counter, CounterSnapshot, CounterState, Decision, Limit, Micros, Rule,
};

/// Interval at which a lasting refusal is checked again: the counter may have been reset or refunded.
const REFUSAL_RECHECK_INTERVAL: Micros = 1_000_000;
/// Largest time by which replies are reordered.
const MAX_REORDERING: Micros = 1_000_000;
/// Number of cached counter states, of about 100 bytes each.
const MAX_CACHED_STATES: u64 = 100_000;
/// Number of entries that are allocated at the start.
const INITIAL_CAPACITY: usize = 1_000;
/// Number of local counters. Beyond it, new counters share one per limit, so that a flood of them
/// does not displace counters in use.
const MAX_COUNTERS: usize = 50_000;

/// Algorithm and window of a limit; if they change, its counters start anew, as in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LimitKind(Discriminant<Algorithm>, u64);

impl LimitKind {
    fn of(limit: &Limit) -> LimitKind {
        LimitKind(discriminant(&limit.algorithm), Rule::of(limit).width)
    }
}

/// A counter during an outage.
struct LocalCounter {
    limit: Arc<Limit>,
    /// This gateway's share of the limit.
    share: Arc<Limit>,
    /// Includes what was spent before the outage.
    state: CounterState,
    /// Local admissions that have not been reported to the store.
    admitted: CounterState,
}

/// State of a counter that the store last reported.
#[derive(Debug, Clone, Copy)]
struct CachedState {
    kind: LimitKind,
    /// The limit and its quota.
    limit_and_quota: (u64, u64),
    snapshot: CounterSnapshot,
    /// Time of the request, by this gateway's monotonic clock.
    requested_at: Micros,
    /// Time for which the counter refuses requests.
    wait: Micros,
}

impl CachedState {
    /// Time at which a refusal has to be checked again.
    fn refuses_until(&self) -> Micros {
        self.requested_at + self.wait.min(REFUSAL_RECHECK_INTERVAL)
    }

    /// Whether the state is recent and, if it is a refusal, still holds.
    fn is_current(&self, steady: Micros) -> bool {
        let until = match self.wait {
            0 => self.requested_at + REFUSAL_RECHECK_INTERVAL,
            _ => self.refuses_until(),
        };
        steady < until
    }

    /// Builds the decision for this time of the monotonic clock.
    fn decision(&self, limit: &Arc<Limit>, steady: Micros) -> Decision {
        let elapsed = steady.saturating_sub(self.requested_at);
        let left = |micros: Micros| Duration::from_micros(micros.saturating_sub(elapsed));
        Decision {
            limit: Arc::clone(limit),
            allowed: self.wait == 0,
            remaining: self.snapshot.remaining,
            reset_after: left(self.snapshot.reset_at - self.snapshot.as_of),
            retry_after: left(self.wait),
            degraded: false,
        }
    }
}

/// Cached counter states and local counters of this process.
pub(super) struct LocalLimits {
    states: Cache<Counter, CachedState>,
    /// End of the last cached refusal, by the monotonic clock; after it, no look-up is needed.
    refusing_until: AtomicU64,
    counters: Mutex<HashMap<Counter, LocalCounter>>,
}

/// Admissions to report to the store, which counts them regardless of the limit.
pub(super) type PendingReport = (Charge, u64);

impl Default for LocalLimits {
    fn default() -> LocalLimits {
        LocalLimits {
            states: Cache::with_weighter(INITIAL_CAPACITY, MAX_CACHED_STATES, UnitWeighter),
            refusing_until: AtomicU64::new(0),
            counters: Mutex::default(),
        }
    }
}

impl LocalLimits {
    /// Caches the state of a counter that the store reported.
    ///
    /// `now` is by the store's clock, `requested_at` by the monotonic clock.
    pub(super) fn record_decision(
        &self,
        charge: &Charge,
        decision: &Decision,
        now: Micros,
        requested_at: Micros,
    ) {
        let state = CachedState {
            kind: LimitKind::of(&charge.limit),
            limit_and_quota: (charge.limit.limit, charge.limit.quota()),
            snapshot: CounterSnapshot {
                remaining: decision.remaining,
                as_of: now,
                reset_at: now + decision.reset_after.as_micros() as Micros,
            },
            requested_at,
            wait: decision.retry_after.as_micros() as Micros,
        };
        // A small step back is a reordered reply, a large one a store clock that was set back.
        let is_newer = |cached: CachedState| {
            (1..MAX_REORDERING).contains(&cached.snapshot.as_of.saturating_sub(now))
        };
        if self.states.get(&charge.counter).is_some_and(is_newer) {
            return;
        }
        if decision.refuses() {
            let until = state.refuses_until();
            self.refusing_until.fetch_max(until, Ordering::Relaxed);
        }
        self.states.insert(charge.counter, state);
    }

    /// Whether a refusal was ever cached: without one, no clock needs to be read.
    pub(super) fn has_refused(&self) -> bool {
        self.refusing_until.load(Ordering::Relaxed) > 0
    }

    /// Returns the decisions of these limits if one of them has a cached refusal that still holds.
    ///
    /// `None`: there is none, or another limit has no recent state. Leased limits are not cached here.
    pub(super) fn cached_refusal<'c>(
        &self,
        charges: impl Iterator<Item = &'c Charge> + Clone,
        steady: Micros,
    ) -> Option<Vec<Decision>> {
        let any_leased = || charges.clone().any(|charge| charge.limit.leased);
        if steady >= self.refusing_until.load(Ordering::Relaxed) || any_leased() {
            return None;
        }
        let cached_decision = |charge: &Charge| {
            let state = self.states.get(&charge.counter)?;
            let limit = &charge.limit;
            let is_same_limit = state.kind == LimitKind::of(limit)
                && state.limit_and_quota == (limit.limit, limit.quota());
            (is_same_limit && state.is_current(steady)).then(|| state.decision(limit, steady))
        };
        let decisions: Option<Vec<Decision>> = charges.map(cached_decision).collect();
        decisions.filter(|decisions| decisions.iter().any(Decision::refuses))
    }

    /// Spends one request from this gateway's share of each limit, or from none if one refuses.
    pub(super) fn charge(&self, charges: &[Charge], gateways: u64, now: Micros) -> Vec<Decision> {
        let mut counters = self.counters.lock();
        let names: Vec<Counter> = charges
            .iter()
            .map(|charge| self.ensure_counter(&mut counters, charge, gateways))
            .collect();
        let mut refuses = false;
        for name in &names {
            let counter = counters.get_mut(name);
            refuses |=
                counter.is_some_and(|counter| !counter.share.shadow && counter.wait(now) > 0);
        }
        let mut settle = |name| Some(counters.get_mut(name)?.settle(!refuses, now));
        names.iter().filter_map(&mut settle).collect()
    }

    /// Reads a counter without spending.
    pub(super) fn peek(&self, charge: &Charge, gateways: u64, now: Micros) -> Decision {
        let counters = self.counters.lock();
        let is_same_kind =
            |counter: &&LocalCounter| LimitKind::of(&counter.limit) == LimitKind::of(&charge.limit);
        match counters.get(&charge.counter).filter(is_same_kind) {
            Some(counter) => counter.peek(now),
            None => self.new_counter(charge, gateways).peek(now),
        }
    }

    /// Removes a local counter and its cached state.
    pub(super) fn remove(&self, counter: &Counter) {
        self.states.remove(counter);
        self.counters.lock().remove(counter);
    }

    /// Whether there are no local counters.
    pub(super) fn is_empty(&self) -> bool {
        self.counters.lock().is_empty()
    }

    /// Takes the local admissions that still count, to report them.
    ///
    /// A caller that cannot report them returns them with [`LocalLimits::restore_pending`].
    pub(super) fn take_pending(&self, now: Micros) -> Vec<PendingReport> {
        let mut counters = self.counters.lock();
        let take = |(name, counter): (&Counter, &mut LocalCounter)| {
            let admitted = counter.take_admitted(now);
            let charge = Charge {
                limit: Arc::clone(&counter.limit),
                counter: *name,
            };
            (admitted > 0).then_some((charge, admitted))
        };
        counters.iter_mut().filter_map(take).collect()
    }

    /// Puts back admissions that were not reported.
    pub(super) fn restore_pending(&self, (charge, admitted): &PendingReport, now: Micros) {
        if let Some(counter) = self.counters.lock().get_mut(&charge.counter) {
            counter.admit(*admitted, now);
        }
    }

    /// Drops the counters whose admissions have all been reported.
    pub(super) fn remove_reported(&self, now: Micros) {
        let mut counters = self.counters.lock();
        counters.retain(|_, counter| counter.pending_count(now) > 0);
        counters.shrink_to_fit();
    }

    /// Drops the counters from which no request counts any more.
    pub(super) fn clean_up(&self, now: Micros) {
        self.counters.lock().retain(|_, counter| {
            counter.wait(now);
            counter.state.reset_after(Rule::of(&counter.share), now) > 0
        });
    }

    /// Creates or updates the counter of a charge; returns its name.
    fn ensure_counter(
        &self,
        counters: &mut HashMap<Counter, LocalCounter>,
        charge: &Charge,
        gateways: u64,
    ) -> Counter {
        let mut name = charge.counter;
        if counters.len() >= MAX_COUNTERS && !counters.contains_key(&name) {
            name = Counter::of(&charge.limit.name, []);
        }
        match counters.get_mut(&name) {
            Some(counter) if Arc::ptr_eq(&counter.limit, &charge.limit) => {}
            Some(counter) if LimitKind::of(&counter.limit) == LimitKind::of(&charge.limit) => {
                // The configuration was reloaded.
                counter.limit = Arc::clone(&charge.limit);
                counter.share = charge.limit.share(gateways);
            }
            _ => {
                counters.insert(name, self.new_counter(charge, gateways));
            }
        }
        name
    }

    fn new_counter(&self, charge: &Charge, gateways: u64) -> LocalCounter {
        let share = charge.limit.share(gateways);
        let cached = self.states.get(&charge.counter);
        let state = match cached.filter(|cached| cached.kind == LimitKind::of(&charge.limit)) {
            Some(cached) => cached.snapshot.local_state(&share, gateways),
            None => CounterState::new(share.algorithm),
        };
        LocalCounter {
            limit: Arc::clone(&charge.limit),
            admitted: CounterState::new(share.algorithm),
            share,
            state,
        }
    }
}

impl LocalCounter {
    fn wait(&mut self, now: Micros) -> Micros {
        self.state.wait(Rule::of(&self.share), now)
    }

    fn settle(&mut self, spend: bool, now: Micros) -> Decision {
        let wait = self.wait(now);
        if spend && wait == 0 {
            self.state.spend(Rule::of(&self.share), now);
            self.admit(1, now);
        }
        self.decision(&self.state, wait, now)
    }

    fn peek(&self, now: Micros) -> Decision {
        let mut state = self.state.clone();
        let wait = state.wait(Rule::of(&self.share), now);
        self.decision(&state, wait, now)
    }

    fn decision(&self, state: &CounterState, wait: Micros, now: Micros) -> Decision {
        Decision {
            degraded: true,
            ..state.decision(&self.share, wait, now)
        }
    }

    fn admit(&mut self, count: u64, now: Micros) {
        let rule = Rule::of(&self.share);
        self.admitted.wait(rule, now);
        for _ in 0..count {
            self.admitted.spend(rule, now);
        }
    }

    /// Number of unreported admissions that still count.
    fn pending_count(&mut self, now: Micros) -> u64 {
        let rule = Rule::of(&self.share);
        self.admitted.wait(rule, now);
        self.admitted.spent(rule)
    }

    fn take_admitted(&mut self, now: Micros) -> u64 {
        let count = self.pending_count(now);
        self.admitted = CounterState::new(self.share.algorithm);
        count
    }
}
