//! A gateway's share of a limit while the store cannot coordinate the fleet.

use std::sync::Arc;

use super::{Algorithm, CounterState, Limit, Micros, Rule};

impl Limit {
    /// One gateway's share of the limit, at least one request.
    ///
    /// All shares together do not exceed the limit unless there are more gateways than requests in
    /// it.
    #[must_use]
    pub fn share(self: &Arc<Limit>, gateways: u64) -> Arc<Limit> {
        if gateways <= 1 {
            return Arc::clone(self);
        }
        let part = |whole: u64| (whole / gateways).max(1);
        let mut share = self.definition.clone();
        share.limit = part(self.limit);
        if let Algorithm::TokenBucket { burst } = self.algorithm {
            share.algorithm = Algorithm::TokenBucket { burst: part(burst) };
        }
        Arc::new(Limit::new(share))
    }
}

/// Last observed state of a counter in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Number of further requests that the counter would have admitted.
    pub remaining: u64,
    pub as_of: Micros,
    /// When no spent request counts any more, if nothing else is sent.
    pub reset_at: Micros,
}

impl CounterSnapshot {
    /// Creates one gateway's counter, with its share of the remaining requests and no more.
    pub fn local_state(&self, share: &Limit, gateways: u64) -> CounterState {
        if self.reset_at <= self.as_of {
            return CounterState::new(share.algorithm);
        }
        let remaining = self.remaining / gateways.max(1);
        let spent = share.quota().saturating_sub(remaining);
        let times = (self.as_of, self.reset_at);
        CounterState::resumed(share.algorithm, Rule::of(share), spent, times)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::{LimitDefinition, OnOutage};

    fn limit(algorithm: Algorithm, limit: u64, width: u64) -> Arc<Limit> {
        Arc::new(Limit::new(LimitDefinition {
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
        }))
    }

    /// Number of requests that a counter admits at once.
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
            requests in 1..200u64,
            width in 1000..100_000u64,
            gateways in 1..6u64,
            spent in 0..300u64,
            gap in 0..500_000u64,
        ) {
            let whole = limit(algorithm, requests, width);
            let rule = Rule::of(&whole);
            let (mut state, mut now) = (CounterState::new(algorithm), 1_790_000_000_123_000);
            for _ in 0..spent {
                now += gap * 1000 / 300;
                if state.wait(rule, now) == 0 {
                    state.spend(rule, now);
                }
            }
            state.wait(rule, now);
            let remaining = state.remaining(rule);
            let reset_at = now + state.reset_after(rule, now);
            let snapshot = CounterSnapshot { remaining, as_of: now, reset_at };
            let share = whole.share(gateways);
            let share_rule = Rule::of(&share);
            let mut local = snapshot.local_state(&share, gateways);
            let admitted = drain(&mut local, share_rule, now);
            let fits = admitted * gateways <= remaining
                || (remaining == whole.quota() && admitted == 1);
            prop_assert!(fits, "{admitted} of {remaining}");
            if gateways == 1 {
                prop_assert_eq!(admitted, remaining);
            }
            // Nothing counts past the reported reset. A snapshot does not hold a bucket's fractions.
            if !matches!(algorithm, Algorithm::TokenBucket { .. }) {
                let mut later = snapshot.local_state(&share, gateways);
                later.wait(share_rule, reset_at);
                prop_assert_eq!(later.remaining(share_rule), share.quota());
            }
        }
    }

    #[test]
    fn limit_shares_never_exceed_the_limit() {
        for (requests, gateways, share) in [(10, 3, 3), (10, 1, 10), (2, 3, 1), (7, 0, 7)] {
            let limit = limit(Algorithm::SlidingLog, requests, 1);
            assert_eq!(limit.share(gateways).limit, share);
        }
        let bucket = limit(Algorithm::TokenBucket { burst: 9 }, 100, 1000).share(2);
        assert_eq!((bucket.limit, bucket.quota()), (50, 4));
    }
}
