//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// How long a machine under load may take for what is quick on an idle one.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `look` finds something, or fails the test naming what was awaited.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// As [`eventually`], with a deadline that is part of the promise under test.
pub fn within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
