use proptest::prelude::*;

use super::*;

pub(crate) fn limit(algorithm: Algorithm, limit: u64, window_ms: u64) -> Arc<Limit> {
    named("per-user", algorithm, limit, window_ms, false)
}

pub(super) fn named(
    name: &str,
    algorithm: Algorithm,
    limit: u64,
    window_ms: u64,
    shadow: bool,
) -> Arc<Limit> {
    Arc::new(Limit::new(LimitDefinition {
        name: name.into(),
        algorithm,
        limit,
        window: Duration::from_millis(window_ms),
        key: vec![KeyPart::User],
        roles: vec![],
        except_roles: vec![],
        on_outage: OnOutage::Local,
        shadow,
        leased: false,
    }))
}

pub(crate) fn decision(
    limit: Arc<Limit>,
    allowed: bool,
    remaining: u64,
    reset_ms: u64,
    retry_ms: u64,
) -> Decision {
    Decision {
        limit,
        allowed,
        remaining,
        reset_after: Duration::from_millis(reset_ms),
        retry_after: Duration::from_millis(retry_ms),
        degraded: false,
    }
}

/// Sends a request after each gap (microseconds); returns the times of the admitted ones.
fn admitted(limit: &Limit, start: Micros, gaps: &[u64]) -> Vec<Micros> {
    let (rule, mut state, mut now) = (Rule::of(limit), CounterState::new(limit.algorithm), start);
    let mut times = Vec::new();
    for gap in gaps {
        now += gap;
        if state.wait(rule, now) == 0 {
            state.spend(rule, now);
            times.push(now);
        }
    }
    times
}

/// Largest number of admissions in a half-open interval of `span`.
fn densest(times: &[Micros], span: Micros) -> usize {
    times
        .iter()
        .map(|from| {
            times
                .iter()
                .filter(|t| **t >= *from && **t < from + span)
                .count()
        })
        .max()
        .unwrap_or(0)
}

pub(super) fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::SlidingWindow),
        Just(Algorithm::SlidingLog),
        (1..20u64).prop_map(|burst| Algorithm::TokenBucket { burst }),
    ]
}

proptest! {
    #[test]
    fn sliding_log_never_exceeds_its_limit(
        requests in 1..12u64,
        width in 1..2000u64,
        start in 0..10_000_000u64,
        gaps in prop::collection::vec(0..400_000u64, 1..200),
    ) {
        let limit = limit(Algorithm::SlidingLog, requests, width);
        let times = admitted(&limit, start, &gaps);
        prop_assert!(densest(&times, width * 1000) as u64 <= requests);
    }

    #[test]
    fn sliding_window_stays_within_its_error_bound(
        requests in 1..12u64,
        width in 1..2000u64,
        start in 0..10_000_000u64,
        gaps in prop::collection::vec(0..400_000u64, 1..200),
    ) {
        let limit = limit(Algorithm::SlidingWindow, requests, width);
        let times = admitted(&limit, start, &gaps);
        prop_assert!((densest(&times, width * 1000) as u64) < 2 * requests);
        for window in times.chunk_by(|a, b| a / 1000 / width == b / 1000 / width) {
            prop_assert!(window.len() as u64 <= requests);
        }
    }

    #[test]
    fn token_bucket_admits_burst_plus_refill(
        requests in 1..12u64,
        burst in 1..12u64,
        width in 1..2000u64,
        gaps in prop::collection::vec(0..400_000u64, 1..200),
    ) {
        let limit = limit(Algorithm::TokenBucket { burst }, requests, width);
        let times = admitted(&limit, 7_000, &gaps);
        for (n, from) in times.iter().enumerate() {
            for (m, to) in times.iter().enumerate().skip(n) {
                let millis = to / 1000 - from / 1000;
                prop_assert!((m - n + 1) as u64 * width <= burst * width + millis * requests);
            }
        }
    }

    #[test]
    fn retry_is_admitted_exactly_when_reported(
        algorithm in algorithms(),
        requests in 1..12u64,
        width in 2..5000u64,
        start in 0..10_000_000u64,
        gaps in prop::collection::vec(0..500_000u64, 1..100),
    ) {
        let limit = limit(algorithm, requests, width);
        let rule = Rule::of(&limit);
        let (mut state, mut now) = (CounterState::new(algorithm), start);
        for gap in gaps {
            now += gap;
            let wait = state.wait(rule, now);
            if wait == 0 {
                prop_assert!(state.remaining(rule) > 0);
                state.spend(rule, now);
                continue;
            }
            prop_assert_eq!(state.remaining(rule), 0);
            prop_assert_eq!(state.clone().wait(rule, now + wait), 0);
            prop_assert!(state.clone().wait(rule, now + wait - 1000) > 0, "a shorter wait was enough");
        }
    }

    #[test]
    fn limit_resets_when_reported(
        algorithm in algorithms(),
        requests in 1..12u64,
        width in 2..5000u64,
        gaps in prop::collection::vec(0..500_000u64, 1..60),
    ) {
        let limit = limit(algorithm, requests, width);
        let rule = Rule::of(&limit);
        let (mut state, mut now) = (CounterState::new(algorithm), 5_000_000);
        for gap in gaps {
            now += gap;
            if state.wait(rule, now) == 0 {
                state.spend(rule, now);
            }
            let later = now + state.reset_after(rule, now);
            let mut reset = state.clone();
            reset.wait(rule, later);
            prop_assert_eq!(reset.remaining(rule), limit.quota());
            prop_assert_eq!(reset.reset_after(rule, later), 0);
        }
    }

    #[test]
    fn backward_clock_step_frees_nothing(algorithm in algorithms(), back in 0..100_000_000u64) {
        let limit = limit(algorithm, 3, 1000);
        let rule = Rule::of(&limit);
        let mut state = CounterState::new(algorithm);
        let now = 200_500_000;
        while state.wait(rule, now) == 0 {
            state.spend(rule, now);
        }
        prop_assert!(state.wait(rule, now - back) > 0);
    }
}

