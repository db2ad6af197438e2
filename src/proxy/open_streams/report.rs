//! Reports of open streams to the store: the counts reported so far, and those that are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::OpenStreams;
use crate::auth::session::SessionId;
use crate::clock;
use crate::sessions::Sessions;

/// Interval between reports of changes.
const PERIOD: Duration = Duration::from_secs(1);

/// How often an unchanged count is reported again. Must be well within the time after which the
/// store drops the counts of a gateway that reports nothing.
const REPEAT: Duration = Duration::from_secs(10);

impl OpenStreams {
    /// Reports to the store how many open streams each session has here, forever.
    pub async fn report(self: Arc<Self>, sessions: Sessions) {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.send_report(&sessions, self.counts()).await;
        }
    }

    /// Retracts all reported counts when the process ends.
    pub async fn retract(&self, sessions: &Sessions) {
        self.send_report(sessions, HashMap::new()).await;
    }

    async fn send_report(&self, sessions: &Sessions, counts: HashMap<SessionId, u64>) {
        let due = self.reported.lock().due(&counts, clock::monotonic());
        let reported = sessions.report_open_streams(&self.gateway, &due).await;
        let arrived = reported.is_ok();
        self.reported
            .lock()
            .record(&due, arrived, clock::monotonic());
    }

    fn counts(&self) -> HashMap<SessionId, u64> {
        let mut counts = HashMap::new();
        self.visit(|control, stream| {
            if let Some(session) = stream.session
                && stream.is_long_lived(control)
            {
                *counts.entry(session).or_default() += 1;
            }
        });
        counts
    }
}

/// The counts that the store has from this gateway.
#[derive(Debug, Default)]
pub(super) struct ReportedCounts {
    sessions: HashMap<SessionId, ReportedCount>,
}

#[derive(Debug, Clone, Copy)]
struct ReportedCount {
    /// `None`: it may have arrived or not.
    count: Option<u64>,
    at: Instant,
}

impl ReportedCounts {
    /// The counts that are due: those that differ from the store's, 0 for a session that has none
    /// any more, and those that were reported a while ago.
    fn due(&self, counts: &HashMap<SessionId, u64>, now: Instant) -> Vec<(SessionId, u64)> {
        let stale = |id: &SessionId, count: u64| {
            self.sessions.get(id).is_none_or(|reported| {
                reported.count != Some(count)
                    || now.saturating_duration_since(reported.at) >= REPEAT
            })
        };
        let ended = self.sessions.keys().filter(|id| !counts.contains_key(*id));
        counts
            .iter()
            .map(|(id, count)| (*id, *count))
            .filter(|(id, count)| stale(id, *count))
            .chain(ended.map(|id| (*id, 0)))
            .collect()
    }

    /// Records a report; after a failure it is unknown which counts arrived, so all are reported
    /// again.
    fn record(&mut self, reports: &[(SessionId, u64)], arrived: bool, at: Instant) {
        for (id, count) in reports {
            if arrived && *count == 0 {
                self.sessions.remove(id);
            } else {
                let count = arrived.then_some(*count);
                self.sessions.insert(*id, ReportedCount { count, at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId([1; 32]);
    const TWO: SessionId = SessionId([2; 32]);

    fn counts(of: &[(SessionId, u64)]) -> HashMap<SessionId, u64> {
        of.iter().copied().collect()
    }

    #[test]
    fn only_changes_are_reported_and_end_as_zero() {
        let (mut reported, now) = (ReportedCounts::default(), Instant::now());
        let mut report = |open: &[(SessionId, u64)]| {
            let mut due = reported.due(&counts(open), now);
            reported.record(&due, true, now);
            due.sort_by_key(|(id, _)| id.0);
            due
        };
        assert_eq!(report(&[(ONE, 1), (TWO, 2)]), [(ONE, 1), (TWO, 2)]);
        assert_eq!(report(&[(ONE, 1), (TWO, 2)]), []);
        assert_eq!(report(&[(ONE, 3), (TWO, 2)]), [(ONE, 3)]);
        assert_eq!(report(&[(ONE, 3)]), [(TWO, 0)]);
        assert_eq!(report(&[(ONE, 3)]), []);
    }

    #[test]
    fn unchanged_count_is_repeated_before_it_expires() {
        let (mut reported, now) = (ReportedCounts::default(), Instant::now());
        let open = counts(&[(ONE, 1)]);
        reported.record(&reported.due(&open, now), true, now);
        assert_eq!(reported.due(&open, now + REPEAT / 2), []);
        assert_eq!(reported.due(&open, now + REPEAT), [(ONE, 1)]);
        assert!(REPEAT * 2 < crate::sessions::REPORT_TTL);
    }

    #[test]
    fn unconfirmed_count_is_reported_again() {
        let (mut reported, now) = (ReportedCounts::default(), Instant::now());
        reported.record(&[(ONE, 1)], false, now);
        assert_eq!(reported.due(&counts(&[(ONE, 1)]), now), [(ONE, 1)]);
        assert_eq!(reported.due(&counts(&[]), now), [(ONE, 0)]);
        reported.record(&[(ONE, 0)], false, now);
        assert_eq!(reported.due(&counts(&[]), now), [(ONE, 0)]);
        reported.record(&[(ONE, 0)], true, now);
        assert_eq!(reported.due(&counts(&[]), now), []);
    }
}
