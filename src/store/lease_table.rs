//! Leases of this gateway by counter, shared by its workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;
use crate::limits::{
    Charge, Counter, Decision, Lease, LeaseReply, LeaseRequest, LeaseTerms, LeasedUnit, Limit,
    Micros, TakeOutcome, UnusedUnits,
};
use crate::telemetry::metrics::{CacheName, CacheOutcome, Metrics, ShardedCounter};

/// Number of shards, each with a lock; selected by the counter's hash.
const SHARDS: usize = 64;
/// Capacity of a shard; counters beyond it are not leased and request single units.
const COUNTERS_PER_SHARD: usize = 1024;

/// Outcome of one charge against a leased limit.
pub(super) enum LeaseOutcome {
    /// Admitted by a unit; a refill may be due.
    Unit(LeasedUnit, Decision, Option<LeaseRequest>),
    /// Refused, by the store's last report.
    Refused(Decision),
    /// This request has to be sent to the store.
    Request(LeaseRequest),
}

struct LeaseEntry {
    limit: Arc<Limit>,
    lease: Lease,
}

type Shard = HashMap<Counter, LeaseEntry, RandomState>;

/// Table of leases.
pub(super) struct LeaseTable {
    started: Instant,
    shards: Vec<Mutex<Shard>>,
    /// Units to refund whose lease is no longer in the table.
    orphaned_units: Mutex<Vec<(Charge, UnusedUnits)>>,
    /// Refills to request in the background.
    pending_refills: Mutex<Vec<(Charge, LeaseRequest)>>,
    /// Notified when a batch request has completed.
    batch_returned: Notify,
    hits: ShardedCounter,
    misses: ShardedCounter,
}

impl LeaseTable {
    pub(super) fn new(metrics: &Metrics) -> LeaseTable {
        let series = |outcome| metrics.cache_series(CacheName::Leases, outcome);
        LeaseTable {
            started: clock::monotonic(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            orphaned_units: Mutex::default(),
            pending_refills: Mutex::default(),
            batch_returned: Notify::new(),
            hits: series(CacheOutcome::Hit),
            misses: series(CacheOutcome::Miss),
        }
    }

    /// Reads this gateway's monotonic clock.
    pub(super) fn steady_now(&self) -> Micros {
        clock::micros(self.started.elapsed())
    }

    /// Takes a unit of a leased limit, or returns the request to send to the store.
    pub(super) fn take(&self, charge: &Charge, gateways: u64, now: Micros) -> LeaseOutcome {
        let terms = LeaseTerms::of(&charge.limit, gateways);
        let outcome = self.with_lease(charge, true, |lease| match lease.take(terms, now) {
            TakeOutcome::Unit(unit) => {
                let decision = decision(charge, lease, true, now);
                LeaseOutcome::Unit(unit, decision, lease.refill(terms, now))
            }
            TakeOutcome::Refused => LeaseOutcome::Refused(decision(charge, lease, false, now)),
            TakeOutcome::Request(request) => LeaseOutcome::Request(request),
        });
        let outcome = outcome.unwrap_or(LeaseOutcome::Request(LeaseRequest::SINGLE));
        match outcome {
            LeaseOutcome::Unit(..) | LeaseOutcome::Refused(_) => self.hits.inc(),
            LeaseOutcome::Request(_) => self.misses.inc(),
        }
        outcome
    }

    /// Returns a unit that was not needed.
    pub(super) fn put_back_unit(&self, charge: &Charge, unit: LeasedUnit, now: Micros) {
        self.with_lease(charge, false, |lease| lease.put_back(unit, now));
    }

    /// Applies the store's reply to a request; returns the remaining requests.
    pub(super) fn apply_grant(
        &self,
        charge: &Charge,
        gateways: u64,
        (request, reply, used): (LeaseRequest, LeaseReply, u64),
        times: (Micros, Micros),
    ) -> u64 {
        let terms = LeaseTerms::of(&charge.limit, gateways);
        let unused = reply.granted.saturating_sub(used);
        let reported = reply.remaining + unused;
        let remaining = self.with_lease(charge, false, |lease| {
            lease.apply_reply(terms, request, reply, used, times);
            lease
                .remaining_and_reset(times.1)
                .map_or(reported, |(remaining, _)| remaining)
        });
        self.notify_returned(request);
        remaining.unwrap_or_else(|| {
            let units = UnusedUnits {
                count: unused,
                counted_at: reply.counted_at,
            };
            self.add_orphan(charge, (unused > 0).then_some(units));
            reported
        })
    }

    /// Applies the state of a leased limit that the store evaluated in a query.
    pub(super) fn apply_report(&self, charge: &Charge, decision: &Decision, replied_at: Micros) {
        let reply = LeaseReply {
            granted: 0,
            replied_at,
            counted_at: 0,
            remaining: decision.remaining,
            reset_after: decision.reset_after.as_micros() as Micros,
            wait: decision.retry_after.as_micros() as Micros,
        };
        let now = self.steady_now();
        self.with_lease(charge, false, |lease| lease.apply_report(reply, now));
    }

    /// Ends a request that was not sent or received no reply.
    pub(super) fn cancel(&self, charge: &Charge, request: LeaseRequest) {
        self.with_lease(charge, false, |lease| lease.cancel(request));
        self.notify_returned(request);
    }

    fn notify_returned(&self, request: LeaseRequest) {
        if request.is_leader {
            self.batch_returned.notify_waiters();
        }
    }

    /// Whether one of these counters has units, or a pending batch request.
    pub(super) fn has_units_or_pending_batch<'c>(
        &self,
        charges: impl Iterator<Item = &'c Charge>,
        now: Micros,
    ) -> bool {
        self.any(charges, |lease| {
            lease.is_batch_pending(now) || lease.held() > 0
        })
    }

