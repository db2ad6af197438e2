//! The only module that reads the operating system's clocks; the lint `disallowed_methods` rejects
//! reads elsewhere. Domain code takes the time as an argument.
//!
//! Tokio's clock is not banned: its instants set timers and are compared with them, and tests
//! pause it. Nor is `Instant::elapsed`, which needs an instant that was read here.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time for which the wall clock of a thread advances with the monotonic clock.
const REREAD: Duration = Duration::from_millis(50);

thread_local! {
    /// Both clocks, as they were last read.
    static LAST: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// The monotonic clock, for durations and deadlines within this process.
pub fn monotonic() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "clocks are read here")]
    Instant::now()
}

/// The system's wall clock, for times that are shown.
pub fn system_time() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "clocks are read here")]
    SystemTime::now()
}

/// The wall clock since the Unix epoch at `now`, which the monotonic clock has just shown. Most calls
/// read no clock: a change of the wall clock is seen up to `REREAD` later.
pub fn wall_at(now: Instant) -> Duration {
    let last = LAST.get();
    match last.map(|(at, wall)| (now.checked_duration_since(at), wall)) {
        Some((Some(since), wall)) if since < REREAD => wall + since,
        // Another task has read the clocks meanwhile.
        Some((None, _)) => since_epoch(system_time()),
        _ => {
            let wall = since_epoch(system_time());
            LAST.set(Some((now, wall)));
            wall
        }
    }
}

/// The milliseconds of a duration.
pub fn millis(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1000);
    seconds.saturating_add(duration.subsec_millis().into())
}

/// The microseconds of a duration.
pub fn micros(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(duration.subsec_micros().into())
}

/// The wall clock in milliseconds since the Unix epoch.
pub fn unix_millis() -> u64 {
    millis_since_epoch(system_time())
}

/// The wall clock in microseconds since the Unix epoch.
pub fn unix_micros() -> u64 {
    micros(since_epoch(system_time()))
}

/// The milliseconds from the Unix epoch to this time; zero for a time before the epoch.
pub fn millis_since_epoch(at: SystemTime) -> u64 {
    millis(since_epoch(at))
}

/// The duration from the Unix epoch to this time; zero for a time before the epoch.
pub fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clock_advances_with_the_monotonic_clock() {
        LAST.set(None);
        let (now, before) = (monotonic(), since_epoch(system_time()));
        let wall = wall_at(now);
        assert!(wall >= before);
        assert_eq!(wall_at(now + REREAD / 2), wall + REREAD / 2);
        assert!(wall_at(now - REREAD) >= before);
        // It was read anew.
        let later = wall_at(now + REREAD * 1000);
        assert!(later < wall + REREAD * 500, "{later:?} {wall:?}");
    }

    #[test]
    fn units_equal_those_of_the_library() {
        for duration in [0, 1, 999_999, 1_234_567_890_123].map(Duration::from_nanos) {
            assert_eq!(u128::from(millis(duration)), duration.as_millis());
            assert_eq!(u128::from(micros(duration)), duration.as_micros());
        }
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn times_before_the_epoch_are_zero() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(millis_since_epoch(before), 0);
        assert_eq!(
            millis_since_epoch(UNIX_EPOCH + Duration::from_micros(1_999)),
            1
        );
    }
}
