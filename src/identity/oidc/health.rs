//! Whether a provider responds, as its calls show.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::telemetry::metrics::ProviderSeries;

/// Interval at which a status that keeps changing is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Changes that are reported at once.
const REPORT_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(5);

/// Whether a provider responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderStatus {
    /// It was not called yet.
    Unknown,
    Up,
    Down,
}

impl ProviderStatus {
    fn of(state: u8) -> ProviderStatus {
        match state {
            1 => ProviderStatus::Up,
            2 => ProviderStatus::Down,
            _ => ProviderStatus::Unknown,
        }
    }

    fn state(self) -> u8 {
        match self {
            ProviderStatus::Unknown => 0,
            ProviderStatus::Up => 1,
            ProviderStatus::Down => 2,
        }
    }
}

/// The outcome of the latest call, and the one that was reported last.
pub(super) struct Health {
    current: AtomicU8,
    reported: AtomicU8,
    /// Sign-ins can make the status change with each call.
    reports: DefaultDirectRateLimiter,
    series: ProviderSeries,
}

impl Health {
    pub(super) fn new(series: ProviderSeries) -> Health {
        let quota =
            Quota::with_period(REPORT_INTERVAL).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        Health {
            reports: RateLimiter::direct(quota.allow_burst(REPORT_BURST)),
            current: AtomicU8::new(ProviderStatus::Unknown.state()),
            reported: AtomicU8::new(ProviderStatus::Unknown.state()),
            series,
        }
    }

    pub(super) fn status(&self) -> ProviderStatus {
        ProviderStatus::of(self.current.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, status: ProviderStatus) {
        self.current.store(status.state(), Ordering::Relaxed);
        self.series.set_up(status == ProviderStatus::Up);
    }

    /// The status, if it differs from the one that was taken last. The first one that is taken differs
    /// only if the provider is down.
    pub(super) fn take_change(&self) -> Option<ProviderStatus> {
        let current = self.status();
        let reported = ProviderStatus::of(self.reported.load(Ordering::Relaxed));
        let is_change = matches!(
            (reported, current),
            (
                ProviderStatus::Unknown | ProviderStatus::Up,
                ProviderStatus::Down
            ) | (ProviderStatus::Down, ProviderStatus::Up)
        );
        if is_change && self.reports.check().is_err() {
            return None;
        }
        self.reported.store(current.state(), Ordering::Relaxed);
        is_change.then_some(current)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn changes_are_reported_and_a_flapping_status_rarely() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = Health::new(ProviderSeries::new(&metrics, &Arc::from("corp")));
        let set = |status| {
            health.set(status);
            let change = health.take_change();
            assert!(health.take_change().is_none());
            change
        };
        use ProviderStatus::{Down, Up};
        // The first success is no change.
        assert_eq!(set(Up), None);
        for _ in 0..3 {
            assert_eq!(set(Down), Some(Down));
            assert_eq!(set(Up), Some(Up));
        }
        let reported = (0..100).filter(|_| set(Down).is_some() || set(Up).is_some());
        assert_eq!(reported.count(), 0);
        assert_eq!(health.status(), Up);
    }
}
