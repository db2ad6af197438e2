//! The scripts and the pure arithmetic agree on random histories, whatever the clock does.
//!
//! The scripts read the server's clock, which a test cannot set: here the clock part is replaced.

use std::cell::RefCell;

use portcullis::limits::{Algorithm, CounterState, LeaseRequest, Rule};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::server::Server;

const HARNESS: &str = "
    local c = counter(KEYS[1], ARGV[2])
    update(c)
    if ARGV[3] == 'spend' and c.wait == 0 then spend(c, tonumber(ARGV[4])) end
    local granted = 0
    if ARGV[3] == 'grant' and c.wait == 0 then
      granted = grant(c, tonumber(ARGV[4]), tonumber(ARGV[5]), 4)
    end
    if ARGV[3] == 'refund' then
      refund(c, tonumber(ARGV[4]), tonumber(ARGV[5]))
      update(c)
      c.wait = 0
    end
    local reply = { struct.unpack('<BI8I8I8', report(c)) }
    -- A written key lives until nothing counts any more. It is kept here: the clock is simulated.
    local ttl = redis.call('PTTL', KEYS[1])
    reply[5] = (ttl < 0 or ttl * 1000 >= reply[3]) and 1 or 0
    redis.call('PERSIST', KEYS[1])
    reply[6], reply[7] = granted, as_of(c)
    return reply";

#[derive(Debug, Clone, Copy, PartialEq)]
enum LimitOperation {
    /// Requests, as far as the limit has room.
    Spend(u64),
    /// Units requested and units held.
    Grant(u64, u64),
    Peek,
    /// Requests, and how count microseconds ago they were spent.
    Refund(u64, u64),
}

fn operations() -> impl Strategy<Value = Vec<(LimitOperation, i64)>> {
    let step = prop_oneof![
        6 => Just(LimitOperation::Spend(1)),
        1 => (1..2000u64).prop_map(LimitOperation::Spend),
        3 => (1..200u64, 0..3u64).prop_map(|(want, held)| LimitOperation::Grant(want, held)),
        1 => Just(LimitOperation::Peek),
        1 => Just(LimitOperation::Refund(1, 0)),
        2 => (1..200u64, 0..20_000_000u64).prop_map(|(count, ago)| LimitOperation::Refund(count, ago)),
    ];
    let gap = prop_oneof![
        8 => 0..6_000_000i64,
        1 => -30_000_000..0i64,
        1 => 10_000_000..90_000_000i64,
    ];
    prop::collection::vec((step, gap), 1..60)
}

fn rules() -> impl Strategy<Value = (Algorithm, u64, u64)> {
    let algorithm = prop_oneof![
        Just(Algorithm::SlidingWindow),
        Just(Algorithm::SlidingLog),
        (1..9u64).prop_map(|burst| Algorithm::TokenBucket { burst }),
    ];
    (
        algorithm,
        prop_oneof![1..9u64, 1_000_000..2_000_000u64],
        10_000..40_000u64,
    )
}

#[test]
fn scripts_agree_with_the_pure_arithmetic() {
    let server = Server::start();
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let connection = RefCell::new(client.get_connection().unwrap());
    let text = format!(
        "local now = tonumber(ARGV[1])\nlocal ms = math.floor(now / 1000)\n{}{}{}{HARNESS}",
        include_str!("../../src/store/redis/codec/scripts/limit.lua"),
        include_str!("../../src/store/redis/codec/scripts/refund_counter.lua"),
        include_str!("../../src/store/redis/codec/scripts/lease_units.lua")
    );
    let script = redis::Script::new(&text);
    let config = Config {
        cases: 120,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&(rules(), operations()), |(rules, steps)| {
        let key = format!("counter:{}", rand::random::<u64>());
        check_agreement(&mut connection.borrow_mut(), &script, &key, rules, &steps)
    });
    outcome.unwrap();
}

fn check_agreement(
    connection: &mut redis::Connection,
    script: &redis::Script,
    key: &str,
    (algorithm, limit, width): (Algorithm, u64, u64),
    steps: &[(LimitOperation, i64)],
) -> Result<(), TestCaseError> {
    let (letter, burst) = match algorithm {
        Algorithm::SlidingWindow => (b"w", 0),
        Algorithm::SlidingLog => (b"l", 0),
        Algorithm::TokenBucket { burst } => (b"b", burst),
    };
    let rule = Rule {
        limit,
        width,
        burst,
    };
    let mut state = CounterState::new(algorithm);
    let mut now = 1_790_000_000_123_456_u64;
    for (step, gap) in steps {
        now = now.saturating_add_signed(*gap);
        // An update that spends nothing is not stored, except by the log, which drops old times.
        let mut updated = state.clone();
        let mut wait = updated.wait(rule, now);
        if algorithm == Algorithm::SlidingLog {
            state = updated.clone();
        }
        let (granted, arguments, is_stored) = apply(*step, rule, now, wait, &mut updated);
        if is_stored {
            state = updated.clone();
        }
        if arguments.0 == "refund" {
            updated.wait(rule, now);
            wait = 0;
        }
        let expected = [
            u64::from(wait == 0),
            updated.remaining(rule),
            updated.reset_after(rule, now),
            wait,
            1,
            granted,
            updated.as_of(rule, now),
        ];
        let numbers = [limit, width, burst].map(u64::to_le_bytes).concat();
        let mut call = script.key(key);
        call.arg(now)
            .arg([&letter[..], b"\0", &numbers].concat())
            .arg(arguments.0)
            .arg(arguments.1)
            .arg(arguments.2);
        let reply: [u64; 7] = call.invoke(connection).unwrap();
        prop_assert_eq!(reply, expected, "{:?} {:?} at {}", algorithm, step, now);
    }
    Ok(())
}

/// Applies a step to the pure counter.
///
/// Returns the number of granted units, the script's arguments, and whether the state is stored.
fn apply(
    step: LimitOperation,
    rule: Rule,
    now: u64,
    wait: u64,
    state: &mut CounterState,
) -> (u64, (&'static str, u64, u64), bool) {
    match step {
        LimitOperation::Spend(count) => {
            let count = count.min(state.remaining(rule));
            if wait == 0 {
                (0..count).for_each(|_| state.spend(rule, now));
            }
            (0, ("spend", count, 0), wait == 0)
        }
        LimitOperation::Grant(want, held) => {
            let request = LeaseRequest {
                want,
                held,
                is_leader: true,
            };
            let granted = state.grant(rule, now, request, 4);
            (granted, ("grant", want, held), granted > 0)
        }
        LimitOperation::Refund(count, ago) => {
            state.refund(rule, now, count, now - ago);
            (0, ("refund", count, now - ago), true)
        }
        LimitOperation::Peek => (0, ("peek", 0, 0), false),
    }
}
