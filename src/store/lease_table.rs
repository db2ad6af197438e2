//! The permits that this gateway holds, by counter; shared by its workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;
use crate::limits::{
    Charge, Counter, Decision, Lease, LeaseReply, LeaseRequest, LeaseTerms, LeasedUnit, Limit,
    Micros, TakeOutcome, UnusedUnits,
};
use crate::telemetry::metrics::{CacheName, CacheOutcome, IntCounter, Metrics};

/// Locks; a counter's hash says under which it is.
const SHARDS: usize = 64;
/// Counters under each. Those for which there is no room are asked for one by one.
const COUNTERS_PER_SHARD: usize = 1024;

/// What becomes of one limit of a request.
pub(super) enum LeaseOutcome {
    /// Let through by a permit; it may be time to ask for more.
    Unit(LeasedUnit, Decision, Option<LeaseRequest>),
    /// Refused, as the store has said.
    Refused(Decision),
    /// The store has to be asked.
    Request(LeaseRequest),
}

struct LeaseEntry {
    limit: Arc<Limit>,
    lease: Lease,
}

type Shard = HashMap<Counter, LeaseEntry>;

pub(super) struct LeaseTable {
    started: Instant,
    shards: Vec<Mutex<Shard>>,
    /// What is to be given back of counters that are not here any more.
    orphaned_units: Mutex<Vec<(Charge, UnusedUnits)>>,
    /// What is to be asked for in the background.
    pending_refills: Mutex<Vec<(Charge, LeaseRequest)>>,
    /// Told when somebody who asked for a batch is back.
    batch_returned: Notify,
    hits: IntCounter,
    misses: IntCounter,
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

    /// This gateway's steady clock.
    pub(super) fn steady_now(&self) -> Micros {
        Micros::try_from(self.started.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Takes a permit of a leased limit, or says what has to be done for one.
    pub(super) fn take(&self, charge: &Charge, gateways: u64, now: Micros) -> LeaseOutcome {
        let terms = LeaseTerms::of(&charge.limit, gateways);
        let taken = self.with_lease(charge, true, |lease| {
            let taken = lease.take(terms, now);
            match taken {
                TakeOutcome::Unit(permit) => {
                    let decision = decision(charge, lease, true, now);
                    LeaseOutcome::Unit(permit, decision, lease.refill(terms, now))
                }
                TakeOutcome::Refused => LeaseOutcome::Refused(decision(charge, lease, false, now)),
                TakeOutcome::Request(ask) => LeaseOutcome::Request(ask),
            }
        });
        let said = taken.unwrap_or(LeaseOutcome::Request(LeaseRequest::SINGLE));
        match said {
            LeaseOutcome::Unit(..) | LeaseOutcome::Refused(_) => self.hits.inc(),
            LeaseOutcome::Request(_) => self.misses.inc(),
        }
        said
    }

    /// Puts a permit back that was not needed.
    pub(super) fn put_back_unit(&self, charge: &Charge, permit: LeasedUnit, now: Micros) {
        self.with_lease(charge, false, |lease| lease.put_back(permit, now));
    }

    /// Takes in what the store has granted; tells how many more requests there are.
    pub(super) fn apply_grant(
        &self,
        charge: &Charge,
        gateways: u64,
        (ask, answer, used): (LeaseRequest, LeaseReply, u64),
        when: (Micros, Micros),
    ) -> u64 {
        let terms = LeaseTerms::of(&charge.limit, gateways);
        let unknown = answer.remaining + answer.granted.saturating_sub(used);
        let held = self.with_lease(charge, false, |lease| {
            lease.apply_reply(terms, ask, answer, used, when);
            lease
                .remaining_and_reset(when.1)
                .map_or(unknown, |(left, _)| left)
        });
        self.notify_returned(ask);
        held.unwrap_or_else(|| {
            let many = answer.granted.saturating_sub(used);
            let counted_at = answer.counted_at;
            let unused = UnusedUnits {
                count: many,
                counted_at,
            };
            self.add_orphan(charge, [unused].into_iter().filter(|it| it.count > 0));
            unknown
        })
    }

    /// Takes note of what the store says of a leased limit that was asked for like any other.
    pub(super) fn apply_report(&self, charge: &Charge, decision: &Decision, said_at: Micros) {
        let answer = LeaseReply {
            granted: 0,
            replied_at: said_at,
            counted_at: 0,
            remaining: decision.remaining,
            reset_after: decision.reset_after.as_micros() as Micros,
            wait: decision.retry_after.as_micros() as Micros,
        };
        let now = self.steady_now();
        self.with_lease(charge, false, |lease| lease.apply_report(answer, now));
    }

    /// A question was not asked, or not answered.
    pub(super) fn cancel(&self, charge: &Charge, ask: LeaseRequest) {
        self.with_lease(charge, false, |lease| lease.cancel(ask));
        self.notify_returned(ask);
    }

    fn notify_returned(&self, ask: LeaseRequest) {
        if ask.is_leader {
            self.batch_returned.notify_waiters();
        }
    }

    /// Whether there are permits of one of these, or a batch of them may be on its way.
    pub(super) fn has_units_or_pending_batch<'c>(
        &self,
        charges: impl Iterator<Item = &'c Charge>,
    ) -> bool {
        let now = self.steady_now();
        self.any(charges, |lease| {
            lease.is_batch_pending(now) || lease.held() > 0
        })
    }

    fn any<'c>(
        &self,
        mut charges: impl Iterator<Item = &'c Charge>,
        is: impl Fn(&mut Lease) -> bool,
    ) -> bool {
        charges.any(|charge| self.with_lease(charge, false, &is) == Some(true))
    }

