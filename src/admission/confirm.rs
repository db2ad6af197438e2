//! What a credential is worth once the store has been asked.

use std::sync::Arc;

use super::claim::Claimed;
use super::identity::foreign;
use super::{
    Admission, Asked, Identity, Permit, Refused, charges, meets, refuse_over_limit, unknown,
};
use crate::durable::View;
use crate::limits::{Charge, Decision};
use crate::refusal::Refusal;
use crate::routing::Route;
use crate::session::{Millis, Session, SessionId};
use crate::store::{Findings, Found, StoreError};

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
        let known = self.remembered(claimed);
        // A session's user never changes, so one that was seen before is known beforehand.
        let user = match &claimed.token {
            Some(claims) => Some(claims.user.as_str()),
            None => known.as_ref().map(|session| session.user.as_str()),
        };
        let after = user.map(|user| {
            charges::after(
                route,
                &asked,
                Some((user, claimed.session, claimed.token.as_deref())),
            )
        });
        let then = after.as_deref().unwrap_or_default();
        let inquiry = self.inquiry(claimed, known.clone(), before, &route.require, then);
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
        refuse_over_limit(&decisions)?;
        let revived = self.look_again(claimed, &mut findings, asked).await;
        let revived = revived.map_err(|refused| with_decisions(refused, &decisions))?;
        let identity = self
            .identity(claimed, &inquiry, &findings, asked)
            .map_err(|refused| with_decisions(refused, &decisions))?;
        meets(&route.require, &identity, &decisions)?;
        if after.is_none() || revived {
            let late = self.charge_late(route, asked, claimed, &identity).await;
            let late = late.inspect_err(|_| self.give_back(before));
            decisions.extend(late.map_err(|refused| with_decisions(refused, &decisions))?);
            refuse_over_limit(&decisions).inspect_err(|_| self.give_back(before))?;
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
        let who = (
            identity.user.as_str(),
            claimed.session,
            claimed.token.as_deref(),
        );
        let late: Vec<Charge> = charges::after(route, &asked, Some(who))
            .into_iter()
            .filter(|charge| charge.limit.binds(&identity.roles))
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
        let allowed = route.require.met_by(&identity.roles, &identity.scopes);
        let after: Vec<Charge> = if allowed {
            charges::after(
                route,
                &asked,
                Some((&identity.user, None, claimed.token.as_deref())),
            )
            .into_iter()
            .filter(|charge| charge.limit.binds(&identity.roles))
            .collect()
        } else {
            Vec::new()
        };
        let inquiry = self.inquiry(claimed, None, before, &route.require, &after);
        let findings = match self.store.decide(&inquiry, None).await {
            Ok(findings) => findings,
            Err(error) => {
                return self
                    .without_store(route, asked, before, claimed, error)
                    .await;
            }
        };
        self.count(&findings.decisions);
        refuse_over_limit(&findings.decisions)?;
        let revoked = self.refuse_revoked(claimed, &inquiry, &findings);
        let decisions = findings.decisions;
        if let Err(refused) = revoked {
            return Err(Refused {
                decisions,
                ..refused
            });
        }
        meets(&route.require, &identity, &decisions)?;
        Ok(Permit {
            route: Arc::clone(route),
            identity: Some(identity),
            decisions,
            clear_cookie: false,
        })
    }

    /// The session's record as it was last seen here.
    fn remembered(&self, claimed: &Claimed) -> Option<Arc<Session>> {
        let known = self.replica.session(claimed.session?);
        let outcome = if known.is_some() { "hit" } else { "miss" };
        let counter = self.metrics.cache.with_label_values(&["sessions", outcome]);
        counter.inc();
        known
    }
}

/// The same refusal, with the decisions that its answer must carry.
fn with_decisions(refused: Refused, decisions: &[Decision]) -> Refused {
    Refused {
        decisions: decisions.to_vec(),
        ..refused
    }
}
