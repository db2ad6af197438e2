//! The permits that this gateway holds, by counter; shared by its workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::sync::Notify;

use crate::limits::{
    Answer, Ask, Charge, Counter, Decision, Lease, Limit, Micros, Permit, Taken, Terms, Unused,
};
use crate::telemetry::metrics::Metrics;

/// Locks; a counter's hash says under which it is.
const SHARDS: usize = 64;
/// Counters under each. Those for which there is no room are asked for one by one.
const COUNTERS: usize = 1024;

/// What becomes of one limit of a request.
pub(super) enum Said {
    /// Let through by a permit; it may be time to ask for more.
    Permit(Permit, Decision, Option<Ask>),
    /// Refused, as the store has said.
    Refused(Decision),
    /// The store has to be asked.
    Ask(Ask),
}

struct Entry {
    limit: Arc<Limit>,
    lease: Lease,
}

type Shard = HashMap<Counter, Entry>;

pub(super) struct Leases {
    started: Instant,
    shards: Vec<Mutex<Shard>>,
    /// What is to be given back of counters that are not here any more.
    orphans: Mutex<Vec<(Charge, Unused)>>,
    /// What is to be asked for in the background.
    wanted: Mutex<Vec<(Charge, Ask)>>,
    /// Told when somebody who asked for a batch is back.
    returned: Notify,
    hits: IntCounter,
    misses: IntCounter,
}

impl Leases {
    pub(super) fn new(metrics: &Metrics) -> Leases {
        let count = |outcome| metrics.cache.with_label_values(&["leases", outcome]);
        Leases {
            started: Instant::now(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            orphans: Mutex::default(),
            wanted: Mutex::default(),
            returned: Notify::new(),
            hits: count("hit"),
            misses: count("miss"),
        }
    }

    /// This gateway's steady clock.
    pub(super) fn now(&self) -> Micros {
        Micros::try_from(self.started.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Takes a permit of a leased limit, or says what has to be done for one.
    pub(super) fn take(&self, charge: &Charge, gateways: u64, now: Micros) -> Said {
        let terms = Terms::of(&charge.limit, gateways);
        let taken = self.with(charge, true, |lease| {
            let taken = lease.take(terms, now);
            match taken {
                Taken::Permit(permit) => {
                    let decision = decision(charge, lease, true, now);
                    Said::Permit(permit, decision, lease.refill(terms, now))
                }
                Taken::Refused => Said::Refused(decision(charge, lease, false, now)),
                Taken::Ask(ask) => Said::Ask(ask),
            }
        });
        let said = taken.unwrap_or(Said::Ask(Ask::EXACT));
        match said {
            Said::Permit(..) | Said::Refused(_) => self.hits.inc(),
            Said::Ask(_) => self.misses.inc(),
        }
        said
    }

    /// Puts a permit back that was not needed.
    pub(super) fn put_back(&self, charge: &Charge, permit: Permit, now: Micros) {
        self.with(charge, false, |lease| lease.put_back(permit, now));
    }

    /// Takes in what the store has granted; tells how many more requests there are.
    pub(super) fn granted(
        &self,
        charge: &Charge,
        gateways: u64,
        (ask, answer, used): (Ask, Answer, u64),
        when: (Micros, Micros),
    ) -> u64 {
        let terms = Terms::of(&charge.limit, gateways);
        let unknown = answer.left + answer.granted.saturating_sub(used);
        let held = self.with(charge, false, |lease| {
            lease.answered(terms, ask, answer, used, when);
            lease.standing(when.1).map_or(unknown, |(left, _)| left)
        });
        self.is_back(ask);
        held.unwrap_or_else(|| {
            let many = answer.granted.saturating_sub(used);
            let counted_at = answer.counted_at;
            let unused = Unused { many, counted_at };
            self.abandon(charge, [unused].into_iter().filter(|it| it.many > 0));
            unknown
        })
    }

    /// Takes note of what the store says of a leased limit that was asked for like any other.
    pub(super) fn heard(&self, charge: &Charge, decision: &Decision, said_at: Micros) {
        let answer = Answer {
            granted: 0,
            said_at,
            counted_at: 0,
            left: decision.remaining,
            whole_after: decision.reset_after.as_micros() as Micros,
            wait: decision.retry_after.as_micros() as Micros,
        };
        let now = self.now();
        self.with(charge, false, |lease| lease.heard(answer, now));
    }

    /// A question was not asked, or not answered.
    pub(super) fn withdrawn(&self, charge: &Charge, ask: Ask) {
        self.with(charge, false, |lease| lease.withdrawn(ask));
        self.is_back(ask);
    }

    fn is_back(&self, ask: Ask) {
        if ask.leads {
            self.returned.notify_waiters();
        }
    }

    /// Whether there are permits of one of these, or a batch of them may be on its way.
    pub(super) fn may_have<'c>(&self, charges: impl Iterator<Item = &'c Charge>) -> bool {
        let now = self.now();
        self.any(charges, |lease| lease.is_asking(now) || lease.held() > 0)
    }

    fn any<'c>(
        &self,
        mut charges: impl Iterator<Item = &'c Charge>,
        is: impl Fn(&mut Lease) -> bool,
    ) -> bool {
        charges.any(|charge| self.with(charge, false, &is) == Some(true))
    }

    /// Waits until no batch of any of these is on its way.
    pub(super) async fn have_come<'c>(&self, charges: impl Iterator<Item = &'c Charge> + Clone) {
        loop {
            let mut returned = std::pin::pin!(self.returned.notified());
            returned.as_mut().enable();
            let now = self.now();
            if !self.any(charges.clone(), |lease| lease.is_asking(now)) {
                return;
            }
            returned.await;
        }
    }

