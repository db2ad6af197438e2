//! Limit counters.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{Algorithm, Charge, Counter, CounterState, Decision, Micros, Rule};

/// A limit that changes its algorithm or its window begins anew, as in the other engine.
#[derive(PartialEq, Eq, Hash)]
struct CounterKey {
    limit: Arc<str>,
    counter: Counter,
    algorithm: std::mem::Discriminant<Algorithm>,
    width: u64,
}

struct CounterEntry {
    state: CounterState,
    rule: Rule,
}

#[derive(Default)]
pub(super) struct Counters {
    entries: HashMap<CounterKey, CounterEntry>,
}

fn counter_key(charge: &Charge) -> CounterKey {
    CounterKey {
        limit: Arc::clone(&charge.limit.name),
        counter: charge.counter,
        algorithm: std::mem::discriminant(&charge.limit.algorithm),
        width: Rule::of(&charge.limit).width,
    }
}

impl Counters {
    /// Whether one of these limits turns the request away.
    pub(super) fn is_refused(&mut self, charges: &[&Charge], now: Micros) -> bool {
        charges
            .iter()
            .any(|charge| !charge.limit.shadow && self.wait(charge, now) > 0)
    }

    /// Spends one request from each limit that admits it, if the request is to `spend`; gives what
    /// each of them says.
    pub(super) fn settle(
        &mut self,
        charges: &[&Charge],
        spend: bool,
        now: Micros,
    ) -> Vec<Decision> {
        let settle_one = |charge: &&Charge| {
            let rule = Rule::of(&charge.limit);
            let fresh = || new_entry(charge);
            let kept = self
                .entries
                .entry(counter_key(charge))
                .or_insert_with(fresh);
            kept.rule = rule;
            let wait = kept.state.wait(rule, now);
            if spend && wait == 0 {
                kept.state.spend(rule, now);
            }
            kept.state.decision(&charge.limit, wait, now)
        };
        charges.iter().map(settle_one).collect()
    }

    pub(super) fn give_back(&mut self, charges: &[Charge], now: Micros) {
        for charge in charges {
            if let Some(kept) = self.entries.get_mut(&counter_key(charge)) {
                kept.state.refund(Rule::of(&charge.limit), now, 1, now);
            }
        }
    }

    pub(super) fn peek(&self, charge: &Charge, now: Micros) -> Decision {
        let mut state = self.entries.get(&counter_key(charge)).map_or_else(
            || CounterState::new(charge.limit.algorithm),
            |kept| kept.state.clone(),
        );
        let wait = state.wait(Rule::of(&charge.limit), now);
        state.decision(&charge.limit, wait, now)
    }

    pub(super) fn reset(&mut self, charge: &Charge) -> bool {
        self.entries.remove(&counter_key(charge)).is_some()
    }

    /// Drops the counters that are whole again.
    pub(super) fn clean_up(&mut self, now: Micros) {
        self.entries.retain(|_, kept| {
            kept.state.wait(kept.rule, now);
            kept.state.reset_after(kept.rule, now) > 0
        });
        self.entries.shrink_to_fit();
    }

    fn wait(&mut self, charge: &Charge, now: Micros) -> Micros {
        let rule = Rule::of(&charge.limit);
        self.entries
            .get_mut(&counter_key(charge))
            .map_or(0, |kept| kept.state.wait(rule, now))
    }
}

fn new_entry(charge: &Charge) -> CounterEntry {
    CounterEntry {
        state: CounterState::new(charge.limit.algorithm),
        rule: Rule::of(&charge.limit),
    }
}
