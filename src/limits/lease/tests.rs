//! Rules of one lease, and a fleet of them: gateways that crash, messages that are late or lost, and a
//! store that counts with the real arithmetic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{Algorithm, OnOutage, State};

const SECOND_LONG: Micros = 1_000_000;

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

fn terms() -> Terms {
    Terms {
        validity: SECOND_LONG,
        parts: 2,
    }
}

fn granted(granted: u64, left: u64) -> Answer {
    Answer {
        granted,
        counted_at: 77,
        left,
        whole_after: 5_000_000,
        wait: 0,
    }
}

/// Asks until the lease holds permits; gives the question that was answered with `many`.
fn filled(many: u64, left: u64) -> (Lease, Ask) {
    let mut lease = Lease::default();
    let Taken::Ask(first) = lease.take(terms(), 1) else {
        panic!("nothing was granted yet")
    };
    lease.answered(terms(), first, granted(1, left + many), 1, (1, 1));
    let Taken::Ask(ask) = lease.take(terms(), 2) else {
        panic!("the one that was granted is used")
    };
    lease.answered(terms(), ask, granted(many, left), 1, (2, 3));
    (lease, ask)
}

#[test]
fn the_first_use_asks_for_one_and_the_next_for_more() {
    let (lease, ask) = filled(2, 90);
    assert_eq!((ask.want, ask.held, ask.leads), (2, 0, true));
    assert_eq!(lease.held(), 1);
    // What is asked once a second or less is never leased.
    let mut slow = Lease::default();
    for second in 1..50 {
        let now = second * 1_500_000;
        let Taken::Ask(ask) = slow.take(terms(), now) else {
            panic!("a permit was held at {now}")
        };
        assert_eq!(ask.want, 1);
        slow.answered(terms(), ask, granted(1, 9), 1, (now, now));
    }
}

#[test]
fn only_one_asks_for_a_batch_at_a_time() {
    let mut lease = Lease::default();
    let Taken::Ask(first) = lease.take(terms(), 1) else {
        panic!("nothing was granted yet")
    };
    assert!(first.leads);
    assert_eq!(lease.take(terms(), 2), Taken::Ask(Ask::EXACT));
    // The other's answer does not end the first one's turn, and a lost one ends by itself.
    lease.answered(terms(), Ask::EXACT, granted(1, 9), 1, (2, 3));
    assert_eq!(lease.take(terms(), 4), Taken::Ask(Ask::EXACT));
    let Taken::Ask(next) = lease.take(terms(), 5 + PATIENCE) else {
        panic!("nothing was granted yet")
    };
    assert!(next.leads);
    lease.withdrawn(next);
    assert!(matches!(lease.take(terms(), 6 + PATIENCE), Taken::Ask(ask) if ask.leads));
}

#[test]
fn permits_end_with_their_time_and_flow_back() {
    let (mut lease, _) = filled(6, 90);
    assert_eq!(lease.held(), 5);
    let Taken::Permit(permit) = lease.take(terms(), SECOND_LONG + 1) else {
        panic!("it is good for a second from the question")
    };
    assert!(matches!(
        lease.take(terms(), SECOND_LONG + 2),
        Taken::Ask(_)
    ));
    lease.put_back(permit, SECOND_LONG + 3);
    let unused: u64 = lease.unused(SECOND_LONG + 3).iter().map(|it| it.many).sum();
    assert_eq!(unused, 5);
    assert!(lease.unused(SECOND_LONG + 4).is_empty());
    assert!(!lease.is_idle(SECOND_LONG + 4));
    assert!(lease.is_idle(2 * SECOND_LONG + 2 + IDLE));
}

#[test]
fn a_permit_that_was_not_needed_is_there_again() {
    let (mut lease, _) = filled(3, 90);
    let Taken::Permit(permit) = lease.take(terms(), 4) else {
        panic!("two are held")
    };
    assert_eq!(lease.standing(4), Some((91, 5_000_000 - 1)));
    lease.put_back(permit, 5);
    assert_eq!(lease.standing(5).map(|(left, _)| left), Some(92));
    assert_eq!(
        lease.retire(),
        [Unused {
            many: 2,
            counted_at: 77
        }]
    );
}

#[test]
fn a_refusal_lasts_as_long_as_the_store_said() {
    let (mut lease, ask) = filled(2, 0);
    let refusal = Answer {
        granted: 0,
        wait: 400_000,
        ..granted(0, 0)
    };
    lease.answered(terms(), ask, refusal, 0, (5, 10));
    // What is held is used first.
    assert!(matches!(lease.take(terms(), 11), Taken::Permit(_)));
    assert_eq!(lease.take(terms(), 12), Taken::Refused);
    assert_eq!(lease.refused_for(110_000), 290_010);
    assert_eq!(lease.take(terms(), 400_009), Taken::Refused);
    assert!(matches!(lease.take(terms(), 400_010), Taken::Ask(_)));
}

#[test]
fn more_is_asked_for_before_all_is_used_and_not_near_the_limit() {
    let (mut lease, ask) = filled(60, 1000);
    let mut asked = Vec::new();
    for n in 0..59 {
        let now = 10 + n;
        assert!(matches!(lease.take(terms(), now), Taken::Permit(_)));
        asked.extend(lease.refill(terms(), now).map(|ask| (n, ask)));
    }
    let [(_, more)] = asked[..] else {
        panic!("asked {} times", asked.len())
    };
    assert!(
        more.held * 2 <= more.want + more.held && more.leads,
        "{more:?}"
    );
    let (mut lease, _) = filled(60, 3);
    assert!(matches!(lease.take(terms(), 10), Taken::Permit(_)));
    assert_eq!(lease.refill(terms(), 10), None);
    let _ = ask;
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
            let late = self.random(fate.late);
            self.at(now + late, event);
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
