//! Asking again about who comes again and again, before what is known of them is sure no more: so nobody who
//! is known ever waits for the store.

use std::time::Duration;

use super::{CacheKey, Engine, Query, Store};
use crate::routing::Requirements;
use crate::telemetry::metrics::StoreOperation;

impl Store {
    /// Asks about the session, the token and the person of an inquiry, off the request's path.
    pub(super) fn refresh_ahead(&self, inquiry: &Query<'_>, idle: Option<Duration>) {
        let key = inquiry.blacklist_key.map(str::to_owned);
        let item = match (inquiry.session, &key) {
            (Some(id), _) => CacheKey::Session(id),
            (None, Some(key)) => CacheKey::Token(key.clone()),
            (None, None) => return,
        };
        if !self
            .shared
            .near_cache
            .refreshing
            .lock()
            .insert(item.clone())
        {
            return;
        }
        let (store, known) = (self.clone(), inquiry.cached.clone());
        let (session, cut_off_of) = (inquiry.session, inquiry.cut_off_user);
        let (last_access, issued_at) = (inquiry.last_access, inquiry.issued_at);
        tokio::spawn(async move {
            let anything = Requirements::default();
            let again = Query {
                session,
                cached: known,
                last_access,
                blacklist_key: key.as_deref(),
                cut_off_user: cut_off_of,
                issued_at,
                ..Query::empty(&anything)
            };
            store.refresh_entry(&again, idle).await;
            store.shared.near_cache.refreshing.lock().remove(&item);
        });
    }

    async fn refresh_entry(&self, inquiry: &Query<'_>, idle: Option<Duration>) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        let asking = self.shared.near_cache.stamp_query(inquiry);
        let asked = self.measured(StoreOperation::Decide, redis.decide(inquiry, idle));
        // Without an answer it is asked again when it is sure no more.
        if let Ok(findings) = asked.await {
            self.observe_revocation_lag(inquiry, &findings);
            self.shared
                .near_cache
                .cache_result(&asking, inquiry, &findings);
        }
    }
}