#[test]
fn sliding_window_reaches_its_error_bound() {
    let limit = limit(Algorithm::SlidingWindow, 3, 1000);
    let mut gaps = vec![1_999_000, 0, 0];
    gaps.extend(std::iter::repeat_n(1000, 999));
    let times = admitted(&limit, 0, &gaps);
    assert_eq!(densest(&times, 1_000_000), 5);
}

#[test]
fn refunded_request_can_be_spent_again() {
    for algorithm in [
        Algorithm::SlidingWindow,
        Algorithm::SlidingLog,
        Algorithm::TokenBucket { burst: 2 },
    ] {
        let rule = Rule::of(&limit(algorithm, 2, 1000));
        let mut state = CounterState::new(algorithm);
        for _ in 0..2 {
            assert_eq!(state.wait(rule, 5_000), 0);
            state.spend(rule, 5_000);
        }
        assert!(state.wait(rule, 5_000) > 0, "{algorithm:?}");
        state.refund(rule, 5_000, 1, 5_000);
        assert_eq!(state.wait(rule, 5_000), 0, "{algorithm:?}");
    }
}

#[test]
fn strictest_decision_refuses_or_has_least_remaining() {
    let limit = |name| named(name, Algorithm::SlidingLog, 10, 60_000, false);
    let roomy = decision(limit("roomy"), true, 9, 1, 0);
    let tight = decision(limit("tight"), true, 1, 1, 0);
    let short = decision(limit("short"), false, 0, 1, 5);
    let long = decision(limit("long"), false, 0, 1, 9);
    let mut shadow = decision(
        named("shadow", Algorithm::SlidingLog, 1, 1, true),
        false,
        0,
        1,
        99,
    );
    for (decisions, expected) in [
        (vec![roomy.clone(), tight.clone()], Some("tight")),
        (
            vec![tight.clone(), short.clone(), long.clone()],
            Some("long"),
        ),
        (vec![shadow.clone(), roomy.clone()], Some("roomy")),
        (vec![shadow.clone()], None),
        (vec![], None),
    ] {
        let name = strictest(&decisions).map(|d| d.limit.name.to_string());
        assert_eq!(name.as_deref(), expected);
    }
    shadow.allowed = true;
    assert!(!shadow.refuses());
}

#[test]
fn limits_are_exact_up_to_2_to_the_53() {
    const DAY: Duration = Duration::from_secs(86_400);
    const MILLISECOND: Duration = Duration::from_millis(1);
    for (requests, window, exact) in [
        (20_000_000, DAY, true),
        // 2^53 is 104,249,991.37 days in milliseconds.
        (104_249_991, DAY, true),
        (104_249_992, DAY, false),
        (1 << 53, MILLISECOND, true),
        ((1 << 53) + 1, MILLISECOND, false),
        (u64::MAX, Duration::MAX, false),
    ] {
        assert_eq!(
            is_exact(requests, window),
            exact,
            "{requests} in {window:?}"
        );
    }
}