    fn any<'c>(
        &self,
        mut charges: impl Iterator<Item = &'c Charge>,
        predicate: impl Fn(&mut Lease) -> bool,
    ) -> bool {
        charges.any(|charge| self.with_lease(charge, false, &predicate) == Some(true))
    }

    /// Waits until none of these counters has a pending batch request.
    pub(super) async fn wait_for_batches<'c>(
        &self,
        charges: impl Iterator<Item = &'c Charge> + Clone,
    ) {
        loop {
            let mut returned = std::pin::pin!(self.batch_returned.notified());
            returned.as_mut().enable();
            let now = self.steady_now();
            if !self.any(charges.clone(), |lease| lease.is_batch_pending(now)) {
                return;
            }
            returned.await;
        }
    }

    /// The state of a limit by the store's last report, if there is one.
    pub(super) fn current_decision(&self, charge: &Charge, now: Micros) -> Option<Decision> {
        self.with_lease(charge, false, |lease| {
            lease.remaining_and_reset(now)?;
            Some(decision(charge, lease, true, now))
        })?
    }

    /// Resets the lease of a counter that was reset in the store.
    pub(super) fn reset(&self, charge: &Charge) {
        self.with_lease(charge, false, |lease| *lease = Lease::default());
    }

    /// Queues a refill; returns whether the caller has to start the task that requests it.
    pub(super) fn queue_refill(&self, charge: &Charge, request: LeaseRequest) -> bool {
        let mut refills = self.pending_refills.lock();
        refills.push((charge.clone(), request));
        refills.len() == 1
    }

    /// Takes the queued refills.
    pub(super) fn take_refills(&self) -> Vec<(Charge, LeaseRequest)> {
        std::mem::take(&mut *self.pending_refills.lock())
    }

    /// Takes the units to refund, and drops idle leases.
    pub(super) fn sweep(&self, now: Micros) -> Vec<(Charge, UnusedUnits)> {
        let mut unused = std::mem::take(&mut *self.orphaned_units.lock());
        for shard in &self.shards {
            shard.lock().retain(|counter, entry| {
                unused.extend(into_charges(
                    *counter,
                    &entry.limit,
                    entry.lease.take_unused(now),
                ));
                !entry.lease.is_idle(now)
            });
        }
        unused
    }

    /// Gives up all leases, and takes the units to refund.
    pub(super) fn retire(&self) -> Vec<(Charge, UnusedUnits)> {
        let mut unused = std::mem::take(&mut *self.orphaned_units.lock());
        for shard in &self.shards {
            for (counter, mut entry) in shard.lock().drain() {
                unused.extend(into_charges(counter, &entry.limit, entry.lease.retire()));
            }
        }
        unused
    }

    /// Runs an action on a counter's lease; `None`: there is no lease.
    ///
    /// With `create`, a missing lease is created if there is room. If the limit has changed, the lease
    /// is replaced.
    fn with_lease<T>(
        &self,
        charge: &Charge,
        create: bool,
        action: impl FnOnce(&mut Lease) -> T,
    ) -> Option<T> {
        let Counter([first, ..]) = charge.counter;
        let mut shard = self.shards.get(usize::from(first) % SHARDS)?.lock();
        if let Some(entry) = shard.get_mut(&charge.counter) {
            if !Arc::ptr_eq(&entry.limit, &charge.limit) {
                if *entry.limit != *charge.limit {
                    let old = Arc::clone(&entry.limit);
                    let unused = std::mem::take(&mut entry.lease).retire();
                    self.orphaned_units
                        .lock()
                        .extend(into_charges(charge.counter, &old, unused));
                }
                entry.limit = Arc::clone(&charge.limit);
            }
            return Some(action(&mut entry.lease));
        }
        if !create || shard.len() >= COUNTERS_PER_SHARD {
            return None;
        }
        let limit = Arc::clone(&charge.limit);
        let lease = Lease::default();
        let entry = shard
            .entry(charge.counter)
            .or_insert(LeaseEntry { limit, lease });
        Some(action(&mut entry.lease))
    }

    fn add_orphan(&self, charge: &Charge, units: Option<UnusedUnits>) {
        let mut orphans = self.orphaned_units.lock();
        orphans.extend(units.map(|units| (charge.clone(), units)));
    }
}

fn into_charges(
    counter: Counter,
    limit: &Arc<Limit>,
    unused: Vec<UnusedUnits>,
) -> impl Iterator<Item = (Charge, UnusedUnits)> {
    let limit = Arc::clone(limit);
    unused.into_iter().map(move |unused| {
        let limit = Arc::clone(&limit);
        (Charge { limit, counter }, unused)
    })
}

/// Builds the decision of a limit from its lease.
fn decision(charge: &Charge, lease: &Lease, allowed: bool, now: Micros) -> Decision {
    let (remaining, reset_after) = lease.remaining_and_reset(now).unwrap_or_default();
    let wait = if allowed { 0 } else { lease.retry_after(now) };
    Decision {
        limit: Arc::clone(&charge.limit),
        allowed,
        remaining,
        reset_after: std::time::Duration::from_micros(reset_after),
        retry_after: std::time::Duration::from_micros(wait),
        degraded: false,
    }
}
