//! Rules of one lease.

use proptest::prelude::*;

use super::*;
use crate::limits::{Algorithm, State};

const SECOND_LONG: Micros = 1_000_000;

fn terms() -> Terms {
    Terms {
        validity: SECOND_LONG,
        parts: 2,
    }
}

fn granted(granted: u64, left: u64) -> Answer {
    Answer {
        granted,
        said_at: 77,
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
fn a_refusal_that_lasts_is_asked_about_once_a_second() {
    let (mut lease, ask) = filled(1, 0);
    let hour = Answer {
        granted: 0,
        wait: 3_600_000_000,
        ..granted(0, 0)
    };
    lease.answered(terms(), ask, hour, 0, (5, 10));
    assert_eq!(lease.take(terms(), 9 + CHECK), Taken::Refused);
    let Taken::Ask(again) = lease.take(terms(), 10 + CHECK) else {
        panic!("nothing has been asked for a second")
    };
    // One asks, for all.
    assert_eq!(lease.take(terms(), 11 + CHECK), Taken::Refused);
    lease.answered(terms(), again, hour, 0, (10 + CHECK, 12 + CHECK));
    assert_eq!(lease.take(terms(), 13 + CHECK), Taken::Refused);
}

#[test]
fn more_is_asked_for_before_all_is_used_and_not_near_the_limit() {
    let (mut lease, _) = filled(60, 1000);
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
}

#[test]
fn what_is_told_goes_down_by_one_although_answers_overtake_each_other() {
    let (mut lease, _) = filled(3, 90);
    for expected in [91, 90] {
        assert!(matches!(lease.take(terms(), 4), Taken::Permit(_)));
        assert_eq!(lease.standing(4).map(|it| it.0), Some(expected));
    }
    assert!(lease.refill(terms(), 4).is_some_and(|ask| ask.leads));
    // The batch of five is counted between two single ones, and heard of last.
    let batch = Ask {
        want: 5,
        held: 0,
        leads: true,
    };
    let said = |many, left, said_at| Answer {
        said_at,
        ..granted(many, left)
    };
    for (single, expected) in [(said(1, 89, 100), 89), (said(1, 83, 102), 88)] {
        assert_eq!(lease.take(terms(), 5), Taken::Ask(Ask::EXACT));
        lease.answered(terms(), Ask::EXACT, single, 1, (5, 6));
        assert_eq!(lease.standing(6).map(|it| it.0), Some(expected));
    }
    lease.answered(terms(), batch, said(5, 84, 101), 0, (4, 7));
    assert_eq!(lease.standing(7).map(|it| it.0), Some(88));
    // What was said before that is no news.
    lease.heard(said(0, 999, 100), 8);
    assert_eq!(lease.standing(8).map(|it| it.0), Some(88));
}

/// One batch: when it was counted, how many are out, and when the rest comes back.
type Out = (Micros, u64, Micros);

/// Asks at random and gives a part back, some of it late; gives when what was kept was counted.
fn kept(algorithm: Algorithm, rule: Rule, steps: &[(Micros, u64, u64, Micros)]) -> Vec<Micros> {
    let (mut state, mut now) = (State::new(algorithm), 1_790_000_000_123_456);
    let (mut kept, mut out): (Vec<Micros>, Vec<Out>) = (Vec::new(), Vec::new());
    for (gap, want, unused, back_after) in steps {
        now += gap;
        out.retain(|(counted_at, many, due)| {
            if *due <= now {
                state.give_back(rule, now, *many, *counted_at);
            }
            *due > now
        });
        let ask = Ask {
            want: *want,
            held: 0,
            leads: true,
        };
        let granted = state.grant(rule, now, ask, 2);
        let counted_at = state.as_of(rule, now);
        let unused = granted.min(*unused);
        kept.extend((unused..granted).map(|_| counted_at));
        out.push((counted_at, unused, now + back_after));
    }
    kept
}

/// The most in any interval of `span` that begins with one of them.
fn densest(times: &[Micros], span: Micros) -> u64 {
    let inside = |from: &Micros| {
        times
            .iter()
            .filter(|t| *t >= from && **t < from + span)
            .count()
    };
    times.iter().map(inside).max().unwrap_or(0) as u64
}

fn steps() -> impl Strategy<Value = Vec<(Micros, u64, u64, Micros)>> {
    let step = (0..300_000u64, 1..30u64, 0..30u64, 0..2_500_000u64);
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_given_back_lets_no_more_pass(limit in 1..40u64, burst in 1..40u64, steps in steps()) {
        let width = 1000;
        let rule = Rule { limit, width, burst: 0 };
        let log = kept(Algorithm::SlidingLog, rule, &steps);
        prop_assert!(densest(&log, width * 1000) <= limit);
        let window = kept(Algorithm::SlidingWindow, rule, &steps);
        prop_assert!(densest(&window, width * 1000) < 2 * limit);
        for aligned in window.chunk_by(|a, b| a / 1000 / width == b / 1000 / width) {
            prop_assert!(aligned.len() as u64 <= limit);
        }
        let bucket = kept(Algorithm::TokenBucket { burst }, Rule { burst, ..rule }, &steps);
        for (n, from) in bucket.iter().enumerate() {
            for (m, to) in bucket.iter().enumerate().skip(n) {
                let millis = to / 1000 - from / 1000;
                prop_assert!((m - n + 1) as u64 * width <= burst * width + millis * limit);
            }
        }
    }
}
