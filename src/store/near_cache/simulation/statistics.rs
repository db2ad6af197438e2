//! Coverage statistics of the simulation.

use super::oracle::{DecisionSource, Verdict};

/// Numbers of simulated events, to detect runs that cover nothing.
#[derive(Debug, Default, Clone)]
pub(super) struct Statistics {
    pub(super) runs: u64,
    pub(super) by_near_cache: u64,
    /// Requests that entries from an earlier request would have accepted.
    pub(super) held: u64,
    pub(super) by_store: u64,
    pub(super) in_outage: u64,
    pub(super) accepted_in_outage: u64,
    pub(super) refused_as_revoked: u64,
    pub(super) unknown: u64,
    pub(super) decided_after_end: u64,
    pub(super) changes: u64,
    /// Changes that were refreshed together with another change of the same item.
    pub(super) coalesced_changes: u64,
}

impl Statistics {
    pub(super) fn count(&mut self, source: DecisionSource, verdict: Verdict) {
        match source {
            DecisionSource::NearCache => self.by_near_cache += 1,
            DecisionSource::Store | DecisionSource::Both | DecisionSource::Sweep => {
                self.by_store += 1
            }
            DecisionSource::Outage => self.in_outage += 1,
        }
        match verdict {
            Verdict::Accepted if source == DecisionSource::Outage => self.accepted_in_outage += 1,
            Verdict::Revoked => self.refused_as_revoked += 1,
            Verdict::Unknown => self.unknown += 1,
            _ => {}
        }
    }

    pub(super) fn add(&mut self, other: &Statistics) {
        self.runs += other.runs;
        self.by_near_cache += other.by_near_cache;
        self.held += other.held;
        self.by_store += other.by_store;
        self.in_outage += other.in_outage;
        self.accepted_in_outage += other.accepted_in_outage;
        self.refused_as_revoked += other.refused_as_revoked;
        self.unknown += other.unknown;
        self.decided_after_end += other.decided_after_end;
        self.changes += other.changes;
        self.coalesced_changes += other.coalesced_changes;
    }

    pub(super) fn sum(parts: &[Statistics]) -> Statistics {
        let mut sum = Statistics::default();
        for part in parts {
            sum.add(part);
        }
        sum
    }

    /// Asserts that all seeds were run and that each kind of event is frequent.
    pub(super) fn assert_coverage(&self, seeds: u64) {
        assert_eq!(self.runs, seeds);
        let decisions = self.by_near_cache + self.by_store + self.in_outage;
        assert!(self.by_near_cache * 4 > decisions, "{self:?}");
        assert!(self.by_store * 10 > decisions, "{self:?}");
        for count in [
            self.held,
            self.in_outage,
            self.accepted_in_outage,
            self.refused_as_revoked,
            self.unknown,
            self.decided_after_end,
            self.changes,
            self.coalesced_changes,
        ] {
            assert!(count >= seeds, "{self:?}");
        }
    }
}
