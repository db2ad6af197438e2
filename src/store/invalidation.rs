//! Invalidation of the near cache by the store's change notifications.
//!
//! Changed items are looked up again at once, so that revocations by other gateways take effect here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::near_cache::NearCache;
use super::{Engine, Revocation, SessionLookup, Store, StoreError};
use crate::auth::session::{Millis, SessionId};
use crate::telemetry::metrics::StoreOperation;

/// Time for which a confirmation holds. With the duration of a request, a revocation takes effect
/// within the guaranteed second.
const CONFIRMATION_VALIDITY: Duration = Duration::from_millis(700);
/// Largest number of changes that are refreshed together.
const BATCH_SIZE: usize = 128;

/// An item that the near cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheKey {
    Session(SessionId),
    /// A blacklist key.
    Token(String),
    User(UserHash),
}

/// Pseudonymous identifier of a user; see [`user_hash`].
pub type UserHash = [u8; 16];

/// Event of the tracking connection.
pub(super) enum TrackingEvent {
    Changed(CacheKey),
    /// All data may have changed, or invalidations may have been missed.
    InvalidateAll,
    /// All invalidations up to this time have arrived; the second is a lower bound of it by the
    /// store's clock.
    ConfirmedUpTo(Instant, Millis),
    /// The connection is lost.
    Suspended,
}

/// Work for the refresh task, in order.
pub(super) enum RefreshTask {
    Changed(CacheKey),
    ConfirmUpTo(Millis),
}

/// Hashes the key by which admission identifies a user: the first half of its SHA-256.
pub fn user_hash(user_key: &str) -> UserHash {
    let hash = Sha256::digest(user_key.as_bytes());
    hash.first_chunk().copied().unwrap_or_default()
}

/// Applies an event to the near cache; returns the work for the refresh task.
pub(super) fn apply_event(
    cache: &NearCache,
    event: TrackingEvent,
    clock: impl Fn() -> Millis,
    is_watched: impl Fn(SessionId) -> bool,
) -> Option<RefreshTask> {
    match event {
        TrackingEvent::Changed(item) => {
            let was_cached = cache.invalidate(&item, clock());
            let is_relevant = match &item {
                CacheKey::Session(id) => was_cached || is_watched(*id),
                CacheKey::Token(_) | CacheKey::User(_) => true,
            };
            return is_relevant.then_some(RefreshTask::Changed(item));
        }
        TrackingEvent::ConfirmedUpTo(as_of, now) => {
            cache.confirm_up_to(as_of, CONFIRMATION_VALIDITY);
            return Some(RefreshTask::ConfirmUpTo(now));
        }
        TrackingEvent::InvalidateAll => cache.invalidate_all(),
        TrackingEvent::Suspended => cache.suspend(),
    }
    None
}

impl Store {
    /// Follows the store's changes; runs forever.
    ///
    /// Changed blacklist entries, cut-offs and sessions that are cached or watched are looked up at
    /// once. Revocations among them are broadcast as this gateway's own are.
    pub async fn follow_changes(
        self,
        is_watched: impl Fn(SessionId) -> bool + Send + Sync + 'static,
    ) {
        let Engine::Redis(redis) = &self.engine else {
            // With the embedded engine, this process makes all changes itself.
            self.shared.metrics.store_listening.set(1);
            return;
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::clone(&self.shared);
        let clock = redis.clone();
        let on_event = move |event| {
            match &event {
                TrackingEvent::ConfirmedUpTo(..) => shared.metrics.store_listening.set(1),
                TrackingEvent::Suspended => shared.metrics.store_listening.set(0),
                TrackingEvent::InvalidateAll => clock.notify_data_may_have_changed(),
                TrackingEvent::Changed(_) => {}
            }
            let cache = &shared.near_cache;
            if let Some(task) = apply_event(cache, event, || clock.clock(), &is_watched) {
                // The receiver lives as long as the sender.
                let _ = sender.send(task);
            }
        };
        tokio::join!(redis.track_changes(on_event), self.run_refreshes(receiver));
    }

    async fn run_refreshes(&self, mut tasks: mpsc::UnboundedReceiver<RefreshTask>) {
        let mut batch = Vec::new();
        while tasks.recv_many(&mut batch, BATCH_SIZE).await > 0 {
            let (mut items, mut up_to) = (Vec::new(), None);
            for task in batch.drain(..) {
                match task {
                    RefreshTask::Changed(item) => items.push(item),
                    RefreshTask::ConfirmUpTo(now) => up_to = Some(now),
                }
            }
            match (self.refresh_entries(items).await, up_to) {
                (Ok(()), Some(now)) => self.shared.confirmed_up_to.store(now, Ordering::SeqCst),
                (Ok(()), None) => {}
                // The items are stale in the cache and are looked up when they are next used.
                (Err(error), _) => {
                    tracing::debug!(%error, "cannot look up changed items in the store");
                }
            }
        }
    }

    async fn refresh_entries(&self, items: Vec<CacheKey>) -> Result<(), StoreError> {
        let (mut sessions, mut tokens, mut users) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                CacheKey::Session(id) => sessions.push(id),
                CacheKey::Token(key) => tokens.push(key),
                CacheKey::User(hash) => users.push(hash),
            }
        }
        // Without an idle timeout: idleness is not a change.
        for (id, lookup) in self
            .look_up_sessions(StoreOperation::Follow, &sessions, None)
            .await?
        {
            // A missing session may still exist in the database.
            if matches!(lookup, SessionLookup::Revoked(_)) {
                self.broadcast(Revocation::Session(id));
            }
        }
        let tokens = self.look_up_tokens(tokens).await?;
        for (key, _) in tokens.into_iter().filter(|(_, blacklisted)| *blacklisted) {
            self.broadcast(Revocation::Token(key));
        }
        for (user, second) in self.look_up_cut_offs(users).await? {
            if let Some(second) = second {
                self.broadcast(Revocation::IssuedBefore(user, second));
            }
        }
        Ok(())
    }
}
