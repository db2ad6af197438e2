//! What the store last said of counters, and the counters of limits while it does not answer. Then each
//! gateway enforces its share, begins with its part of what was said, and keeps apart what it has admitted:
//! the store is told of it. A refusal that lasts is given again without asking.

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

/// A refusal that lasts is asked about again after so long: the counter may have been made whole, and
/// requests given back.
const REFUSAL_RECHECK_INTERVAL: Micros = 1_000_000;
/// An answer is overtaken by no more than this.
const MAX_REORDERING: Micros = 1_000_000;
/// Counters whose last known standing is remembered: 100 bytes each, roughly.
const MAX_CACHED_STANDINGS: u64 = 100_000;
/// What room is made for at the start.
const INITIAL_CAPACITY: usize = 1_000;
/// Counters kept here at once. Beyond them, those that are new share one for each limit: a flood of
/// them makes nobody forget what was spent.
const MAX_COUNTERS: usize = 50_000;

/// A limit that changes its algorithm or its window begins anew, as in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LimitKind(Discriminant<Algorithm>, u64);

impl LimitKind {
    fn of(limit: &Limit) -> LimitKind {
        LimitKind(discriminant(&limit.algorithm), Rule::of(limit).width)
    }
}

/// One counter of an outage.
struct LocalCounter {
    limit: Arc<Limit>,
    /// What is enforced of it here.
    share: Arc<Limit>,
    /// With what was spent before.
    state: CounterState,
    /// What was admitted here, and the store does not know.
    admitted: CounterState,
}

/// What the store last said of a counter.
#[derive(Debug, Clone, Copy)]
struct CachedStanding {
    kind: LimitKind,
    /// The limit and its quota.
    limit_and_quota: (u64, u64),
    standing: CounterSnapshot,
    /// When it was asked, by this gateway's steady clock.
    requested_at: Micros,
    /// So long it refuses.
    wait: Micros,
}

impl CachedStanding {
    /// When a refusal has to be asked about again.
    fn refuses_until(&self) -> Micros {
        self.requested_at + self.wait.min(REFUSAL_RECHECK_INTERVAL)
    }

    /// Whether the store would say the same: it was asked a moment ago, and what it refused lasts.
    fn is_current(&self, steady: Micros) -> bool {
        let until = match self.wait {
            0 => self.requested_at + REFUSAL_RECHECK_INTERVAL,
            _ => self.refuses_until(),
        };
        steady < until
    }

    /// How the limit stands at this time of the steady clock.
    fn decision(&self, limit: &Arc<Limit>, steady: Micros) -> Decision {
        let passed = steady.saturating_sub(self.requested_at);
        let left = |micros: Micros| Duration::from_micros(micros.saturating_sub(passed));
        Decision {
            limit: Arc::clone(limit),
            allowed: self.wait == 0,
            remaining: self.standing.remaining,
            reset_after: left(self.standing.reset_at - self.standing.as_of),
            retry_after: left(self.wait),
            degraded: false,
        }
    }
}

pub(super) struct LocalLimits {
    standings: Cache<Counter, CachedStanding>,
    /// Until then something is refused, by the steady clock: most of the time nothing is, and nobody has
    /// to look.
    refusing_until: AtomicU64,
    counters: Mutex<HashMap<Counter, LocalCounter>>,
}

/// What the store has to be told: to spend so many requests, whatever the limit says.
pub(super) type PendingReport = (Charge, u64);

impl Default for LocalLimits {
    fn default() -> LocalLimits {
        LocalLimits {
            standings: Cache::with_weighter(INITIAL_CAPACITY, MAX_CACHED_STANDINGS, UnitWeighter),
            refusing_until: AtomicU64::new(0),
            counters: Mutex::default(),
        }
    }
}

impl LocalLimits {
    /// Takes note of what the store says of a counter at this time of its clock; `asked` is when it was
    /// asked, by the steady clock.
    pub(super) fn record_decision(
        &self,
        charge: &Charge,
        decision: &Decision,
        now: Micros,
        asked: Micros,
    ) {
        let known = CachedStanding {
            kind: LimitKind::of(&charge.limit),
            limit_and_quota: (charge.limit.limit, charge.limit.quota()),
            standing: CounterSnapshot {
                remaining: decision.remaining,
                as_of: now,
                reset_at: now + decision.reset_after.as_micros() as Micros,
            },
            requested_at: asked,
            wait: decision.retry_after.as_micros() as Micros,
        };
        // Answers overtake each other; a clock that was set back is none that did.
        let overtaken = |it: CachedStanding| {
            (1..MAX_REORDERING).contains(&it.standing.as_of.saturating_sub(now))
        };
        if self.standings.get(&charge.counter).is_some_and(overtaken) {
            return;
        }
        if decision.refuses() {
            let until = known.refuses_until();
            self.refusing_until.fetch_max(until, Ordering::Relaxed);
        }
        self.standings.insert(charge.counter, known);
    }

