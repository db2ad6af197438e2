//! Tests of a single lease.

use proptest::prelude::*;

use super::*;
use crate::limits::{Algorithm, CounterState};

const SECOND: Micros = 1_000_000;

fn terms() -> LeaseTerms {
    LeaseTerms {
        validity: SECOND,
        share_divisor: 2,
    }
}

fn granted(granted: u64, remaining: u64) -> LeaseReply {
    LeaseReply {
        granted,
        replied_at: 77,
        counted_at: 77,
        remaining,
        reset_after: 5_000_000,
        wait: 0,
    }
}

/// Takes units until the lease holds some; returns the request that was granted `count` units.
fn filled_lease(count: u64, remaining: u64) -> (Lease, LeaseRequest) {
    let mut lease = Lease::default();
    let TakeOutcome::Request(first) = lease.take(terms(), 1) else {
        panic!("nothing was granted yet")
    };
    lease.apply_reply(terms(), first, granted(1, remaining + count), 1, (1, 1));
    let TakeOutcome::Request(request) = lease.take(terms(), 2) else {
        panic!("the granted unit is used")
    };
    lease.apply_reply(terms(), request, granted(count, remaining), 1, (2, 3));
    (lease, request)
}

#[test]
fn first_use_requests_one_unit_then_a_batch() {
    let (lease, request) = filled_lease(2, 90);
    assert_eq!(
        (request.want, request.held, request.is_leader),
        (2, 0, true)
    );
    assert_eq!(lease.held(), 1);
    // A counter that is used at most once per second never gets a batch.
    let mut slow = Lease::default();
    for second in 1..50 {
        let now = second * 1_500_000;
        let TakeOutcome::Request(request) = slow.take(terms(), now) else {
            panic!("a unit was held at {now}")
        };
        assert_eq!(request.want, 1);
        slow.apply_reply(terms(), request, granted(1, 9), 1, (now, now));
    }
}

#[test]
fn only_one_batch_request_is_pending() {
    let mut lease = Lease::default();
    let TakeOutcome::Request(first) = lease.take(terms(), 1) else {
        panic!("nothing was granted yet")
    };
    assert!(first.is_leader);
    assert_eq!(
        lease.take(terms(), 2),
        TakeOutcome::Request(LeaseRequest::SINGLE)
    );
    // The reply to a single request does not end the pending batch request, which times out.
    lease.apply_reply(terms(), LeaseRequest::SINGLE, granted(1, 9), 1, (2, 3));
    assert_eq!(
        lease.take(terms(), 4),
        TakeOutcome::Request(LeaseRequest::SINGLE)
    );
    let TakeOutcome::Request(next) = lease.take(terms(), 5 + BATCH_REPLY_TIMEOUT) else {
        panic!("nothing was granted yet")
    };
    assert!(next.is_leader);
    lease.cancel(next);
    assert!(
        matches!(lease.take(terms(), 6 + BATCH_REPLY_TIMEOUT), TakeOutcome::Request(request) if request.is_leader)
    );
}

#[test]
fn expired_units_are_returned() {
    let (mut lease, _) = filled_lease(6, 90);
    assert_eq!(lease.held(), 5);
    let TakeOutcome::Unit(unit) = lease.take(terms(), SECOND + 1) else {
        panic!("units are valid for a second from the request")
    };
    assert!(matches!(
        lease.take(terms(), SECOND + 2),
        TakeOutcome::Request(_)
    ));
    lease.put_back(unit, SECOND + 3);
    let unused: u64 = lease
        .take_unused(SECOND + 3)
        .iter()
        .map(|unused| unused.count)
        .sum();
    assert_eq!(unused, 5);
    assert!(lease.take_unused(SECOND + 4).is_empty());
    assert!(!lease.is_idle(SECOND + 4));
    assert!(lease.is_idle(2 * SECOND + 2 + IDLE_TIMEOUT));
}

#[test]
fn unneeded_unit_becomes_available_again() {
    let (mut lease, _) = filled_lease(3, 90);
    let TakeOutcome::Unit(unit) = lease.take(terms(), 4) else {
        panic!("two are held")
    };
    assert_eq!(lease.remaining_and_reset(4), Some((91, 5_000_000 - 1)));
    lease.put_back(unit, 5);
    assert_eq!(remaining_at(&lease, 5), Some(92));
    assert_eq!(
        lease.retire(),
        [UnusedUnits {
            count: 2,
            counted_at: 77
        }]
    );
}

#[test]
fn refusal_lasts_for_the_reported_wait() {
    let (mut lease, request) = filled_lease(2, 0);
    let refusal = LeaseReply {
        granted: 0,
        wait: 400_000,
        ..granted(0, 0)
    };
    lease.apply_reply(terms(), request, refusal, 0, (5, 10));
    // Held units are used first.
    assert!(matches!(lease.take(terms(), 11), TakeOutcome::Unit(_)));
    assert_eq!(lease.take(terms(), 12), TakeOutcome::Refused);
    assert_eq!(lease.retry_after(110_000), 290_010);
    assert_eq!(lease.take(terms(), 400_009), TakeOutcome::Refused);
    assert!(matches!(
        lease.take(terms(), 400_010),
        TakeOutcome::Request(_)
    ));
}

