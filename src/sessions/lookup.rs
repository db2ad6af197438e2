//! Verification of a credential: by the near cache or else the store, and by the database where the
//! store may lack something.

use std::sync::Arc;
use std::time::Duration;

use super::durable::{Epoch, LookupContext};
use super::row_lookup::DatabaseUnavailable;
use super::source::SessionSource;
use super::verdict::{Gone, LookupResult, Verdict};
use super::{Credential, CredentialCheck, Sessions};
use crate::auth::api_key::ApiKeyId;
use crate::auth::session::{Millis, Session, SessionId};
use crate::limits::{Charge, Decision};
use crate::rejection::Reason;
use crate::routing::Requirements;
use crate::store::near_cache::ValidEntries;
use crate::store::{Query, QueryResult, SessionLookup, StoreError};

/// The requirements of a look-up that charges nothing.
static NO_REQUIREMENTS: Requirements = Requirements {
    roles: Vec::new(),
    scopes: Vec::new(),
    sign_in: None,
};

/// A session as this gateway saw it last.
#[derive(Debug, Clone, Default)]
pub struct LastSeen {
    pub session: Option<Arc<Session>>,
    last_access: Millis,
}

/// The limits to charge with a look-up.
#[derive(Debug, Clone, Copy)]
pub struct LookupCharges<'a> {
    /// Limits that need no identity. When one refuses, nothing is looked up.
    pub before_auth: &'a [Charge],
    /// What a session must hold for the limits with identity to be charged.
    pub require: &'a Requirements,
    /// Limits with identity, charged if the session is valid and no limit before refuses.
    pub after_auth: &'a [Charge],
}

impl LookupCharges<'static> {
    pub fn none() -> LookupCharges<'static> {
        LookupCharges {
            before_auth: &[],
            require: &NO_REQUIREMENTS,
            after_auth: &[],
        }
    }
}

impl Sessions {
    /// The session of a credential as this gateway saw it last, for [`Sessions::look_up`].
    pub fn last_seen(&self, credential: &Credential) -> LastSeen {
        let Some(id) = credential.record() else {
            return LastSeen::default();
        };
        let (session, last_access) = self.store.near_cache().cached_record(id);
        LastSeen {
            session,
            last_access,
        }
    }

    /// Verifies a credential and charges limits, in at most one round trip while the store can be
    /// relied on.
    ///
    /// # Errors
    /// When the store does not respond: nothing was charged.
    pub async fn look_up(
        &self,
        check: CredentialCheck<'_>,
        last_seen: LastSeen,
        charges: LookupCharges<'_>,
    ) -> Result<LookupResult, StoreError> {
        let query = build_query(check.credential, last_seen, charges);
        let epoch = self.durable.epoch(&self.store);
        let was_verified = self.api_keys.is_store_verified();
        let mut found = self.store.decide(&query, check.idle).await?;
        if found.decisions.iter().any(Decision::refuses) {
            return Ok(LookupResult::new(found, Verdict::OverLimit));
        }
        let consulted = match check.credential {
            Credential::ApiKey(key) => {
                // Boxed: a known key does not come here.
                let confirmed =
                    Box::pin(self.confirm_api_key(key.id, check, &mut found, was_verified));
                confirmed.await.map(|()| false)
            }
            _ => self.consult_database(check, &mut found).await,
        };
        let Ok(is_restored) = consulted else {
            let verdict = Verdict::Unknown(StoreError::Unreachable);
            return Ok(LookupResult::new(found, verdict));
        };
        let confirmed = self.confirm_not_revoked(epoch, check.credential, &mut found);
        let verdict = match confirmed.await {
            Err(error) => Verdict::Unconfirmed(error),
            Ok(()) if found.blacklisted => Verdict::Gone(Gone::token(Reason::Blacklisted)),
            Ok(()) if query.is_cut_off(found.cut_off) => {
                Verdict::Gone(Gone::token(Reason::SignedOutEverywhere))
            }
            Ok(()) => match check.credential {
                Credential::ApiKey(key) => {
                    Box::pin(self.judge_api_key(key.id, check, &mut found)).await
                }
                _ => Verdict::new(check, &found),
            },
        };
        Ok(LookupResult {
            is_restored,
            ..LookupResult::new(found, verdict)
        })
    }

    /// The near cache's entries by which a credential is valid, for [`Sessions::confirm_by`].
    pub fn valid_entries(
        &self,
        credential: &Credential,
        idle: Option<Duration>,
    ) -> Option<ValidEntries> {
        let query = build_query(credential, LastSeen::default(), LookupCharges::none());
        if credential.api_key().is_some() && !self.api_keys.is_store_verified() {
            return None;
        }
        let cache = self.store.near_cache();
        cache.valid_entries(&query, idle, self.store.clock())
    }

    /// The store's clock, if a look-up would find the credential of these entries valid by the near
    /// cache alone.
    pub fn confirm_by(&self, entries: &ValidEntries, idle: Option<Duration>) -> Option<Millis> {
        let now = self.store.clock();
        let is_unverified = match entries.session() {
            Some(record) if record.api_key.is_some() => !self.api_keys.is_store_verified(),
            _ => self.durable.is_store_unverified(&self.store),
        };
        let holds = !is_unverified && self.store.near_cache().holds(entries, idle, now);
        holds.then_some(now)
    }

