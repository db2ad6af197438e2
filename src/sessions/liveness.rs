//! Which sessions and tokens have ended, for responses that stay open after their request was admitted.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::broadcast;

use super::{RecordedSession, Sessions};
use crate::auth::api_key::{ApiKeyId, PresentedApiKey};
use crate::auth::session::{Millis, SessionId};
use crate::store::{Revocation, StoreError};

impl Sessions {
    /// Receives the revocations that this gateway makes or receives from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Revocation> {
        self.store.subscribe()
    }

    /// Returns those of these sessions that are no longer alive.
    ///
    /// # Errors
    /// When neither store nor database can tell: unknown is not gone.
    pub async fn ended_among(
        &self,
        ids: &[SessionId],
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<HashSet<SessionId>, StoreError> {
        let ended = self.durable.ended_among(&self.store, ids, idle, now);
        Ok(ended.await?.into_iter().collect())
    }

    /// Returns those of these API keys, each with an address that presented it, that may no longer be used
    /// from there.
    pub async fn ended_api_keys(
        &self,
        presented: &HashSet<(PresentedApiKey, IpAddr)>,
        now: Millis,
    ) -> HashSet<(PresentedApiKey, IpAddr)> {
        self.api_keys.ended_among(presented, now).await
    }

    /// Returns those of these blacklist keys whose token is revoked.
    ///
    /// # Errors
    /// When the store does not respond.
    pub async fn revoked_among<'k>(
        &self,
        keys: &[&'k str],
    ) -> Result<HashSet<&'k str>, StoreError> {
        let listed = self.store.are_blacklisted(keys).await?;
        let listed = keys.iter().zip(listed);
        Ok(listed
            .filter_map(|(key, listed)| listed.then_some(*key))
            .collect())
    }

    /// Returns for each user the second up to which their tokens without a session are revoked.
    ///
    /// # Errors
    /// When the store does not respond.
    pub async fn issued_before_revocations(
        &self,
        user_keys: &[&str],
    ) -> Result<Vec<Option<u64>>, StoreError> {
        self.store.cut_offs(user_keys).await
    }

    /// How many milliseconds ago a session ended, by the store's clock. `None`: it is not known to have.
    ///
    /// # Errors
    /// When the store does not respond.
    pub async fn millis_since_end(&self, id: SessionId) -> Result<Option<Millis>, StoreError> {
        let entry = self.store.session(id).await?;
        let now = self.store.now().await?;
        let ended = entry.and_then(|entry| entry.session.ended);
        Ok(ended.map(|end| now.saturating_sub(end.at)))
    }

    /// Reports how many streams sessions have open on this gateway; valid for [`super::REPORT_TTL`].
    ///
    /// # Errors
    /// When the store does not respond.
    pub async fn report_open_streams(
        &self,
        gateway: &str,
        counts: &[(SessionId, u64)],
    ) -> Result<(), StoreError> {
        self.store.report_open_connections(gateway, counts).await
    }

    /// Records a request as a use of its session, to be written later.
    pub fn record_request(&self, id: SessionId, at: Millis, address: IpAddr) {
        self.store.near_cache().record_request(id, at, address);
    }

    /// As [`Sessions::record_request`], without a look-up.
    pub fn record_request_of(&self, session: &RecordedSession, at: Millis, address: IpAddr) {
        self.store
            .near_cache()
            .record_request_of(session, at, address);
    }

    /// Records a request as a use of an API key, to be written later.
    pub fn record_api_key_request(&self, id: ApiKeyId, at: Millis, address: IpAddr) {
        self.record_request(SessionId::of_api_key(id), at, address);
    }

    /// Records that a client sent data on an open stream, as a use of its session.
    pub fn record_stream_activity(&self, id: SessionId, address: IpAddr) {
        let now = self.store.clock();
        self.store
            .near_cache()
            .record_stream_activity(id, now, address);
    }
}