#[test]
fn lasting_refusal_is_rechecked_once_per_second() {
    let (mut lease, request) = filled_lease(1, 0);
    let hour = LeaseReply {
        granted: 0,
        wait: 3_600_000_000,
        ..granted(0, 0)
    };
    lease.apply_reply(terms(), request, hour, 0, (5, 10));
    assert_eq!(
        lease.take(terms(), 9 + REFUSAL_RECHECK_INTERVAL),
        TakeOutcome::Refused
    );
    let TakeOutcome::Request(again) = lease.take(terms(), 10 + REFUSAL_RECHECK_INTERVAL) else {
        panic!("the last check was a second ago")
    };
    // Only one request checks again.
    assert_eq!(
        lease.take(terms(), 11 + REFUSAL_RECHECK_INTERVAL),
        TakeOutcome::Refused
    );
    lease.apply_reply(
        terms(),
        again,
        hour,
        0,
        (10 + REFUSAL_RECHECK_INTERVAL, 12 + REFUSAL_RECHECK_INTERVAL),
    );
    assert_eq!(
        lease.take(terms(), 13 + REFUSAL_RECHECK_INTERVAL),
        TakeOutcome::Refused
    );
}

#[test]
fn refill_starts_early_but_not_near_the_limit() {
    let (mut lease, _) = filled_lease(60, 1000);
    let mut refills = Vec::new();
    for n in 0..59 {
        let now = 10 + n;
        assert!(matches!(lease.take(terms(), now), TakeOutcome::Unit(_)));
        refills.extend(lease.refill(terms(), now));
    }
    let [refill] = refills[..] else {
        panic!("requested {} refills", refills.len())
    };
    assert!(
        refill.held * 2 <= refill.want + refill.held && refill.is_leader,
        "{refill:?}"
    );
    let (mut lease, _) = filled_lease(60, 3);
    assert!(matches!(lease.take(terms(), 10), TakeOutcome::Unit(_)));
    assert_eq!(lease.refill(terms(), 10), None);
}

fn remaining_at(lease: &Lease, now: Micros) -> Option<u64> {
    lease
        .remaining_and_reset(now)
        .map(|(remaining, _)| remaining)
}

#[test]
fn remaining_decreases_despite_reordered_replies() {
    let (mut lease, _) = filled_lease(3, 90);
    for expected in [91, 90] {
        assert!(matches!(lease.take(terms(), 4), TakeOutcome::Unit(_)));
        assert_eq!(remaining_at(&lease, 4), Some(expected));
    }
    assert!(
        lease
            .refill(terms(), 4)
            .is_some_and(|request| request.is_leader)
    );
    // The batch of five is counted between two single units, and its reply arrives last.
    let batch = LeaseRequest {
        want: 5,
        held: 0,
        is_leader: true,
    };
    let reply = |count, remaining, replied_at| LeaseReply {
        replied_at,
        ..granted(count, remaining)
    };
    for (single, expected) in [(reply(1, 89, 100), 89), (reply(1, 83, 102), 88)] {
        assert_eq!(
            lease.take(terms(), 5),
            TakeOutcome::Request(LeaseRequest::SINGLE)
        );
        lease.apply_reply(terms(), LeaseRequest::SINGLE, single, 1, (5, 6));
        assert_eq!(remaining_at(&lease, 6), Some(expected));
    }
    lease.apply_reply(terms(), batch, reply(5, 84, 101), 0, (4, 7));
    assert_eq!(remaining_at(&lease, 7), Some(88));
    // An older report has no effect.
    lease.apply_report(reply(0, 999, 100), 8);
    assert_eq!(remaining_at(&lease, 8), Some(88));
}

/// A due refund: when the units were counted, how many they are, and when they are refunded.
type PendingRefund = (Micros, u64, Micros);

/// Grants units and refunds some of them, some late; returns when each used unit was counted.
fn used_units(
    algorithm: Algorithm,
    rule: Rule,
    steps: &[(Micros, u64, u64, Micros)],
) -> Vec<Micros> {
    let (mut state, mut now) = (CounterState::new(algorithm), 1_790_000_000_123_456);
    let (mut used, mut refunds): (Vec<Micros>, Vec<PendingRefund>) = (Vec::new(), Vec::new());
    for (gap, want, unused, refund_after) in steps {
        now += gap;
        refunds.retain(|(counted_at, count, due)| {
            if *due <= now {
                state.refund(rule, now, *count, *counted_at);
            }
            *due > now
        });
        let request = LeaseRequest {
            want: *want,
            held: 0,
            is_leader: true,
        };
        let granted = state.grant(rule, now, request, 2);
        let counted_at = state.as_of(rule, now);
        let unused = granted.min(*unused);
        used.extend((unused..granted).map(|_| counted_at));
        refunds.push((counted_at, unused, now + refund_after));
    }
    used
}

/// Largest number of times in an interval of `span` that begins with one of them.
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
    fn returned_units_never_raise_the_limit(limit in 1..40u64, burst in 1..40u64, steps in steps()) {
        let width = 1000;
        let rule = Rule { limit, width, burst: 0 };
        let log = used_units(Algorithm::SlidingLog, rule, &steps);
        prop_assert!(densest(&log, width * 1000) <= limit);
        let window = used_units(Algorithm::SlidingWindow, rule, &steps);
        prop_assert!(densest(&window, width * 1000) < 2 * limit);
        for aligned in window.chunk_by(|a, b| a / 1000 / width == b / 1000 / width) {
            prop_assert!(aligned.len() as u64 <= limit);
        }
        let bucket = used_units(Algorithm::TokenBucket { burst }, Rule { burst, ..rule }, &steps);
        for (n, from) in bucket.iter().enumerate() {
            for (m, to) in bucket.iter().enumerate().skip(n) {
                let millis = to / 1000 - from / 1000;
                prop_assert!((m - n + 1) as u64 * width <= burst * width + millis * limit);
            }
        }
    }
}
