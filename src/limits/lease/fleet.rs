//! A fleet of leases: gateways that crash, messages that are late or lost, and a store that counts with
//! the real arithmetic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{Algorithm, CounterState, OnOutage};

fn limit(algorithm: Algorithm, limit: u64, window_ms: u64) -> Limit {
    Limit {
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
    }
}

/// What happens at a moment of the fleet's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request(usize),
    /// A question of a gateway arrives at the store, with when it was asked by the gateway's clock.
    LeaseRequest(usize, u64, SentRequest),
    Reply(usize, u64, SentRequest, SentReply),
    GiveBack(u64, Micros),
    Sweep(usize),
    Crash(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SentRequest {
    want: u64,
    held: u64,
    is_leader: bool,
    sent_at: Micros,
    /// Whether a request waits for it.
    has_waiting_request: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SentReply {
    granted: u64,
    counted_at: Micros,
    remaining: u64,
    wait: Micros,
}

/// One request that passed: when the store counted it, and when it was let through.
#[derive(Debug, Clone, Copy)]
struct AdmittedRequest {
    counted_at: Micros,
    used_at: Micros,
}

struct Fleet {
    limit: Limit,
    store: CounterState,
    leases: Vec<Lease>,
    /// How often each has been started: answers to an earlier life do not arrive.
    incarnations: Vec<u64>,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    sent: u64,
    rng_state: u64,
    admissions: Vec<AdmittedRequest>,
    most_held: u64,
}

/// How the fleet is treated.
#[derive(Debug, Clone, Copy)]
struct FaultPlan {
    /// Requests a second of each gateway.
    rate: u64,
    /// The longest that a message takes.
    max_delay: Micros,
    /// Of a hundred messages so many are lost.
    lost_percent: u64,
    crashes: u64,
}

impl Fleet {
    fn new(limit: Limit, gateways: usize, luck: u64) -> Fleet {
        Fleet {
            store: CounterState::new(limit.algorithm),
            limit,
            leases: (0..gateways).map(|_| Lease::default()).collect(),
            incarnations: vec![0; gateways],
            events: BinaryHeap::new(),
            sent: 0,
            rng_state: luck | 1,
            admissions: Vec::new(),
            most_held: 0,
        }
    }

    /// A number below `most`, from the seed.
    fn random(&mut self, most: u64) -> u64 {
        self.rng_state ^= self.rng_state << 13;
        self.rng_state ^= self.rng_state >> 7;
        self.rng_state ^= self.rng_state << 17;
        self.rng_state % most.max(1)
    }

    fn terms(&self) -> LeaseTerms {
        LeaseTerms::of(&self.limit, self.leases.len() as u64)
    }

    /// Each gateway has a clock of its own, which is as quick as the others.
    fn clock(gateway: usize, now: Micros) -> Micros {
        now + gateway as u64 * 987_654_321
    }

    fn schedule(&mut self, when: Micros, event: Event) {
        self.sent += 1;
        self.events.push(Reverse((when, self.sent, event)));
    }

    fn send(&mut self, now: Micros, fate: FaultPlan, event: Event) {
        if self.random(100) >= fate.lost_percent {
            let mut when = now + self.random(fate.max_delay);
            if matches!(event, Event::LeaseRequest(..)) {
                // The store dates what it counts by the millisecond: asked at whole ones, it says
                // exactly what was counted before a moment, and what after.
                when = when.next_multiple_of(1000);
            }
            self.schedule(when, event);
        }
    }

    fn run(&mut self, fate: FaultPlan, from: Micros, until: Micros) {
        for gateway in 0..self.leases.len() {
            self.schedule(from, Event::Request(gateway));
            self.schedule(from, Event::Sweep(gateway));
        }
        for _ in 0..fate.crashes {
            let when = from + self.random(until - from);
            let gateway = self.random(self.leases.len() as u64) as usize;
            self.schedule(when, Event::Crash(gateway));
        }
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > until {
                break;
            }
            self.handle(fate, now, event);
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

    fn handle(&mut self, fate: FaultPlan, now: Micros, event: Event) {
        match event {
            Event::Request(gateway) => {
                self.request(fate, now, gateway);
                // In bursts: most gaps are short, and some are long.
                let mean = 1_000_000 / fate.rate;
                let gap = match self.random(20) {
                    0 => self.random(20 * mean),
                    _ => self.random(mean),
                };
                self.schedule(now + gap + 1, Event::Request(gateway));
            }
            Event::LeaseRequest(gateway, life, asked) => {
                self.handle_request(fate, now, (gateway, life), asked)
            }
            Event::Reply(gateway, life, asked, said) => {
                self.handle_reply(now, (gateway, life), asked, said)
            }
            Event::GiveBack(many, at) => self.store.give_back(Rule::of(&self.limit), now, many, at),
            Event::Sweep(gateway) => {
                for unused in self.leases[gateway].take_unused(Fleet::clock(gateway, now)) {
                    self.send(now, fate, Event::GiveBack(unused.count, unused.counted_at));
                }
                self.schedule(now + 100_000, Event::Sweep(gateway));
            }
            Event::Crash(gateway) => {
                self.leases[gateway] = Lease::default();
                self.incarnations[gateway] += 1;
            }
        }
    }

    fn request(&mut self, fate: FaultPlan, now: Micros, gateway: usize) {
        let (terms, clock) = (self.terms(), Fleet::clock(gateway, now));
        let life = self.incarnations[gateway];
        let ask = |ask: LeaseRequest, waits| SentRequest {
            want: ask.want,
            held: ask.held,
            is_leader: ask.is_leader,
            sent_at: clock,
            has_waiting_request: waits,
        };
        match self.leases[gateway].take(terms, clock) {
            TakeOutcome::Unit(permit) if self.random(20) == 0 => {
                // Another limit of the request refuses.
                self.leases[gateway].put_back(permit, clock);
            }
            TakeOutcome::Unit(permit) => {
                self.admissions.push(AdmittedRequest {
                    counted_at: permit.counted_at,
                    used_at: now,
                });
                if let Some(more) = self.leases[gateway].refill(terms, clock) {
                    self.send(
                        now,
                        fate,
                        Event::LeaseRequest(gateway, life, ask(more, false)),
                    );
                }
            }
            TakeOutcome::Request(exact) => {
                self.send(
                    now,
                    fate,
                    Event::LeaseRequest(gateway, life, ask(exact, true)),
                );
            }
            TakeOutcome::Refused => {}
        }
    }

    fn handle_request(
        &mut self,
        fate: FaultPlan,
        now: Micros,
        (gateway, life): (usize, u64),
        asked: SentRequest,
    ) {
        let (rule, parts) = (Rule::of(&self.limit), self.terms().share_divisor);
        let SentRequest {
            want,
            held,
            is_leader: leads,
            ..
        } = asked;
        let wait = self.store.wait(rule, now);
        let granted = self.store.grant(
            rule,
            now,
            LeaseRequest {
                want,
                held,
                is_leader: leads,
            },
            parts,
        );
        let counted_at = self.store.as_of(rule, now);
        if asked.has_waiting_request && granted > 0 && self.incarnations[gateway] == life {
            // As exact as any: the store's moment is the request's.
            self.admissions.push(AdmittedRequest {
                counted_at,
                used_at: counted_at,
            });
        }
        let left = self.store.remaining(rule);
        let said = SentReply {
            granted,
            counted_at,
            remaining: left,
            wait,
        };
        self.send(now, fate, Event::Reply(gateway, life, asked, said));
    }

    fn handle_reply(
        &mut self,
        now: Micros,
        (gateway, life): (usize, u64),
        asked: SentRequest,
        said: SentReply,
    ) {
        if self.incarnations[gateway] != life {
            return;
        }
        let ask = LeaseRequest {
            want: asked.want,
            held: asked.held,
            is_leader: asked.is_leader,
        };
        let answer = LeaseReply {
            granted: said.granted,
            replied_at: said.counted_at,
            counted_at: said.counted_at,
            remaining: said.remaining,
            reset_after: 0,
            wait: said.wait,
        };
        let used = said.granted.min(u64::from(asked.has_waiting_request));
        let when = (asked.sent_at, Fleet::clock(gateway, now));
        let terms = self.terms();
        self.leases[gateway].apply_reply(terms, ask, answer, used, when);
    }

    /// What one interval of the window's length admits where every decision is the store's.
    fn exact_bound(&self) -> u64 {
        match self.limit.algorithm {
            Algorithm::SlidingWindow => 2 * self.limit.limit - 1,
            Algorithm::SlidingLog => self.limit.limit,
            // One more for the milliseconds that are rounded.
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
        for one in &self.admissions {
            let late = one.used_at - one.counted_at;
            prop_assert!(late <= validity(&self.limit), "used {late} µs late");
        }
        for from in self.admissions.iter().map(|one| one.used_at) {
            let inside = |one: &&AdmittedRequest| one.used_at >= from && one.used_at < from + span;
            let admitted = self.admissions.iter().filter(inside).count() as u64;
            let counted_before = self
                .admissions
                .iter()
                .filter(inside)
                .filter(|one| one.counted_at < from);
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
            .map(|one| one.used_at / span)
            .collect();
        used.sort_unstable();
        for window in used.chunk_by(|a, b| a == b) {
            prop_assert!(window.len() as u64 <= self.limit.limit + held_at_most);
        }
        Ok(())
    }
}

fn fault_plans() -> impl Strategy<Value = FaultPlan> {
    let late = prop_oneof![Just(500), Just(20_000), Just(300_000), Just(3_000_000)];
    let lost = prop_oneof![3 => Just(0), 1 => Just(20)];
    (20..800u64, late, lost, 0..4u64).prop_map(|(rate, late, lost, crashes)| FaultPlan {
        rate,
        max_delay: late,
        lost_percent: lost,
        crashes,
    })
}

fn limits() -> impl Strategy<Value = Limit> {
    let algorithm = prop_oneof![
        Just(Algorithm::SlidingWindow),
        Just(Algorithm::SlidingLog),
        (1..120u64).prop_map(|burst| Algorithm::TokenBucket { burst }),
    ];
    let window = prop_oneof![Just(500u64), Just(1000), Just(3000)];
    (algorithm, 1..400u64, window)
        .prop_map(|(algorithm, most, window)| limit(algorithm, most, window))
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
        fate in fault_plans(),
        luck in any::<u64>(),
    ) {
        let mut fleet = Fleet::new(limit, gateways, luck);
        let from = 1_790_000_000_123_456;
        fleet.run(fate, from, from + 5_000_000);
        fleet.check()?;
    }
}
