//! What is left of a limit for one of several gateways that cannot ask each other.

use std::sync::Arc;

use super::{Algorithm, CounterState, Limit, Micros, Rule};

impl Limit {
    /// One gateway's part of the limit: all parts together are no more than the limit, as long as
    /// there are no more gateways than requests in it. A gateway always has one request.
    #[must_use]
    pub fn share(self: &Arc<Limit>, gateways: u64) -> Arc<Limit> {
        if gateways <= 1 {
            return Arc::clone(self);
        }
        let part = |whole: u64| (whole / gateways).max(1);
        let mut share = Limit::clone(self);
        share.limit = part(self.limit);
        if let Algorithm::TokenBucket { burst } = self.algorithm {
            share.algorithm = Algorithm::TokenBucket { burst: part(burst) };
        }
        Arc::new(share)
    }
}

/// What was last known of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// How many more requests were admitted at the time.
    pub remaining: u64,
    pub as_of: Micros,
    /// When nothing of what was spent counts any more, if nothing else is sent.
    pub reset_at: Micros,
}

impl CounterSnapshot {
    /// Begins one gateway's counter: it has its part of what was left, and no more.
    pub fn local_state(&self, share: &Limit, gateways: u64) -> CounterState {
        if self.reset_at <= self.as_of {
            return CounterState::new(share.algorithm);
        }
        let left = self.remaining / gateways.max(1);
        let spent = share.quota().saturating_sub(left);
        let when = (self.as_of, self.reset_at);
        CounterState::resumed(share.algorithm, Rule::of(share), spent, when)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::OnOutage;

    fn limit(algorithm: Algorithm, limit: u64, width: u64) -> Arc<Limit> {
        Arc::new(Limit {
            name: "l".into(),
            algorithm,
            limit,
            window: Duration::from_millis(width),
            key: vec![],
            roles: vec![],
            except_roles: vec![],
            on_outage: OnOutage::Local,
            shadow: false,
            leased: false,
        })
    }

    /// How many requests a counter admits at once.
    fn drain(state: &mut CounterState, rule: Rule, now: Micros) -> u64 {
        let mut admitted = 0;
        while state.wait(rule, now) == 0 {
            state.spend(rule, now);
            admitted += 1;
        }
        admitted
    }

    fn algorithms() -> impl Strategy<Value = Algorithm> {
        prop_oneof![
            Just(Algorithm::SlidingWindow),
            Just(Algorithm::SlidingLog),
            (1..200u64).prop_map(|burst| Algorithm::TokenBucket { burst }),
        ]
    }

    proptest! {
        #[test]
        fn local_shares_never_exceed_what_was_left(
            algorithm in algorithms(),
            most in 1..200u64,
            width in 1000..100_000u64,
            gateways in 1..6u64,
            spent in 0..300u64,
            gap in 0..500_000u64,
        ) {
            let whole = limit(algorithm, most, width);
            let rule = Rule::of(&whole);
            let (mut state, mut now) = (CounterState::new(algorithm), 1_790_000_000_123_000);
            for _ in 0..spent {
                now += gap * 1000 / 300;
                if state.wait(rule, now) == 0 {
                    state.spend(rule, now);
                }
            }
            state.wait(rule, now);
            let left = state.remaining(rule);
            let whole_at = now + state.reset_after(rule, now);
            let standing = CounterSnapshot { remaining: left, as_of: now, reset_at: whole_at };
            let share = whole.share(gateways);
            let part = Rule::of(&share);
            let mut mine = standing.local_state(&share, gateways);
            let admitted = drain(&mut mine, part, now);
            let fits = admitted * gateways <= left || (left == whole.quota() && admitted == 1);
            prop_assert!(fits, "{admitted} of {left}");
            if gateways == 1 {
                prop_assert_eq!(admitted, left);
            }
            // Nothing stays spent for longer than was said; of a bucket's fractions nothing is known.
            if !matches!(algorithm, Algorithm::TokenBucket { .. }) {
                let mut later = standing.local_state(&share, gateways);
                later.wait(part, whole_at);
                prop_assert_eq!(later.remaining(part), share.quota());
            }
        }
    }

    #[test]
    fn limit_shares_never_exceed_the_limit() {
        for (most, gateways, part) in [(10, 3, 3), (10, 1, 10), (2, 3, 1), (7, 0, 7)] {
            assert_eq!(
                limit(Algorithm::SlidingLog, most, 1).share(gateways).limit,
                part
            );
        }
        let bucket = limit(Algorithm::TokenBucket { burst: 9 }, 100, 1000).share(2);
        assert_eq!((bucket.limit, bucket.quota()), (50, 4));
    }
}
