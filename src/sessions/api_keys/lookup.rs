//! Look-up of keys: where the store has no record of a key, or may lack changes, the database decides.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::row_lookup::DatabaseUnavailable;
use super::ApiKeys;
use super::record::{OwnerRights, record_of};
use crate::auth::api_key::{ApiKeyId, ApiKeyOwner};
use crate::auth::session::{Millis, Session, SessionStatus};
use crate::clock;
use crate::database;
use crate::store::SessionLookup;

impl ApiKeys {
    /// Confirms the store's result for a key; `was_verified`: the store was known to lack no change when it
    /// was queried. A key that only the store or this gateway has cached works
    /// while the database does not respond.
    ///
    /// # Errors
    /// Only the database could decide, and it does not respond.
    pub(in crate::sessions) async fn confirm(
        &self,
        id: ApiKeyId,
        found: SessionLookup,
        address: IpAddr,
        now: Millis,
        was_verified: bool,
    ) -> Result<SessionLookup, DatabaseUnavailable> {
        let is_missing = match &found {
            SessionLookup::Missing => true,
            SessionLookup::NotQueried => return Ok(found),
            _ if was_verified && self.is_store_verified() => return Ok(found),
            _ => false,
        };
        // A record that the store should have is not taken from here: it may have been invalidated since.
        let cached = self.state.rows.cached(id);
        let read = match cached.filter(|row| row.is_none() || !is_missing) {
            Some(row) => Ok(row),
            None => self.read(id, address).await,
        };
        match read {
            Ok(row) => Ok(lookup_of(row, now)),
            Err(DatabaseUnavailable) if !is_missing => Ok(found),
            Err(error) => Err(error),
        }
    }

    /// The record of a key by the database alone, while the store does not respond.
    ///
    /// # Errors
    /// The database does not respond.
    pub(in crate::sessions) async fn look_up_row(
        &self,
        id: ApiKeyId,
        address: IpAddr,
    ) -> Result<Option<Arc<Session>>, DatabaseUnavailable> {
        match self.state.rows.cached(id) {
            Some(row) => Ok(row),
            None => self.read(id, address).await,
        }
    }

    /// Whether keys that an address presents are refused unseen, because it presents too many wrong ones.
    /// All that are not valid are treated alike: otherwise a client would learn which IDs exist.
    pub(in crate::sessions) fn is_blocked(&self, address: IpAddr) -> bool {
        self.state.misses.is_blocked(address)
    }

    /// Counts a key that does not exist, or whose secret is wrong.
    pub(in crate::sessions) fn count_wrong_key(&self, address: IpAddr) {
        self.state.misses.count_miss(address);
    }

    async fn read(
        &self,
        id: ApiKeyId,
        address: IpAddr,
    ) -> Result<Option<Arc<Session>>, DatabaseUnavailable> {
        if self.is_blocked(address) {
            return Err(DatabaseUnavailable);
        }
        // Boxed: rarely needed, and far larger than its caller's future.
        self.state.rows.read(id, Box::pin(self.fetch(id))).await
    }

    /// Reads a key from the database, and stores its record for the fleet.
    async fn fetch(&self, id: ApiKeyId) -> Result<Option<Session>, database::Error> {
        // An ID that a client has invented writes nothing to the store.
        if self.database.api_key(id).await?.is_none() {
            return Ok(None);
        }
        let lease = self.store.lease_api_key(id).await;
        let Some(stored) = self.database.api_key(id).await? else {
            return Ok(None);
        };
        let rights = self.rights_of(&stored.key.owner).await?;
        let record = record_of(&stored, rights.as_ref());
        if let Ok(Some(lease)) = lease {
            let found = lookup_of(Some(Arc::new(record.clone())), clock::unix_millis());
            if let Err(error) = self.store.put_api_key(&lease, &record, &found).await {
                tracing::debug!(%error, "the record of an API key is not in the store");
            }
        }
        Ok(Some(record))
    }

    /// What an owner may do; `None`: it is disabled or does not exist.
    async fn rights_of(&self, owner: &ApiKeyOwner) -> Result<Option<OwnerRights>, database::Error> {
        let ApiKeyOwner::User(id) = owner else {
            return Ok(Some(OwnerRights::Service));
        };
        let Some(user) = self.database.user(id).await?.filter(|user| !user.disabled) else {
            return Ok(None);
        };
        let identities = self.database.identities_of(id).await?;
        let user = identities
            .iter()
            .fold(user, |user, identity| user.with_permissions_of(identity));
        Ok(Some(OwnerRights::User(Box::new(user))))
    }
}

/// The result of a look-up by the database. Whether the key may pass is decided by its grant.
pub(in crate::sessions) fn lookup_of(record: Option<Arc<Session>>, now: Millis) -> SessionLookup {
    match record {
        None => SessionLookup::Missing,
        Some(record) => match record.status(0, None, now) {
            SessionStatus::Active => SessionLookup::Active(record, 0),
            SessionStatus::Expired => SessionLookup::Expired(record),
            SessionStatus::Revoked => SessionLookup::Revoked(record),
        },
    }
}
