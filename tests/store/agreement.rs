//! The scripts' arithmetic and the pure one agree on random histories, whatever the clock does. The
//! scripts read the server's clock, which cannot be told the time: here the same file follows
//! another first line.

use std::cell::RefCell;

use portcullis::limits::{Algorithm, Ask, Rule, State};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::server::Server;

const HARNESS: &str = "
    local c = counter(KEYS[1], 2)
    look(c)
    if ARGV[7] == 'spend' and c.wait == 0 then spend(c, tonumber(ARGV[8])) end
    local reply, granted = {}, 0
    if ARGV[7] == 'grant' and c.wait == 0 then
      granted = grant(c, tonumber(ARGV[8]), tonumber(ARGV[9]), 4)
    end
    if ARGV[7] == 'back' then
      give_back(c, tonumber(ARGV[8]), tonumber(ARGV[9]))
      look(c)
      c.wait = 0
    end
    report(reply, 1, c)
    -- A key that was written lives until it is whole; here it stays, for this clock is not real.
    local ttl = redis.call('PTTL', KEYS[1])
    reply[5] = (ttl < 0 or ttl * 1000 >= reply[3]) and 1 or 0
    redis.call('PERSIST', KEYS[1])
    reply[6], reply[7] = granted, as_of(c)
    return reply";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// So many at once, as far as there is room.
    Spend(u64),
    /// So many for a gateway that holds so many.
    Grant(u64, u64),
    Peek,
    /// So many that were spent so many microseconds ago.
    Back(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<(Step, i64)>> {
    let step = prop_oneof![
        6 => Just(Step::Spend(1)),
        1 => (1..2000u64).prop_map(Step::Spend),
        3 => (1..200u64, 0..3u64).prop_map(|(want, held)| Step::Grant(want, held)),
        1 => Just(Step::Peek),
        1 => Just(Step::Back(1, 0)),
        2 => (1..200u64, 0..20_000_000u64).prop_map(|(many, ago)| Step::Back(many, ago)),
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
fn the_scripts_agree_with_the_pure_arithmetic() {
    let server = Server::start();
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let connection = RefCell::new(client.get_connection().unwrap());
    let text = format!(
        "local now = tonumber(ARGV[1])\n{}{}{}{HARNESS}",
        include_str!("../../src/store/redis/scripts/limit.lua"),
        include_str!("../../src/store/redis/scripts/give_back.lua"),
        include_str!("../../src/store/redis/scripts/permits.lua")
    );
    let script = redis::Script::new(&text);
    let config = Config {
        cases: 120,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&(rules(), steps()), |(rules, steps)| {
        let key = format!("counter:{}", rand::random::<u64>());
        history(&mut connection.borrow_mut(), &script, &key, rules, &steps)
    });
    outcome.unwrap();
}

fn history(
    connection: &mut redis::Connection,
    script: &redis::Script,
    key: &str,
    (algorithm, limit, width): (Algorithm, u64, u64),
    steps: &[(Step, i64)],
) -> Result<(), TestCaseError> {
    let (letter, burst) = match algorithm {
        Algorithm::SlidingWindow => ("w", 0),
        Algorithm::SlidingLog => ("l", 0),
        Algorithm::TokenBucket { burst } => ("b", burst),
    };
    let rule = Rule {
        limit,
        width,
        burst,
    };
    let mut state = State::new(algorithm);
    let mut now = 1_790_000_000_123_456_u64;
    for (step, gap) in steps {
        now = now.saturating_add_signed(*gap);
        // Of a look that spends nothing only the log keeps something: it drops what has left.
        let mut looked = state.clone();
        let mut wait = looked.wait(rule, now);
        if algorithm == Algorithm::SlidingLog {
            state = looked.clone();
        }
        let (mut granted, mut words) = (0, ("peek", 0, 0));
        match *step {
            Step::Spend(many) => {
                let many = many.min(looked.remaining(rule));
                words = ("spend", many, 0);
                if wait == 0 {
                    (0..many).for_each(|_| looked.spend(rule, now));
                    state = looked.clone();
                }
            }
            Step::Grant(want, held) => {
                words = ("grant", want, held);
                let leads = true;
                granted = looked.grant(rule, now, Ask { want, held, leads }, 4);
                if granted > 0 {
                    state = looked.clone();
                }
            }
            Step::Back(many, ago) => {
                words = ("back", many, now - ago);
                looked.give_back(rule, now, many, now - ago);
                state = looked.clone();
                looked.wait(rule, now);
                wait = 0;
            }
            Step::Peek => {}
        }
        let expected = [
            u64::from(wait == 0),
            looked.remaining(rule),
            looked.whole_after(rule, now),
            wait,
            1,
            granted,
            looked.as_of(rule, now),
        ];
        let mut call = script.key(key);
        call.arg(now)
            .arg(letter)
            .arg(limit)
            .arg(width)
            .arg(burst)
            .arg(0)
            .arg(words.0)
            .arg(words.1)
            .arg(words.2);
        let found: [u64; 7] = call.invoke(connection).unwrap();
        prop_assert_eq!(found, expected, "{:?} {:?} at {}", algorithm, step, now);
    }
    Ok(())
}
