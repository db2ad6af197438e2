//! Cost of a limit beside the store: its arithmetic, and the headers that report it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use portcullis::limits::{
    Algorithm, CounterState, KeyPart, Limit, LimitDefinition, LimitHeaders, OnOutage, Rule,
};

const NOW: u64 = 1_790_000_000_000_000;

pub(crate) fn algorithms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limits");
    for (name, algorithm) in [
        ("sliding window", Algorithm::SlidingWindow),
        ("sliding log", Algorithm::SlidingLog),
        ("token bucket", Algorithm::TokenBucket { burst: 100 }),
    ] {
        let limit = limit(algorithm);
        let rule = Rule::of(&limit);
        let mut state = CounterState::new(algorithm);
        let mut now = NOW;
        group.bench_function(name, |bench| {
            bench.iter(|| {
                // Twice as fast as the limit admits, so that every second request is refused.
                now += 300_000;
                let wait = state.wait(rule, black_box(now));
                if wait == 0 {
                    state.spend(rule, now);
                }
                state.decision(&limit, wait, now)
            });
        });
    }
    let limit = limit(Algorithm::SlidingWindow);
    let decision = CounterState::new(limit.algorithm).decision(&limit, 0, NOW);
    let decisions = [decision.clone(), decision];
    let since = Duration::from_micros(NOW);
    for many in [1, 2] {
        let some = decisions.get(..many).unwrap_or_default();
        group.bench_function(format!("headers of {many}"), |bench| {
            let mut head = Vec::new();
            bench.iter(|| {
                head.clear();
                if let Some(headers) = LimitHeaders::of(black_box(some), || since) {
                    headers.write_lines(&mut head, |_| true);
                }
            });
        });
    }
    group.finish();
}

fn limit(algorithm: Algorithm) -> Arc<Limit> {
    Arc::new(Limit::new(LimitDefinition {
        name: "wide".into(),
        algorithm,
        limit: 100,
        window: Duration::from_secs(60),
        key: vec![KeyPart::User],
        roles: Vec::new(),
        except_roles: Vec::new(),
        on_outage: OnOutage::Local,
        shadow: false,
        leased: false,
    }))
}
