//! Decisions from permits that this gateway holds; the store is asked for what is missing.

use std::sync::Arc;

use tokio::time::timeout;

use super::leases::Said;
use super::redis::{Granted, Redis};
use super::{Engine, Findings, Inquiry, Store, StoreError};
use crate::limits::{Ask, Charge, Decision, Micros, Unused};

/// How many counters are given back to at once.
const TOGETHER: usize = 200;

/// How often who is refused waits for a batch that is on its way.
const AGAIN: usize = 3;

/// What a request asks of one limit, and what was said.
struct Part<'a> {
    charge: &'a Charge,
    said: Said,
}

impl Part<'_> {
    fn refuses(&self) -> bool {
        matches!(&self.said, Said::Refused(decision) if decision.refuses())
    }
}

impl Store {
    /// Decides over an inquiry about nothing but limits, of which this gateway may have permits. `None`:
    /// the store has to be asked.
    pub(super) async fn decide_here(
        &self,
        inquiry: &Inquiry<'_>,
    ) -> Option<Result<Findings, StoreError>> {
        if inquiry.asks_of_identity() {
            return None;
        }
        let decided = self
            .decide_by_permits(inquiry.before, inquiry.after)
            .await?;
        Some(decided.map(|decisions| Findings {
            decisions,
            ..Findings::without_asking(self.clock())
        }))
    }

    /// Decides over limits of which this gateway may have permits. `None`: none of them is leased, or
    /// the store has to be asked about all of them.
    pub(super) async fn decide_by_permits(
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
        for _ in 0..AGAIN {
            let decided = self.decide_now(redis, before, after).await;
            let Some(Ok(decisions)) = &decided else {
                return decided;
            };
            let refuses = |charge: &&Charge| {
                let same = |one: &&Decision| Arc::ptr_eq(&one.limit, &charge.limit);
                charge.limit.leased && decisions.iter().find(same).is_some_and(Decision::refuses)
            };
            // What the store did not have may be in a batch that somebody else here is bringing.
            let refusing = charges().filter(refuses);
            if !self.shared.leases.may_have(refusing.clone()) {
                return decided;
            }
            let come = self.shared.leases.have_come(refusing);
            if timeout(self.shared.timeout, come).await.is_err() {
                return decided;
            }
        }
        self.decide_now(redis, before, after).await
    }

    /// As [`Store::decide_by_permits`], with what is here at this moment.
    async fn decide_now(
        &self,
        redis: &Redis,
        before: &[Charge],
        after: &[Charge],
    ) -> Option<Result<Vec<Decision>, StoreError>> {
        let charges = || before.iter().chain(after);
        let now = self.shared.leases.now();
        let parts: Vec<Part<'_>> = charges().map(|charge| self.part(charge, now)).collect();
        let refused = parts.iter().any(Part::refuses);
        let asks = parts.iter().any(|part| matches!(part.said, Said::Ask(_)));
        if refused && !charges().all(|charge| charge.limit.leased) {
            // The exact ones are asked in any case: then they are asked together.
            self.unspend(parts, now);
            return None;
        }
        if refused || !asks {
            return Some(Ok(self.settle_here(parts, before.len(), refused, now)));
        }
        // Boxed: most are decided here, and do not carry the space that asking takes.
        let asking = self.settle_there(redis, parts, before.len(), now);
        Some(Box::pin(asking).await)
    }

