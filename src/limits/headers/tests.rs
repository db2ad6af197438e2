#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::limits::Algorithm;
use crate::limits::tests::{algorithms, decision, limit, named};

/// The headers as lines, equal in both forms.
fn rendered(decisions: &[Decision], now: Duration) -> Vec<String> {
    let Some(headers) = LimitHeaders::of(decisions, || now) else {
        return Vec::new();
    };
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    headers.write_lines(&mut head, |_| true);
    let head = String::from_utf8(head).unwrap();
    let lines: Vec<String> = headers
        .fields()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    assert_eq!(head.lines().skip(1).collect::<Vec<_>>(), lines);
    assert!(head.ends_with("\r\n"));
    lines
}

/// The headers by their definition, without texts made in advance.
fn defined(decisions: &[Decision], now: Duration) -> Vec<String> {
    let Some(strictest) = strictest(decisions) else {
        return Vec::new();
    };
    let seconds = |time: Duration| time.as_nanos().div_ceil(1_000_000_000);
    let list = |member: &dyn Fn(&Decision) -> String| {
        let shown = decisions.iter().filter(|one| !one.limit.shadow);
        shown.map(member).collect::<Vec<_>>().join(", ")
    };
    let name = |one: &Decision| {
        let escaped = one.limit.name.replace('\\', "\\\\").replace('"', "\\\"");
        let visible = escaped
            .chars()
            .map(|c| if (' '..='~').contains(&c) { c } else { '?' });
        format!("\"{}\"", visible.collect::<String>())
    };
    let policies = list(&|one| {
        let window = seconds(one.limit.window);
        format!("{};q={};w={window}", name(one), one.limit.quota())
    });
    let states = list(&|one| {
        let wait = match one.allowed {
            true => seconds(one.reset_after),
            false => seconds(one.retry_after).max(1),
        };
        format!("{};r={};t={wait}", name(one), one.remaining)
    });
    vec![
        format!("x-ratelimit-limit: {}", strictest.limit.quota()),
        format!("x-ratelimit-remaining: {}", strictest.remaining),
        format!(
            "x-ratelimit-reset: {}",
            seconds(now + strictest.reset_after)
        ),
        format!("ratelimit-policy: {policies}"),
        format!("ratelimit: {states}"),
    ]
}

fn decisions() -> impl Strategy<Value = Vec<Decision>> {
    let limit = (
        "[ -~\n\u{e9}]{0,12}",
        algorithms(),
        any::<u64>(),
        any::<u32>(),
        any::<bool>(),
    );
    let limit = limit.prop_map(|(name, algorithm, limit, window, shadow)| {
        named(&name, algorithm, limit, window.into(), shadow)
    });
    let one = (
        limit,
        any::<bool>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
    );
    let one = one.prop_map(|(limit, allowed, remaining, reset, retry)| {
        decision(limit, allowed, remaining, reset.into(), retry.into())
    });
    prop::collection::vec(one, 0..5)
}

proptest! {
    #[test]
    fn headers_equal_their_definition(decisions in decisions(), now in any::<u32>()) {
        let now = Duration::from_millis(now.into());
        prop_assert_eq!(rendered(&decisions, now), defined(&decisions, now));
    }

    #[test]
    fn shares_have_texts_of_their_own(gateways in 1..5u64, algorithm in algorithms(), most in 1..99u64) {
        let share = limit(algorithm, most, 1000).share(gateways);
        let decisions = [decision(share, true, 0, 0, 0)];
        prop_assert_eq!(rendered(&decisions, Duration::ZERO), defined(&decisions, Duration::ZERO));
    }
}

#[test]
fn headers_omit_shadow_limits() {
    let decisions = [
        decision(
            named("per-\"ip\"", Algorithm::SlidingLog, 1000, 3_600_000, false),
            true,
            900,
            1000,
            0,
        ),
        decision(
            named("shadow", Algorithm::SlidingLog, 1, 1000, true),
            false,
            0,
            1000,
            1000,
        ),
        decision(
            named(
                "per-user",
                Algorithm::TokenBucket { burst: 20 },
                100,
                60_000,
                false,
            ),
            true,
            7,
            1500,
            0,
        ),
    ];
    assert_eq!(
        rendered(&decisions, Duration::from_millis(10_600)),
        [
            "x-ratelimit-limit: 20",
            "x-ratelimit-remaining: 7",
            "x-ratelimit-reset: 13",
            r#"ratelimit-policy: "per-\"ip\"";q=1000;w=3600, "per-user";q=20;w=60"#,
            r#"ratelimit: "per-\"ip\"";r=900;t=1, "per-user";r=7;t=2"#,
        ]
    );
}

#[test]
fn refusing_limits_report_the_wait() {
    let limit = |name| named(name, Algorithm::SlidingLog, 10, 60_000, false);
    let decisions = [
        decision(limit("a"), false, 0, 60_000, 2001),
        decision(limit("b"), false, 0, 60_000, 3),
        decision(limit("c"), true, 4, 30_000, 0),
    ];
    assert_eq!(
        rendered(&decisions, Duration::from_secs(100)),
        [
            "x-ratelimit-limit: 10",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 160",
            r#"ratelimit-policy: "a";q=10;w=60, "b";q=10;w=60, "c";q=10;w=60"#,
            r#"ratelimit: "a";r=0;t=3, "b";r=0;t=1, "c";r=4;t=30"#,
        ]
    );
    assert!(LimitHeaders::of(&[], || Duration::ZERO).is_none());
}

#[test]
fn edited_headers_are_left_out() {
    let decisions = [decision(
        limit(Algorithm::SlidingLog, 5, 1000),
        true,
        4,
        0,
        0,
    )];
    let headers = LimitHeaders::of(&decisions, || Duration::ZERO).unwrap();
    let mut head = Vec::new();
    headers.write_lines(&mut head, |name| !name.as_str().starts_with("ratelimit"));
    let head = String::from_utf8(head).unwrap();
    assert_eq!(
        head,
        "x-ratelimit-limit: 5\r\nx-ratelimit-remaining: 4\r\nx-ratelimit-reset: 0\r\n"
    );
    for (name, expected) in [
        ("RateLimit", true),
        ("x-ratelimit-reset", true),
        ("x-ratelimit", false),
    ] {
        assert_eq!(LimitHeaders::has_name(name.as_bytes()), expected, "{name}");
    }
}
