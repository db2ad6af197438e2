//! Refresh tokens, by the same rules as the script `rotate_refresh.lua`.

use std::collections::HashMap;
use std::time::Duration;

use super::super::{
    InitialRefreshToken, RefreshRotation, Reuse, RotationOutcome, RotationResult, SessionUse,
};
use super::{Memory, millis};
use crate::auth::session::{Millis, SessionId, SessionStatus};

/// Milliseconds.
const RETENTION_AFTER_EXPIRY: Millis = 3_600_000;
/// How many rotated tokens are known at most: whoever refreshes faster than that within the grace time
/// costs no more for it, and an earlier one is an old one. The script has the same number.
const MAX_ROTATED: usize = 64;

/// The refresh tokens of all sessions.
pub(super) type RefreshTokenMap = HashMap<SessionId, RefreshTokens>;

/// The refresh tokens of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshTokens {
    pub current: [u8; 32],
    pub until: Millis,
    /// The latest that was rotated, and those rotated within the grace time before it, and when;
    /// the oldest first.
    pub rotated: Vec<([u8; 32], Millis)>,
    /// An old one came back.
    pub reused: bool,
}

impl RefreshTokens {
    pub(super) fn new(grant: InitialRefreshToken) -> RefreshTokens {
        RefreshTokens {
            current: grant.hash,
            until: grant.until,
            rotated: Vec::new(),
            reused: false,
        }
    }

    /// When nothing needs to be known any more of these: expired ones stay tellable for an hour.
    pub(super) fn retained_until(&self) -> Millis {
        self.until.saturating_add(RETENTION_AFTER_EXPIRY)
    }

    /// Turns the tokens over, by the rule of the store. `end`: when the session ends; `None`: it has
    /// ended.
    pub fn rotate(
        &mut self,
        turnover: &RefreshRotation,
        end: Option<Millis>,
        now: Millis,
    ) -> RotationOutcome {
        let grace = millis(turnover.grace);
        let recent = |at: Millis| now < at.saturating_add(grace);
        let latest = self.rotated.pop();
        self.rotated.retain(|(_, at)| recent(*at));
        self.rotated.extend(latest);
        let presented = turnover.presented;
        let earlier = self.rotated.iter().position(|(hash, _)| *hash == presented);
        let is_current = presented == self.current;
        if !is_current && earlier.is_none() && !turnover.is_authentic {
            return RotationOutcome::Unknown;
        }
        let Some(end) = end else {
            return RotationOutcome::SessionEnded;
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
                RotationOutcome::Reused(match earlier {
                    _ if is_current => Reuse::Unknown,
                    Some(_) => Reuse::Predecessor,
                    None => Reuse::Ancestor,
                })
            }
        }
    }

    fn advance(&mut self, turnover: &RefreshRotation, end: Millis, now: Millis) -> RotationOutcome {
        if now >= self.until {
            return RotationOutcome::Expired;
        }
        self.rotated.push((self.current, now));
        if self.rotated.len() > MAX_ROTATED {
            self.rotated.remove(0);
        }
        self.current = turnover.successor;
        self.until = now.saturating_add(millis(turnover.ttl)).min(end);
        RotationOutcome::Rotated
    }

    /// The successor is only another than it was when the gateway's key changed in between.
    fn replay(&self, place: usize, turnover: &RefreshRotation) -> RotationOutcome {
        let next = self.rotated.get(place + 1).map(|(hash, _)| *hash);
        if next.unwrap_or(self.current) == turnover.successor {
            RotationOutcome::Replayed
        } else {
            RotationOutcome::Unknown
        }
    }
}

impl Memory {
    pub(in crate::store) fn is_current_refresh_token(&self, id: SessionId, hash: [u8; 32]) -> bool {
        let (content, _) = self.lock();
        let refresh = content.refresh_tokens.get(&id);
        refresh.is_some_and(|refresh| refresh.current == hash)
    }

