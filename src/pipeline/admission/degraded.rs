//! What holds while the store does not answer: each limit's own wish, and the operator's for sessions.
//! Unknown is never gone: nothing here signs anyone out.

use std::sync::Arc;

use super::claim::Claim;
use super::identity::identity_from_token;
use super::{
    Admission, AuthRequest, CredentialKind, Identity, Permit, Rejection, charges,
    check_requirements, reject_over_limit,
};
use crate::auth::session::Session;
use crate::limits::{Charge, Decision, OnOutage};
use crate::rejection::{Reason, Refusal};
use crate::routing::{Requirements, Route};
use crate::settings::SessionsOnOutage;
use crate::store::{SessionLookup, StoreError};
use crate::telemetry::metrics::LimitOutcome;

impl Admission<'_> {
    /// Charges limits in this process, as each of them wants it.
    pub(super) fn charge_degraded(&self, all: &[Charge]) -> Result<Vec<Decision>, Rejection> {
        let denies =
            |charge: &&Charge| charge.limit.on_outage == OnOutage::Deny && !charge.limit.shadow;
        if let Some(charge) = all.iter().find(denies) {
            let name = &charge.limit.name;
            self.metrics
                .count_limit_decision(name, LimitOutcome::Degraded);
            let rejection = Rejection::new(Refusal::StoreUnavailable, Reason::LimitUnchecked);
            return Err(rejection.with_limit(name));
        }
        let local: Vec<Charge> = all
            .iter()
            .filter(|charge| charge.limit.on_outage == OnOutage::Local)
            .cloned()
            .collect();
        for charge in all
            .iter()
            .filter(|charge| charge.limit.on_outage != OnOutage::Local)
        {
            self.metrics
                .count_limit_decision(&charge.limit.name, LimitOutcome::Degraded);
        }
        Ok(self.store.charge_locally(&local))
    }

    /// Decides over an authenticated request without the store.
    pub(super) async fn admit_degraded(
        &self,
        route: &Arc<Route>,
        asked: AuthRequest<'_>,
        before: &[Charge],
        claimed: &Claim,
        error: StoreError,
    ) -> Result<Permit, Rejection> {
        let identity = match error {
            // Boxed: rarely needed, and larger than what asks for it.
            StoreError::ReadOnly => Box::pin(self.identify_read_only(asked, claimed)).await,
            _ => self.identify_degraded(asked, claimed, error).await,
        };
        let mut all = before.to_vec();
        if let Ok(identity) = &identity
            && route.require.is_met_by(identity.roles(), identity.scopes())
        {
            let who = (identity.user(), claimed.session, claimed.token.as_deref());
            all.extend(
                charges::after_auth(route, &asked, Some(who))
                    .into_iter()
                    .filter(|charge| charge.limit.applies_to(identity.roles())),
            );
        }
        let decisions = self.charge_degraded(&all)?;
        self.count_decisions(&decisions);
        reject_over_limit(&decisions)?;
        let identity = identity.map_err(|refused| Rejection {
            decisions: decisions.clone(),
            ..refused
        })?;
        check_requirements(&route.require, &identity, &decisions)?;
        Ok(Permit {
            route: Arc::clone(route),
            identity: Some(identity),
            decisions,
            clear_cookie: false,
        })
    }

    /// Looks the identity up in a store that takes no writes: only its limits cannot be charged.
    async fn identify_read_only(
        &self,
        asked: AuthRequest<'_>,
        claimed: &Claim,
    ) -> Result<Identity, Rejection> {
        let idle = self.reloadable.sessions.idle_timeout;
        let seen = claimed.session.map(|id| self.near_cache.cached_record(id));
        let nothing = Requirements::default();
        let inquiry = self.build_query(claimed, seen.unwrap_or_default(), &[], &nothing, &[]);
        let ticket = self.durable.epoch(self.store);
        let mut findings = match self.store.decide(&inquiry, idle).await {
            Ok(findings) => findings,
            Err(error) => return self.identify_degraded(asked, claimed, error).await,
        };
        self.consult_database(claimed, &mut findings, asked).await?;
        match self
            .confirm_not_revoked(ticket, claimed, &mut findings)
            .await
        {
            Ok(()) => self.resolve_identity(claimed, &inquiry, &findings, asked),
            Err(error) => self.identify_degraded(asked, claimed, error).await,
        }
    }

    pub(super) async fn identify_degraded(
        &self,
        asked: AuthRequest<'_>,
        claimed: &Claim,
        error: StoreError,
    ) -> Result<Identity, Rejection> {
        self.check_cached_revocations(claimed)?;
        let row = self.durable_session(claimed, asked).await?;
        match (&row, self.store_settings.sessions_on_outage) {
            (Some(session), _) if claimed.token.is_none() => {
                self.identity_from_session(claimed, Arc::clone(session), asked, asked.now)
            }
            (_, SessionsOnOutage::Deny) => Err(error.into()),
            (_, SessionsOnOutage::Cached) => {
                let Some(id) = claimed.session else {
                    // A foreign token without session: what is remembered of it is that it was accepted.
                    return match &claimed.token {
                        Some(claims)
                            if self.near_cache.was_accepted(
                                &claims.blacklist_key,
                                self.store_settings.cached_for,
                            ) =>
                        {
                            Ok(identity_from_token(claims))
                        }
                        _ => Err(error.into()),
                    };
                };
                let idle = self.reloadable.sessions.idle_timeout;
                match self.near_cache.active_within(
                    id,
                    self.store_settings.cached_for,
                    idle,
                    asked.now,
                ) {
                    Some(session) => self.identity_from_session(claimed, session, asked, asked.now),
                    None => Err(error.into()),
                }
            }
            (_, SessionsOnOutage::TokenOnly) => match &claimed.token {
                Some(claims) => match row.or_else(|| self.near_cache.session(claimed.session?)) {
                    Some(session) => self.identity_from_session(claimed, session, asked, asked.now),
                    None => Ok(identity_from_token(claims)),
                },
                None => Err(error.into()),
            },
        }
    }

    /// Refuses what this gateway knows to have ended: that stays so, store or not.
    fn check_cached_revocations(&self, claimed: &Claim) -> Result<(), Rejection> {
        if let Some(claims) = &claimed.token
            && self.near_cache.is_revoked(&claims.blacklist_key)
        {
            return Err(Rejection {
                lapsed_claims: claimed.token.clone(),
                ..Rejection::new(Refusal::TokenRevoked, Reason::CachedBlacklisted)
            });
        }
        if let (Some(claims), Some(person)) = (&claimed.token, &claimed.user_hash)
            && self
                .near_cache
                .is_cut_off(person, claims.issued_at_seconds())
        {
            return Err(Rejection {
                lapsed_claims: claimed.token.clone(),
                ..Rejection::new(Refusal::TokenRevoked, Reason::CachedSignedOutEverywhere)
            });
        }
        if let Some(id) = claimed.session
            && let Some(refusal) = self.near_cache.end_refusal(id)
        {
            return Err(Rejection {
                lapsed_claims: claimed.token.clone(),
                ..Rejection::new(refusal, Reason::CachedSessionEnd)
            });
        }
        Ok(())
    }

    /// The session's row, where sessions have a second home, which answers, and it lives. A cookie
    /// goes by it; a token, whose blacklist may be written by others, only ends by it.
    async fn durable_session(
        &self,
        claimed: &Claim,
        asked: AuthRequest<'_>,
    ) -> Result<Option<Arc<Session>>, Rejection> {
        let (Some(durable), Some(id)) = (self.durable.if_enabled(), claimed.session) else {
            return Ok(None);
        };
        let gone = |refusal, reason| {
            Err(Rejection {
                clear_cookie: claimed.credential_kind == CredentialKind::Cookie,
                lapsed_claims: claimed.token.clone(),
                ..Rejection::new(refusal, reason)
            })
        };
        match durable
            .look_up_status(id, self.view(id, asked, asked.now))
            .await
        {
            Ok(SessionLookup::Active(session, _)) => Ok(Some(session)),
            Ok(SessionLookup::Expired(_)) => {
                gone(Refusal::SessionExpired, Reason::SessionRowExpired)
            }
            Ok(SessionLookup::Revoked(_)) => {
                gone(Refusal::SessionRevoked, Reason::SessionRowRevoked)
            }
            Ok(SessionLookup::Missing) if claimed.token.is_none() => {
                gone(Refusal::SessionNotFound, Reason::NoSessionRow)
            }
            Ok(SessionLookup::Missing | SessionLookup::NotQueried) | Err(_) => Ok(None),
        }
    }
}