    /// How a limit stands as far as this gateway knows.
    pub(super) fn standing(&self, charge: &Charge, now: Micros) -> Option<Decision> {
        self.with(charge, false, |lease| {
            lease.standing(now)?;
            Some(decision(charge, lease, true, now))
        })?
    }

    /// Forgets a counter that is whole again.
    pub(super) fn forget(&self, charge: &Charge) {
        self.with(charge, false, |lease| *lease = Lease::default());
    }

    /// Has more asked for in the background; tells whether somebody has to be sent.
    pub(super) fn want(&self, charge: &Charge, ask: Ask) -> bool {
        let mut wanted = self.wanted.lock();
        wanted.push((charge.clone(), ask));
        wanted.len() == 1
    }

    /// What is to be asked for.
    pub(super) fn wanted(&self) -> Vec<(Charge, Ask)> {
        std::mem::take(&mut *self.wanted.lock())
    }

    /// Hands over what is to be given back, and forgets what nobody asks for any more.
    pub(super) fn sweep(&self, now: Micros) -> Vec<(Charge, Unused)> {
        let mut unused = std::mem::take(&mut *self.orphans.lock());
        for shard in &self.shards {
            shard.lock().retain(|counter, entry| {
                unused.extend(named(*counter, &entry.limit, entry.lease.unused(now)));
                !entry.lease.is_idle(now)
            });
        }
        unused
    }

    /// Gives everything up, and hands it over to be given back.
    pub(super) fn retire(&self) -> Vec<(Charge, Unused)> {
        let mut unused = std::mem::take(&mut *self.orphans.lock());
        for shard in &self.shards {
            for (counter, mut entry) in shard.lock().drain() {
                unused.extend(named(counter, &entry.limit, entry.lease.retire()));
            }
        }
        unused
    }

    /// Does something with a counter's lease; `begin`: one that is not there is begun, if there is
    /// room. A limit that was changed begins anew.
    fn with<T>(
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
                    self.orphans
                        .lock()
                        .extend(named(charge.counter, &old, unused));
                }
                entry.limit = Arc::clone(&charge.limit);
            }
            return Some(act(&mut entry.lease));
        }
        if !begin || shard.len() >= COUNTERS {
            return None;
        }
        let limit = Arc::clone(&charge.limit);
        let lease = Lease::default();
        let entry = shard
            .entry(charge.counter)
            .or_insert(Entry { limit, lease });
        Some(act(&mut entry.lease))
    }

    fn abandon(&self, charge: &Charge, unused: impl Iterator<Item = Unused>) {
        let mut orphans = self.orphans.lock();
        orphans.extend(unused.map(|unused| (charge.clone(), unused)));
    }
}

fn named(
    counter: Counter,
    limit: &Arc<Limit>,
    unused: Vec<Unused>,
) -> impl Iterator<Item = (Charge, Unused)> {
    let limit = Arc::clone(limit);
    unused.into_iter().map(move |unused| {
        let limit = Arc::clone(&limit);
        (Charge { limit, counter }, unused)
    })
}

/// What a client is told of a limit that this gateway decides.
fn decision(charge: &Charge, lease: &Lease, allowed: bool, now: Micros) -> Decision {
    let (remaining, whole_after) = lease.standing(now).unwrap_or_default();
    let wait = if allowed { 0 } else { lease.refused_for(now) };
    Decision {
        limit: Arc::clone(&charge.limit),
        allowed,
        remaining,
        reset_after: std::time::Duration::from_micros(whole_after),
        retry_after: std::time::Duration::from_micros(wait),
        degraded: false,
    }
}
