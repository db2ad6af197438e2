//! Refresh tokens, by the same rules as the script `rotate_refresh.lua`.

use std::collections::HashMap;
use std::time::Duration;

use super::super::{Grant, Reuse, Rotation, Turned, Turnover, Use};
use super::{Memory, millis};
use crate::auth::session::{Millis, SessionId, Status};

/// Milliseconds.
const KEPT_AFTER: Millis = 3_600_000;
/// How many rotated tokens are known at most: whoever refreshes faster than that within the grace time
/// costs no more for it, and an earlier one is an old one. The script has the same number.
const ROTATED_KEPT: usize = 64;

/// The refresh tokens of all sessions.
pub(super) type Refreshes = HashMap<SessionId, Refresh>;

/// The refresh tokens of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    pub current: [u8; 32],
    pub until: Millis,
    /// The latest that was rotated, and those rotated within the grace time before it, and when;
    /// the oldest first.
    pub rotated: Vec<([u8; 32], Millis)>,
    /// An old one came back.
    pub reused: bool,
}

impl Refresh {
    pub(super) fn new(grant: Grant) -> Refresh {
        Refresh {
            current: grant.hash,
            until: grant.until,
            rotated: Vec::new(),
            reused: false,
        }
    }

    /// When nothing needs to be known any more of these: expired ones stay tellable for an hour.
    pub(super) fn kept_until(&self) -> Millis {
        self.until.saturating_add(KEPT_AFTER)
    }

    /// Turns the tokens over, by the rule of the store. `end`: when the session ends; `None`: it has
    /// ended.
    pub fn rotate(&mut self, turnover: &Turnover, end: Option<Millis>, now: Millis) -> Rotation {
        let grace = millis(turnover.grace);
        let recent = |at: Millis| now < at.saturating_add(grace);
        let latest = self.rotated.pop();
        self.rotated.retain(|(_, at)| recent(*at));
        self.rotated.extend(latest);
        let presented = turnover.presented;
        let earlier = self.rotated.iter().position(|(hash, _)| *hash == presented);
        let is_current = presented == self.current;
        if !is_current && earlier.is_none() && !turnover.ours {
            return Rotation::Unknown;
        }
        let Some(end) = end else {
            return Rotation::Gone;
        };
        let replayed = earlier.filter(|place| {
            let rotated = self.rotated.get(*place);
            rotated.is_some_and(|(_, at)| recent(*at))
        });
        match (is_current, replayed) {
            (true, _) if !self.reused => self.advance(turnover, end, now),
            (_, Some(place)) if !self.reused => self.replay(place, turnover),
            _ => {
                self.reused = true;
                Rotation::Reused(match earlier {
                    _ if is_current => Reuse::Unknown,
                    Some(_) => Reuse::Predecessor,
                    None => Reuse::Ancestor,
                })
            }
        }
    }

