//! Lease of one counter: units that a gateway obtained from the store to decide locally.
//!
//! **A unit is spent in the store when it is granted.** The store's count therefore never exceeds the
//! limit, whatever gateways do. A unit is valid for a tenth of the window and at most one second,
//! counted from before the request to the store. Unused units are refunded; the units of a gateway
//! that crashes leave the window like any other admission.
//!
//! **Error bound.** A unit admits a request at most one validity after the store has counted it. Let
//! *O* be the units that the fleet holds at the beginning of an interval of one window. The interval
//! admits what the store counts in it and at most *O* more:
//!
//! * `sliding_log`: at most `limit + O`;
//! * `sliding_window`: at most `2·limit - 1 + O` ([its own bound](super::sliding_window)), and at
//!   most `limit + O` in a window that is aligned to the store's clock;
//! * `token_bucket`: in *t* at most `burst + limit·t/window + O`.
//!
//! A grant raises a gateway's units to at most `remaining / (2·gateways)`, or to 1. *O* is therefore
//! at most half of the limit (of a bucket, its burst) plus one unit per gateway. A gateway requests
//! no more than it expects to use while the units are valid. Near the limit, batches shrink to single
//! units that are used at once, and the limit becomes exact.
//!
//! **Refunds are conservative.** A sliding window refunds a unit to the window that counted it. A
//! sliding log drops its oldest admission: the remaining ones are no older. A token bucket deducts
//! what has drained since.

use super::sliding_window::SlidingWindow;
use super::{Limit, Micros, Rule};

/// Longest validity of a unit.
const MAX_VALIDITY: Micros = 1_000_000;
/// Time after which a pending batch request is considered lost.
const BATCH_REPLY_TIMEOUT: Micros = 1_000_000;
/// Interval at which a lasting refusal is checked again: other gateways may have refunded units.
const REFUSAL_RECHECK_INTERVAL: Micros = 1_000_000;
/// Time without use after which a lease is dropped.
const IDLE_TIMEOUT: Micros = 2_000_000;
/// Largest batch, unless a sixteenth of a second uses more.
const BASE_MAX_BATCH: u64 = 64;
/// Demand is measured as the requests within about one second.
const DEMAND_WINDOW: Rule = Rule {
    limit: 1 << 40,
    width: 1000,
    burst: 0,
};

/// Validity of this limit's units: a tenth of the window, at most [`MAX_VALIDITY`].
fn validity(limit: &Limit) -> Micros {
    let tenth = limit.window.as_micros() / 10;
    Micros::try_from(tenth)
        .unwrap_or(MAX_VALIDITY)
        .min(MAX_VALIDITY)
}

/// Divisor of a counter's remaining requests that yields the most units that one gateway holds.
pub fn share_divisor(gateways: u64) -> u64 {
    gateways.max(1).saturating_mul(2)
}

/// Parameters of a limit's leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    pub validity: Micros,
    /// See [`share_divisor`].
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

/// Right to admit one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedUnit {
    until: Micros,
    counted_at: Micros,
}

/// Request to the store for units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Number of units requested.
    pub want: u64,
    /// Number of units held. If 0, at least one unit is granted as long as one is left.
    pub held: u64,
    /// Whether this is the one pending batch request; other requests are then single units.
    pub is_leader: bool,
}

impl LeaseRequest {
    /// Requests one unit for immediate use.
    pub const SINGLE: LeaseRequest = LeaseRequest {
        want: 1,
        held: 0,
        is_leader: false,
    };
}

/// Outcome of [`Lease::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOutcome {
    Unit(LeasedUnit),
    /// The store has refused, and the refusal still holds.
    Refused,
    /// No unit is held; this request has to be sent to the store.
    Request(LeaseRequest),
}

