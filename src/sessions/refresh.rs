//! Refresh tokens.

use std::time::Duration;

use super::durable::DurableSessions;
use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::session::SessionId;
use crate::store::{RefreshRotation, RotationOutcome, RotationResult, SessionUse};

impl Sessions {
    /// Replaces a session's refresh token by its successor.
    ///
    /// # Errors
    /// When it is not certain which token is current.
    pub async fn rotate_refresh(
        &self,
        id: SessionId,
        rotation: &RefreshRotation,
        idle: Option<Duration>,
    ) -> Result<RotationResult, SessionError> {
        if let SessionSource::Durable(durable) = self.source()
            && let Some(rotated) = self.rotate_durable(durable, id, rotation, idle).await?
        {
            return Ok(rotated);
        }
        Ok(self.store.rotate_refresh(id, rotation, idle).await?)
    }

    /// `None`: the session has no row.
    async fn rotate_durable(
        &self,
        durable: &DurableSessions,
        id: SessionId,
        rotation: &RefreshRotation,
        idle: Option<Duration>,
    ) -> Result<Option<RotationResult>, SessionError> {
        let now = self.now().await?;
        let activity = match self.store.session(id).await {
            Ok(Some(entry)) => Some(entry.activity),
            Ok(None) | Err(_) => None,
        };
        let last_access = activity.as_ref().map_or(0, |seen| seen.last_access);
        let rotated = durable
            .rotate_refresh(id, rotation, idle, now, last_access)
            .await?;
        let Some(mut rotated) = rotated else {
            return Ok(None);
        };
        if let Some(entry) = &mut rotated.entry
            && let Some(activity) = activity
        {
            entry.activity = activity;
        }
        if matches!(
            rotated.outcome,
            RotationOutcome::Rotated | RotationOutcome::Replayed
        ) {
            let used = SessionUse {
                session: id,
                last_access: now,
                requests: 1,
                address: rotation.address,
            };
            // A refresh is a use; it counts as one even if writing it fails.
            let _ = self.store.record_uses(std::slice::from_ref(&used)).await;
            durable.record_uses(&[used]);
            if let Some(entry) = &mut rotated.entry {
                entry.activity.last_access = now;
                entry.activity.request_count += 1;
            }
        }
        Ok(Some(rotated))
    }

    /// Whether this is the session's current refresh token.
    ///
    /// # Errors
    /// When it is not certain which token is current.
    pub async fn is_current_refresh(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<bool, SessionError> {
        if let SessionSource::Durable(durable) = self.source()
            && let Some(is_current) = durable.is_current_refresh_token(id, hash).await?
        {
            return Ok(is_current);
        }
        Ok(self.store.is_current_refresh_token(id, hash).await?)
    }
}
