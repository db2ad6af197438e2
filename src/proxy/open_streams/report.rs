//! What this gateway has told the store of its open answers, and what it has yet to tell.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::{OpenStream, OpenStreams};
use crate::auth::session::SessionId;
use crate::clock;
use crate::sessions::Sessions;

/// How often changes are told.
const PERIOD: Duration = Duration::from_secs(1);

/// How often an unchanged count is told again. It has to be well within the time after which the
/// store forgets a gateway that says nothing.
const REPEAT: Duration = Duration::from_secs(10);

impl OpenStreams {
    /// Tells the store how many live answers each session has here, for ever.
    pub async fn report(self: Arc<Self>, sessions: Sessions) {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.send_report(&sessions, self.counts()).await;
        }
    }

    /// Takes back everything that was told: the process ends.
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
        for session in self
            .collect(OpenStream::is_long_lived)
            .iter()
            .filter_map(|open| open.session)
        {
            *counts.entry(session).or_default() += 1;
        }
        counts
    }
}

/// What the store knows from this gateway.
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
    /// What is to be told now: every count that is another than the store knows, 0 for a session
    /// that has none any more, and what was told a while ago.
    fn due(&self, counts: &HashMap<SessionId, u64>, now: Instant) -> Vec<(SessionId, u64)> {
        let stale = |id: &SessionId, count: u64| {
            self.sessions.get(id).is_none_or(|told| {
                told.count != Some(count) || now.saturating_duration_since(told.at) >= REPEAT
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

    /// Takes note of what was told; of a failure nobody knows what arrived, so all of it is told
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
        let (mut told, now) = (ReportedCounts::default(), Instant::now());
        let mut tell = |open: &[(SessionId, u64)]| {
            let mut due = told.due(&counts(open), now);
            told.record(&due, true, now);
            due.sort_by_key(|(id, _)| id.0);
            due
        };
        assert_eq!(tell(&[(ONE, 1), (TWO, 2)]), [(ONE, 1), (TWO, 2)]);
        assert_eq!(tell(&[(ONE, 1), (TWO, 2)]), []);
        assert_eq!(tell(&[(ONE, 3), (TWO, 2)]), [(ONE, 3)]);
        assert_eq!(tell(&[(ONE, 3)]), [(TWO, 0)]);
        assert_eq!(tell(&[(ONE, 3)]), []);
    }

    #[test]
    fn unchanged_count_is_repeated_before_it_expires() {
        let (mut told, now) = (ReportedCounts::default(), Instant::now());
        let open = counts(&[(ONE, 1)]);
        told.record(&told.due(&open, now), true, now);
        assert_eq!(told.due(&open, now + REPEAT / 2), []);
        assert_eq!(told.due(&open, now + REPEAT), [(ONE, 1)]);
        assert!(REPEAT * 2 < crate::sessions::REPORT_TTL);
    }

    #[test]
    fn unconfirmed_count_is_reported_again() {
        let (mut told, now) = (ReportedCounts::default(), Instant::now());
        told.record(&[(ONE, 1)], false, now);
        assert_eq!(told.due(&counts(&[(ONE, 1)]), now), [(ONE, 1)]);
        assert_eq!(told.due(&counts(&[]), now), [(ONE, 0)]);
        told.record(&[(ONE, 0)], false, now);
        assert_eq!(told.due(&counts(&[]), now), [(ONE, 0)]);
        told.record(&[(ONE, 0)], true, now);
        assert_eq!(told.due(&counts(&[]), now), []);
    }
}
