//! Whether a provider responds, as its calls show.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::telemetry::metrics::ProviderSeries;

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
    series: ProviderSeries,
}

impl Health {
    pub(super) fn new(series: ProviderSeries) -> Health {
        Health {
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
        let reported = self.reported.swap(current.state(), Ordering::Relaxed);
        match (ProviderStatus::of(reported), current) {
            (ProviderStatus::Unknown | ProviderStatus::Up, ProviderStatus::Down)
            | (ProviderStatus::Down, ProviderStatus::Up) => Some(current),
            _ => None,
        }
    }
}