    fn advance(&mut self, turnover: &Turnover, end: Millis, now: Millis) -> Rotation {
        if now >= self.until {
            return Rotation::Expired;
        }
        self.rotated.push((self.current, now));
        if self.rotated.len() > ROTATED_KEPT {
            self.rotated.remove(0);
        }
        self.current = turnover.successor;
        self.until = now.saturating_add(millis(turnover.ttl)).min(end);
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
    pub(in crate::store) fn holds_refresh(&self, id: SessionId, hash: [u8; 32]) -> bool {
        let (content, _) = self.enter();
        let refresh = content.refreshes.get(&id);
        refresh.is_some_and(|refresh| refresh.current == hash)
    }

    pub(in crate::store) fn rotate_refresh(
        &self,
        id: SessionId,
        turnover: &Turnover,
        idle: Option<Duration>,
    ) -> Turned {
        let (mut content, now) = self.enter();
        let now = now / 1000;
        let end = content.sessions.entry(&id, now).and_then(|entry| {
            let status = entry.session.status(entry.activity.last_access, idle, now);
            (status == Status::Active).then_some(entry.session.expires_at)
        });
        let rotation = match (content.refreshes.get_mut(&id), end) {
            (Some(refresh), end) => refresh.rotate(turnover, end, now),
            (None, _) if !turnover.ours => Rotation::Unknown,
            (None, None) => Rotation::Gone,
            // The session was brought back from elsewhere: the first of ours that comes is taken
            // for the current one.
            (None, Some(until)) => {
                let hash = turnover.presented;
                let mut refresh = Refresh::new(Grant { hash, until });
                let rotation = refresh.rotate(turnover, end, now);
                content.refreshes.insert(id, refresh);
                rotation
            }
        };
        if matches!(rotation, Rotation::Rotated | Rotation::Replayed) {
            let used = Use {
                session: id,
                last_access: now,
                requests: 1,
                address: turnover.address,
            };
            content.sessions.record(&used, now);
        }
        let entry = content.sessions.entry(&id, now).cloned();
        Turned {
            rotation,
            entry: entry.map(|entry| content.with_live(entry, now)),
            now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Millis = 1_000_000;

    fn first() -> Refresh {
        Refresh::new(Grant {
            hash: [1; 32],
            until: UNTIL,
        })
    }

    /// Presents token `from`, whose successor is `to`, at `now`.
    fn present(refresh: &mut Refresh, from: u8, to: u8, now: Millis) -> Rotation {
        let turnover = Turnover {
            presented: [from; 32],
            ours: from < 100,
            successor: [to; 32],
            grace: Duration::from_secs(30),
            ttl: Duration::from_secs(1_000),
            address: [192, 0, 2, 1].into(),
        };
        refresh.rotate(&turnover, Some(UNTIL), now)
    }

    #[test]
    fn the_same_token_gets_the_same_successor_for_the_grace_time() {
        let mut refresh = first();
        assert_eq!(present(&mut refresh, 1, 2, 0), Rotation::Rotated);
        assert_eq!(present(&mut refresh, 1, 2, 1), Rotation::Replayed);
        // Its successor may have been used meanwhile.
        assert_eq!(present(&mut refresh, 2, 3, 2), Rotation::Rotated);
        assert_eq!(present(&mut refresh, 1, 2, 29_999), Rotation::Replayed);
        assert_eq!(present(&mut refresh, 2, 3, 29_999), Rotation::Replayed);
        let reused = present(&mut refresh, 1, 2, 30_000);
        assert_eq!(reused, Rotation::Reused(Reuse::Ancestor));
    }

    #[test]
    fn after_a_reuse_nothing_is_rotated_any_more() {
        let mut refresh = first();
        present(&mut refresh, 1, 2, 0);
        for (from, reuse) in [
            (1, Reuse::Predecessor),
            (2, Reuse::Unknown),
            (50, Reuse::Ancestor),
            (1, Reuse::Predecessor),
        ] {
            let found = present(&mut refresh, from, from + 1, 40_000);
            assert_eq!(found, Rotation::Reused(reuse), "{from}");
        }
    }

    #[test]
    fn a_token_that_was_made_up_ends_nothing() {
        let mut refresh = first();
        assert_eq!(present(&mut refresh, 200, 201, 0), Rotation::Unknown);
        assert_eq!(present(&mut refresh, 1, 2, 1), Rotation::Rotated);
    }

    #[test]
    fn a_token_over_its_time_is_expired() {
        let mut refresh = first();
        assert_eq!(present(&mut refresh, 1, 2, UNTIL), Rotation::Expired);
    }

    #[test]
    fn a_successor_ends_with_its_session() {
        let mut refresh = first();
        assert_eq!(present(&mut refresh, 1, 2, UNTIL - 1), Rotation::Rotated);
        assert_eq!(present(&mut refresh, 2, 3, UNTIL), Rotation::Expired);
    }

    #[test]
    fn another_key_in_between_forks_nothing() {
        let mut refresh = first();
        present(&mut refresh, 1, 2, 0);
        assert_eq!(present(&mut refresh, 1, 9, 1), Rotation::Unknown);
        assert_eq!(present(&mut refresh, 2, 3, 2), Rotation::Rotated);
    }
}
