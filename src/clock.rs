//! The only module that reads the operating system's clocks; the lint `disallowed_methods` rejects
//! reads elsewhere. Domain code takes the time as an argument.
//!
//! Tokio's clock is not banned: its instants set timers and are compared with them, and tests
//! pause it. Nor is `Instant::elapsed`, which needs an instant that was read here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// The wall clock in milliseconds since the Unix epoch.
pub fn unix_millis() -> u64 {
    millis_since_epoch(system_time())
}

/// The wall clock in microseconds since the Unix epoch.
pub fn unix_micros() -> u64 {
    u64::try_from(since_epoch(system_time()).as_micros()).unwrap_or(0)
}

/// The milliseconds from the Unix epoch to this time; zero for a time before the epoch.
pub fn millis_since_epoch(at: SystemTime) -> u64 {
    u64::try_from(since_epoch(at).as_millis()).unwrap_or(0)
}

/// The duration from the Unix epoch to this time; zero for a time before the epoch.
pub fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
