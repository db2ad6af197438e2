//! What goes wrong while the histories are written.

use std::time::Duration;

use super::Scene;
use crate::support::clock::Clock;

/// How long a fault lasts.
const LASTS: Duration = Duration::from_millis(900);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    None,
    Stop,
    Kill,
    Pause,
    Cut,
    /// Half of the fleet hears nothing of Redis, and nobody says why.
    Parted,
    Slow,
    ScriptFlush,
    /// Redis takes no write.
    Full,
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
        Fault::Parted,
        Fault::Slow,
        Fault::ScriptFlush,
        Fault::Full,
        Fault::GatewayClock,
        Fault::ServerClock,
    ];

    /// Lets it happen, and ends it.
    pub(super) fn happens(self, scene: &Scene) {
        let Scene { line, redis, .. } = scene;
        match self {
            Fault::None => last(),
            Fault::Stop => {
                redis.lock().stop();
                last();
                redis.lock().cont();
            }
            Fault::Kill => {
                let mut redis = redis.lock();
                redis.kill();
                last();
                redis.restart();
            }
            Fault::Pause => {
                let millis = LASTS.as_millis().to_string();
                redis.lock().command(&["CLIENT", "PAUSE", &millis]);
                last();
            }
            Fault::Cut => {
                line.cut();
                last();
                line.restore();
            }
            Fault::Parted => {
                line.hold();
                last();
                line.restore();
            }
            Fault::Slow => {
                line.delay(Duration::from_millis(40));
                last();
                line.restore();
            }
            Fault::ScriptFlush => {
                redis.lock().command(&["SCRIPT", "FLUSH"]);
            }
            Fault::Full => {
                let set = |most| redis.lock().command(&["CONFIG", "SET", "maxmemory", most]);
                assert_eq!(set("1"), "OK");
                last();
                assert_eq!(set("0"), "OK");
            }
            Fault::GatewayClock => steps(&scene.clocks[0], 2),
            Fault::ServerClock => steps(&scene.clocks[1], 60),
        }
    }
}

fn last() {
    std::thread::sleep(LASTS);
}

/// A clock is forward for a while, then back behind the others', then right again.
fn steps(clock: &Clock, seconds: i64) {
    for offset in [seconds, -seconds, 0] {
        clock.step(offset);
        std::thread::sleep(LASTS / 2);
    }
}
