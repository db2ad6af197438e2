//! Leased limits: decisions by units that this gateway holds; missing units are requested.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::timeout;

use super::lease_table::LeaseOutcome;
use super::redis::{LeaseGrant, Redis};
use super::{Engine, Query, QueryResult, Store, StoreError};
use crate::auth::session::Millis;
use crate::limits::{Charge, Decision, LeaseRequest, Micros, UnusedUnits};
use crate::telemetry::metrics::StoreOperation;

/// Number of counters that are refunded at once.
const BATCH_SIZE: usize = 200;

/// Number of times that a refused request waits for pending batches.
const MAX_RETRIES: usize = 3;

/// A charge of a request, with its outcome so far.
struct ChargeStep<'a> {
    charge: &'a Charge,
    outcome: LeaseOutcome,
}

/// The charges of most requests fit without an allocation.
type ChargeSteps<'a> = SmallVec<[ChargeStep<'a>; 2]>;

impl<'a> ChargeStep<'a> {
    /// The units to request from the store for this charge.
    fn request(&self) -> Option<(&'a Charge, LeaseRequest)> {
        match self.outcome {
            LeaseOutcome::Request(request) => Some((self.charge, request)),
            LeaseOutcome::Unit(..) | LeaseOutcome::Refused(_) => None,
        }
    }

    fn refuses(&self) -> bool {
        matches!(&self.outcome, LeaseOutcome::Refused(decision) if decision.refuses())
    }
}

impl Store {
    /// Decides a query of nothing but limits by leases; `None`: it has to be sent to the store.
    pub(super) async fn decide_by_leases(
        &self,
        query: &Query<'_>,
        now: Millis,
        steady: Micros,
    ) -> Option<Result<QueryResult, StoreError>> {
        if query.has_identity() {
            return None;
        }
        let outcome = self
            .charge_leased(query.charges_before_auth, query.charges_after_auth, steady)
            .await?;
        Some(outcome.map(|decisions| QueryResult {
            decisions,
            ..QueryResult::empty(now)
        }))
    }

    /// Decides charges by leases; `None`: no limit is leased, or the store has to decide all of them.
    /// `now` is by this gateway's monotonic clock.
    pub(super) async fn charge_leased(
        &self,
        before: &[Charge],
        after: &[Charge],
        mut now: Micros,
    ) -> Option<Result<Vec<Decision>, StoreError>> {
        let Engine::Redis(redis) = &self.engine else {
            return None;
        };
        let charges = || before.iter().chain(after);
        if !charges().any(|charge| charge.limit.leased) {
            return None;
        }
        for _ in 0..MAX_RETRIES {
            let outcome = self.try_charge_leased(redis, before, after, now).await;
            let Some(Ok(decisions)) = &outcome else {
                return outcome;
            };
            if !decisions.iter().any(Decision::refuses) {
                return outcome;
            }
            let is_refused = |charge: &&Charge| {
                let is_its = |decision: &&Decision| Arc::ptr_eq(&decision.limit, &charge.limit);
                charge.limit.leased && decisions.iter().find(is_its).is_some_and(Decision::refuses)
            };
            // Units that the store no longer had may be in another request's pending batch.
            let refused = charges().filter(is_refused);
            let leases = &self.shared.leases;
            if !leases.has_units_or_pending_batch(refused.clone(), now) {
                return outcome;
            }
            let batches = leases.wait_for_batches(refused);
            if timeout(self.shared.timeout, batches).await.is_err() {
                return outcome;
            }
            now = leases.steady_now();
        }
        self.try_charge_leased(redis, before, after, now).await
    }

    /// As [`Store::charge_leased`], without waiting for pending batches.
    async fn try_charge_leased(
        &self,
        redis: &Redis,
        before: &[Charge],
        after: &[Charge],
        now: Micros,
    ) -> Option<Result<Vec<Decision>, StoreError>> {
        let charges = || before.iter().chain(after);
        let steps: ChargeSteps<'_> = charges()
            .map(|charge| self.start_charge(charge, now))
            .collect();
        let refused = steps.iter().any(ChargeStep::refuses);
        let needs_store = steps
            .iter()
            .any(|step| matches!(step.outcome, LeaseOutcome::Request(_)));
        if refused && !charges().all(|charge| charge.limit.leased) {
            // Exact limits need the store in any case: one query decides all of them.
            self.undo_charges(steps, now);
            return None;
        }
        if refused || !needs_store {
            return Some(Ok(self.settle_locally(steps, before.len(), refused, now)));
        }
        // Boxed: most requests are decided locally and do not need this future's space.
        let settled = self.settle_in_store(redis, steps, before.len(), now);
        Some(Box::pin(settled).await)
    }

