//! What a credential is worth once the store has been asked.

use std::sync::Arc;

use super::claim::Claim;
use super::identity::identity_from_token;
use super::{
    Admission, AuthRequest, Identity, Permit, Rejection, charges, check_requirements,
    reject_over_limit,
};
use crate::auth::session::{Millis, Session, SessionId};
use crate::limits::{Charge, Decision};
use crate::rejection::Refusal;
use crate::routing::{Requirements, Route};
use crate::sessions::durable::{Epoch, LookupContext};
use crate::store::{Query, QueryResult, SessionLookup, StoreError};
use crate::telemetry::metrics::CacheName;

/// Nothing is asked of whom it is.
static NO_REQUIREMENTS: Requirements = Requirements {
    roles: Vec::new(),
    scopes: Vec::new(),
};

impl Admission<'_> {
    /// Asks the store, in one trip where the user is known beforehand.
    pub(super) async fn confirm(
        &self,
        route: &Arc<Route>,
        asked: AuthRequest<'_>,
        before: &[Charge],
        claimed: &Claim,
    ) -> Result<Permit, Rejection> {
        if claimed.session.is_none() {
            return self
                .confirm_without_session(route, asked, before, claimed)
                .await;
        }
        let idle = self.reloadable.sessions.idle_timeout;
        let seen = self.cached_session(claimed);
        // A session's user never changes, so one that was seen before is known beforehand.
        let user = match &claimed.token {
            Some(claims) => Some(claims.user.as_str()),
            None => seen.0.as_ref().map(|session| session.user.as_str()),
        };
        let after = user.map(|user| {
            let who = (user, claimed.session, claimed.token.as_deref());
            charges::after_auth(route, &asked, Some(who))
        });
        let then = after.as_deref().unwrap_or_default();
        let inquiry = self.build_query(claimed, seen.clone(), before, &route.require, then);
        let ticket = self.durable.epoch(self.store);
        let mut findings = match self.store.decide(&inquiry, idle).await {
            Ok(findings) => findings,
            Err(error) => {
                return self
                    .admit_degraded(route, asked, before, claimed, error)
                    .await;
            }
        };
        let mut decisions = std::mem::take(&mut findings.decisions);
        self.count_decisions(&decisions);
        reject_over_limit(&decisions).map_err(|over| over.with_session(&findings.session))?;
        let revived = self.consult_database(claimed, &mut findings, asked).await;
        let revived = revived.map_err(|refused| with_decisions(refused, &decisions))?;
        let unrevoked = self.confirm_not_revoked(ticket, claimed, &mut findings);
        let identity = match unrevoked.await {
            Ok(()) => self.resolve_identity(claimed, &inquiry, &findings, asked),
            Err(error) => self.identify_degraded(asked, claimed, error).await,
        };
        let identity = identity.map_err(|refused| {
            with_decisions(refused, &decisions).with_session(&findings.session)
        })?;
        check_requirements(&route.require, &identity, &decisions)?;
        if after.is_none() || revived {
            let late = self
                .charge_identity_limits(route, asked, claimed, &identity)
                .await;
            let late = late.inspect_err(|_| self.refund(before));
            let named = |refused: Rejection| refused.with_session(&findings.session);
            let late = late.map_err(|refused| named(with_decisions(refused, &decisions)))?;
            decisions.extend(late);
            let over = reject_over_limit(&decisions).inspect_err(|_| self.refund(before));
            over.map_err(named)?;
        }
        Ok(Permit {
            route: Arc::clone(route),
            identity: Some(identity),
            decisions,
            clear_cookie: false,
        })
    }

    /// Charges the user of a session that this gateway or the store did not know: only now can they
    /// be charged.
    async fn charge_identity_limits(
        &self,
        route: &Arc<Route>,
        asked: AuthRequest<'_>,
        claimed: &Claim,
        identity: &Identity,
    ) -> Result<Vec<Decision>, Rejection> {
        let who = (identity.user(), claimed.session, claimed.token.as_deref());
        let late: Vec<Charge> = charges::after_auth(route, &asked, Some(who))
            .into_iter()
            .filter(|charge| charge.limit.applies_to(identity.roles()))
            .collect();
        self.charge(&late).await
    }

    /// Where sessions have a second home, asks there about one that the store has lost, or may be
    /// behind about. Tells whether the session lives only by that.
    pub(super) async fn consult_database(
        &self,
        claimed: &Claim,
        findings: &mut QueryResult,
        asked: AuthRequest<'_>,
    ) -> Result<bool, Rejection> {
        let (Some(durable), Some(id)) = (self.durable.if_enabled(), claimed.session) else {
            return Ok(false);
        };
        let found = std::mem::replace(&mut findings.session, SessionLookup::NotQueried);
        let was_alive = matches!(found, SessionLookup::Active(..));
        let view = self.view(id, asked, findings.now);
        let looked = durable
            .confirm_with_database(self.store, id, found, view)
            .await;
        findings.session = looked.map_err(|_| StoreError::Unreachable)?;
        self.near_cache.insert_unconfirmed(id, &findings.session);
        Ok(!was_alive && matches!(findings.session, SessionLookup::Active(..)))
    }

    pub(super) fn view(&self, id: SessionId, asked: AuthRequest<'_>, now: Millis) -> LookupContext {
        LookupContext {
            idle: self.reloadable.sessions.idle_timeout,
            now,
            last_access: self.near_cache.last_access(id),
            ip: asked.ip,
        }
    }

    /// A foreign token stands for itself: its own roles and scopes, and the blacklist.
    async fn confirm_without_session(
        &self,
        route: &Arc<Route>,
        asked: AuthRequest<'_>,
        before: &[Charge],
        claimed: &Claim,
    ) -> Result<Permit, Rejection> {
        let Some(identity) = claimed.token.as_ref().map(identity_from_token) else {
            return Err(Refusal::Internal.into());
        };
        let allowed = route.require.is_met_by(identity.roles(), identity.scopes());
        let after: Vec<Charge> = if allowed {
            charges::after_auth(
                route,
                &asked,
                Some((identity.user(), None, claimed.token.as_deref())),
            )
            .into_iter()
            .filter(|charge| charge.limit.applies_to(identity.roles()))
            .collect()
        } else {
            Vec::new()
        };
        let inquiry = self.build_query(claimed, (None, 0), before, &route.require, &after);
        let ticket = self.durable.epoch(self.store);
        let mut findings = match self.store.decide(&inquiry, None).await {
            Ok(findings) => findings,
            Err(error) => {
                return self
                    .admit_degraded(route, asked, before, claimed, error)
                    .await;
            }
        };
        self.count_decisions(&findings.decisions);
        reject_over_limit(&findings.decisions)?;
        let settled = self
            .confirm_not_revoked(ticket, claimed, &mut findings)
            .await;
        let identity = match settled {
            Ok(()) => self
                .check_revocation(claimed, &inquiry, &findings)
                .map(|()| identity),
            Err(error) => self.identify_degraded(asked, claimed, error).await,
        };
        let decisions = findings.decisions;
        let identity = identity.map_err(|refused| with_decisions(refused, &decisions))?;
        check_requirements(&route.require, &identity, &decisions)?;
        Ok(Permit {
            route: Arc::clone(route),
            identity: Some(identity),
            decisions,
            clear_cookie: false,
        })
    }

    /// Of a token the store's word counts only while it is sure that the store lacks no revocation.
    /// Else the database has to say so too; where there is none, the store is asked again once it is
    /// sure. That a token with a session is good, its session says there.
    pub(super) async fn confirm_not_revoked(
        &self,
        ticket: Option<Epoch>,
        claimed: &Claim,
        findings: &mut QueryResult,
    ) -> Result<(), StoreError> {
        let Some(token) = &claimed.token else {
            return Ok(());
        };
        if self.durable.still_valid(self.store, ticket) {
            return Ok(());
        }
        if let Some(durable) = self.durable.if_enabled() {
            let asked = durable.look_up_revocations(&token.blacklist_key, claimed.user_hash);
            if let Ok(refused) = Box::pin(asked).await {
                findings.blacklisted |= refused.is_token_revoked;
                findings.cut_off = findings.cut_off.max(refused.cut_off);
                return Ok(());
            }
        } else if claimed.user_hash.is_none() {
            return Ok(());
        }
        Box::pin(self.recheck_when_verified(claimed, findings)).await
    }

    async fn recheck_when_verified(
        &self,
        claimed: &Claim,
        findings: &mut QueryResult,
    ) -> Result<(), StoreError> {
        while self.durable.wait_until_verified(self.store).await {
            let ticket = self.durable.epoch(self.store);
            let inquiry = Query {
                session: None,
                ..self.build_query(claimed, (None, 0), &[], &NO_REQUIREMENTS, &[])
            };
            let again = self.store.decide(&inquiry, None).await?;
            if self.durable.still_valid(self.store, ticket) {
                findings.blacklisted = again.blacklisted;
                findings.cut_off = again.cut_off;
                return Ok(());
            }
        }
        Err(StoreError::Unreachable)
    }

    /// The session's record and its latest use, as they were last seen here.
    fn cached_session(&self, claimed: &Claim) -> (Option<Arc<Session>>, Millis) {
        let Some(id) = claimed.session else {
            return (None, 0);
        };
        let seen = self.near_cache.cached_record(id);
        self.metrics
            .count_cache_lookup(CacheName::Sessions, seen.0.is_some());
        seen
    }
}

/// The same refusal, with the decisions that its answer must carry.
fn with_decisions(refused: Rejection, decisions: &[Decision]) -> Rejection {
    Rejection {
        decisions: decisions.to_vec(),
        ..refused
    }
}
