//! What a credential is worth once the store has been asked.

use std::sync::Arc;

use super::claim::Claimed;
use super::identity::foreign;
use super::{
    Admission, Asked, Identity, Permit, Refused, charges, meets, refuse_over_limit, unknown,
};
use crate::auth::session::{Millis, Session, SessionId};
use crate::limits::{Charge, Decision};
use crate::refusal::Refusal;
use crate::routing::{Require, Route};
use crate::sessions::durable::{Ticket, View};
use crate::store::{Findings, Found, Inquiry, StoreError};

/// Nothing is asked of whom it is.
static ANYBODY: Require = Require {
    roles: Vec::new(),
    scopes: Vec::new(),
};

impl Admission<'_> {
    /// Asks the store, in one trip where the user is known beforehand.
    pub(super) async fn confirm(
        &self,
        route: &Arc<Route>,
        asked: Asked<'_>,
        before: &[Charge],
        claimed: &Claimed,
    ) -> Result<Permit, Refused> {
        if claimed.session.is_none() {
            return self
                .confirm_without_session(route, asked, before, claimed)
                .await;
        }
        let idle = self.live.sessions.idle_timeout;
        let seen = self.remembered(claimed);
        // A session's user never changes, so one that was seen before is known beforehand.
        let user = match &claimed.token {
            Some(claims) => Some(claims.user.as_str()),
            None => seen.0.as_ref().map(|session| session.user.as_str()),
        };
        let after = user.map(|user| {
            let who = (user, claimed.session, claimed.token.as_deref());
            charges::after(route, &asked, Some(who))
        });
        let then = after.as_deref().unwrap_or_default();
        let inquiry = self.inquiry(claimed, seen.clone(), before, &route.require, then);
        let ticket = self.durable.ticket(self.store);
        let mut findings = match self.store.decide(&inquiry, idle).await {
            Ok(findings) => findings,
            Err(error) => {
                return self
                    .without_store(route, asked, before, claimed, error)
                    .await;
            }
        };
        let mut decisions = std::mem::take(&mut findings.decisions);
        self.count(&decisions);
        refuse_over_limit(&decisions).map_err(|over| over.of_session(&findings.session))?;
        let revived = self.look_again(claimed, &mut findings, asked).await;
        let revived = revived.map_err(|refused| with_decisions(refused, &decisions))?;
        let identity = match self.settle_doubts(ticket, claimed, &mut findings).await {
            Ok(()) => self.identity(claimed, &inquiry, &findings, asked),
            Err(error) => self.identity_without_store(asked, claimed, error).await,
        };
        let identity = identity
            .map_err(|refused| with_decisions(refused, &decisions).of_session(&findings.session))?;
        meets(&route.require, &identity, &decisions)?;
        if after.is_none() || revived {
            let late = self.charge_late(route, asked, claimed, &identity).await;
            let late = late.inspect_err(|_| self.give_back(before));
            let named = |refused: Refused| refused.of_session(&findings.session);
            let late = late.map_err(|refused| named(with_decisions(refused, &decisions)))?;
            decisions.extend(late);
            let over = refuse_over_limit(&decisions).inspect_err(|_| self.give_back(before));
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
    async fn charge_late(
        &self,
        route: &Arc<Route>,
        asked: Asked<'_>,
        claimed: &Claimed,
        identity: &Identity,
    ) -> Result<Vec<Decision>, Refused> {
        let who = (identity.user(), claimed.session, claimed.token.as_deref());
        let late: Vec<Charge> = charges::after(route, &asked, Some(who))
            .into_iter()
            .filter(|charge| charge.limit.binds(identity.roles()))
            .collect();
        self.charge(&late).await
    }

    /// Where sessions have a second home, asks there about one that the store has lost, or may be
    /// behind about. Tells whether the session lives only by that.
    pub(super) async fn look_again(
        &self,
        claimed: &Claimed,
        findings: &mut Findings,
        asked: Asked<'_>,
    ) -> Result<bool, Refused> {
        let (Some(durable), Some(id)) = (self.durable.on(), claimed.session) else {
            return Ok(false);
        };
        let found = std::mem::replace(&mut findings.session, Found::NotAsked);
        let was_alive = matches!(found, Found::Active(..));
        let view = self.view(id, asked, findings.now);
        let looked = durable.second_look(self.store, id, found, view).await;
        findings.session = looked.map_err(|_| unknown(StoreError::Unreachable))?;
        self.replica.remember(id, &findings.session);
        Ok(!was_alive && matches!(findings.session, Found::Active(..)))
    }

    pub(super) fn view(&self, id: SessionId, asked: Asked<'_>, now: Millis) -> View {
        View {
            idle: self.live.sessions.idle_timeout,
            now,
            last_access: self.replica.last_access(id),
            ip: asked.ip,
        }
    }

    /// A foreign token stands for itself: its own roles and scopes, and the blacklist.
    async fn confirm_without_session(
        &self,
        route: &Arc<Route>,
        asked: Asked<'_>,
        before: &[Charge],
        claimed: &Claimed,
    ) -> Result<Permit, Refused> {
        let Some(identity) = claimed.token.as_ref().map(foreign) else {
            return Err(Refusal::Internal.into());
        };
        let allowed = route.require.met_by(identity.roles(), identity.scopes());
        let after: Vec<Charge> = if allowed {
            charges::after(
                route,
                &asked,
                Some((identity.user(), None, claimed.token.as_deref())),
            )
            .into_iter()
            .filter(|charge| charge.limit.binds(identity.roles()))
            .collect()
        } else {
            Vec::new()
        };
        let inquiry = self.inquiry(claimed, (None, 0), before, &route.require, &after);
        let ticket = self.durable.ticket(self.store);
        let mut findings = match self.store.decide(&inquiry, None).await {
            Ok(findings) => findings,
            Err(error) => {
                return self
                    .without_store(route, asked, before, claimed, error)
                    .await;
            }
        };
        self.count(&findings.decisions);
        refuse_over_limit(&findings.decisions)?;
        let settled = self.settle_doubts(ticket, claimed, &mut findings).await;
        let identity = match settled {
            Ok(()) => self
                .refuse_revoked(claimed, &inquiry, &findings)
                .map(|()| identity),
            Err(error) => self.identity_without_store(asked, claimed, error).await,
        };
        let decisions = findings.decisions;
        let identity = identity.map_err(|refused| with_decisions(refused, &decisions))?;
        meets(&route.require, &identity, &decisions)?;
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
    pub(super) async fn settle_doubts(
        &self,
        ticket: Option<Ticket>,
        claimed: &Claimed,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        let Some(token) = &claimed.token else {
            return Ok(());
        };
        if self.durable.holds(self.store, ticket) {
            return Ok(());
        }
        if let Some(durable) = self.durable.on() {
            let asked = durable.refuses(&token.blacklist_key, claimed.person);
            if let Ok(refused) = Box::pin(asked).await {
                findings.blacklisted |= refused.token;
                findings.cut_off = findings.cut_off.max(refused.cut_off);
                return Ok(());
            }
        } else if claimed.person.is_none() {
            return Ok(());
        }
        Box::pin(self.ask_in_order(claimed, findings)).await
    }

    async fn ask_in_order(
        &self,
        claimed: &Claimed,
        findings: &mut Findings,
    ) -> Result<(), StoreError> {
        while self.durable.comes_to_trust(self.store).await {
            let ticket = self.durable.ticket(self.store);
            let inquiry = Inquiry {
                session: None,
                ..self.inquiry(claimed, (None, 0), &[], &ANYBODY, &[])
            };
            let again = self.store.decide(&inquiry, None).await?;
            if self.durable.holds(self.store, ticket) {
                findings.blacklisted = again.blacklisted;
                findings.cut_off = again.cut_off;
                return Ok(());
            }
        }
        Err(StoreError::Unreachable)
    }

    /// The session's record and its latest use, as they were last seen here.
    fn remembered(&self, claimed: &Claimed) -> (Option<Arc<Session>>, Millis) {
        let Some(id) = claimed.session else {
            return (None, 0);
        };
        let seen = self.replica.seen(id);
        self.metrics.looked_up("sessions", seen.0.is_some());
        seen
    }
}

/// The same refusal, with the decisions that its answer must carry.
fn with_decisions(refused: Refused, decisions: &[Decision]) -> Refused {
    Refused {
        decisions: decisions.to_vec(),
        ..refused
    }
}
