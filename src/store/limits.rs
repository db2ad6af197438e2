//! What the store is asked on a request's path: the one decision, and charges on their own.

use std::time::Duration;

use super::{Engine, Query, QueryResult, Store, StoreError};
use crate::limits::{Charge, Decision};
use crate::routing::Requirements;
use crate::telemetry::metrics::StoreOperation;

impl Store {
    /// Answers everything that a request needs to know, in at most one round trip and one atomic
    /// step; what this gateway is sure of is not asked. Nothing is spent when a limit refuses. The
    /// limits before are spent when the session, the blacklist or the requirements end the request;
    /// those after are then not looked at.
    pub async fn decide(
        &self,
        inquiry: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<QueryResult, StoreError> {
        let replica = &self.shared.near_cache;
        let now = self.clock();
        let sure = replica.look_up(inquiry, idle, now);
        if sure.needs_refresh {
            self.refresh_ahead(inquiry, idle);
        }
        let after = sure.charges_after_auth(inquiry);
        let rest = sure.remaining_query(inquiry, &after);
        let mut findings = if rest.is_empty() {
            QueryResult::empty(now)
        } else if let Some(decisions) = self.cached_refusal(&rest) {
            QueryResult {
                decisions,
                ..QueryResult::empty(now)
            }
        } else if let Some(decided) = self.decide_by_leases(&rest).await {
            decided?
        } else {
            let asking = replica.stamp_query(&rest);
            let asked_at = self.shared.leases.steady_now();
            let asked = self.measured(StoreOperation::Decide, async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.decide(&rest, idle)),
                    Engine::Redis(redis) => redis.decide(&rest, idle).await,
                }
            });
            let findings = asked.await?;
            self.observe_revocation_lag(&rest, &findings);
            replica.cache_result(&asking, &rest, &findings);
            self.record_decisions(&rest, &findings, asked_at);
            findings
        };
        sure.merge_into(&mut findings);
        if inquiry.cut_off_user.is_some() {
            findings.cut_off = replica.effective_cut_off(findings.cut_off);
        }
        Ok(findings)
    }

    /// What the store said a moment ago and would say again: that a limit refuses. Those with identity
    /// are looked at where the identity is known, as there.
    fn cached_refusal(&self, inquiry: &Query<'_>) -> Option<Vec<Decision>> {
        let steady = self.shared.leases.steady_now();
        let local = &self.shared.local_limits;
        let before = inquiry.charges_before_auth.iter();
        local.cached_refusal(before.clone(), steady).or_else(|| {
            let all = before.chain(inquiry.charges_after_auth);
            (!inquiry.has_identity()).then(|| local.cached_refusal(all, steady))?
        })
    }

    /// Observes how long after its end this gateway knew of the end of a session.
    pub(super) fn observe_revocation_lag(&self, inquiry: &Query<'_>, findings: &QueryResult) {
        let lag = inquiry.session.and_then(|id| {
            self.shared
                .near_cache
                .revocation_lag(id, &findings.session, findings.now)
        });
        if let Some(lag) = lag {
            self.shared.metrics.observe_revocation_lag(lag);
        }
    }

    /// Spends one request from each of these limits, or from none if one refuses.
    pub async fn charge(&self, charges: &[Charge]) -> Result<Vec<Decision>, StoreError> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let asked_at = self.shared.leases.steady_now();
        if let Some(refused) = self
            .shared
            .local_limits
            .cached_refusal(charges.iter(), asked_at)
        {
            return Ok(refused);
        }
        if let Some(decided) = self.charge_leased(charges, &[]).await {
            return decided;
        }
        self.measured(StoreOperation::Charge, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.charge(charges)),
                Engine::Redis(redis) => {
                    let anything = Requirements::default();
                    let inquiry = Query {
                        charges_before_auth: charges,
                        ..Query::empty(&anything)
                    };
                    let findings = redis.decide(&inquiry, None).await?;
                    self.record_decisions(&inquiry, &findings, asked_at);
                    Ok(findings.decisions)
                }
            }
        })
        .await
    }

    /// Does as [`Store::charge`] with counters that only this process knows, of which each gateway has
    /// its share. It cannot fail, and marks what it decides as degraded.
    pub fn charge_locally(&self, charges: &[Charge]) -> Vec<Decision> {
        let (gateways, now) = (self.gateway_count(), self.clock() * 1000);
        self.shared.local_limits.charge(charges, gateways, now)
    }

    /// Gives back what was spent from these limits a moment ago.
    pub async fn refund(&self, charges: &[Charge]) -> Result<(), StoreError> {
        self.measured(StoreOperation::Refund, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.refund(charges);
                    Ok(())
                }
                Engine::Redis(redis) => redis.refund(charges).await,
            }
        })
        .await
    }

    /// Looks at a counter and spends nothing.
    pub async fn peek_limit(&self, charge: &Charge) -> Result<Decision, StoreError> {
        self.measured(StoreOperation::PeekLimit, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.peek(charge)),
                Engine::Redis(redis) => redis.peek(charge).await,
            }
        })
        .await
    }

    /// Looks at a counter that only this process knows.
    pub fn peek_locally(&self, charge: &Charge) -> Decision {
        let (gateways, now) = (self.gateway_count(), self.clock() * 1000);
        self.shared.local_limits.peek(charge, gateways, now)
    }

    /// Makes a counter whole again; tells whether there was anything to forget.
    pub async fn reset_limit(&self, charge: &Charge) -> Result<bool, StoreError> {
        self.shared.local_limits.remove(&charge.counter);
        self.shared.leases.reset(charge);
        self.measured(StoreOperation::ResetLimit, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.reset(charge)),
                Engine::Redis(redis) => redis.reset(charge).await,
            }
        })
        .await
    }
}
