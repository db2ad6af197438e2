//! Verification of a credential while the store does not respond. An outage never signs a user out: only
//! an end that was recorded before makes a credential *gone*.

use std::sync::Arc;

use super::api_keys::lookup_of;
use super::source::SessionSource;
use super::verdict::{Gone, Verdict};
use super::{Credential, CredentialCheck, Sessions};
use crate::auth::api_key::PresentedApiKey;
use crate::auth::principal::Principal;
use crate::auth::session::{Session, SessionId};
use crate::rejection::{Reason, Refusal};
use crate::settings::SessionsOnOutage;
use crate::store::{SessionLookup, StoreError};

impl Sessions {
    /// Verifies a credential as `store.on_outage.sessions` selects; a durable session is verified by its
    /// row. `error`: why the store does not.
    pub async fn look_up_degraded(&self, check: CredentialCheck<'_>, error: StoreError) -> Verdict {
        if let Credential::ApiKey(presented) = check.credential {
            return Box::pin(self.api_key_without_store(*presented, check, error)).await;
        }
        if let Some(gone) = self.cached_end(check.credential) {
            return Verdict::Gone(gone);
        }
        let row = match self.durable_session(check).await {
            Ok(row) => row,
            Err(gone) => return Verdict::Gone(gone),
        };
        match self.principal_without_store(check, row) {
            Some(principal) => Verdict::Valid(principal),
            None => Verdict::Unknown(error),
        }
    }

    /// Verifies a key by the database, or else by what this gateway has cached.
    async fn api_key_without_store(
        &self,
        presented: PresentedApiKey,
        check: CredentialCheck<'_>,
        error: StoreError,
    ) -> Verdict {
        let id = SessionId::of_api_key(presented.id);
        let cache = self.store.near_cache();
        let found = match self.api_keys.look_up_row(presented.id, check.ip).await {
            Ok(record) => {
                let found = lookup_of(record, check.now);
                // For the case that the database goes too.
                cache.insert_unconfirmed(id, &found);
                found
            }
            Err(_) => match cache.active_within(id, self.cached_for, None, check.now) {
                Some(record) => SessionLookup::Active(record, 0),
                None => return Verdict::Unknown(error),
            },
        };
        let verdict = Verdict::of_api_key(presented, &found, check.ip, check.now);
        self.limit_wrong_keys(check, verdict)
    }

    /// An end of the credential that this gateway knows of: it outlasts the outage.
    fn cached_end(&self, credential: &Credential) -> Option<Gone> {
        let cache = self.store.near_cache();
        if let Some(claims) = credential.token()
            && cache.is_revoked(&claims.blacklist_key)
        {
            return Some(Gone::token(Reason::CachedBlacklisted));
        }
        if let Credential::Token(claims, user) = credential
            && cache.is_cut_off(user, claims.issued_at_seconds())
        {
            return Some(Gone::token(Reason::CachedSignedOutEverywhere));
        }
        Some(Gone {
            refusal: cache.end_refusal(credential.session()?)?,
            reason: Reason::CachedSessionEnd,
            is_session_over: false,
        })
    }

    /// The session according to its row, if it is durable and alive and the database responds. A
    /// token may be valid without a row; a session is not.
    async fn durable_session(
        &self,
        check: CredentialCheck<'_>,
    ) -> Result<Option<Arc<Session>>, Gone> {
        let (SessionSource::Durable(durable), Some(id)) =
            (self.source(), check.credential.session())
        else {
            return Ok(None);
        };
        let context = self.lookup_context(check, id, check.now);
        let (refusal, reason) = match durable.look_up_status(id, context).await {
            Ok(SessionLookup::Active(session, _)) => return Ok(Some(session)),
            Ok(SessionLookup::Expired(_)) => (Refusal::SessionExpired, Reason::SessionRowExpired),
            Ok(SessionLookup::Revoked(_)) => (Refusal::SessionRevoked, Reason::SessionRowRevoked),
            Ok(SessionLookup::Missing) if check.credential.token().is_none() => {
                (Refusal::SessionNotFound, Reason::NoSessionRow)
            }
            Ok(SessionLookup::Missing | SessionLookup::NotQueried) | Err(_) => return Ok(None),
        };
        Err(Gone::session(refusal, reason))
    }

    fn principal_without_store(
        &self,
        check: CredentialCheck<'_>,
        row: Option<Arc<Session>>,
    ) -> Option<Principal> {
        let cache = self.store.near_cache();
        match (check.credential, self.on_outage) {
            // A row is as reliable as the store for a session; a token's revocation may not be
            // logged.
            (Credential::Session(_), _) if let Some(session) = row => {
                Some(Principal::Session(session))
            }
            (_, SessionsOnOutage::Deny) => None,
            (Credential::Token(claims, _), SessionsOnOutage::Cached) => cache
                .was_accepted(&claims.blacklist_key, self.cached_for)
                .then(|| Principal::Token(Arc::clone(claims))),
            (
                Credential::Session(id) | Credential::SessionToken(id, _),
                SessionsOnOutage::Cached,
            ) => cache
                .active_within(*id, self.cached_for, check.idle, check.now)
                .map(Principal::Session),
            (Credential::Session(_), SessionsOnOutage::TokenOnly) | (Credential::ApiKey(_), _) => {
                None
            }
            (Credential::SessionToken(id, claims), SessionsOnOutage::TokenOnly) => {
                let session = row.or_else(|| cache.session(*id));
                Some(match session {
                    Some(session) => Principal::Session(session),
                    None => Principal::Token(Arc::clone(claims)),
                })
            }
            (Credential::Token(claims, _), SessionsOnOutage::TokenOnly) => {
                Some(Principal::Token(Arc::clone(claims)))
            }
        }
    }
}
