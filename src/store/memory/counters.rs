//! Limit counters of the embedded engine.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{Algorithm, Charge, Counter, CounterState, Decision, Micros, Rule};

/// Key of a counter. If a limit's algorithm or window changes, it starts anew, as in Redis.
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
    /// Whether one of these limits refuses the request.
    pub(super) fn is_refused(&mut self, charges: &[&Charge], now: Micros) -> bool {
        charges
            .iter()
            .any(|charge| !charge.limit.shadow && self.wait(charge, now) > 0)
    }

    /// Returns each limit's decision; with `spend`, spends one request from limits that admit it.
    pub(super) fn settle(
        &mut self,
        charges: &[&Charge],
        spend: bool,
        now: Micros,
    ) -> Vec<Decision> {
        let settle_one = |charge: &&Charge| {
            let rule = Rule::of(&charge.limit);
            let entry = self
                .entries
                .entry(counter_key(charge))
                .or_insert_with(|| new_entry(charge));
            entry.rule = rule;
            let wait = entry.state.wait(rule, now);
            if spend && wait == 0 {
                entry.state.spend(rule, now);
            }
            entry.state.decision(&charge.limit, wait, now)
        };
        charges.iter().map(settle_one).collect()
    }

    pub(super) fn refund(&mut self, charges: &[Charge], now: Micros) {
        for charge in charges {
            if let Some(entry) = self.entries.get_mut(&counter_key(charge)) {
                entry.state.refund(Rule::of(&charge.limit), now, 1, now);
            }
        }
    }

    pub(super) fn peek(&self, charge: &Charge, now: Micros) -> Decision {
        let mut state = self.entries.get(&counter_key(charge)).map_or_else(
            || CounterState::new(charge.limit.algorithm),
            |entry| entry.state.clone(),
        );
        let wait = state.wait(Rule::of(&charge.limit), now);
        state.decision(&charge.limit, wait, now)
    }

    pub(super) fn reset(&mut self, charge: &Charge) -> bool {
        self.entries.remove(&counter_key(charge)).is_some()
    }

    /// Drops the counters from which no request counts any more.
    pub(super) fn clean_up(&mut self, now: Micros) {
        self.entries.retain(|_, entry| {
            entry.state.wait(entry.rule, now);
            entry.state.reset_after(entry.rule, now) > 0
        });
        self.entries.shrink_to_fit();
    }

    fn wait(&mut self, charge: &Charge, now: Micros) -> Micros {
        let rule = Rule::of(&charge.limit);
        self.entries
            .get_mut(&counter_key(charge))
            .map_or(0, |entry| entry.state.wait(rule, now))
    }
}

fn new_entry(charge: &Charge) -> CounterEntry {
    CounterEntry {
        state: CounterState::new(charge.limit.algorithm),
        rule: Rule::of(&charge.limit),
    }
}
