//! A fleet of leases: gateways that crash, messages that are late or lost, and a store that counts with
//! the real arithmetic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{Algorithm, OnOutage, State};

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
    Question(usize, u64, Asked),
    Answer(usize, u64, Asked, Said),
    GiveBack(u64, Micros),
    Sweep(usize),
    Crash(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    want: u64,
    held: u64,
    leads: bool,
    at: Micros,
    /// Whether a request waits for it.
    waits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    granted: u64,
    counted_at: Micros,
    left: u64,
    wait: Micros,
}

/// One request that passed: when the store counted it, and when it was let through.
#[derive(Debug, Clone, Copy)]
struct Passed {
    counted: Micros,
    used: Micros,
}

struct Fleet {
    limit: Limit,
    store: State,
    leases: Vec<Lease>,
    /// How often each has been started: answers to an earlier life do not arrive.
    lives: Vec<u64>,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    sent: u64,
    luck: u64,
    passed: Vec<Passed>,
    most_held: u64,
}

/// How the fleet is treated.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// Requests a second of each gateway.
    rate: u64,
    /// The longest that a message takes.
    late: Micros,
    /// Of a hundred messages so many are lost.
    lost: u64,
    crashes: u64,
}

impl Fleet {
    fn new(limit: Limit, gateways: usize, luck: u64) -> Fleet {
        Fleet {
            store: State::new(limit.algorithm),
            limit,
            leases: (0..gateways).map(|_| Lease::default()).collect(),
            lives: vec![0; gateways],
            events: BinaryHeap::new(),
            sent: 0,
            luck: luck | 1,
            passed: Vec::new(),
            most_held: 0,
        }
    }

    /// A number below `most`, from the seed.
    fn random(&mut self, most: u64) -> u64 {
        self.luck ^= self.luck << 13;
        self.luck ^= self.luck >> 7;
        self.luck ^= self.luck << 17;
        self.luck % most.max(1)
    }

    fn terms(&self) -> Terms {
        Terms::of(&self.limit, self.leases.len() as u64)
    }

    /// Each gateway has a clock of its own, which is as quick as the others.
    fn clock(gateway: usize, now: Micros) -> Micros {
        now + gateway as u64 * 987_654_321
    }

    fn at(&mut self, when: Micros, event: Event) {
        self.sent += 1;
        self.events.push(Reverse((when, self.sent, event)));
    }

    fn send(&mut self, now: Micros, fate: Fate, event: Event) {
        if self.random(100) >= fate.lost {
            let mut when = now + self.random(fate.late);
            if matches!(event, Event::Question(..)) {
                // The store dates what it counts by the millisecond: asked at whole ones, it says
                // exactly what was counted before a moment, and what after.
                when = when.next_multiple_of(1000);
            }
            self.at(when, event);
        }
    }

