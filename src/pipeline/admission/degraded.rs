//! Admission in degraded mode: limits are charged as each of them selects, credentials verified as
//! the operator selects.

use std::sync::Arc;

use super::claim::Claim;
use super::{Admission, Identity, Permit, Rejection, charges, reject_over_limit};
use crate::limits::{Charge, Decision, OnOutage};
use crate::pipeline::facts::RequestFacts;
use crate::rejection::{Reason, Refusal};
use crate::routing::Route;
use crate::sessions::{LookupCharges, StoreError, Verdict};
use crate::telemetry::metrics::LimitOutcome;

impl Admission<'_> {
    /// Charges limits in this process, as each of them selects.
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

    /// Decides an authenticated request without the store.
    pub(super) async fn admit_degraded(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        before: &[Charge],
        claimed: &Claim,
        error: StoreError,
    ) -> Result<Permit, Rejection> {
        let identity = match error {
            // Boxed: rarely needed, and larger than its caller's future.
            StoreError::ReadOnly => Box::pin(self.identify_read_only(facts, claimed)).await,
            _ => self.identify_degraded(facts, claimed, error).await,
        };
        let mut all = before.to_vec();
        if let Ok(identity) = &identity
            && self.is_admitted(&route.require, identity)
        {
            let session = claimed.session();
            all.extend(charges::for_identity(route, facts, session, identity));
        }
        let decisions = self.charge_degraded(&all)?;
        self.count_decisions(&decisions);
        let decisions = reject_over_limit(decisions)?;
        let identity = identity.map_err(|refused| Rejection {
            decisions: decisions.clone(),
            ..refused
        })?;
        self.check_requirements(&route.require, &identity, &decisions)?;
        Ok(Permit::of(route, identity, decisions))
    }

    /// Looks the identity up in a read-only store: only its limits cannot be charged.
    async fn identify_read_only(
        &self,
        facts: &RequestFacts<'_>,
        claimed: &Claim,
    ) -> Result<Identity, Rejection> {
        let check = self.credential_check(claimed, facts);
        let last_seen = self.sessions.last_seen(&claimed.credential);
        let charges = LookupCharges::none();
        let unknown = match self.sessions.look_up(check, last_seen, charges).await {
            Ok(found) => match found.verdict {
                Verdict::Unconfirmed(error) => error,
                verdict => return self.identity_of(claimed, verdict, facts, found.confirmed_at),
            },
            Err(error) => error,
        };
        self.identify_degraded(facts, claimed, unknown).await
    }

    pub(super) async fn identify_degraded(
        &self,
        facts: &RequestFacts<'_>,
        claimed: &Claim,
        error: StoreError,
    ) -> Result<Identity, Rejection> {
        let check = self.credential_check(claimed, facts);
        let verdict = self.sessions.look_up_degraded(check, error).await;
        self.identity_of(claimed, verdict, facts, facts.now)
    }
}
