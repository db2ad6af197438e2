//! Passive health check: temporarily ejects a server that fails repeatedly.

use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures that eject a server.
const FAILURES: u32 = 5;
const FIRST_EJECTION: Duration = Duration::from_secs(5);
const LONGEST_EJECTION: Duration = Duration::from_secs(60);
/// Random extension of an ejection, as a fraction, so that a fleet does not resume all at once.
const JITTER: f64 = 0.1;

/// State of the passive health check for one server.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    failures: u32,
    /// Ejections since the last success.
    ejections: u32,
    until: Option<Instant>,
}

impl Ejection {
    /// Records a failure. Returns the length of the ejection if this failure causes one. `random` is
    /// between 0 and 1.
    pub(super) fn record_failure(&mut self, now: Instant, random: f64) -> Option<Duration> {
        if self.is_ejected(now) {
            // Requests that were in flight at the ejection.
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return None;
        }
        let doubled = FIRST_EJECTION.saturating_mul(2_u32.saturating_pow(self.ejections));
        let length = doubled.min(LONGEST_EJECTION).mul_f64(1.0 + JITTER * random);
        self.ejections = self.ejections.saturating_add(1);
        // After its return, one more failure ejects it again.
        self.failures = FAILURES - 1;
        self.until = Some(now + length);
        Some(length)
    }

    /// Records a success, which clears all failures and ejections.
    pub(super) fn record_success(&mut self) {
        *self = Ejection::default();
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the server returns, if it is ejected.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(ejection: &mut Ejection, now: Instant, times: u32) -> Option<Duration> {
        (0..times).fold(None, |_, _| ejection.record_failure(now, 0.0))
    }

    #[test]
    fn five_consecutive_failures_eject() {
        let now = Instant::now();
        let mut server = Ejection::default();
        assert_eq!(fail(&mut server, now, 4), None);
        server.record_success();
        assert_eq!(fail(&mut server, now, 4), None);
        assert!(!server.is_ejected(now));
        assert_eq!(
            server.record_failure(now, 0.0),
            Some(Duration::from_secs(5))
        );
        assert!(server.is_ejected(now));
        assert!(!server.is_ejected(now + Duration::from_secs(5)));
    }

    #[test]
    fn repeated_ejections_double_up_to_a_minute() {
        let mut now = Instant::now();
        let mut server = Ejection::default();
        fail(&mut server, now, 4);
        for seconds in [5, 10, 20, 40, 60, 60] {
            assert_eq!(
                server.record_failure(now, 0.0),
                Some(Duration::from_secs(seconds))
            );
            assert_eq!(server.record_failure(now, 0.0), None, "already out");
            now += Duration::from_secs(seconds);
        }
        server.record_success();
        assert_eq!(fail(&mut server, now, 5), Some(Duration::from_secs(5)));
    }

    #[test]
    fn jitter_only_lengthens() {
        let now = Instant::now();
        let mut server = Ejection::default();
        fail(&mut server, now, 4);
        assert_eq!(
            server.record_failure(now, 1.0),
            Some(Duration::from_millis(5500))
        );
    }
}
