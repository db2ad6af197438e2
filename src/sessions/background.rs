//! Background jobs: integrity checks of the store, the revocation log, uses of sessions.

use std::sync::Arc;

use super::Sessions;
use super::source::SessionSource;
use crate::auth::session::Session;
use crate::store::CacheKey;
use crate::telemetry::metrics::CleanUpKind;

impl Sessions {
    /// Waits until the store is known to lack no revocation, for as long as the store may take to
    /// respond.
    pub async fn wait_until_verified(&self) -> bool {
        self.durable.wait_until_verified(&self.store).await
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
        if let SessionSource::Durable(durable) = self.source()
            && let Err(error) = durable.flush_uses(&self.store).await
        {
            tracing::warn!(%error, "the latest uses are not in the database");
        }
    }

    /// Deletes the rows of sessions and revocations that have expired.
    pub async fn delete_expired(&self) {
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