    fn part<'a>(&self, charge: &'a Charge, now: Micros) -> Part<'a> {
        let said = if charge.limit.leased {
            self.shared.leases.take(charge, self.gateways(), now)
        } else {
            Said::Ask(Ask::EXACT)
        };
        Part { charge, said }
    }

    /// Decides without the store.
    fn settle_here(
        &self,
        mut parts: Vec<Part<'_>>,
        before: usize,
        refused: bool,
        now: Micros,
    ) -> Vec<Decision> {
        if !refused {
            let decisions = parts
                .into_iter()
                .filter_map(|part| self.used(part.charge, part.said));
            return decisions.collect();
        }
        // Where a limit without identity refuses, those with one are not looked at.
        if parts.iter().take(before).any(Part::refuses) {
            self.unspend(parts.drain(before..), now);
        }
        let decisions = parts.into_iter().filter_map(|part| match part.said {
            Said::Refused(decision) => Some(decision),
            said => {
                let charge = part.charge;
                self.unspend([Part { charge, said }], now);
                self.shared.leases.standing(charge, now)
            }
        });
        decisions.collect()
    }

    /// What a permit or a remembered refusal says; more permits are asked for where it is time.
    fn used(&self, charge: &Charge, said: Said) -> Option<Decision> {
        match said {
            Said::Permit(_, decision, refill) => {
                if let Some(ask) = refill {
                    self.refill(charge, ask);
                }
                Some(decision)
            }
            Said::Refused(decision) => Some(decision),
            Said::Ask(_) => None,
        }
    }

    /// Takes nothing of what was said: permits go back, questions are not asked.
    fn unspend<'p>(&self, parts: impl IntoIterator<Item = Part<'p>>, now: Micros) {
        let leases = &self.shared.leases;
        for Part { charge, said } in parts {
            match said {
                Said::Permit(permit, _, refill) => {
                    leases.put_back(charge, permit, now);
                    if let Some(ask) = refill {
                        leases.withdrawn(charge, ask);
                    }
                }
                Said::Ask(ask) => leases.withdrawn(charge, ask),
                Said::Refused(_) => {}
            }
        }
    }

    /// Asks the store for what is missing.
    async fn settle_there(
        &self,
        redis: &Redis,
        parts: Vec<Part<'_>>,
        before: usize,
        asked: Micros,
    ) -> Result<Vec<Decision>, StoreError> {
        let wishes: Vec<(&Charge, Ask)> = parts
            .iter()
            .filter_map(|part| match part.said {
                Said::Ask(ask) => Some((part.charge, ask)),
                Said::Permit(..) | Said::Refused(_) => None,
            })
            .collect();
        let outcome = self
            .measured("charge", redis.grant(&wishes, self.gateways()))
            .await;
        let now = self.shared.leases.now();
        let granted = match outcome {
            Ok(granted) => granted,
            Err(error) => {
                self.unspend(parts, now);
                return Err(error);
            }
        };
        let refused = granted.iter().any(|one| one.decision.refuses());
        let mut answers = granted.into_iter();
        let (mut decisions, mut spent) = (Vec::with_capacity(parts.len()), Vec::new());
        let mut told = None;
        for (place, Part { charge, said }) in parts.into_iter().enumerate() {
            if place == before && decisions.iter().any(Decision::refuses) {
                // Where a limit without identity refuses, nothing is told of those with one.
                told = Some(decisions.len());
            }
            let decision = match said {
                Said::Ask(ask) => {
                    let Some(one) = answers.next() else { continue };
                    if refused && !charge.limit.leased && one.answer.granted > 0 {
                        spent.push(charge.clone());
                    }
                    Some(self.granted(charge, ask, &one, refused, (asked, now)))
                }
                // That of a shadow limit, which refuses nothing.
                Said::Refused(decision) => Some(decision),
                said if refused => {
                    self.unspend([Part { charge, said }], now);
                    self.shared.leases.standing(charge, now)
                }
                said => self.used(charge, said),
            };
            decisions.extend(decision);
        }
        // Only where they lie apart: what a request that is refused has spent of exact limits.
        redis.refund_aside(spent).await;
        decisions.truncate(told.unwrap_or(usize::MAX));
        Ok(decisions)
    }

    /// Takes in what the store says to one wish; gives how the limit stands for the request.
    fn granted(
        &self,
        charge: &Charge,
        ask: Ask,
        one: &Granted,
        refused: bool,
        when: (Micros, Micros),
    ) -> Decision {
        let Granted {
            now,
            decision,
            answer,
        } = one;
        self.shared.local.note(charge, decision, *now, when.0);
        let mut decision = decision.clone();
        let used = u64::from(!refused).min(answer.granted);
        decision.remaining = if charge.limit.leased {
            let said = (ask, *answer, used);
            let leases = &self.shared.leases;
            leases.granted(charge, self.gateways(), said, when)
        } else {
            answer.left + answer.granted.saturating_sub(used)
        };
        decision
    }

    /// Asks for more in the background. Whoever comes while somebody is on the way goes along.
    fn refill(&self, charge: &Charge, ask: Ask) {
        if self.shared.leases.want(charge, ask) {
            let store = self.clone();
            tokio::spawn(async move { store.ask_for_more().await });
        }
    }

    async fn ask_for_more(&self) {
        let (Engine::Redis(redis), leases) = (&self.engine, &self.shared.leases) else {
            return;
        };
        let wanted = leases.wanted();
        let wishes: Vec<(&Charge, Ask)> = wanted.iter().map(|(it, ask)| (it, *ask)).collect();
        let asked = leases.now();
        let asking = redis.grant_each(&wishes, self.gateways());
        match self.measured("charge", asking).await {
            Ok(granted) => {
                let now = leases.now();
                for ((charge, ask), one) in wanted.iter().zip(granted) {
                    self.granted(charge, *ask, &one, true, (asked, now));
                }
            }
            // Those who need them ask themselves, or do as in any outage.
            Err(_) => wishes
                .iter()
                .for_each(|(charge, ask)| leases.withdrawn(charge, *ask)),
        }
    }

    /// Gives back permits whose time is over.
    pub(super) async fn give_back_expired(&self) {
        let leases = &self.shared.leases;
        self.give_back(leases.sweep(leases.now())).await;
    }

    /// Gives back all permits that this gateway has.
    pub async fn give_back_permits(&self) {
        self.give_back(self.shared.leases.retire()).await;
    }

    /// It is tried once: given back twice, more would be admitted than allowed. What is not given back
    /// leaves with its window.
    async fn give_back(&self, unused: Vec<(Charge, Unused)>) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        for some in unused.chunks(TOGETHER) {
            // A failure is one of the store, which is counted there.
            let _ = self.measured("refund", redis.give_back(some)).await;
        }
    }

    /// Takes note of how counters stand, as the store says: for the time when it cannot, and for leased
    /// limits that were asked like any other. Limits that were not evaluated are among those asked.
    pub(super) fn note_limits(&self, inquiry: &Inquiry<'_>, findings: &Findings, asked: Micros) {
        if let Engine::Memory(_) = self.engine {
            return;
        }
        let mut charges = inquiry.before.iter().chain(inquiry.after);
        for decision in &findings.decisions {
            let same = |charge: &&Charge| Arc::ptr_eq(&charge.limit, &decision.limit);
            let Some(charge) = charges.find(same) else {
                return;
            };
            let now = findings.now * 1000;
            self.shared.local.note(charge, decision, now, asked);
            if charge.limit.leased {
                self.shared.leases.heard(charge, decision, now);
            }
        }
    }
}