    /// How these limits stand where one of them is known to refuse still. `None`: none is, or nothing
    /// recent is known of another. Leased ones are decided by their permits.
    pub(super) fn cached_refusal<'c>(
        &self,
        charges: impl Iterator<Item = &'c Charge> + Clone,
        steady: Micros,
    ) -> Option<Vec<Decision>> {
        let leased = || charges.clone().any(|charge| charge.limit.leased);
        if steady >= self.refusing_until.load(Ordering::Relaxed) || leased() {
            return None;
        }
        let stands = |charge: &Charge| {
            let known = self.standings.get(&charge.counter)?;
            let limit = &charge.limit;
            let same = known.kind == LimitKind::of(limit)
                && known.limit_and_quota == (limit.limit, limit.quota());
            (same && known.is_current(steady)).then(|| known.decision(limit, steady))
        };
        let decisions: Option<Vec<Decision>> = charges.map(stands).collect();
        decisions.filter(|all| all.iter().any(Decision::refuses))
    }

    /// Spends one request from each of these limits' shares, or from none if one refuses.
    pub(super) fn charge(&self, charges: &[Charge], gateways: u64, now: Micros) -> Vec<Decision> {
        let mut counted = self.counters.lock();
        let names: Vec<Counter> = charges
            .iter()
            .map(|charge| self.ensure_counter(&mut counted, charge, gateways))
            .collect();
        let mut refuses = false;
        for name in &names {
            let one = counted.get_mut(name);
            refuses |= one.is_some_and(|one| !one.share.shadow && one.wait(now) > 0);
        }
        let mut settle = |name| Some(counted.get_mut(name)?.settle(!refuses, now));
        names.iter().filter_map(&mut settle).collect()
    }

    /// Looks at a counter and spends nothing.
    pub(super) fn peek(&self, charge: &Charge, gateways: u64, now: Micros) -> Decision {
        let counted = self.counters.lock();
        let same = |one: &&LocalCounter| LimitKind::of(&one.limit) == LimitKind::of(&charge.limit);
        match counted.get(&charge.counter).filter(same) {
            Some(one) => one.peek(now),
            None => self.new_counter(charge, gateways).peek(now),
        }
    }

    /// Forgets a counter, and what the store said of it.
    pub(super) fn remove(&self, counter: &Counter) {
        self.standings.remove(counter);
        self.counters.lock().remove(counter);
    }

    /// Whether nothing is counted here.
    pub(super) fn is_empty(&self) -> bool {
        self.counters.lock().is_empty()
    }

    /// Hands over what was admitted here and still counts. It is not handed over again: whoever
    /// cannot tell the store gives it back by [`LocalLimits::restore_pending`].
    pub(super) fn take_pending(&self, now: Micros) -> Vec<PendingReport> {
        let mut counted = self.counters.lock();
        let take = |(name, one): (&Counter, &mut LocalCounter)| {
            let many = one.take_admitted(now);
            let limit = Arc::clone(&one.limit);
            let counter = *name;
            (many > 0).then_some((Charge { limit, counter }, many))
        };
        counted.iter_mut().filter_map(take).collect()
    }

    /// Takes back what the store was not told.
    pub(super) fn restore_pending(&self, (charge, many): &PendingReport, now: Micros) {
        if let Some(one) = self.counters.lock().get_mut(&charge.counter) {
            one.admit(*many, now);
        }
    }

    /// Forgets the counters of which the store knows all.
    pub(super) fn remove_reported(&self, now: Micros) {
        let mut counted = self.counters.lock();
        counted.retain(|_, one| one.pending_count(now) > 0);
        counted.shrink_to_fit();
    }

    /// Drops the counters that are whole again.
    pub(super) fn clean_up(&self, now: Micros) {
        self.counters.lock().retain(|_, one| {
            one.wait(now);
            one.state.reset_after(Rule::of(&one.share), now) > 0
        });
    }

    /// Makes sure that there is a counter; gives its name.
    fn ensure_counter(
        &self,
        counted: &mut HashMap<Counter, LocalCounter>,
        charge: &Charge,
        gateways: u64,
    ) -> Counter {
        let mut name = charge.counter;
        if counted.len() >= MAX_COUNTERS && !counted.contains_key(&name) {
            name = Counter::of(&charge.limit.name, []);
        }
        match counted.get_mut(&name) {
            Some(one) if Arc::ptr_eq(&one.limit, &charge.limit) => {}
            Some(one) if LimitKind::of(&one.limit) == LimitKind::of(&charge.limit) => {
                // The configuration was loaded again.
                one.limit = Arc::clone(&charge.limit);
                one.share = charge.limit.share(gateways);
            }
            _ => {
                counted.insert(name, self.new_counter(charge, gateways));
            }
        }
        name
    }

    fn new_counter(&self, charge: &Charge, gateways: u64) -> LocalCounter {
        let share = charge.limit.share(gateways);
        let known = self.standings.get(&charge.counter);
        let state = match known.filter(|known| known.kind == LimitKind::of(&charge.limit)) {
            Some(known) => known.standing.local_state(&share, gateways),
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

    fn admit(&mut self, many: u64, now: Micros) {
        let rule = Rule::of(&self.share);
        self.admitted.wait(rule, now);
        for _ in 0..many {
            self.admitted.spend(rule, now);
        }
    }

    /// How much of what was admitted here still counts.
    fn pending_count(&mut self, now: Micros) -> u64 {
        let rule = Rule::of(&self.share);
        self.admitted.wait(rule, now);
        self.admitted.spent(rule)
    }

    fn take_admitted(&mut self, now: Micros) -> u64 {
        let many = self.pending_count(now);
        self.admitted = CounterState::new(self.share.algorithm);
        many
    }
}
