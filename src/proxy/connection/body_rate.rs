//! Minimum rate at which a client sends the body of its request.
//!
//! A body that drips holds an upstream connection for as long as the client likes, so it has to
//! keep an average rate. The cost is a counter per piece and no timer: the rates of all of a
//! worker's requests are checked at intervals, together with their idle timers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time that every body is allowed, whatever its rate.
const GRACE: Duration = Duration::from_secs(20);

/// The rate of one request body, from the moment when its upstream expects it.
#[derive(Debug, Default)]
pub struct BodyRate {
    /// Bytes per second; 0: not measured.
    minimum: AtomicU64,
    received: AtomicU64,
    late: AtomicBool,
    /// The first check.
    since: Mutex<Option<Instant>>,
}

impl BodyRate {
    /// Prepares for the body of another request.
    pub fn reset(&self) {
        self.end();
        self.received.store(0, Ordering::Relaxed);
        self.late.store(false, Ordering::Relaxed);
        *self.since.lock() = None;
    }

    /// Starts measuring.
    pub fn begin(&self, minimum: u64) {
        self.minimum.store(minimum, Ordering::Relaxed);
    }

    /// Counts a piece of the body.
    pub fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Stops measuring: the body is complete.
    pub fn end(&self) {
        self.minimum.store(0, Ordering::Relaxed);
    }

    /// Whether the body came too slowly.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// Whether the body has fallen behind its rate. `excused`: the body waits for the upstream.
    pub fn check(&self, now: Instant, excused: impl Fn() -> bool) -> bool {
        let minimum = self.minimum.load(Ordering::Relaxed);
        if minimum == 0 {
            return false;
        }
        let since = *self.since.lock().get_or_insert(now);
        let beyond = now.saturating_duration_since(since).saturating_sub(GRACE);
        let due = u128::from(minimum) * beyond.as_millis() / 1000;
        if u128::from(self.received.load(Ordering::Relaxed)) >= due || excused() {
            return false;
        }
        self.end();
        self.late.store(true, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second at which a body of that rate is late, within five minutes.
    fn late_at(minimum: u64, rate: usize, excused: bool) -> Option<u64> {
        let (body, start) = (BodyRate::default(), Instant::now());
        body.begin(minimum);
        (0..300).find(|second| {
            body.check(start + Duration::from_secs(*second), || excused);
            body.count(rate);
            body.is_late()
        })
    }

    #[test]
    fn body_must_average_its_rate_after_grace_period() {
        assert_eq!(late_at(500, 0, false), Some(21));
        assert_eq!(late_at(500, 1, false), Some(21));
        // What it brought early counts.
        assert_eq!(late_at(500, 250, false), Some(41));
        assert_eq!(late_at(500, 500, false), None);
        assert_eq!(late_at(0, 0, false), None, "off");
        assert_eq!(late_at(500, 0, true), None, "excused");
    }

    #[test]
    fn a_complete_body_is_never_late() {
        let (body, start) = (BodyRate::default(), Instant::now());
        body.begin(500);
        assert!(!body.check(start, || false));
        body.end();
        assert!(!body.check(start + Duration::from_secs(300), || false));
    }
}
