//! Permits that one gateway has taken from one counter of the store, to decide without asking it.
//!
//! **A permit is spent in the store when it is granted.** So the store's count never exceeds the limit,
//! whatever gateways do. A permit is good for a short time (a tenth of the window, a second at most), counted from before the store
//! was asked. What is not used flows back; what a gateway had that died leaves the window like any
//! other admission.
//!
//! **The bound.** A request is let through by a permit at most one validity after the store has counted
//! it. Let *O* be the permits that the fleet holds at the beginning of an interval of one window. The
//! interval admits what the store counts in it, and at most *O* more:
//!
//! * `sliding_log`: at most `limit + O`;
//! * `sliding_window`: at most `2·limit - 1 + O` ([its own bound](super::sliding_window)), and in a window
//!   that is aligned to the store's clock at most `limit + O`;
//! * `token_bucket`: in *t* at most `burst + limit·t/window + O`.
//!
//! The store never grants a gateway more than brings what it holds to one part in `2·gateways` of what is
//! left, or to 1. So *O* is at most half of the limit (of a bucket, its burst) and one for each gateway;
//! and a gateway asks for no more than it expects to use while they are good. Near the limit batches
//! are single permits that are used at once: it becomes exact.
//!
//! **Giving back is conservative.** Of a window, a permit is taken from the window that it was counted in.
//! Of a log, the oldest admission goes: those that stay are no older. A bucket drains meanwhile: what has
//! drained since is not given back a second time.

use super::sliding_window::SlidingWindow;
use super::{Limit, Micros, Rule};

/// A permit is good for no longer.
const MAX_VALIDITY: Micros = 1_000_000;
/// Whoever asks for a batch is waited for no longer.
const BATCH_REPLY_TIMEOUT: Micros = 1_000_000;
/// A refusal that lasts is asked about again after so long: others may have given permits back.
const REFUSAL_RECHECK_INTERVAL: Micros = 1_000_000;
/// A counter that nobody has asked for that long is forgotten.
const IDLE_TIMEOUT: Micros = 2_000_000;
/// A batch is at most as many, or what is used in a sixteenth of a second where that is more.
const BASE_MAX_BATCH: u64 = 64;
/// How demand is measured: requests within about a second.
const DEMAND_WINDOW: Rule = Rule {
    limit: 1 << 40,
    width: 1000,
    burst: 0,
};

/// How long a permit of this limit is good for: a tenth of the window, and a second at most.
fn validity(limit: &Limit) -> Micros {
    let tenth = limit.window.as_micros() / 10;
    Micros::try_from(tenth)
        .unwrap_or(MAX_VALIDITY)
        .min(MAX_VALIDITY)
}

/// A gateway holds at most one part of so many of what is left.
pub fn share_divisor(gateways: u64) -> u64 {
    gateways.max(1).saturating_mul(2)
}

/// What a lease has to know to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    pub validity: Micros,
    /// See [`parts`].
    pub share_divisor: u64,
}

impl LeaseTerms {
    pub fn of(limit: &Limit, gateways: u64) -> LeaseTerms {
        LeaseTerms {
            validity: validity(limit),
            share_divisor: share_divisor(gateways),
        }
    }
}

/// One request that was let through by a permit, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedUnit {
    until: Micros,
    counted_at: Micros,
}

/// A question to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// How many permits are wished for.
    pub want: u64,
    /// How many are held already. With none, at least one is granted if one is left.
    pub held: u64,
    /// Whether others wait for its answer before they ask for a batch.
    pub is_leader: bool,
}

impl LeaseRequest {
    /// For one request, at once.
    pub const SINGLE: LeaseRequest = LeaseRequest {
        want: 1,
        held: 0,
        is_leader: false,
    };
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOutcome {
    Unit(LeasedUnit),
    /// The store has refused, and said that this will last.
    Refused,
    /// Nothing is held: the store has to be asked.
    Request(LeaseRequest),
}

/// What the store says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseReply {
    pub granted: u64,
    /// When that was said, by the store's clock: answers may overtake each other.
    pub replied_at: Micros,
    /// As of when what was granted is counted, by the same clock.
    pub counted_at: Micros,
    /// What is left besides.
    pub remaining: u64,
    /// Until the limit is whole again.
    pub reset_after: Micros,
    /// Until one more would be admitted; zero: one would be.
    pub wait: Micros,
}