    fn start_charge<'a>(&self, charge: &'a Charge, now: Micros) -> ChargeStep<'a> {
        let outcome = if charge.limit.leased {
            self.shared.leases.take(charge, self.gateway_count(), now)
        } else {
            LeaseOutcome::Request(LeaseRequest::SINGLE)
        };
        ChargeStep { charge, outcome }
    }

    /// Decides without the store; `before` is the number of charges before authentication.
    fn settle_locally(
        &self,
        mut steps: ChargeSteps<'_>,
        before: usize,
        refused: bool,
        now: Micros,
    ) -> Vec<Decision> {
        if !refused {
            let mut decisions = Vec::with_capacity(steps.len());
            let used = steps
                .into_iter()
                .filter_map(|step| self.use_unit(step.charge, step.outcome));
            decisions.extend(used);
            return decisions;
        }
        // If a charge before authentication is refused, those after it are not evaluated.
        if steps.iter().take(before).any(ChargeStep::refuses) {
            self.undo_charges(steps.drain(before..), now);
        }
        let mut decisions = Vec::with_capacity(steps.len());
        let evaluated = steps.into_iter().filter_map(|step| match step.outcome {
            LeaseOutcome::Refused(decision) => Some(decision),
            outcome => {
                let charge = step.charge;
                self.undo_charges([ChargeStep { charge, outcome }], now);
                self.shared.leases.current_decision(charge, now)
            }
        });
        decisions.extend(evaluated);
        decisions
    }

    /// Uses a unit or a cached refusal, and requests a refill if it is due.
    fn use_unit(&self, charge: &Charge, outcome: LeaseOutcome) -> Option<Decision> {
        match outcome {
            LeaseOutcome::Unit(_, decision, refill) => {
                if let Some(request) = refill {
                    self.request_refill(charge, request);
                }
                Some(decision)
            }
            LeaseOutcome::Refused(decision) => Some(decision),
            LeaseOutcome::Request(_) => None,
        }
    }

    /// Returns the units of these charges and cancels their requests.
    fn undo_charges<'p>(&self, steps: impl IntoIterator<Item = ChargeStep<'p>>, now: Micros) {
        let leases = &self.shared.leases;
        for ChargeStep { charge, outcome } in steps {
            match outcome {
                LeaseOutcome::Unit(unit, _, refill) => {
                    leases.put_back_unit(charge, unit, now);
                    if let Some(request) = refill {
                        leases.cancel(charge, request);
                    }
                }
                LeaseOutcome::Request(request) => leases.cancel(charge, request),
                LeaseOutcome::Refused(_) => {}
            }
        }
    }

    /// Requests the missing units from the store, and decides.
    async fn settle_in_store(
        &self,
        redis: &Redis,
        steps: ChargeSteps<'_>,
        before: usize,
        requested_at: Micros,
    ) -> Result<Vec<Decision>, StoreError> {
        let requests: Vec<_> = steps.iter().filter_map(ChargeStep::request).collect();
        let granting = redis.grant_units(&requests, self.gateway_count());
        let outcome = self.measured(StoreOperation::Charge, granting).await;
        let now = self.shared.leases.steady_now();
        let grants = match outcome {
            Ok(grants) => grants,
            Err(error) => {
                self.undo_charges(steps, now);
                return Err(error);
            }
        };
        let refused = grants.iter().any(|grant| grant.decision.refuses());
        let mut grants = grants.into_iter();
        let mut decisions = Vec::with_capacity(steps.len());
        let (mut spent, mut evaluated) = (Vec::new(), None);
        for (index, step) in steps.into_iter().enumerate() {
            let charge = step.charge;
            if index == before && decisions.iter().any(Decision::refuses) {
                // If a charge before authentication is refused, those after it are not reported.
                evaluated = Some(decisions.len());
            }
            let decision = match step.outcome {
                LeaseOutcome::Request(request) => {
                    let Some(grant) = grants.next() else { continue };
                    if refused && !charge.limit.leased && grant.response.granted > 0 {
                        spent.push(charge.clone());
                    }
                    Some(self.apply_grant(charge, request, &grant, refused, (requested_at, now)))
                }
                // A shadow limit, which rejects no request.
                LeaseOutcome::Refused(decision) => Some(decision),
                outcome if refused => {
                    self.undo_charges([ChargeStep { charge, outcome }], now);
                    self.shared.leases.current_decision(charge, now)
                }
                outcome => self.use_unit(charge, outcome),
            };
            decisions.extend(decision);
        }
        // In a cluster, a refused request may have spent from exact limits on other servers.
        redis.refund_in_background(spent).await;
        decisions.truncate(evaluated.unwrap_or(usize::MAX));
        Ok(decisions)
    }

    /// Applies the store's grant for one charge; returns the decision for the request.
    fn apply_grant(
        &self,
        charge: &Charge,
        request: LeaseRequest,
        grant: &LeaseGrant,
        refused: bool,
        times: (Micros, Micros),
    ) -> Decision {
        let LeaseGrant {
            now,
            decision,
            response,
        } = grant;
        self.shared
            .local_limits
            .record_decision(charge, decision, *now, times.0);
        let mut decision = decision.clone();
        let used = u64::from(!refused).min(response.granted);
        decision.remaining = if charge.limit.leased {
            let reply = (request, *response, used);
            let leases = &self.shared.leases;
            leases.apply_grant(charge, self.gateway_count(), reply, times)
        } else {
            response.remaining + response.granted.saturating_sub(used)
        };
        decision
    }

    /// Requests a refill in the background; refills queued meanwhile share the round trip.
    fn request_refill(&self, charge: &Charge, request: LeaseRequest) {
        if self.shared.leases.queue_refill(charge, request) {
            let store = self.clone();
            tokio::spawn(async move { store.fetch_refills().await });
        }
    }

    async fn fetch_refills(&self) {
        let (Engine::Redis(redis), leases) = (&self.engine, &self.shared.leases) else {
            return;
        };
        let refills = leases.take_refills();
        let requests: Vec<(&Charge, LeaseRequest)> = refills
            .iter()
            .map(|(charge, request)| (charge, *request))
            .collect();
        let requested_at = leases.steady_now();
        let reply = redis.grant_units_each(&requests, self.gateway_count());
        match self.measured(StoreOperation::Charge, reply).await {
            Ok(grants) => {
                let now = leases.steady_now();
                for ((charge, request), grant) in refills.iter().zip(grants) {
                    self.apply_grant(charge, *request, &grant, true, (requested_at, now));
                }
            }
            // Requests that need units send their own requests, or handle the outage.
            Err(_) => requests
                .iter()
                .for_each(|(charge, request)| leases.cancel(charge, *request)),
        }
    }

    /// Refunds expired units.
    pub(super) async fn return_expired_units(&self) {
        let leases = &self.shared.leases;
        self.return_units(leases.sweep(leases.steady_now())).await;
    }

    /// Refunds all units of this gateway.
    pub async fn return_all_units(&self) {
        self.return_units(self.shared.leases.retire()).await;
    }

    /// Refunds units, with a single attempt: a repeated refund would admit more than the limit.
    ///
    /// Units that are not refunded expire with their window.
    async fn return_units(&self, unused: Vec<(Charge, UnusedUnits)>) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        for batch in unused.chunks(BATCH_SIZE) {
            // Failures are counted by `measured`.
            let _ = self
                .measured(StoreOperation::Refund, redis.return_units(batch))
                .await;
        }
    }

    /// Caches the counters' states from a query's result, for outages and for leased limits.
    ///
    /// Charges that the store did not evaluate have no decision.
    pub(super) fn record_decisions(
        &self,
        query: &Query<'_>,
        result: &QueryResult,
        requested_at: Micros,
    ) {
        if let Engine::Memory(_) = self.engine {
            return;
        }
        let mut charges = query
            .charges_before_auth
            .iter()
            .chain(query.charges_after_auth);
        for decision in &result.decisions {
            let is_its_charge = |charge: &&Charge| Arc::ptr_eq(&charge.limit, &decision.limit);
            let Some(charge) = charges.find(is_its_charge) else {
                return;
            };
            let now = result.now * 1000;
            self.shared
                .local_limits
                .record_decision(charge, decision, now, requested_at);
            if charge.limit.leased {
                self.shared.leases.apply_report(charge, decision, now);
            }
        }
    }
}
