//! Simulated fleet: gateways crash, messages are delayed or lost, the store counts with real code.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{Algorithm, CounterState, LimitDefinition, OnOutage};

fn limit(algorithm: Algorithm, limit: u64, window_ms: u64) -> Limit {
    Limit::new(LimitDefinition {
        name: "l".into(),
        algorithm,
        limit,
        window: Duration::from_millis(window_ms),
        key: vec![],
        roles: vec![],
        except_roles: vec![],
        on_outage: OnOutage::Local,
        shadow: false,
        leased: true,
    })
}

/// Event of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request(usize),
    /// A gateway's request arrives at the store.
    LeaseRequest(usize, u64, SentRequest),
    Reply(usize, u64, SentRequest, SentReply),
    Refund(u64, Micros),
    Sweep(usize),
    Crash(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SentRequest {
    want: u64,
    held: u64,
    is_leader: bool,
    /// By the gateway's clock.
    sent_at: Micros,
    /// Whether a client's request waits for the reply.
    has_waiting_request: bool,
}

impl SentRequest {
    fn lease_request(&self) -> LeaseRequest {
        LeaseRequest {
            want: self.want,
            held: self.held,
            is_leader: self.is_leader,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SentReply {
    granted: u64,
    counted_at: Micros,
    remaining: u64,
    wait: Micros,
}

/// An admitted request: when the store counted it, and when it was admitted.
#[derive(Debug, Clone, Copy)]
struct AdmittedRequest {
    counted_at: Micros,
    used_at: Micros,
}

struct Fleet {
    limit: Limit,
    store: CounterState,
    leases: Vec<Lease>,
    /// Number of starts of each gateway; replies to an earlier incarnation are dropped.
    incarnations: Vec<u64>,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    sent: u64,
    rng_state: u64,
    admissions: Vec<AdmittedRequest>,
    most_held: u64,
}

/// Load and faults of a run.
#[derive(Debug, Clone, Copy)]
struct FaultPlan {
    /// Requests per second of each gateway.
    rate: u64,
    /// Longest delay of a message.
    max_delay: Micros,
    /// Percentage of messages that are lost.
    lost_percent: u64,
    crashes: u64,
}

impl Fleet {
    fn new(limit: Limit, gateways: usize, seed: u64) -> Fleet {
        Fleet {
            store: CounterState::new(limit.algorithm),
            limit,
            leases: (0..gateways).map(|_| Lease::default()).collect(),
            incarnations: vec![0; gateways],
            events: BinaryHeap::new(),
            sent: 0,
            rng_state: seed | 1,
            admissions: Vec::new(),
            most_held: 0,
        }
    }

    /// Returns a pseudo-random number below `bound`.
    fn random(&mut self, bound: u64) -> u64 {
        self.rng_state ^= self.rng_state << 13;
        self.rng_state ^= self.rng_state >> 7;
        self.rng_state ^= self.rng_state << 17;
        self.rng_state % bound.max(1)
    }

    fn terms(&self) -> LeaseTerms {
        LeaseTerms::of(&self.limit, self.leases.len() as u64)
    }

    /// Each gateway's clock has its own offset and the same rate.
    fn clock(gateway: usize, now: Micros) -> Micros {
        now + gateway as u64 * 987_654_321
    }

    fn schedule(&mut self, when: Micros, event: Event) {
        self.sent += 1;
        self.events.push(Reverse((when, self.sent, event)));
    }

    fn send(&mut self, now: Micros, faults: FaultPlan, event: Event) {
        if self.random(100) >= faults.lost_percent {
            let mut when = now + self.random(faults.max_delay);
            if matches!(event, Event::LeaseRequest(..)) {
                // The store dates admissions by the millisecond. With requests at whole milliseconds
                // it is exact which admissions were counted before a time, and which after.
                when = when.next_multiple_of(1000);
            }
            self.schedule(when, event);
        }
    }

    fn run(&mut self, faults: FaultPlan, from: Micros, until: Micros) {
        for gateway in 0..self.leases.len() {
            self.schedule(from, Event::Request(gateway));
            self.schedule(from, Event::Sweep(gateway));
        }
        for _ in 0..faults.crashes {
            let when = from + self.random(until - from);
            let gateway = self.random(self.leases.len() as u64) as usize;
            self.schedule(when, Event::Crash(gateway));
        }
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > until {
                break;
            }
            self.handle(faults, now, event);
            let usable: u64 = self
                .leases
                .iter_mut()
                .enumerate()
                .map(|(gateway, lease)| {
                    lease.expire(Fleet::clock(gateway, now));
                    lease.held()
                })
                .sum();
            self.most_held = self.most_held.max(usable);
        }
    }

    fn handle(&mut self, faults: FaultPlan, now: Micros, event: Event) {
        match event {
            Event::Request(gateway) => {
                self.request(faults, now, gateway);
                // Bursts: most gaps are short, a few are long.
                let mean = 1_000_000 / faults.rate;
                let gap = match self.random(20) {
                    0 => self.random(20 * mean),
                    _ => self.random(mean),
                };
                self.schedule(now + gap + 1, Event::Request(gateway));
            }
            Event::LeaseRequest(gateway, incarnation, request) => {
                self.handle_request(faults, now, (gateway, incarnation), request)
            }
            Event::Reply(gateway, incarnation, request, reply) => {
                self.handle_reply(now, (gateway, incarnation), request, reply)
            }
            Event::Refund(count, at) => self.store.refund(Rule::of(&self.limit), now, count, at),
            Event::Sweep(gateway) => {
                for unused in self.leases[gateway].take_unused(Fleet::clock(gateway, now)) {
                    self.send(now, faults, Event::Refund(unused.count, unused.counted_at));
                }
                self.schedule(now + 100_000, Event::Sweep(gateway));
            }
            Event::Crash(gateway) => {
                self.leases[gateway] = Lease::default();
                self.incarnations[gateway] += 1;
            }
        }
    }

    fn request(&mut self, faults: FaultPlan, now: Micros, gateway: usize) {
        let (terms, clock) = (self.terms(), Fleet::clock(gateway, now));
        let incarnation = self.incarnations[gateway];
        let lease_request = |request: LeaseRequest, has_waiting_request| {
            let sent = SentRequest {
                want: request.want,
                held: request.held,
                is_leader: request.is_leader,
                sent_at: clock,
                has_waiting_request,
            };
            Event::LeaseRequest(gateway, incarnation, sent)
        };
        match self.leases[gateway].take(terms, clock) {
            TakeOutcome::Unit(unit) if self.random(20) == 0 => {
                // Another limit of the request refuses.
                self.leases[gateway].put_back(unit, clock);
            }
            TakeOutcome::Unit(unit) => {
                self.admissions.push(AdmittedRequest {
                    counted_at: unit.counted_at,
                    used_at: now,
                });
                if let Some(refill) = self.leases[gateway].refill(terms, clock) {
                    self.send(now, faults, lease_request(refill, false));
                }
            }
            TakeOutcome::Request(request) => {
                self.send(now, faults, lease_request(request, true));
            }
            TakeOutcome::Refused => {}
        }
    }

    fn handle_request(
        &mut self,
        faults: FaultPlan,
        now: Micros,
        (gateway, incarnation): (usize, u64),
        sent: SentRequest,
    ) {
        let (rule, divisor) = (Rule::of(&self.limit), self.terms().share_divisor);
        let wait = self.store.wait(rule, now);
        let granted = self.store.grant(rule, now, sent.lease_request(), divisor);
        let counted_at = self.store.as_of(rule, now);
        if sent.has_waiting_request && granted > 0 && self.incarnations[gateway] == incarnation {
            // An exact decision: the request is admitted when the store counts it.
            self.admissions.push(AdmittedRequest {
                counted_at,
                used_at: counted_at,
            });
        }
        let reply = SentReply {
            granted,
            counted_at,
            remaining: self.store.remaining(rule),
            wait,
        };
        self.send(now, faults, Event::Reply(gateway, incarnation, sent, reply));
    }

    fn handle_reply(
        &mut self,
        now: Micros,
        (gateway, incarnation): (usize, u64),
        sent: SentRequest,
        reply: SentReply,
    ) {
        if self.incarnations[gateway] != incarnation {
            return;
        }
        let lease_reply = LeaseReply {
            granted: reply.granted,
            replied_at: reply.counted_at,
            counted_at: reply.counted_at,
            remaining: reply.remaining,
            reset_after: 0,
            wait: reply.wait,
        };
        let used = reply.granted.min(u64::from(sent.has_waiting_request));
        let times = (sent.sent_at, Fleet::clock(gateway, now));
        let terms = self.terms();
        self.leases[gateway].apply_reply(terms, sent.lease_request(), lease_reply, used, times);
    }

    /// Most admissions in an interval of one window if the store makes every decision.
    fn exact_bound(&self) -> u64 {
        match self.limit.algorithm {
            Algorithm::SlidingWindow => 2 * self.limit.limit - 1,
            Algorithm::SlidingLog => self.limit.limit,
            // One more, because milliseconds are rounded.
            Algorithm::TokenBucket { burst } => burst + self.limit.limit + 1,
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let span = self.limit.window.as_micros() as Micros;
        let held_at_most = self.limit.quota() / 2 + self.leases.len() as u64;
        prop_assert!(
            self.most_held <= held_at_most,
            "{} were held",
            self.most_held
        );
        for request in &self.admissions {
            let delay = request.used_at - request.counted_at;
            prop_assert!(delay <= validity(&self.limit), "used {delay} µs late");
        }
        for from in self.admissions.iter().map(|request| request.used_at) {
            let inside = |request: &&AdmittedRequest| {
                request.used_at >= from && request.used_at < from + span
            };
            let admitted = self.admissions.iter().filter(inside).count() as u64;
            let counted_before = self
                .admissions
                .iter()
                .filter(inside)
                .filter(|request| request.counted_at < from);
            let outstanding = counted_before.count() as u64;
            prop_assert!(
                outstanding <= held_at_most,
                "{outstanding} were outstanding"
            );
            prop_assert!(
                admitted <= self.exact_bound() + outstanding,
                "{admitted} admitted, {outstanding} outstanding"
            );
        }
        if self.limit.algorithm == Algorithm::SlidingWindow {
            self.check_aligned(span, held_at_most)?;
        }
        Ok(())
    }

    fn check_aligned(&self, span: Micros, held_at_most: u64) -> Result<(), TestCaseError> {
        let mut used: Vec<Micros> = self
            .admissions
            .iter()
            .map(|request| request.used_at / span)
            .collect();
        used.sort_unstable();
        for window in used.chunk_by(|a, b| a == b) {
            prop_assert!(window.len() as u64 <= self.limit.limit + held_at_most);
        }
        Ok(())
    }
}

fn fault_plans() -> impl Strategy<Value = FaultPlan> {
    let max_delay = prop_oneof![Just(500), Just(20_000), Just(300_000), Just(3_000_000)];
    let lost_percent = prop_oneof![3 => Just(0), 1 => Just(20)];
    (20..800u64, max_delay, lost_percent, 0..4u64).prop_map(
        |(rate, max_delay, lost_percent, crashes)| FaultPlan {
            rate,
            max_delay,
            lost_percent,
            crashes,
        },
    )
}

fn limits() -> impl Strategy<Value = Limit> {
    let algorithm = prop_oneof![
        Just(Algorithm::SlidingWindow),
        Just(Algorithm::SlidingLog),
        (1..120u64).prop_map(|burst| Algorithm::TokenBucket { burst }),
    ];
    let window = prop_oneof![Just(500u64), Just(1000), Just(3000)];
    (algorithm, 1..400u64, window)
        .prop_map(|(algorithm, requests, window)| limit(algorithm, requests, window))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn fleet_never_exceeds_its_bound(
        limit in limits(),
        gateways in 1..5usize,
        faults in fault_plans(),
        seed in any::<u64>(),
    ) {
        let mut fleet = Fleet::new(limit, gateways, seed);
        let from = 1_790_000_000_123_456;
        fleet.run(faults, from, from + 5_000_000);
        fleet.check()?;
    }
}
