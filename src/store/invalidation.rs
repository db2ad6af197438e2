//! The store's changes, heard while they happen: what this gateway remembers is kept right by them,
//! and what others revoked is known here at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::near_cache::NearCache;
use super::{Engine, Revocation, SessionLookup, Store, StoreError};
use crate::auth::session::{Millis, SessionId};
use crate::telemetry::metrics::StoreOperation;

/// For how long it is enough that every change up to a moment was heard: with what an answer takes on
/// its way it stays below the second that is promised.
const CONFIRMATION_VALIDITY: Duration = Duration::from_millis(700);
/// How many changes are looked at together.
const BATCH_SIZE: usize = 128;

/// What a key of the store that gateways remember is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CacheKey {
    Session(SessionId),
    /// A blacklist key.
    Token(String),
    User(UserHash),
}

/// Names a person without saying who it is; see [`user_hash`].
pub type UserHash = [u8; 16];

/// What a listener hears.
pub(super) enum TrackingEvent {
    Changed(CacheKey),
    /// Everything may have changed, or some of it was not heard.
    InvalidateAll,
    /// Every change up to this moment has been heard; by the store's clock it was not later than this.
    ConfirmedUpTo(Instant, Millis),
    /// Nothing is heard for now.
    Suspended,
}

/// What was heard and is to be looked at, in its order.
pub(super) enum RefreshTask {
    Changed(CacheKey),
    ConfirmUpTo(Millis),
}

/// The first half of the SHA-256 of what admission knows a person by.
pub fn user_hash(user_key: &str) -> UserHash {
    let hash = Sha256::digest(user_key.as_bytes());
    hash.first_chunk().copied().unwrap_or_default()
}

/// Does to what is remembered what a piece of news says; gives what is to be looked at of it.
pub(super) fn apply_event(
    replica: &NearCache,
    news: TrackingEvent,
    clock: impl Fn() -> Millis,
    watched: impl Fn(SessionId) -> bool,
) -> Option<RefreshTask> {
    match news {
        TrackingEvent::Changed(item) => {
            let remembered = replica.invalidate(&item, clock());
            let matters = match &item {
                CacheKey::Session(id) => remembered || watched(*id),
                CacheKey::Token(_) | CacheKey::User(_) => true,
            };
            return matters.then_some(RefreshTask::Changed(item));
        }
        TrackingEvent::ConfirmedUpTo(as_of, now) => {
            replica.confirm_up_to(as_of, CONFIRMATION_VALIDITY);
            return Some(RefreshTask::ConfirmUpTo(now));
        }
        TrackingEvent::InvalidateAll => replica.invalidate_all(),
        TrackingEvent::Suspended => replica.suspend(),
    }
    None
}

impl Store {
    /// Follows the store's changes for ever. What changed of the sessions that are remembered or
    /// watched, of the blacklist and of cut-offs is looked up at once; revocations among it are
    /// announced as this gateway's own are.
    pub async fn follow_changes(self, watched: impl Fn(SessionId) -> bool + Send + Sync + 'static) {
        let Engine::Redis(redis) = &self.engine else {
            // All changes are made here.
            self.shared.metrics.store_listening.set(1);
            return;
        };
        let (tell, told) = mpsc::unbounded_channel();
        let shared = Arc::clone(&self.shared);
        let clock = redis.clone();
        let hear = move |news| {
            match &news {
                TrackingEvent::ConfirmedUpTo(..) => shared.metrics.store_listening.set(1),
                TrackingEvent::Suspended => shared.metrics.store_listening.set(0),
                TrackingEvent::InvalidateAll => clock.notify_data_may_have_changed(),
                TrackingEvent::Changed(_) => {}
            }
            if let Some(told) = apply_event(&shared.near_cache, news, || clock.clock(), &watched) {
                // The other end lives as long as this one.
                let _ = tell.send(told);
            }
        };
        tokio::join!(redis.track_changes(hear), self.run_refreshes(told));
    }

    async fn run_refreshes(&self, mut told: mpsc::UnboundedReceiver<RefreshTask>) {
        let mut batch = Vec::new();
        while told.recv_many(&mut batch, BATCH_SIZE).await > 0 {
            let (mut items, mut up_to) = (Vec::new(), None);
            for told in batch.drain(..) {
                match told {
                    RefreshTask::Changed(item) => items.push(item),
                    RefreshTask::ConfirmUpTo(now) => up_to = Some(now),
                }
            }
            match (self.refresh_entries(items).await, up_to) {
                (Ok(()), Some(now)) => self.shared.confirmed_up_to.store(now, Ordering::SeqCst),
                (Ok(()), None) => {}
                // Nothing is lost: what changed is asked for when it is needed.
                (Err(error), _) => {
                    tracing::debug!(%error, "changes in the store could not be looked at");
                }
            }
        }
    }

    async fn refresh_entries(&self, items: Vec<CacheKey>) -> Result<(), StoreError> {
        let (mut sessions, mut tokens, mut people) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                CacheKey::Session(id) => sessions.push(id),
                CacheKey::Token(key) => tokens.push(key),
                CacheKey::User(hash) => people.push(hash),
            }
        }
        // Without an idle timeout: idleness is no change.
        for (id, found) in self
            .look_up_sessions(StoreOperation::Follow, &sessions, None)
            .await?
        {
            // One that is missing may live elsewhere.
            if matches!(found, SessionLookup::Revoked(_)) {
                self.broadcast(Revocation::Session(id));
            }
        }
        let listed = self.look_up_tokens(tokens).await?;
        for (key, _) in listed.into_iter().filter(|(_, listed)| *listed) {
            self.broadcast(Revocation::Token(key));
        }
        for (person, second) in self.look_up_cut_offs(people).await? {
            if let Some(second) = second {
                self.broadcast(Revocation::IssuedBefore(person, second));
            }
        }
        Ok(())
    }
}
