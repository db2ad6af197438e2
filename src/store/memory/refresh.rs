//! Refresh tokens of the embedded engine, by the same rules as the script `rotate_refresh.lua`.

use std::collections::HashMap;
use std::time::Duration;

use super::super::{
    InitialRefreshToken, RefreshRotation, Reuse, RotationOutcome, RotationResult, SessionUse,
};
use super::{Memory, millis};
use crate::auth::session::{Millis, SessionId, SessionStatus};

/// Retention of expired tokens, in milliseconds.
const RETENTION_AFTER_EXPIRY: Millis = 3_600_000;
/// Number of rotated tokens kept per session, the same as in the script.
///
/// It bounds the memory of clients that refresh often within the grace time; earlier tokens count as
/// ancestors.
const MAX_ROTATED: usize = 64;

/// The refresh tokens of all sessions.
pub(super) type RefreshTokenMap = HashMap<SessionId, RefreshTokens>;

/// The refresh tokens of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshTokens {
    pub current: [u8; 32],
    pub until: Millis,
    /// Rotated tokens with the time of their rotation, oldest first: the latest one, and those within
    /// the grace time before it.
    pub rotated: Vec<([u8; 32], Millis)>,
    /// Whether a token was reused.
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

    /// End of the tokens' retention; until then, an expired token is reported as such.
    pub(super) fn retained_until(&self) -> Millis {
        self.until.saturating_add(RETENTION_AFTER_EXPIRY)
    }

    /// Rotates the tokens; `end` is the session's expiry, or `None` if it has ended.
    pub fn rotate(
        &mut self,
        rotation: &RefreshRotation,
        end: Option<Millis>,
        now: Millis,
    ) -> RotationOutcome {
        let grace = millis(rotation.grace);
        let is_recent = |at: Millis| now < at.saturating_add(grace);
        let latest = self.rotated.pop();
        self.rotated.retain(|(_, at)| is_recent(*at));
        self.rotated.extend(latest);
        let presented = rotation.presented;
        let earlier = self.rotated.iter().position(|(hash, _)| *hash == presented);
        let is_current = presented == self.current;
        if !is_current && earlier.is_none() && !rotation.is_authentic {
            return RotationOutcome::Unknown;
        }
        let Some(end) = end else {
            return RotationOutcome::SessionEnded;
        };
        let replayed = earlier.filter(|index| {
            let rotated = self.rotated.get(*index);
            rotated.is_some_and(|(_, at)| is_recent(*at))
        });
        match (is_current, replayed) {
            (true, _) if !self.reused => self.advance(rotation, end, now),
            (_, Some(index)) if !self.reused => self.replay(index, rotation),
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

    fn advance(&mut self, rotation: &RefreshRotation, end: Millis, now: Millis) -> RotationOutcome {
        if now >= self.until {
            return RotationOutcome::Expired;
        }
        self.rotated.push((self.current, now));
        if self.rotated.len() > MAX_ROTATED {
            self.rotated.remove(0);
        }
        self.current = rotation.successor;
        self.until = now.saturating_add(millis(rotation.ttl)).min(end);
        RotationOutcome::Rotated
    }

    /// Replays a rotation. The successor differs only if the gateway's key has changed since.
    fn replay(&self, index: usize, rotation: &RefreshRotation) -> RotationOutcome {
        let next = self.rotated.get(index + 1).map(|(hash, _)| *hash);
        if next.unwrap_or(self.current) == rotation.successor {
            RotationOutcome::Replayed
        } else {
            RotationOutcome::Unknown
        }
    }
}

impl Memory {
    pub(in crate::store) fn is_current_refresh_token(&self, id: SessionId, hash: [u8; 32]) -> bool {
        let (state, _) = self.lock();
        let tokens = state.refresh_tokens.get(&id);
        tokens.is_some_and(|tokens| tokens.current == hash)
    }

    pub(in crate::store) fn rotate_refresh(
        &self,
        id: SessionId,
        rotation: &RefreshRotation,
        idle: Option<Duration>,
    ) -> RotationResult {
        let (mut state, now) = self.lock();
        let now = now / 1000;
        let end = state.sessions.entry(&id, now).and_then(|entry| {
            let status = entry.session.status(entry.activity.last_access, idle, now);
            (status == SessionStatus::Active).then_some(entry.session.expires_at)
        });
        let outcome = match (state.refresh_tokens.get_mut(&id), end) {
            (Some(tokens), end) => tokens.rotate(rotation, end, now),
            (None, _) if !rotation.is_authentic => RotationOutcome::Unknown,
            (None, None) => RotationOutcome::SessionEnded,
            // The session was restored from the database: the first authentic token that is presented
            // is taken as the current one.
            (None, Some(until)) => {
                let hash = rotation.presented;
                let mut tokens = RefreshTokens::new(InitialRefreshToken { hash, until });
                let outcome = tokens.rotate(rotation, end, now);
                state.refresh_tokens.insert(id, tokens);
                outcome
            }
        };
        if matches!(
            outcome,
            RotationOutcome::Rotated | RotationOutcome::Replayed
        ) {
            let session_use = SessionUse {
                session: id,
                last_access: now,
                requests: 1,
                address: rotation.address,
            };
            state.sessions.record_use(&session_use, now);
        }
        let entry = state.sessions.entry(&id, now).cloned();
        RotationResult {
            outcome,
            entry: entry.map(|entry| state.with_open_connections(entry, now)),
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
    fn present(tokens: &mut RefreshTokens, from: u8, to: u8, now: Millis) -> RotationOutcome {
        let rotation = RefreshRotation {
            presented: [from; 32],
            is_authentic: from < 100,
            successor: [to; 32],
            grace: Duration::from_secs(30),
            ttl: Duration::from_secs(1_000),
            address: [192, 0, 2, 1].into(),
        };
        tokens.rotate(&rotation, Some(UNTIL), now)
    }

    #[test]
    fn rotated_token_replays_its_successor_within_grace() {
        let mut tokens = first_token();
        assert_eq!(present(&mut tokens, 1, 2, 0), RotationOutcome::Rotated);
        assert_eq!(present(&mut tokens, 1, 2, 1), RotationOutcome::Replayed);
        // The successor may have been rotated meanwhile.
        assert_eq!(present(&mut tokens, 2, 3, 2), RotationOutcome::Rotated);
        assert_eq!(
            present(&mut tokens, 1, 2, 29_999),
            RotationOutcome::Replayed
        );
        assert_eq!(
            present(&mut tokens, 2, 3, 29_999),
            RotationOutcome::Replayed
        );
        let reused = present(&mut tokens, 1, 2, 30_000);
        assert_eq!(reused, RotationOutcome::Reused(Reuse::Ancestor));
    }

    #[test]
    fn reuse_stops_all_rotation() {
        let mut tokens = first_token();
        present(&mut tokens, 1, 2, 0);
        for (from, reuse) in [
            (1, Reuse::Predecessor),
            (2, Reuse::Unknown),
            (50, Reuse::Ancestor),
            (1, Reuse::Predecessor),
        ] {
            let outcome = present(&mut tokens, from, from + 1, 40_000);
            assert_eq!(outcome, RotationOutcome::Reused(reuse), "{from}");
        }
    }

    #[test]
    fn forged_token_has_no_effect() {
        let mut tokens = first_token();
        assert_eq!(present(&mut tokens, 200, 201, 0), RotationOutcome::Unknown);
        assert_eq!(present(&mut tokens, 1, 2, 1), RotationOutcome::Rotated);
    }

    #[test]
    fn token_past_its_lifetime_is_expired() {
        let mut tokens = first_token();
        assert_eq!(present(&mut tokens, 1, 2, UNTIL), RotationOutcome::Expired);
    }

    #[test]
    fn successor_expires_with_its_session() {
        let mut tokens = first_token();
        assert_eq!(
            present(&mut tokens, 1, 2, UNTIL - 1),
            RotationOutcome::Rotated
        );
        assert_eq!(present(&mut tokens, 2, 3, UNTIL), RotationOutcome::Expired);
    }

    #[test]
    fn key_change_does_not_fork_the_chain() {
        let mut tokens = first_token();
        present(&mut tokens, 1, 2, 0);
        assert_eq!(present(&mut tokens, 1, 9, 1), RotationOutcome::Unknown);
        assert_eq!(present(&mut tokens, 2, 3, 2), RotationOutcome::Rotated);
    }
}