    /// Consults the database about a durable session that the store lacks, or about which the store may
    /// be behind. Returns whether the session is alive by its row alone.
    async fn consult_database(
        &self,
        check: CredentialCheck<'_>,
        found: &mut QueryResult,
    ) -> Result<bool, DatabaseUnavailable> {
        let (SessionSource::Durable(durable), Some(id)) =
            (self.source(), check.credential.session())
        else {
            return Ok(false);
        };
        let in_store = std::mem::replace(&mut found.session, SessionLookup::NotQueried);
        let was_alive = matches!(in_store, SessionLookup::Active(..));
        let context = self.lookup_context(check, id, found.now);
        // Boxed, here and below: rarely needed, and far larger than its caller's future.
        found.session =
            Box::pin(durable.confirm_with_database(&self.store, id, in_store, context)).await?;
        let is_alive = matches!(found.session, SessionLookup::Active(..));
        if !(was_alive && is_alive) {
            // A record that the store has confirmed stays cached as such.
            self.store
                .near_cache()
                .insert_unconfirmed(id, &found.session);
        }
        Ok(!was_alive && is_alive)
    }

    /// Consults the database about a key of which the store has no record, or may lack changes.
    async fn confirm_api_key(
        &self,
        id: ApiKeyId,
        check: CredentialCheck<'_>,
        found: &mut QueryResult,
        was_verified: bool,
    ) -> Result<(), DatabaseUnavailable> {
        let in_store = std::mem::replace(&mut found.session, SessionLookup::NotQueried);
        let confirmed = self
            .api_keys
            .confirm(id, in_store, check.ip, found.now, was_verified);
        found.session = confirmed.await?;
        Ok(())
    }

    /// Judges a key. A wrong secret is compared with the store's record before it is refused: this gateway's
    /// may be from before a rotation.
    async fn judge_api_key(
        &self,
        id: ApiKeyId,
        check: CredentialCheck<'_>,
        found: &mut QueryResult,
    ) -> Verdict {
        let mut verdict = Verdict::new(check, found);
        let is_known = found.session != SessionLookup::Missing;
        if is_known && verdict.is_invalid_token() && !self.api_keys.is_blocked(check.ip) {
            let was_verified = self.api_keys.is_store_verified();
            if let Ok(reloaded) = self.store.reload_api_key(id).await {
                found.session = reloaded;
                let confirmed = self.confirm_api_key(id, check, found, was_verified);
                if confirmed.await.is_err() {
                    return Verdict::Unknown(StoreError::Unreachable);
                }
                verdict = Verdict::new(check, found);
            }
        }
        self.limit_wrong_keys(check, verdict)
    }

    /// Treats all keys that are not valid alike, once an address presents too many.
    pub(super) fn limit_wrong_keys(&self, check: CredentialCheck<'_>, verdict: Verdict) -> Verdict {
        if !verdict.is_invalid_token() || check.credential.api_key().is_none() {
            return verdict;
        }
        self.api_keys.count_wrong_key(check.ip);
        match self.api_keys.is_blocked(check.ip) {
            true => Verdict::Unknown(StoreError::Unreachable),
            false => verdict,
        }
    }

    pub(super) fn lookup_context(
        &self,
        check: CredentialCheck<'_>,
        id: SessionId,
        now: Millis,
    ) -> LookupContext {
        LookupContext {
            idle: check.idle,
            now,
            last_access: self.store.near_cache().last_access(id),
            ip: check.ip,
        }
    }

    /// Confirms that the store lacks no revocation of a token. If the epoch has changed, the database
    /// decides as well; without one, the store is queried again once it is verified. A session that was
    /// found alive needs no confirmation.
    async fn confirm_not_revoked(
        &self,
        epoch: Option<Epoch>,
        credential: &Credential,
        found: &mut QueryResult,
    ) -> Result<(), StoreError> {
        let Some(token) = credential.token() else {
            return Ok(());
        };
        if self.durable.still_valid(&self.store, epoch) {
            return Ok(());
        }
        match self.source() {
            SessionSource::Durable(durable) => {
                let user = credential.user_hash();
                let logged = Box::pin(durable.look_up_revocations(&token.blacklist_key, user));
                if let Ok(logged) = logged.await {
                    found.blacklisted |= logged.is_token_revoked;
                    found.cut_off = found.cut_off.max(logged.cut_off);
                    return Ok(());
                }
            }
            SessionSource::Store if credential.user_hash().is_none() => return Ok(()),
            SessionSource::Store => {}
        }
        Box::pin(self.recheck_when_verified(credential, found)).await
    }

    async fn recheck_when_verified(
        &self,
        credential: &Credential,
        found: &mut QueryResult,
    ) -> Result<(), StoreError> {
        while self.durable.wait_until_verified(&self.store).await {
            let epoch = self.durable.epoch(&self.store);
            let query = Query {
                session: None,
                ..build_query(credential, LastSeen::default(), LookupCharges::none())
            };
            let again = self.store.decide(&query, None).await?;
            if self.durable.still_valid(&self.store, epoch) {
                found.blacklisted = again.blacklisted;
                found.cut_off = again.cut_off;
                return Ok(());
            }
        }
        Err(StoreError::Unreachable)
    }
}

fn build_query<'a>(
    credential: &'a Credential,
    last_seen: LastSeen,
    charges: LookupCharges<'a>,
) -> Query<'a> {
    let token = credential.token();
    Query {
        charges_before_auth: charges.before_auth,
        session: credential.record(),
        // The records of keys have no revision.
        cached: last_seen.session.filter(|record| record.api_key.is_none()),
        last_access: last_seen.last_access,
        blacklist_key: token.map(|claims| claims.blacklist_key.as_str()),
        cut_off_user: credential.user_hash(),
        issued_at: token.and_then(|claims| claims.issued_at_seconds()),
        require: charges.require,
        charges_after_auth: charges.after_auth,
    }
}