    /// Waits until no batch of any of these is on its way.
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

    /// How a limit stands as far as this gateway knows.
    pub(super) fn current_decision(&self, charge: &Charge, now: Micros) -> Option<Decision> {
        self.with_lease(charge, false, |lease| {
            lease.remaining_and_reset(now)?;
            Some(decision(charge, lease, true, now))
        })?
    }

    /// Forgets a counter that is whole again.
    pub(super) fn reset(&self, charge: &Charge) {
        self.with_lease(charge, false, |lease| *lease = Lease::default());
    }

    /// Has more asked for in the background; tells whether somebody has to be sent.
    pub(super) fn queue_refill(&self, charge: &Charge, ask: LeaseRequest) -> bool {
        let mut wanted = self.pending_refills.lock();
        wanted.push((charge.clone(), ask));
        wanted.len() == 1
    }

    /// What is to be asked for.
    pub(super) fn take_refills(&self) -> Vec<(Charge, LeaseRequest)> {
        std::mem::take(&mut *self.pending_refills.lock())
    }

    /// Hands over what is to be given back, and forgets what nobody asks for any more.
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

    /// Gives everything up, and hands it over to be given back.
    pub(super) fn retire(&self) -> Vec<(Charge, UnusedUnits)> {
        let mut unused = std::mem::take(&mut *self.orphaned_units.lock());
        for shard in &self.shards {
            for (counter, mut entry) in shard.lock().drain() {
                unused.extend(into_charges(counter, &entry.limit, entry.lease.retire()));
            }
        }
        unused
    }

    /// Does something with a counter's lease; `begin`: one that is not there is begun, if there is
    /// room. A limit that was changed begins anew.
    fn with_lease<T>(
        &self,
        charge: &Charge,
        begin: bool,
        act: impl FnOnce(&mut Lease) -> T,
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
            return Some(act(&mut entry.lease));
        }
        if !begin || shard.len() >= COUNTERS_PER_SHARD {
            return None;
        }
        let limit = Arc::clone(&charge.limit);
        let lease = Lease::default();
        let entry = shard
            .entry(charge.counter)
            .or_insert(LeaseEntry { limit, lease });
        Some(act(&mut entry.lease))
    }

    fn add_orphan(&self, charge: &Charge, unused: impl Iterator<Item = UnusedUnits>) {
        let mut orphans = self.orphaned_units.lock();
        orphans.extend(unused.map(|unused| (charge.clone(), unused)));
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

/// What a client is told of a limit that this gateway decides.
fn decision(charge: &Charge, lease: &Lease, allowed: bool, now: Micros) -> Decision {
    let (remaining, whole_after) = lease.remaining_and_reset(now).unwrap_or_default();
    let wait = if allowed { 0 } else { lease.retry_after(now) };
    Decision {
        limit: Arc::clone(&charge.limit),
        allowed,
        remaining,
        reset_after: std::time::Duration::from_micros(whole_after),
        retry_after: std::time::Duration::from_micros(wait),
        degraded: false,
    }
}
