//! Which keys may no longer be used, for responses that stay open after their request was admitted.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::ApiKeys;
use crate::auth::api_key::{ApiKeyId, PresentedApiKey};
use crate::auth::session::Millis;
use crate::store::SessionLookup;

impl ApiKeys {
    /// Returns those of these keys, each with an address that presented it, that may no longer be used from
    /// there. What neither store nor database can tell is not gone.
    pub(in crate::sessions) async fn ended_among(
        &self,
        presented: &HashSet<(PresentedApiKey, IpAddr)>,
        now: Millis,
    ) -> HashSet<(PresentedApiKey, IpAddr)> {
        let mut addresses: HashMap<ApiKeyId, IpAddr> = HashMap::new();
        addresses.extend(presented.iter().map(|(key, address)| (key.id, *address)));
        let ids: Vec<ApiKeyId> = addresses.keys().copied().collect();
        let was_verified = self.is_store_verified();
        let in_store = self.store.look_up_api_keys(&ids).await;
        let in_store = in_store.unwrap_or_else(|_| {
            let missing = |id: &ApiKeyId| (*id, SessionLookup::Missing);
            ids.iter().map(missing).collect()
        });
        let mut found = HashMap::new();
        for (id, lookup) in in_store {
            let Some(address) = addresses.get(&id) else {
                continue;
            };
            let confirmed = self.confirm(id, lookup, *address, now, was_verified);
            if let Ok(lookup) = confirmed.await {
                found.insert(id, lookup);
            }
        }
        let is_ended = |(key, address): &(PresentedApiKey, IpAddr)| {
            let lookup = found.get(&key.id);
            lookup.is_some_and(|lookup| !permits(lookup, key, *address, now))
        };
        presented.iter().copied().filter(is_ended).collect()
    }
}

/// Whether a key may still be used from an address, by its record.
fn permits(lookup: &SessionLookup, key: &PresentedApiKey, address: IpAddr, now: Millis) -> bool {
    match lookup {
        SessionLookup::Active(record, _)
        | SessionLookup::Expired(record)
        | SessionLookup::Revoked(record) => {
            let grant = record.api_key.as_ref();
            grant.is_some_and(|grant| grant.judge(&key.hash, address, now).is_ok())
        }
        SessionLookup::Missing => false,
        SessionLookup::NotQueried => true,
    }
}
