//! Faults that are injected while the histories are recorded.

use std::time::Duration;

use super::Fixture;
use crate::support::clock::Clock;

/// How long a fault lasts.
const FAULT_DURATION: Duration = Duration::from_millis(900);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InjectedFault {
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

impl InjectedFault {
    pub(super) const ALL: [InjectedFault; 11] = [
        InjectedFault::None,
        InjectedFault::Stop,
        InjectedFault::Kill,
        InjectedFault::Pause,
        InjectedFault::Cut,
        InjectedFault::Partition,
        InjectedFault::Slow,
        InjectedFault::ScriptFlush,
        InjectedFault::OutOfMemory,
        InjectedFault::GatewayClock,
        InjectedFault::ServerClock,
    ];

    /// Lets it happen, and ends it.
    pub(super) fn run(self, fixture: &Fixture) {
        let Fixture {
            redis_proxy: line,
            redis,
            ..
        } = fixture;
        match self {
            InjectedFault::None => wait_fault_duration(),
            InjectedFault::Stop => {
                redis.lock().pause();
                wait_fault_duration();
                redis.lock().resume();
            }
            InjectedFault::Kill => {
                let mut redis = redis.lock();
                redis.kill();
                wait_fault_duration();
                redis.restart();
            }
            InjectedFault::Pause => {
                let millis = FAULT_DURATION.as_millis().to_string();
                redis.lock().command(&["CLIENT", "PAUSE", &millis]);
                wait_fault_duration();
            }
            InjectedFault::Cut => {
                line.cut();
                wait_fault_duration();
                line.restore();
            }
            InjectedFault::Partition => {
                line.hold();
                wait_fault_duration();
                line.restore();
            }
            InjectedFault::Slow => {
                line.delay(Duration::from_millis(40));
                wait_fault_duration();
                line.restore();
            }
            InjectedFault::ScriptFlush => {
                redis.lock().command(&["SCRIPT", "FLUSH"]);
            }
            InjectedFault::OutOfMemory => {
                let set = |most| redis.lock().command(&["CONFIG", "SET", "maxmemory", most]);
                assert_eq!(set("1"), "OK");
                assert!(redis.lock().command(&["SET", "any", "1"]).contains("OOM"));
                wait_fault_duration();
                assert_eq!(set("0"), "OK");
            }
            InjectedFault::GatewayClock => step_clock(&fixture.clocks[0], 2),
            InjectedFault::ServerClock => step_clock(&fixture.clocks[1], 60),
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
