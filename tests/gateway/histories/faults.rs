//! Faults that are injected while the histories are recorded.

use std::time::Duration;

use super::Fixture;
use crate::support::clock::Clock;

/// How long a fault lasts.
const FAULT_DURATION: Duration = Duration::from_millis(900);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    None,
    Stop,
    Kill,
    Pause,
    Cut,
    /// Half of the fleet receives nothing from Redis, and no error.
    Partition,
    Slow,
    ScriptFlush,
    /// Redis takes no write.
    OutOfMemory,
    /// The clock of one gateway is set forward and back, by less than the leeway between two of them.
    GatewayClock,
    ServerClock,
}

impl Fault {
    pub(super) const ALL: [Fault; 11] = [
        Fault::None,
        Fault::Stop,
        Fault::Kill,
        Fault::Pause,
        Fault::Cut,
        Fault::Partition,
        Fault::Slow,
        Fault::ScriptFlush,
        Fault::OutOfMemory,
        Fault::GatewayClock,
        Fault::ServerClock,
    ];

    /// Lets it happen, and ends it.
    pub(super) fn run(self, fixture: &Fixture) {
        let Fixture {
            redis_proxy: line,
            redis,
            ..
        } = fixture;
        match self {
            Fault::None => wait_fault_duration(),
            Fault::Stop => {
                redis.lock().pause();
                wait_fault_duration();
                redis.lock().resume();
            }
            Fault::Kill => {
                let mut redis = redis.lock();
                redis.kill();
                wait_fault_duration();
                redis.restart();
            }
            Fault::Pause => {
                let millis = FAULT_DURATION.as_millis().to_string();
                redis.lock().command(&["CLIENT", "PAUSE", &millis]);
                wait_fault_duration();
            }
            Fault::Cut => {
                line.cut();
                wait_fault_duration();
                line.restore();
            }
            Fault::Partition => {
                line.hold();
                wait_fault_duration();
                line.restore();
            }
            Fault::Slow => {
                line.delay(Duration::from_millis(40));
                wait_fault_duration();
                line.restore();
            }
            Fault::ScriptFlush => {
                redis.lock().command(&["SCRIPT", "FLUSH"]);
            }
            Fault::OutOfMemory => {
                let set = |most| redis.lock().command(&["CONFIG", "SET", "maxmemory", most]);
                assert_eq!(set("1"), "OK");
                assert!(redis.lock().command(&["SET", "any", "1"]).contains("OOM"));
                wait_fault_duration();
                assert_eq!(set("0"), "OK");
            }
            Fault::GatewayClock => step_clock(&fixture.clocks[0], 2),
            Fault::ServerClock => step_clock(&fixture.clocks[1], 60),
        }
    }
}

fn wait_fault_duration() {
    std::thread::sleep(FAULT_DURATION);
}

/// A clock is forward for a while, then back behind the others', then right again.
fn step_clock(clock: &Clock, seconds: i64) {
    for offset in [seconds, -seconds, 0] {
        clock.step(offset);
        std::thread::sleep(FAULT_DURATION / 2);
    }
}
