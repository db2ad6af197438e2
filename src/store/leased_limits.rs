//! Decisions from permits that this gateway holds; the store is asked for what is missing.

use std::sync::Arc;

use tokio::time::timeout;

use super::lease_table::LeaseOutcome;
use super::redis::{LeaseGrant, Redis};
use super::{Engine, Query, QueryResult, Store, StoreError};
use crate::limits::{Charge, Decision, LeaseRequest, Micros, UnusedUnits};
use crate::telemetry::metrics::StoreOperation;

/// How many counters are given back to at once.
const BATCH_SIZE: usize = 200;

/// How often who is refused waits for a batch that is on its way.
const MAX_RETRIES: usize = 3;

/// What a request asks of one limit, and what was said.
struct ChargeStep<'a> {
    charge: &'a Charge,
    outcome: LeaseOutcome,
}

impl ChargeStep<'_> {
    fn refuses(&self) -> bool {
        matches!(&self.outcome, LeaseOutcome::Refused(decision) if decision.refuses())
    }
}

impl Store {
    /// Decides over an inquiry about nothing but limits, of which this gateway may have permits. `None`:
    /// the store has to be asked.
    pub(super) async fn decide_by_leases(
        &self,
        inquiry: &Query<'_>,
    ) -> Option<Result<QueryResult, StoreError>> {
        if inquiry.has_identity() {
            return None;
        }
        let decided = self
            .charge_leased(inquiry.charges_before_auth, inquiry.charges_after_auth)
            .await?;
        Some(decided.map(|decisions| QueryResult {
            decisions,
            ..QueryResult::empty(self.clock())
        }))
    }

    /// Decides over limits of which this gateway may have permits. `None`: none of them is leased, or
    /// the store has to be asked about all of them.
    pub(super) async fn charge_leased(
        &self,
        before: &[Charge],
        after: &[Charge],
    ) -> Option<Result<Vec<Decision>, StoreError>> {
        let Engine::Redis(redis) = &self.engine else {
            return None;
        };
        let charges = || before.iter().chain(after);
        if !charges().any(|charge| charge.limit.leased) {
            return None;
        }
        for _ in 0..MAX_RETRIES {
            let decided = self.try_charge_leased(redis, before, after).await;
            let Some(Ok(decisions)) = &decided else {
                return decided;
            };
            let refuses = |charge: &&Charge| {
                let same = |one: &&Decision| Arc::ptr_eq(&one.limit, &charge.limit);
                charge.limit.leased && decisions.iter().find(same).is_some_and(Decision::refuses)
            };
            // What the store did not have may be in a batch that somebody else here is bringing.
            let refusing = charges().filter(refuses);
            if !self
                .shared
                .leases
                .has_units_or_pending_batch(refusing.clone())
            {
                return decided;
            }
            let come = self.shared.leases.wait_for_batches(refusing);
            if timeout(self.shared.timeout, come).await.is_err() {
                return decided;
            }
        }
        self.try_charge_leased(redis, before, after).await
    }

    /// As [`Store::charge_leased`], with what is here at this moment.
    async fn try_charge_leased(
        &self,
        redis: &Redis,
        before: &[Charge],
        after: &[Charge],
    ) -> Option<Result<Vec<Decision>, StoreError>> {
        let charges = || before.iter().chain(after);
        let now = self.shared.leases.steady_now();
        let parts: Vec<ChargeStep<'_>> = charges()
            .map(|charge| self.start_charge(charge, now))
            .collect();
        let refused = parts.iter().any(ChargeStep::refuses);
        let asks = parts
            .iter()
            .any(|part| matches!(part.outcome, LeaseOutcome::Request(_)));
        if refused && !charges().all(|charge| charge.limit.leased) {
            // The exact ones are asked in any case: then they are asked together.
            self.undo_charges(parts, now);
            return None;
        }
        if refused || !asks {
            return Some(Ok(self.settle_locally(parts, before.len(), refused, now)));
        }
        // Boxed: most are decided here, and do not carry the space that asking takes.
        let asking = self.settle_in_store(redis, parts, before.len(), now);
        Some(Box::pin(asking).await)
    }

