//! Waiting for a condition.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a machine under load may take for what is quick on an idle one.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The second within which a revocation or a change is in force everywhere, and what a busy machine adds.
pub const PROPAGATION_DEADLINE: Duration = Duration::from_secs(2);

/// Says that it is over when it goes, also in the middle of a failure: threads that go on until then
/// would otherwise be waited for for ever.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls until `look` finds something, or fails the test naming what was awaited.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, look)
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