/// Permits to give back, and when the store counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedUnits {
    pub count: u64,
    pub counted_at: Micros,
}

#[derive(Debug, Clone, Copy, Default)]
struct UnitBatch {
    count: u64,
    until: Micros,
    counted_at: Micros,
}

/// One counter's permits on one gateway. Time is the gateway's own, and steady; what the store counted
/// is dated by the store's.
#[derive(Debug, Default)]
pub struct Lease {
    /// The oldest first, which is used up first.
    batches: [UnitBatch; 4],
    unused: Vec<UnusedUnits>,
    demand: SlidingWindow,
    last_used_at: Micros,
    /// Until when somebody is trusted to be asking.
    batch_pending_until: Micros,
    refused_until: Micros,
    refusal_checked_at: Micros,
    remaining: u64,
    reset_at: Micros,
    /// When the store said so, by its clock; 0: it has not said anything yet.
    reported_at: Micros,
    /// When the store last granted a single permit while somebody asks for a batch, and what was left.
    newer_report: Option<(Micros, u64)>,
}

impl Lease {
    /// Takes a permit for one request, or says what has to be done for one.
    pub fn take(&mut self, terms: LeaseTerms, now: Micros) -> TakeOutcome {
        self.last_used_at = now;
        self.demand.wait(DEMAND_WINDOW, now);
        self.demand.spend();
        self.expire(now);
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.count > 0) {
            batch.count -= 1;
            return TakeOutcome::Unit(LeasedUnit {
                until: batch.until,
                counted_at: batch.counted_at,
            });
        }
        let asking = self.is_batch_pending(now);
        if now < self.refused_until
            && (asking || now < self.refusal_checked_at + REFUSAL_RECHECK_INTERVAL)
        {
            return TakeOutcome::Refused;
        }
        if asking {
            return TakeOutcome::Request(LeaseRequest::SINGLE);
        }
        self.batch_pending_until = now + BATCH_REPLY_TIMEOUT;
        TakeOutcome::Request(LeaseRequest {
            want: self.target(terms),
            held: 0,
            is_leader: true,
        })
    }

    /// What to ask for before the permits are used up, if it is time.
    pub fn refill(&mut self, terms: LeaseTerms, now: Micros) -> Option<LeaseRequest> {
        if self.is_batch_pending(now) || now < self.refused_until || self.remaining == 0 {
            return None;
        }
        let held = self.held();
        let target = self
            .target(terms)
            .min((self.remaining / terms.share_divisor).max(1));
        if target < 2 || held * 2 > target {
            return None;
        }
        self.batch_pending_until = now + BATCH_REPLY_TIMEOUT;
        Some(LeaseRequest {
            want: target - held,
            held,
            is_leader: true,
        })
    }

    /// Takes in the answer to a question that was asked at `asked`, and of which `used` permits are
    /// used already.
    pub fn apply_reply(
        &mut self,
        terms: LeaseTerms,
        ask: LeaseRequest,
        answer: LeaseReply,
        used: u64,
        (asked, now): (Micros, Micros),
    ) {
        if ask.is_leader {
            self.apply_batch_reply(answer, now);
        } else if self.is_batch_pending(now) && answer.wait == 0 {
            // What is left when the batch has come its own answer will tell.
            self.remaining = self.remaining.saturating_sub(answer.granted);
            self.newer_report = self
                .newer_report
                .max(Some((answer.replied_at, answer.remaining)));
        } else {
            self.apply_report(answer, now);
        }
        self.expire(now);
        let new = UnitBatch {
            count: answer.granted.saturating_sub(used),
            until: asked.saturating_add(terms.validity),
            counted_at: answer.counted_at,
        };
        if new.count == 0 {
            return;
        }
        // Those in use come first, in their order; where there is no room the oldest goes.
        self.batches.sort_by_key(|batch| batch.count == 0);
        if self.batches.iter().all(|batch| batch.count > 0) {
            let [oldest, ..] = self.batches;
            self.give_back(oldest);
            self.batches.rotate_left(1);
            let [.., last] = &mut self.batches;
            *last = UnitBatch::default();
        }
        if let Some(free) = self.batches.iter_mut().find(|batch| batch.count == 0) {
            *free = new;
        }
        self.expire(now);
    }

    /// Takes note of the answer to who asked for a batch, which others have overtaken that asked for a
    /// single permit.
    fn apply_batch_reply(&mut self, answer: LeaseReply, now: Micros) {
        self.batch_pending_until = 0;
        let later = self.newer_report.take();
        let later = later.filter(|(said_at, _)| *said_at > answer.replied_at);
        let left = later.map_or(answer.remaining, |(_, left)| left);
        self.apply_report(
            LeaseReply {
                remaining: left,
                ..answer
            },
            now,
        );
    }

    /// Takes note of what the store says of the counter, unless it has said something later.
    pub fn apply_report(&mut self, answer: LeaseReply, now: Micros) {
        if answer.replied_at < self.reported_at {
            return;
        }
        self.reported_at = answer.replied_at;
        self.remaining = answer.remaining;
        self.reset_at = now.saturating_add(answer.reset_after);
        self.refused_until = match answer.wait {
            0 => 0,
            wait => now.saturating_add(wait),
        };
        self.refusal_checked_at = now;
    }

    /// A question was not answered, or not asked.
    pub fn cancel(&mut self, ask: LeaseRequest) {
        if ask.is_leader {
            self.batch_pending_until = 0;
        }
    }

    /// Puts a permit back that was not needed.
    pub fn put_back(&mut self, permit: LeasedUnit, now: Micros) {
        let same = |batch: &&mut UnitBatch| {
            (batch.until, batch.counted_at) == (permit.until, permit.counted_at)
        };
        match self.batches.iter_mut().find(same) {
            Some(batch) if now < permit.until => batch.count += 1,
            _ => self.unused.push(UnusedUnits {
                count: 1,
                counted_at: permit.counted_at,
            }),
        }
    }

    /// Hands over what is to be given back.
    pub fn take_unused(&mut self, now: Micros) -> Vec<UnusedUnits> {
        self.expire(now);
        std::mem::take(&mut self.unused)
    }

    /// Gives up everything, and hands it over to be given back.
    pub fn retire(&mut self) -> Vec<UnusedUnits> {
        for batch in std::mem::take(&mut self.batches) {
            self.give_back(batch);
        }
        std::mem::take(&mut self.unused)
    }

    /// What a client is told: how many more requests there are, and how long until the limit is whole.
    /// `None`: the store has not said anything yet.
    pub fn remaining_and_reset(&self, now: Micros) -> Option<(u64, Micros)> {
        let left = self.remaining.saturating_add(self.held());
        (self.reported_at > 0).then(|| (left, self.reset_at.saturating_sub(now)))
    }

    /// How long until the store would admit one more.
    pub fn retry_after(&self, now: Micros) -> Micros {
        self.refused_until.saturating_sub(now)
    }

    /// Whether somebody is on the way to the store for a batch.
    pub fn is_batch_pending(&self, now: Micros) -> bool {
        now < self.batch_pending_until
    }

    /// Whether there is nothing left to remember.
    pub fn is_idle(&self, now: Micros) -> bool {
        let quiet = now >= self.last_used_at.saturating_add(IDLE_TIMEOUT);
        quiet && self.held() == 0 && self.unused.is_empty()
    }

    /// How many permits are held.
    pub fn held(&self) -> u64 {
        self.batches.iter().map(|batch| batch.count).sum()
    }

    /// What is expected to be used while it is good. A counter that is asked once a second gets the
    /// one permit that is needed.
    fn target(&self, terms: LeaseTerms) -> u64 {
        let a_second = self.demand.count(DEMAND_WINDOW);
        if a_second < 2 {
            return 1;
        }
        let expected = a_second.saturating_mul(terms.validity) / 1_000_000;
        expected.clamp(1, BASE_MAX_BATCH.max(a_second / 16))
    }

    fn expire(&mut self, now: Micros) {
        for place in 0..self.batches.len() {
            let Some(batch) = self.batches.get_mut(place) else {
                continue;
            };
            if batch.count > 0 && now >= batch.until {
                let over = std::mem::take(batch);
                self.give_back(over);
            }
        }
    }

    fn give_back(&mut self, batch: UnitBatch) {
        let UnitBatch {
            count: many,
            counted_at,
            ..
        } = batch;
        if many > 0 {
            self.unused.push(UnusedUnits {
                count: many,
                counted_at,
            });
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod fleet;
#[cfg(test)]
#[expect(clippy::panic, reason = "tests")]
mod tests;