    pub(in crate::store) fn rotate_refresh(
        &self,
        id: SessionId,
        turnover: &RefreshRotation,
        idle: Option<Duration>,
    ) -> RotationResult {
        let (mut content, now) = self.lock();
        let now = now / 1000;
        let end = content.sessions.entry(&id, now).and_then(|entry| {
            let status = entry.session.status(entry.activity.last_access, idle, now);
            (status == SessionStatus::Active).then_some(entry.session.expires_at)
        });
        let rotation = match (content.refresh_tokens.get_mut(&id), end) {
            (Some(refresh), end) => refresh.rotate(turnover, end, now),
            (None, _) if !turnover.is_authentic => RotationOutcome::Unknown,
            (None, None) => RotationOutcome::SessionEnded,
            // The session was brought back from elsewhere: the first of ours that comes is taken
            // for the current one.
            (None, Some(until)) => {
                let hash = turnover.presented;
                let mut refresh = RefreshTokens::new(InitialRefreshToken { hash, until });
                let rotation = refresh.rotate(turnover, end, now);
                content.refresh_tokens.insert(id, refresh);
                rotation
            }
        };
        if matches!(
            rotation,
            RotationOutcome::Rotated | RotationOutcome::Replayed
        ) {
            let used = SessionUse {
                session: id,
                last_access: now,
                requests: 1,
                address: turnover.address,
            };
            content.sessions.record_use(&used, now);
        }
        let entry = content.sessions.entry(&id, now).cloned();
        RotationResult {
            outcome: rotation,
            entry: entry.map(|entry| content.with_open_connections(entry, now)),
            now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Millis = 1_000_000;

    fn first_token() -> RefreshTokens {
        RefreshTokens::new(InitialRefreshToken {
            hash: [1; 32],
            until: UNTIL,
        })
    }

    /// Presents token `from`, whose successor is `to`, at `now`.
    fn present(refresh: &mut RefreshTokens, from: u8, to: u8, now: Millis) -> RotationOutcome {
        let turnover = RefreshRotation {
            presented: [from; 32],
            is_authentic: from < 100,
            successor: [to; 32],
            grace: Duration::from_secs(30),
            ttl: Duration::from_secs(1_000),
            address: [192, 0, 2, 1].into(),
        };
        refresh.rotate(&turnover, Some(UNTIL), now)
    }

    #[test]
    fn rotated_token_replays_its_successor_within_grace() {
        let mut refresh = first_token();
        assert_eq!(present(&mut refresh, 1, 2, 0), RotationOutcome::Rotated);
        assert_eq!(present(&mut refresh, 1, 2, 1), RotationOutcome::Replayed);
        // Its successor may have been used meanwhile.
        assert_eq!(present(&mut refresh, 2, 3, 2), RotationOutcome::Rotated);
        assert_eq!(
            present(&mut refresh, 1, 2, 29_999),
            RotationOutcome::Replayed
        );
        assert_eq!(
            present(&mut refresh, 2, 3, 29_999),
            RotationOutcome::Replayed
        );
        let reused = present(&mut refresh, 1, 2, 30_000);
        assert_eq!(reused, RotationOutcome::Reused(Reuse::Ancestor));
    }

    #[test]
    fn reuse_stops_all_rotation() {
        let mut refresh = first_token();
        present(&mut refresh, 1, 2, 0);
        for (from, reuse) in [
            (1, Reuse::Predecessor),
            (2, Reuse::Unknown),
            (50, Reuse::Ancestor),
            (1, Reuse::Predecessor),
        ] {
            let found = present(&mut refresh, from, from + 1, 40_000);
            assert_eq!(found, RotationOutcome::Reused(reuse), "{from}");
        }
    }

    #[test]
    fn forged_token_has_no_effect() {
        let mut refresh = first_token();
        assert_eq!(present(&mut refresh, 200, 201, 0), RotationOutcome::Unknown);
        assert_eq!(present(&mut refresh, 1, 2, 1), RotationOutcome::Rotated);
    }

    #[test]
    fn token_past_its_lifetime_is_expired() {
        let mut refresh = first_token();
        assert_eq!(present(&mut refresh, 1, 2, UNTIL), RotationOutcome::Expired);
    }

    #[test]
    fn successor_expires_with_its_session() {
        let mut refresh = first_token();
        assert_eq!(
            present(&mut refresh, 1, 2, UNTIL - 1),
            RotationOutcome::Rotated
        );
        assert_eq!(present(&mut refresh, 2, 3, UNTIL), RotationOutcome::Expired);
    }

    #[test]
    fn key_change_does_not_fork_the_chain() {
        let mut refresh = first_token();
        present(&mut refresh, 1, 2, 0);
        assert_eq!(present(&mut refresh, 1, 9, 1), RotationOutcome::Unknown);
        assert_eq!(present(&mut refresh, 2, 3, 2), RotationOutcome::Rotated);
    }
}