/// The store's reply to a [`LeaseRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseReply {
    pub granted: u64,
    /// Time of the reply by the store's clock; replies may be reordered.
    pub replied_at: Micros,
    /// Time at which the granted units are counted, by the same clock.
    pub counted_at: Micros,
    /// Requests left after the grant.
    pub remaining: u64,
    /// Time until no spent request counts any more.
    pub reset_after: Micros,
    /// Time until one more request is admitted; zero: at once.
    pub wait: Micros,
}

/// Units to refund, and when the store counted them.
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

/// One gateway's units of one counter.
///
/// Times are of the gateway's monotonic clock, except that `counted_at` and `replied_at` are of the
/// store's clock.
#[derive(Debug, Default)]
pub struct Lease {
    /// Oldest first; the oldest is used first.
    batches: [UnitBatch; 4],
    unused: Vec<UnusedUnits>,
    demand: SlidingWindow,
    last_used_at: Micros,
    /// When the pending batch request times out; 0: none is pending.
    batch_pending_until: Micros,
    refused_until: Micros,
    refusal_checked_at: Micros,
    remaining: u64,
    reset_at: Micros,
    /// Time of the latest report, by the store's clock; 0: there is none yet.
    reported_at: Micros,
    /// Time and remaining requests of the latest single grant while a batch request is pending.
    newer_report: Option<(Micros, u64)>,
}

