//! Background jobs: changes that the store may lack, and uses of keys.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::SessionError;
use super::ApiKeys;
use crate::auth::api_key::{ApiKeyId, ApiKeyOwner};
use crate::auth::session::Millis;
use crate::clock;
use crate::database::ApiKeyUse;
use crate::store::{API_KEY_TTL, SessionUse, StoreError};
use crate::telemetry::metrics::CleanUpKind;

/// How far back changes are replayed to a store that has come back: it may have been restored from a
/// snapshot, whose records are at most this old. The rest allows for differences between clocks.
const REPLAY_WINDOW: Duration = API_KEY_TTL.saturating_add(Duration::from_secs(60 * 60));
/// Uses are written at every n-th call of [`ApiKeys::write_uses`], which is called once per second.
const WRITE_EVERY_CALLS: u64 = 15;
/// How long the rows of keys are kept after their expiry or revocation.
const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Changes since then are replayed.
pub(super) fn replayed_since(now: Millis) -> Millis {
    now.saturating_sub(clock::millis(REPLAY_WINDOW))
}

/// Keys whose records the store may still have as they were before a change. Dropped without being
/// published, as when the client of the call disconnects, it is published in the background.
pub(in crate::sessions) struct UnpublishedChange<'k> {
    keys: &'k ApiKeys,
    ids: Vec<ApiKeyId>,
}

impl UnpublishedChange<'_> {
    /// Deletes the records. Where the store does not respond, this is repeated in the background.
    ///
    /// # Errors
    /// When it is not certain that the change is in force everywhere.
    pub(super) async fn publish(mut self) -> Result<(), SessionError> {
        for id in &self.ids {
            self.keys.state.rows.invalidate(*id);
        }
        self.keys.store.invalidate_api_keys(&self.ids).await?;
        self.ids.clear();
        Ok(())
    }
}

impl Drop for UnpublishedChange<'_> {
    fn drop(&mut self) {
        self.keys.state.pending.lock().extend(&self.ids);
    }
}

impl ApiKeys {
    /// Whether the store is known to lack no change of a key.
    pub(in crate::sessions) fn is_store_verified(&self) -> bool {
        self.state.verified_epoch.load(Ordering::Acquire) == self.store.reconnects()
    }

    /// Deletes the records of an owner's keys in the store. Must be called after a change of the owner, and
    /// repeated until it succeeds.
    ///
    /// # Errors
    /// When it is not certain that the change is in force everywhere.
    pub(in crate::sessions) async fn publish_owner(
        &self,
        owner: &ApiKeyOwner,
    ) -> Result<(), SessionError> {
        let mut after = None;
        loop {
            let ids = self.database.api_keys_of(owner, after).await?;
            let Some(last) = ids.last() else {
                return Ok(());
            };
            after = Some(*last);
            self.begin_change(&ids).publish().await?;
        }
    }

    /// Announces that keys are about to change in the database.
    pub(in crate::sessions) fn begin_change(&self, ids: &[ApiKeyId]) -> UnpublishedChange<'_> {
        UnpublishedChange {
            keys: self,
            ids: ids.to_vec(),
        }
    }

    /// Replays changes that the store may lack. The first failed attempt is logged.
    pub(in crate::sessions) async fn replay_changes(&self) {
        let replayed = self.try_replay_changes().await;
        let was_behind = self
            .state
            .is_behind
            .swap(replayed.is_err(), Ordering::Relaxed);
        match replayed {
            Ok(()) if was_behind => tracing::info!("the store has all changes of API keys"),
            Err(error) if !was_behind => {
                let error = &error as &dyn std::error::Error;
                let pending = self.state.pending.lock().len();
                tracing::warn!(error, pending, "the store may lack changes of API keys");
            }
            Ok(()) | Err(_) => {}
        }
    }

    async fn try_replay_changes(&self) -> Result<(), SessionError> {
        if !self.store.is_up() {
            // Replaying discards records here as well, which may be all that is left in an outage.
            return Err(StoreError::Unreachable.into());
        }
        let pending = std::mem::take(&mut *self.state.pending.lock());
        let ids: Vec<ApiKeyId> = pending.into_iter().collect();
        self.begin_change(&ids).publish().await?;
        let epoch = self.store.reconnects();
        if self.is_store_verified() {
            return Ok(());
        }
        let since = replayed_since(clock::unix_millis());
        let mut after = None;
        loop {
            let ids = self.database.api_keys_changed_since(since, after).await?;
            let Some(last) = ids.last() else {
                break;
            };
            after = Some(*last);
            self.store.invalidate_api_keys(&ids).await?;
        }
        self.state.verified_epoch.store(epoch, Ordering::Release);
        Ok(())
    }

    /// Records uses, and writes them every few seconds.
    pub(in crate::sessions) async fn write_uses(&self, uses: Vec<(ApiKeyId, SessionUse)>) {
        self.add_uses(uses.into_iter().map(|(id, used)| ApiKeyUse {
            id,
            last_used_at: used.last_access,
            address: used.address,
            requests: used.requests,
        }));
        let calls = &self.state.calls;
        if calls
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(WRITE_EVERY_CALLS)
        {
            self.flush_uses().await;
        }
    }

    /// Writes all uses; those that cannot be written remain for the next call.
    pub(in crate::sessions) async fn flush_uses(&self) {
        let uses = std::mem::take(&mut *self.state.uses.lock());
        let uses: Vec<ApiKeyUse> = uses.into_values().collect();
        if uses.is_empty() {
            return;
        }
        let ids: Vec<ApiKeyId> = uses.iter().map(|used| used.id).collect();
        if let Err(error) = self.store.extend_api_keys(&ids).await {
            tracing::debug!(%error, "records of API keys are left to expire");
        }
        if let Err((written, error)) = self.database.record_api_key_uses(&uses).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "uses of API keys wait to be written");
            self.add_uses(uses.into_iter().skip(written));
        }
    }

    fn add_uses(&self, uses: impl Iterator<Item = ApiKeyUse>) {
        let mut pending = self.state.uses.lock();
        for used in uses {
            pending
                .entry(used.id)
                .and_modify(|earlier| {
                    earlier.requests += used.requests;
                    if used.last_used_at >= earlier.last_used_at {
                        earlier.last_used_at = used.last_used_at;
                        earlier.address = used.address;
                    }
                })
                .or_insert(used);
        }
    }

    /// Deletes the rows of keys that ended long ago.
    pub(in crate::sessions) async fn delete_ended(&self, now: Millis) {
        let since = now.saturating_sub(clock::millis(RETENTION));
        match self.database.delete_ended_api_keys(since).await {
            Ok(removed) => self.metrics.count_removed(CleanUpKind::ApiKeys, removed),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "ended API keys could not be trimmed");
            }
        }
    }

    /// Counts the active keys, for the metrics.
    pub(in crate::sessions) async fn count_active(&self, now: Millis) {
        if let Ok(count) = self.database.count_active_api_keys(now).await {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.api_keys_active.set(count);
        }
    }
}
