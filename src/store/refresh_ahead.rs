//! Refreshes cached credentials ahead of expiry, so that active clients never wait for the store.

use std::time::Duration;

use super::{CacheKey, Engine, Query, Store};
use crate::routing::Requirements;
use crate::telemetry::metrics::StoreOperation;

impl Store {
    /// Looks the query's session, token and user up again, in the background.
    pub(super) fn refresh_ahead(&self, query: &Query<'_>, idle: Option<Duration>) {
        let key = query.blacklist_key.map(str::to_owned);
        let item = match (query.session, &key) {
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
        let (store, cached) = (self.clone(), query.cached.clone());
        let (session, cut_off_user) = (query.session, query.cut_off_user);
        let (last_access, issued_at) = (query.last_access, query.issued_at);
        tokio::spawn(async move {
            let no_requirements = Requirements::default();
            let query = Query {
                session,
                cached,
                last_access,
                blacklist_key: key.as_deref(),
                cut_off_user,
                issued_at,
                ..Query::empty(&no_requirements)
            };
            store.refresh_entry(&query, idle).await;
            store.shared.near_cache.refreshing.lock().remove(&item);
        });
    }

    async fn refresh_entry(&self, query: &Query<'_>, idle: Option<Duration>) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        let stamps = self.shared.near_cache.stamp_query(query);
        let reply = self.measured(StoreOperation::Decide, redis.decide(query, idle));
        // After a failure, the entry is looked up again when it has expired.
        if let Ok(result) = reply.await {
            self.observe_revocation_lag(query, &result);
            self.shared.near_cache.cache_result(&stamps, query, &result);
        }
    }
}
