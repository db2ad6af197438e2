//! Refresh tokens, by the same rules as the script `rotate_refresh.lua`.

use std::collections::HashMap;

use super::super::{Rotation, Turnover};
use super::Memory;
use crate::session::{Millis, SessionId};

/// Milliseconds.
const KEPT_AFTER: Millis = 3_600_000;

/// The refresh tokens of all sessions.
pub(super) type Refreshes = HashMap<SessionId, Refresh>;

/// The refresh tokens of one session.
pub(super) struct Refresh {
    current: [u8; 32],
    until: Millis,
    /// Those that were rotated within the grace time, and when; the oldest first.
    rotated: Vec<([u8; 32], Millis)>,
    /// An old one came back.
    reused: bool,
}

impl Refresh {
    fn new(current: [u8; 32], until: Millis) -> Refresh {
        Refresh {
            current,
            until,
            rotated: Vec::new(),
            reused: false,
        }
    }

    /// When nothing needs to be known any more of these: expired ones stay tellable for an hour.
    pub(super) fn kept_until(&self) -> Millis {
        self.until.saturating_add(KEPT_AFTER)
    }

    fn rotate(&mut self, turnover: &Turnover, alive: bool, now: Millis) -> Rotation {
        let grace = Millis::try_from(turnover.grace.as_millis()).unwrap_or(Millis::MAX);
        self.rotated
            .retain(|(_, at)| now < at.saturating_add(grace));
        let presented = turnover.presented;
        let earlier = self.rotated.iter().position(|(hash, _)| *hash == presented);
        let is_current = presented == self.current;
        if !is_current && earlier.is_none() && !turnover.ours {
            return Rotation::Unknown;
        }
        if !alive {
            return Rotation::Gone;
        }
        if self.reused {
            return Rotation::Reused;
        }
        if is_current {
            return self.advance(turnover, now);
        }
        match earlier {
            Some(place) => self.replay(place, turnover),
            None => {
                self.reused = true;
                Rotation::Reused
            }
        }
    }

    fn advance(&mut self, turnover: &Turnover, now: Millis) -> Rotation {
        if now >= self.until {
            return Rotation::Expired;
        }
        self.rotated.push((self.current, now));
        self.current = turnover.successor;
        self.until = turnover.until;
        Rotation::Rotated
    }

    /// The successor is only another than it was when the gateway's key changed in between.
    fn replay(&self, place: usize, turnover: &Turnover) -> Rotation {
        let next = self.rotated.get(place + 1).map(|(hash, _)| *hash);
        if next.unwrap_or(self.current) == turnover.successor {
            Rotation::Replayed
        } else {
            Rotation::Unknown
        }
    }
}

impl Memory {
    pub(in crate::store) fn grant_refresh(&self, id: SessionId, hash: [u8; 32], until: Millis) {
        let (mut content, _) = self.enter();
        content.refreshes.insert(id, Refresh::new(hash, until));
    }

    pub(in crate::store) fn holds_refresh(&self, id: SessionId, hash: [u8; 32]) -> bool {
        let (content, _) = self.enter();
        let refresh = content.refreshes.get(&id);
        refresh.is_some_and(|refresh| refresh.current == hash)
    }

    pub(in crate::store) fn rotate_refresh(&self, id: SessionId, turnover: &Turnover) -> Rotation {
        let (mut content, now) = self.enter();
        let now = now / 1000;
        let alive = content
            .sessions
            .entry(&id, now)
            .is_some_and(|entry| entry.session.ended.is_none() && now < entry.session.expires_at);
        match content.refreshes.get_mut(&id) {
            Some(refresh) => refresh.rotate(turnover, alive, now),
            None if turnover.ours && !alive => Rotation::Gone,
            None => Rotation::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const UNTIL: Millis = 1_000_000;

    /// Presents token `from`, whose successor is `to`, at `now`.
    fn present(refresh: &mut Refresh, from: u8, to: u8, now: Millis) -> Rotation {
        let turnover = Turnover {
            presented: [from; 32],
            ours: from < 100,
            successor: [to; 32],
            grace: Duration::from_secs(30),
            until: UNTIL,
        };
        refresh.rotate(&turnover, true, now)
    }

    #[test]
    fn the_same_token_gets_the_same_successor_for_the_grace_time() {
        let mut refresh = Refresh::new([1; 32], UNTIL);
        assert_eq!(present(&mut refresh, 1, 2, 0), Rotation::Rotated);
        assert_eq!(present(&mut refresh, 1, 2, 1), Rotation::Replayed);
        // Its successor may have been used meanwhile.
        assert_eq!(present(&mut refresh, 2, 3, 2), Rotation::Rotated);
        assert_eq!(present(&mut refresh, 1, 2, 29_999), Rotation::Replayed);
        assert_eq!(present(&mut refresh, 2, 3, 29_999), Rotation::Replayed);
        assert_eq!(present(&mut refresh, 1, 2, 30_000), Rotation::Reused);
    }

    #[test]
    fn after_a_reuse_nothing_is_rotated_any_more() {
        let mut refresh = Refresh::new([1; 32], UNTIL);
        present(&mut refresh, 1, 2, 0);
        assert_eq!(present(&mut refresh, 1, 2, 40_000), Rotation::Reused);
        assert_eq!(present(&mut refresh, 2, 3, 40_001), Rotation::Reused);
    }

    #[test]
    fn a_token_that_was_made_up_ends_nothing() {
        let mut refresh = Refresh::new([1; 32], UNTIL);
        assert_eq!(present(&mut refresh, 200, 201, 0), Rotation::Unknown);
        assert_eq!(present(&mut refresh, 1, 2, 1), Rotation::Rotated);
    }

    #[test]
    fn a_token_over_its_time_is_expired() {
        let mut refresh = Refresh::new([1; 32], UNTIL);
        assert_eq!(present(&mut refresh, 1, 2, UNTIL), Rotation::Expired);
    }

    #[test]
    fn another_key_in_between_forks_nothing() {
        let mut refresh = Refresh::new([1; 32], UNTIL);
        present(&mut refresh, 1, 2, 0);
        assert_eq!(present(&mut refresh, 1, 9, 1), Rotation::Unknown);
        assert_eq!(present(&mut refresh, 2, 3, 2), Rotation::Rotated);
    }
}