impl Lease {
    /// Takes a unit for one request, or returns the request to send to the store.
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
        let batch_pending = self.is_batch_pending(now);
        if now < self.refused_until
            && (batch_pending || now < self.refusal_checked_at + REFUSAL_RECHECK_INTERVAL)
        {
            return TakeOutcome::Refused;
        }
        if batch_pending {
            return TakeOutcome::Request(LeaseRequest::SINGLE);
        }
        self.batch_pending_until = now + BATCH_REPLY_TIMEOUT;
        TakeOutcome::Request(LeaseRequest {
            want: self.target(terms),
            held: 0,
            is_leader: true,
        })
    }

    /// Returns the batch request to send before the units run out, if it is due.
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

    /// Applies the reply to a request that was sent at `sent_at`; `used` of its units are used already.
    pub fn apply_reply(
        &mut self,
        terms: LeaseTerms,
        request: LeaseRequest,
        reply: LeaseReply,
        used: u64,
        (sent_at, now): (Micros, Micros),
    ) {
        if request.is_leader {
            self.apply_batch_reply(reply, now);
        } else if self.is_batch_pending(now) && reply.wait == 0 {
            // The pending batch reply may be older; `apply_batch_reply` compares the two.
            self.remaining = self.remaining.saturating_sub(reply.granted);
            self.newer_report = self
                .newer_report
                .max(Some((reply.replied_at, reply.remaining)));
        } else {
            self.apply_report(reply, now);
        }
        self.expire(now);
        let new = UnitBatch {
            count: reply.granted.saturating_sub(used),
            until: sent_at.saturating_add(terms.validity),
            counted_at: reply.counted_at,
        };
        if new.count == 0 {
            return;
        }
        // Batches with units come first, in order; without a free slot the oldest is refunded.
        self.batches.sort_by_key(|batch| batch.count == 0);
        if self.batches.iter().all(|batch| batch.count > 0) {
            let [oldest, ..] = self.batches;
            self.add_unused(oldest);
            self.batches.rotate_left(1);
            let [.., last] = &mut self.batches;
            *last = UnitBatch::default();
        }
        if let Some(free) = self.batches.iter_mut().find(|batch| batch.count == 0) {
            *free = new;
        }
        self.expire(now);
    }

    /// Applies the reply to a batch request, which replies to single requests may have overtaken.
    fn apply_batch_reply(&mut self, reply: LeaseReply, now: Micros) {
        self.batch_pending_until = 0;
        let newer = self.newer_report.take();
        let newer = newer.filter(|(replied_at, _)| *replied_at > reply.replied_at);
        let remaining = newer.map_or(reply.remaining, |(_, remaining)| remaining);
        self.apply_report(LeaseReply { remaining, ..reply }, now);
    }

    /// Applies the counter's state as the store reports it, unless a later report has been applied.
    pub fn apply_report(&mut self, reply: LeaseReply, now: Micros) {
        if reply.replied_at < self.reported_at {
            return;
        }
        self.reported_at = reply.replied_at;
        self.remaining = reply.remaining;
        self.reset_at = now.saturating_add(reply.reset_after);
        self.refused_until = match reply.wait {
            0 => 0,
            wait => now.saturating_add(wait),
        };
        self.refusal_checked_at = now;
    }

    /// Ends a request that was not sent or received no reply.
    pub fn cancel(&mut self, request: LeaseRequest) {
        if request.is_leader {
            self.batch_pending_until = 0;
        }
    }

    /// Returns a unit that was not needed to its batch.
    pub fn put_back(&mut self, unit: LeasedUnit, now: Micros) {
        let is_its_batch = |batch: &&mut UnitBatch| {
            (batch.until, batch.counted_at) == (unit.until, unit.counted_at)
        };
        match self.batches.iter_mut().find(is_its_batch) {
            Some(batch) if now < unit.until => batch.count += 1,
            _ => self.unused.push(UnusedUnits {
                count: 1,
                counted_at: unit.counted_at,
            }),
        }
    }

    /// Takes the units that have to be refunded.
    pub fn take_unused(&mut self, now: Micros) -> Vec<UnusedUnits> {
        self.expire(now);
        std::mem::take(&mut self.unused)
    }

    /// Gives up all units and takes those that have to be refunded.
    pub fn retire(&mut self) -> Vec<UnusedUnits> {
        for batch in std::mem::take(&mut self.batches) {
            self.add_unused(batch);
        }
        std::mem::take(&mut self.unused)
    }

    /// Remaining requests and time until the reset, as reported to clients.
    ///
    /// `None`: the store has not reported yet.
    pub fn remaining_and_reset(&self, now: Micros) -> Option<(u64, Micros)> {
        let remaining = self.remaining.saturating_add(self.held());
        (self.reported_at > 0).then(|| (remaining, self.reset_at.saturating_sub(now)))
    }

    /// Time until the store admits one more request.
    pub fn retry_after(&self, now: Micros) -> Micros {
        self.refused_until.saturating_sub(now)
    }

    /// Whether a batch request is pending.
    pub fn is_batch_pending(&self, now: Micros) -> bool {
        now < self.batch_pending_until
    }

    /// Whether the lease is unused and empty, and may be dropped.
    pub fn is_idle(&self, now: Micros) -> bool {
        let unused = now >= self.last_used_at.saturating_add(IDLE_TIMEOUT);
        unused && self.held() == 0 && self.unused.is_empty()
    }

    /// Number of units held.
    pub fn held(&self) -> u64 {
        self.batches.iter().map(|batch| batch.count).sum()
    }

    /// Number of units expected to be used while they are valid.
    ///
    /// A counter that is used once per second gets the single unit that it needs.
    fn target(&self, terms: LeaseTerms) -> u64 {
        let per_second = self.demand.count(DEMAND_WINDOW);
        if per_second < 2 {
            return 1;
        }
        let expected = per_second.saturating_mul(terms.validity) / 1_000_000;
        expected.clamp(1, BASE_MAX_BATCH.max(per_second / 16))
    }

    fn expire(&mut self, now: Micros) {
        for index in 0..self.batches.len() {
            let Some(batch) = self.batches.get_mut(index) else {
                continue;
            };
            if batch.count > 0 && now >= batch.until {
                let expired = std::mem::take(batch);
                self.add_unused(expired);
            }
        }
    }

    fn add_unused(&mut self, batch: UnitBatch) {
        let UnitBatch {
            count, counted_at, ..
        } = batch;
        if count > 0 {
            self.unused.push(UnusedUnits { count, counted_at });
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod fleet;
#[cfg(test)]
#[expect(clippy::panic, reason = "tests")]
mod tests;
