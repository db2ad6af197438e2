//! Coalescing of events that clients without a session can cause in bulk.
//!
//! Of each kind and address, the first event of an interval is written at once, and the others as
//! one event with their count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Event, EventKind};
use crate::limits::subscriber_network;

/// Length of an interval.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of groups in one interval; further addresses share one group per kind.
const MAX_GROUPS: usize = 1_000;

/// The events of the current interval.
#[derive(Default)]
pub(super) struct Coalescing(Mutex<HashMap<GroupKey, Option<Event>>>);

type GroupKey = (EventKind, Option<IpAddr>);

impl Coalescing {
    /// Returns the event if it must be written now, and otherwise keeps it for
    /// [`Coalescing::take`].
    pub(super) fn add(&self, mut event: Event) -> Option<Event> {
        let mut groups = self.0.lock();
        let mut key = (event.kind, event.ip.map(subscriber_network));
        if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
            key.1 = None;
            event.ip = None;
        }
        match groups.get_mut(&key) {
            None => {
                groups.insert(key, None);
                Some(event)
            }
            Some(Some(coalesced)) => {
                coalesced.merge(&event);
                None
            }
            Some(empty) => {
                event.count = Some(1);
                *empty = Some(event);
                None
            }
        }
    }

    /// Ends the interval and returns its coalesced events.
    pub(super) fn take(&self) -> impl Iterator<Item = Event> {
        std::mem::take(&mut *self.0.lock()).into_values().flatten()
    }
}

impl Event {
    /// Adds another event of the same kind and address, and keeps only values that both have.
    fn merge(&mut self, other: &Event) {
        self.count = Some(self.count.unwrap_or(1).saturating_add(1));
        if self.user != other.user {
            self.user = None;
        }
        if self.session != other.session {
            self.session = None;
        }
        if self.provider != other.provider {
            self.provider = None;
        }
        if self.api_key != other.api_key {
            self.api_key = None;
        }
        if self.reason != other.reason {
            self.reason = None;
        }
        if self.detail != other.detail {
            self.detail = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn failure(ip: &str, user: &str) -> Event {
        let ip = ip.parse().unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST));
        Event::new(EventKind::SignInFailed).ip(ip).user(user)
    }

    #[test]
    fn first_event_is_written_at_once_others_coalesced() {
        let coalescing = Coalescing::default();
        assert!(coalescing.add(failure("192.0.2.1", "ann")).is_some());
        assert!(coalescing.add(failure("192.0.2.1", "ann")).is_none());
        assert!(coalescing.add(failure("192.0.2.2", "ann")).is_some());
        assert!(coalescing.add(failure("2001:db8::1", "ann")).is_some());
        for _ in 0..3 {
            assert!(coalescing.add(failure("2001:db8::2", "ann")).is_none());
        }
        assert!(coalescing.add(failure("2001:db8::3", "bob")).is_none());
        let mut events: Vec<_> = coalescing.take().collect();
        events.sort_by_key(|event| event.count);
        let summary = events
            .iter()
            .map(|event| (event.count, event.user.as_deref()));
        assert_eq!(
            summary.collect::<Vec<_>>(),
            [(Some(1), Some("ann")), (Some(4), None)]
        );
        // The next interval starts empty.
        assert!(coalescing.add(failure("192.0.2.1", "ann")).is_some());
        assert_eq!(coalescing.take().count(), 0);
    }

    #[test]
    fn excess_addresses_share_one_group() {
        let coalescing = Coalescing::default();
        let address = |n: usize| format!("10.0.{}.{}", n / 256, n % 256);
        for n in 0..MAX_GROUPS {
            assert!(coalescing.add(failure(&address(n), "ann")).is_some());
        }
        let first = coalescing.add(failure(&address(MAX_GROUPS), "ann"));
        assert_eq!(first.map(|event| event.ip), Some(None));
        for n in 0..50 {
            assert!(
                coalescing
                    .add(failure(&address(MAX_GROUPS + n), "ann"))
                    .is_none()
            );
        }
        let counts: Vec<_> = coalescing
            .take()
            .map(|event| (event.ip, event.count))
            .collect();
        assert_eq!(counts, [(None, Some(50))]);
    }
}
