//! What holds while the store does not answer: each limit's own wish, and the operator's for sessions.
//! Unknown is never gone: nothing here signs anyone out.

use std::sync::Arc;

use super::claim::Claimed;
use super::identity::foreign;
use super::{
    Admission, Asked, Identity, Permit, PresentedBy, Refused, charges, meets, refuse_over_limit,
    unknown,
};
use crate::auth::session::Session;
use crate::limits::{Charge, Decision, OnOutage};
use crate::refusal::Refusal;
use crate::routing::{Require, Route};
use crate::settings::SessionsOnOutage;
use crate::store::{Found, StoreError};

impl Admission<'_> {
    /// Charges limits in this process, as each of them wants it.
    pub(super) fn charge_without_store(&self, all: &[Charge]) -> Result<Vec<Decision>, Refused> {
        let denies =
            |charge: &&Charge| charge.limit.on_outage == OnOutage::Deny && !charge.limit.shadow;
        if let Some(charge) = all.iter().find(denies) {
            let name = &charge.limit.name;
            self.metrics.limited(name, "degraded");
            let reason = "a limit cannot be checked and denies without";
            return Err(Refused::because(Refusal::StoreUnavailable, reason).by_limit(name));
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
            self.metrics.limited(&charge.limit.name, "degraded");
        }
        Ok(self.store.charge_locally(&local))
    }

    /// Decides over an authenticated request without the store.
    pub(super) async fn without_store(
        &self,
        route: &Arc<Route>,
        asked: Asked<'_>,
        before: &[Charge],
        claimed: &Claimed,
        error: StoreError,
    ) -> Result<Permit, Refused> {
        let identity = match error {
            // Boxed: rarely needed, and larger than what asks for it.
            StoreError::ReadOnly => Box::pin(self.identity_by_reads(asked, claimed)).await,
            _ => self.identity_without_store(asked, claimed, error).await,
        };
        let mut all = before.to_vec();
        if let Ok(identity) = &identity
            && route.require.met_by(identity.roles(), identity.scopes())
        {
            let who = (identity.user(), claimed.session, claimed.token.as_deref());
            all.extend(
                charges::after(route, &asked, Some(who))
                    .into_iter()
                    .filter(|charge| charge.limit.binds(identity.roles())),
            );
        }
        let decisions = self.charge_without_store(&all)?;
        self.count(&decisions);
        refuse_over_limit(&decisions)?;
        let identity = identity.map_err(|refused| Refused {
            decisions: decisions.clone(),
            ..refused
        })?;
        meets(&route.require, &identity, &decisions)?;
        Ok(Permit {
            route: Arc::clone(route),
            identity: Some(identity),
            decisions,
            clear_cookie: false,
        })
    }

    /// Looks the identity up in a store that takes no writes: only its limits cannot be charged.
    async fn identity_by_reads(
        &self,
        asked: Asked<'_>,
        claimed: &Claimed,
    ) -> Result<Identity, Refused> {
        let idle = self.live.sessions.idle_timeout;
        let seen = claimed.session.map(|id| self.replica.seen(id));
        let nothing = Require::default();
        let inquiry = self.inquiry(claimed, seen.unwrap_or_default(), &[], &nothing, &[]);
        let ticket = self.durable.ticket(self.store);
        let mut findings = match self.store.decide(&inquiry, idle).await {
            Ok(findings) => findings,
            Err(error) => return self.identity_without_store(asked, claimed, error).await,
        };
        self.look_again(claimed, &mut findings, asked).await?;
        match self.settle_doubts(ticket, claimed, &mut findings).await {
            Ok(()) => self.identity(claimed, &inquiry, &findings, asked),
            Err(error) => self.identity_without_store(asked, claimed, error).await,
        }
    }

    pub(super) async fn identity_without_store(
        &self,
        asked: Asked<'_>,
        claimed: &Claimed,
        error: StoreError,
    ) -> Result<Identity, Refused> {
        self.over_as_known_here(claimed)?;
        let row = self.row(claimed, asked).await?;
        match (&row, self.settings.sessions_on_outage) {
            (Some(session), _) if claimed.token.is_none() => {
                self.identity_of(claimed, Arc::clone(session), asked, asked.now)
            }
            (_, SessionsOnOutage::Deny) => Err(unknown(error)),
            (_, SessionsOnOutage::Cached) => {
                let Some(id) = claimed.session else {
                    // A foreign token without session: what is remembered of it is that it was accepted.
                    return match &claimed.token {
                        Some(claims)
                            if self
                                .replica
                                .was_accepted(&claims.blacklist_key, self.settings.cached_for) =>
                        {
                            Ok(foreign(claims))
                        }
                        _ => Err(unknown(error)),
                    };
                };
                let idle = self.live.sessions.idle_timeout;
                match self
                    .replica
                    .still_active(id, self.settings.cached_for, idle, asked.now)
                {
                    Some(session) => self.identity_of(claimed, session, asked, asked.now),
                    None => Err(unknown(error)),
                }
            }
            (_, SessionsOnOutage::TokenOnly) => match &claimed.token {
                Some(claims) => match row.or_else(|| self.replica.session(claimed.session?)) {
                    Some(session) => self.identity_of(claimed, session, asked, asked.now),
                    None => Ok(foreign(claims)),
                },
                None => Err(unknown(error)),
            },
        }
    }

    /// Refuses what this gateway knows to have ended: that stays so, store or not.
    fn over_as_known_here(&self, claimed: &Claimed) -> Result<(), Refused> {
        if let Some(claims) = &claimed.token
            && self.replica.is_revoked(&claims.blacklist_key)
        {
            return Err(Refused {
                lapsed: claimed.token.clone(),
                ..Refused::because(Refusal::TokenRevoked, "known to be blacklisted")
            });
        }
        if let (Some(claims), Some(person)) = (&claimed.token, &claimed.person)
            && self.replica.is_cut_off(person, claims.issued_second())
        {
            let reason = "its person is known to be signed out everywhere";
            return Err(Refused {
                lapsed: claimed.token.clone(),
                ..Refused::because(Refusal::TokenRevoked, reason)
            });
        }
        if let Some(id) = claimed.session
            && let Some(refusal) = self.replica.ended(id)
        {
            return Err(Refused {
                lapsed: claimed.token.clone(),
                ..Refused::because(refusal, "known to have ended")
            });
        }
        Ok(())
    }

    /// The session's row, where sessions have a second home, which answers, and it lives. A cookie
    /// goes by it; a token, whose blacklist may be written by others, only ends by it.
    async fn row(
        &self,
        claimed: &Claimed,
        asked: Asked<'_>,
    ) -> Result<Option<Arc<Session>>, Refused> {
        let (Some(durable), Some(id)) = (self.durable.on(), claimed.session) else {
            return Ok(None);
        };
        let gone = |refusal, reason| {
            Err(Refused {
                clear_cookie: claimed.by == PresentedBy::Cookie,
                lapsed: claimed.token.clone(),
                ..Refused::because(refusal, reason)
            })
        };
        match durable.stands(id, self.view(id, asked, asked.now)).await {
            Ok(Found::Active(session, _)) => Ok(Some(session)),
            Ok(Found::Expired(_)) => gone(
                Refusal::SessionExpired,
                "the session has expired (database)",
            ),
            Ok(Found::Revoked(_)) => gone(
                Refusal::SessionRevoked,
                "the session was revoked (database)",
            ),
            Ok(Found::Missing) if claimed.token.is_none() => {
                let reason = "no session has this credential's ID (database)";
                gone(Refusal::SessionNotFound, reason)
            }
            Ok(Found::Missing | Found::NotAsked) | Err(_) => Ok(None),
        }
    }
}