    fn start_charge<'a>(&self, charge: &'a Charge, now: Micros) -> ChargeStep<'a> {
        let said = if charge.limit.leased {
            self.shared.leases.take(charge, self.gateway_count(), now)
        } else {
            LeaseOutcome::Request(LeaseRequest::SINGLE)
        };
        ChargeStep {
            charge,
            outcome: said,
        }
    }

    /// Decides without the store.
    fn settle_locally(
        &self,
        mut parts: Vec<ChargeStep<'_>>,
        before: usize,
        refused: bool,
        now: Micros,
    ) -> Vec<Decision> {
        if !refused {
            let decisions = parts
                .into_iter()
                .filter_map(|part| self.use_unit(part.charge, part.outcome));
            return decisions.collect();
        }
        // Where a limit without identity refuses, those with one are not looked at.
        if parts.iter().take(before).any(ChargeStep::refuses) {
            self.undo_charges(parts.drain(before..), now);
        }
        let decisions = parts.into_iter().filter_map(|part| match part.outcome {
            LeaseOutcome::Refused(decision) => Some(decision),
            said => {
                let charge = part.charge;
                self.undo_charges(
                    [ChargeStep {
                        charge,
                        outcome: said,
                    }],
                    now,
                );
                self.shared.leases.current_decision(charge, now)
            }
        });
        decisions.collect()
    }

    /// What a permit or a remembered refusal says; more permits are asked for where it is time.
    fn use_unit(&self, charge: &Charge, said: LeaseOutcome) -> Option<Decision> {
        match said {
            LeaseOutcome::Unit(_, decision, refill) => {
                if let Some(ask) = refill {
                    self.request_refill(charge, ask);
                }
                Some(decision)
            }
            LeaseOutcome::Refused(decision) => Some(decision),
            LeaseOutcome::Request(_) => None,
        }
    }

    /// Takes nothing of what was said: permits go back, questions are not asked.
    fn undo_charges<'p>(&self, parts: impl IntoIterator<Item = ChargeStep<'p>>, now: Micros) {
        let leases = &self.shared.leases;
        for ChargeStep {
            charge,
            outcome: said,
        } in parts
        {
            match said {
                LeaseOutcome::Unit(permit, _, refill) => {
                    leases.put_back_unit(charge, permit, now);
                    if let Some(ask) = refill {
                        leases.cancel(charge, ask);
                    }
                }
                LeaseOutcome::Request(ask) => leases.cancel(charge, ask),
                LeaseOutcome::Refused(_) => {}
            }
        }
    }

    /// Asks the store for what is missing.
    async fn settle_in_store(
        &self,
        redis: &Redis,
        parts: Vec<ChargeStep<'_>>,
        before: usize,
        asked: Micros,
    ) -> Result<Vec<Decision>, StoreError> {
        let wishes: Vec<(&Charge, LeaseRequest)> = parts
            .iter()
            .filter_map(|part| match part.outcome {
                LeaseOutcome::Request(ask) => Some((part.charge, ask)),
                LeaseOutcome::Unit(..) | LeaseOutcome::Refused(_) => None,
            })
            .collect();
        let outcome = self
            .measured(
                StoreOperation::Charge,
                redis.grant_units(&wishes, self.gateway_count()),
            )
            .await;
        let now = self.shared.leases.steady_now();
        let granted = match outcome {
            Ok(granted) => granted,
            Err(error) => {
                self.undo_charges(parts, now);
                return Err(error);
            }
        };
        let refused = granted.iter().any(|one| one.decision.refuses());
        let mut answers = granted.into_iter();
        let (mut decisions, mut spent) = (Vec::with_capacity(parts.len()), Vec::new());
        let mut told = None;
        for (place, step) in parts.into_iter().enumerate() {
            let charge = step.charge;
            if place == before && decisions.iter().any(Decision::refuses) {
                // Where a limit without identity refuses, nothing is told of those with one.
                told = Some(decisions.len());
            }
            let decision = match step.outcome {
                LeaseOutcome::Request(ask) => {
                    let Some(one) = answers.next() else { continue };
                    if refused && !charge.limit.leased && one.response.granted > 0 {
                        spent.push(charge.clone());
                    }
                    Some(self.apply_grant(charge, ask, &one, refused, (asked, now)))
                }
                // That of a shadow limit, which refuses nothing.
                LeaseOutcome::Refused(decision) => Some(decision),
                outcome if refused => {
                    self.undo_charges([ChargeStep { charge, outcome }], now);
                    self.shared.leases.current_decision(charge, now)
                }
                outcome => self.use_unit(charge, outcome),
            };
            decisions.extend(decision);
        }
        // Only where they lie apart: what a request that is refused has spent of exact limits.
        redis.refund_in_background(spent).await;
        decisions.truncate(told.unwrap_or(usize::MAX));
        Ok(decisions)
    }

    /// Takes in what the store says to one wish; gives how the limit stands for the request.
    fn apply_grant(
        &self,
        charge: &Charge,
        ask: LeaseRequest,
        one: &LeaseGrant,
        refused: bool,
        when: (Micros, Micros),
    ) -> Decision {
        let LeaseGrant {
            now,
            decision,
            response: answer,
        } = one;
        self.shared
            .local_limits
            .record_decision(charge, decision, *now, when.0);
        let mut decision = decision.clone();
        let used = u64::from(!refused).min(answer.granted);
        decision.remaining = if charge.limit.leased {
            let said = (ask, *answer, used);
            let leases = &self.shared.leases;
            leases.apply_grant(charge, self.gateway_count(), said, when)
        } else {
            answer.remaining + answer.granted.saturating_sub(used)
        };
        decision
    }

    /// Asks for more in the background. Whoever comes while somebody is on the way goes along.
    fn request_refill(&self, charge: &Charge, ask: LeaseRequest) {
        if self.shared.leases.queue_refill(charge, ask) {
            let store = self.clone();
            tokio::spawn(async move { store.fetch_refills().await });
        }
    }

    async fn fetch_refills(&self) {
        let (Engine::Redis(redis), leases) = (&self.engine, &self.shared.leases) else {
            return;
        };
        let wanted = leases.take_refills();
        let wishes: Vec<(&Charge, LeaseRequest)> =
            wanted.iter().map(|(it, ask)| (it, *ask)).collect();
        let asked = leases.steady_now();
        let asking = redis.grant_units_each(&wishes, self.gateway_count());
        match self.measured(StoreOperation::Charge, asking).await {
            Ok(granted) => {
                let now = leases.steady_now();
                for ((charge, ask), one) in wanted.iter().zip(granted) {
                    self.apply_grant(charge, *ask, &one, true, (asked, now));
                }
            }
            // Those who need them ask themselves, or do as in any outage.
            Err(_) => wishes
                .iter()
                .for_each(|(charge, ask)| leases.cancel(charge, *ask)),
        }
    }

    /// Gives back permits whose time is over.
    pub(super) async fn return_expired_units(&self) {
        let leases = &self.shared.leases;
        self.return_units(leases.sweep(leases.steady_now())).await;
    }

    /// Gives back all permits that this gateway has.
    pub async fn return_all_units(&self) {
        self.return_units(self.shared.leases.retire()).await;
    }

    /// It is tried once: given back twice, more would be admitted than allowed. What is not given back
    /// leaves with its window.
    async fn return_units(&self, unused: Vec<(Charge, UnusedUnits)>) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        for some in unused.chunks(BATCH_SIZE) {
            // A failure is one of the store, which is counted there.
            let _ = self
                .measured(StoreOperation::Refund, redis.return_units(some))
                .await;
        }
    }

    /// Takes note of how counters stand, as the store says: for the time when it cannot, and for leased
    /// limits that were asked like any other. Limits that were not evaluated are among those asked.
    pub(super) fn record_decisions(
        &self,
        inquiry: &Query<'_>,
        findings: &QueryResult,
        asked: Micros,
    ) {
        if let Engine::Memory(_) = self.engine {
            return;
        }
        let mut charges = inquiry
            .charges_before_auth
            .iter()
            .chain(inquiry.charges_after_auth);
        for decision in &findings.decisions {
            let same = |charge: &&Charge| Arc::ptr_eq(&charge.limit, &decision.limit);
            let Some(charge) = charges.find(same) else {
                return;
            };
            let now = findings.now * 1000;
            self.shared
                .local_limits
                .record_decision(charge, decision, now, asked);
            if charge.limit.leased {
                self.shared.leases.apply_report(charge, decision, now);
            }
        }
    }
}
