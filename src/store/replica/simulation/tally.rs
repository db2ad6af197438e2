//! How much happens in the stories.

use super::witness::{By, Verdict};

/// How much happened, so that a story in which nothing happens is noticed.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) stories: u64,
    pub(super) by_replica: u64,
    pub(super) by_store: u64,
    pub(super) in_outage: u64,
    pub(super) accepted_in_outage: u64,
    pub(super) refused_as_revoked: u64,
    pub(super) unknown: u64,
    pub(super) answered_after_end: u64,
    pub(super) changes: u64,
    /// Changes that were looked at together with another of the same item.
    pub(super) repeated: u64,
}

impl Tally {
    pub(super) fn count(&mut self, by: By, verdict: Verdict) {
        match by {
            By::Replica => self.by_replica += 1,
            By::Store | By::Both | By::Sweep => self.by_store += 1,
            By::Outage => self.in_outage += 1,
        }
        match verdict {
            Verdict::Accepted if by == By::Outage => self.accepted_in_outage += 1,
            Verdict::Revoked => self.refused_as_revoked += 1,
            Verdict::Unknown => self.unknown += 1,
            _ => {}
        }
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.stories += other.stories;
        self.by_replica += other.by_replica;
        self.by_store += other.by_store;
        self.in_outage += other.in_outage;
        self.accepted_in_outage += other.accepted_in_outage;
        self.refused_as_revoked += other.refused_as_revoked;
        self.unknown += other.unknown;
        self.answered_after_end += other.answered_after_end;
        self.changes += other.changes;
        self.repeated += other.repeated;
    }

    pub(super) fn sum(all: &[Tally]) -> Tally {
        let mut sum = Tally::default();
        for one in all {
            sum.add(one);
        }
        sum
    }

    /// Checks that all seeds were played and that in them a lot happened of each kind.
    pub(super) fn is_rich(&self, seeds: u64) {
        assert_eq!(self.stories, seeds);
        let answers = self.by_replica + self.by_store + self.in_outage;
        assert!(self.by_replica * 4 > answers, "{self:?}");
        assert!(self.by_store * 10 > answers, "{self:?}");
        for rarer in [
            self.in_outage,
            self.accepted_in_outage,
            self.refused_as_revoked,
            self.unknown,
            self.answered_after_end,
            self.changes,
            self.repeated,
        ] {
            assert!(rarer >= seeds, "{self:?}");
        }
    }
}
