//! Background jobs: integrity checks of the store, the revocation log, uses of sessions.

use std::sync::Arc;

use tokio::time::timeout;

use super::Sessions;
use super::source::SessionSource;
use crate::auth::session::Session;
use crate::clock;
use crate::store::CacheKey;
use crate::telemetry::metrics::CleanUpKind;

impl Sessions {
    /// Waits until the store is known to lack no revocation, for as long as the store may take to
    /// respond.
    pub async fn wait_until_verified(&self) -> bool {
        self.durable.wait_until_verified(&self.store).await
    }

    /// Replays changes of API keys before the first request, for as long as the store may take to respond.
    /// Later, the replay would discard records of keys that requests have stored meanwhile.
    pub async fn replay_api_keys_at_start(&self) {
        // Otherwise, it is repeated in the background.
        let _ = timeout(self.store.timeout(), self.api_keys.replay_changes()).await;
    }

    /// Checks forever that the store has its data, and replays what it lacks. `lost` is called whenever
    /// it has lost data.
    pub async fn run_integrity_checks(self, lost: impl Fn()) {
        self.durable.run_integrity_checks(self.store, lost).await;
    }

    /// Writes revocations that others made to the revocation log, forever.
    pub async fn record_announced_revocations(self) {
        self.durable.record_announced_revocations(self.store).await;
    }

    /// Writes the revocations among these entries of the store to the revocation log.
    pub async fn record_existing_revocations(&self, entries: Vec<CacheKey>) {
        if let SessionSource::Durable(durable) = self.source()
            && let Err(error) = durable
                .record_existing_revocations(&self.store, entries)
                .await
        {
            tracing::debug!(%error, "revocations wait to be written to the database");
        }
    }

    /// Writes the uses of sessions; those that cannot be written remain for the next call. `used` receives
    /// the used sessions that this gateway caches.
    pub async fn write_uses(&self, used: impl Fn(&Arc<Session>)) {
        let uses = self.store.near_cache().take_uses();
        let (of_keys, uses): (Vec<_>, Vec<_>) = uses
            .into_iter()
            .partition(|one| one.session.api_key().is_some());
        let of_keys = of_keys.into_iter();
        let of_keys = of_keys.filter_map(|one| Some((one.session.api_key()?, one)));
        self.api_keys.write_uses(of_keys.collect()).await;
        for one in &uses {
            if let Some(session) = self.store.near_cache().session(one.session) {
                used(&session);
            }
        }
        if let SessionSource::Durable(durable) = self.source()
            && let Err(error) = durable.write_uses(&self.store, &uses).await
        {
            tracing::debug!(%error, "uses wait to be written to the database");
        }
        if !uses.is_empty() && self.store.record_uses(&uses).await.is_err() {
            self.store.near_cache().restore_uses(uses);
        }
    }

    /// Writes the uses of sessions to the database at once, before the process ends.
    pub async fn flush_uses(&self) {
        self.write_uses(|_| {}).await;
        self.api_keys.flush_uses().await;
        if let SessionSource::Durable(durable) = self.source()
            && let Err(error) = durable.flush_uses(&self.store).await
        {
            tracing::warn!(%error, "the latest uses are not in the database");
        }
    }

    /// Replays changes of API keys that the store may lack.
    pub async fn replay_api_keys(&self) {
        self.api_keys.replay_changes().await;
    }

    /// Counts the active API keys, for the metrics.
    pub async fn count_api_keys(&self) {
        self.api_keys.count_active(clock::unix_millis()).await;
    }

    /// Deletes the rows of sessions, revocations and API keys that ended long enough ago.
    pub async fn delete_expired(&self) {
        self.api_keys.delete_ended(clock::unix_millis()).await;
        let (SessionSource::Durable(durable), Ok(now)) = (self.source(), self.store.now().await)
        else {
            return;
        };
        match durable.delete_expired(now).await {
            Ok((sessions, revocations)) => {
                let metrics = &self.metrics;
                metrics.count_removed(CleanUpKind::DurableSessions, sessions);
                metrics.count_removed(CleanUpKind::Revocations, revocations);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "durable sessions and revocations could not be trimmed"
                );
            }
        }
    }
}