    fn live(&mut self, fate: Fate, from: Micros, until: Micros) {
        for gateway in 0..self.leases.len() {
            self.at(from, Event::Request(gateway));
            self.at(from, Event::Sweep(gateway));
        }
        for _ in 0..fate.crashes {
            let when = from + self.random(until - from);
            let gateway = self.random(self.leases.len() as u64) as usize;
            self.at(when, Event::Crash(gateway));
        }
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > until {
                break;
            }
            self.happen(fate, now, event);
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

    fn happen(&mut self, fate: Fate, now: Micros, event: Event) {
        match event {
            Event::Request(gateway) => {
                self.request(fate, now, gateway);
                // In bursts: most gaps are short, and some are long.
                let mean = 1_000_000 / fate.rate;
                let gap = match self.random(20) {
                    0 => self.random(20 * mean),
                    _ => self.random(mean),
                };
                self.at(now + gap + 1, Event::Request(gateway));
            }
            Event::Question(gateway, life, asked) => {
                self.question(fate, now, (gateway, life), asked)
            }
            Event::Answer(gateway, life, asked, said) => {
                self.answer(now, (gateway, life), asked, said)
            }
            Event::GiveBack(many, at) => self.store.give_back(Rule::of(&self.limit), now, many, at),
            Event::Sweep(gateway) => {
                for unused in self.leases[gateway].unused(Fleet::clock(gateway, now)) {
                    self.send(now, fate, Event::GiveBack(unused.many, unused.counted_at));
                }
                self.at(now + 100_000, Event::Sweep(gateway));
            }
            Event::Crash(gateway) => {
                self.leases[gateway] = Lease::default();
                self.lives[gateway] += 1;
            }
        }
    }

    fn request(&mut self, fate: Fate, now: Micros, gateway: usize) {
        let (terms, clock) = (self.terms(), Fleet::clock(gateway, now));
        let life = self.lives[gateway];
        let ask = |ask: Ask, waits| Asked {
            want: ask.want,
            held: ask.held,
            leads: ask.leads,
            at: clock,
            waits,
        };
        match self.leases[gateway].take(terms, clock) {
            Taken::Permit(permit) if self.random(20) == 0 => {
                // Another limit of the request refuses.
                self.leases[gateway].put_back(permit, clock);
            }
            Taken::Permit(permit) => {
                self.passed.push(Passed {
                    counted: permit.counted_at,
                    used: now,
                });
                if let Some(more) = self.leases[gateway].refill(terms, clock) {
                    self.send(now, fate, Event::Question(gateway, life, ask(more, false)));
                }
            }
            Taken::Ask(exact) => {
                self.send(now, fate, Event::Question(gateway, life, ask(exact, true)));
            }
            Taken::Refused => {}
        }
    }

    fn question(&mut self, fate: Fate, now: Micros, (gateway, life): (usize, u64), asked: Asked) {
        let (rule, parts) = (Rule::of(&self.limit), self.terms().parts);
        let Asked {
            want, held, leads, ..
        } = asked;
        let wait = self.store.wait(rule, now);
        let granted = self
            .store
            .grant(rule, now, Ask { want, held, leads }, parts);
        let counted_at = self.store.as_of(rule, now);
        if asked.waits && granted > 0 && self.lives[gateway] == life {
            // As exact as any: the store's moment is the request's.
            self.passed.push(Passed {
                counted: counted_at,
                used: counted_at,
            });
        }
        let left = self.store.remaining(rule);
        let said = Said {
            granted,
            counted_at,
            left,
            wait,
        };
        self.send(now, fate, Event::Answer(gateway, life, asked, said));
    }

    fn answer(&mut self, now: Micros, (gateway, life): (usize, u64), asked: Asked, said: Said) {
        if self.lives[gateway] != life {
            return;
        }
        let ask = Ask {
            want: asked.want,
            held: asked.held,
            leads: asked.leads,
        };
        let answer = Answer {
            granted: said.granted,
            said_at: said.counted_at,
            counted_at: said.counted_at,
            left: said.left,
            whole_after: 0,
            wait: said.wait,
        };
        let used = said.granted.min(u64::from(asked.waits));
        let when = (asked.at, Fleet::clock(gateway, now));
        let terms = self.terms();
        self.leases[gateway].answered(terms, ask, answer, used, when);
    }

    /// What one interval of the window's length admits where every decision is the store's.
    fn exact(&self) -> u64 {
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
        for one in &self.passed {
            let late = one.used - one.counted;
            prop_assert!(late <= validity(&self.limit), "used {late} µs late");
        }
        for from in self.passed.iter().map(|one| one.used) {
            let inside = |one: &&Passed| one.used >= from && one.used < from + span;
            let admitted = self.passed.iter().filter(inside).count() as u64;
            let counted_before = self
                .passed
                .iter()
                .filter(inside)
                .filter(|one| one.counted < from);
            let outstanding = counted_before.count() as u64;
            prop_assert!(
                outstanding <= held_at_most,
                "{outstanding} were outstanding"
            );
            prop_assert!(
                admitted <= self.exact() + outstanding,
                "{admitted} admitted, {outstanding} outstanding"
            );
        }
        if self.limit.algorithm == Algorithm::SlidingWindow {
            self.check_aligned(span, held_at_most)?;
        }
        Ok(())
    }

    fn check_aligned(&self, span: Micros, held_at_most: u64) -> Result<(), TestCaseError> {
        let mut used: Vec<Micros> = self.passed.iter().map(|one| one.used / span).collect();
        used.sort_unstable();
        for window in used.chunk_by(|a, b| a == b) {
            prop_assert!(window.len() as u64 <= self.limit.limit + held_at_most);
        }
        Ok(())
    }
}

fn fates() -> impl Strategy<Value = Fate> {
    let late = prop_oneof![Just(500), Just(20_000), Just(300_000), Just(3_000_000)];
    let lost = prop_oneof![3 => Just(0), 1 => Just(20)];
    (20..800u64, late, lost, 0..4u64).prop_map(|(rate, late, lost, crashes)| Fate {
        rate,
        late,
        lost,
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
    fn a_fleet_never_admits_more_than_its_bound(
        limit in limits(),
        gateways in 1..5usize,
        fate in fates(),
        luck in any::<u64>(),
    ) {
        let mut fleet = Fleet::new(limit, gateways, luck);
        let from = 1_790_000_000_123_456;
        fleet.live(fate, from, from + 5_000_000);
        fleet.check()?;
    }
}
