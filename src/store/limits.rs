//! What the store is asked on a request's path: the one decision, and charges on their own.

use std::time::Duration;

use super::{Engine, Findings, Inquiry, Store, StoreError};
use crate::limits::{Charge, Decision};
use crate::routing::Require;

impl Store {
    /// Answers everything that a request needs to know, in at most one round trip and one atomic
    /// step; what this gateway is sure of is not asked. Nothing is spent when a limit refuses. The
    /// limits before are spent when the session, the blacklist or the requirements end the request;
    /// those after are then not looked at.
    pub async fn decide(
        &self,
        inquiry: &Inquiry<'_>,
        idle: Option<Duration>,
    ) -> Result<Findings, StoreError> {
        let replica = &self.shared.replica;
        let now = self.clock();
        let sure = replica.sure(inquiry, idle, now);
        if sure.ages {
            self.renew(inquiry, idle);
        }
        let after = sure.after(inquiry);
        let rest = sure.rest(inquiry, &after);
        let mut findings = if rest.asks_nothing() {
            Findings::without_asking(now)
        } else if let Some(decisions) = self.refused_here(&rest) {
            Findings {
                decisions,
                ..Findings::without_asking(now)
            }
        } else if let Some(decided) = self.decide_here(&rest).await {
            decided?
        } else {
            let asking = replica.asking(&rest);
            let asked_at = self.shared.leases.now();
            let asked = self.measured("decide", async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.decide(&rest, idle)),
                    Engine::Redis(redis) => redis.decide(&rest, idle).await,
                }
            });
            let findings = asked.await?;
            self.measure_lag(&rest, &findings);
            replica.keep(&asking, &rest, &findings);
            self.note_limits(&rest, &findings, asked_at);
            findings
        };
        sure.complete(&mut findings);
        if inquiry.cut_off_of.is_some() {
            findings.cut_off = replica.at_least(findings.cut_off);
        }
        Ok(findings)
    }

    /// What the store said a moment ago and would say again: that a limit refuses. Those with identity
    /// are looked at where the identity is known, as there.
    fn refused_here(&self, inquiry: &Inquiry<'_>) -> Option<Vec<Decision>> {
        let steady = self.shared.leases.now();
        let local = &self.shared.local;
        let before = inquiry.before.iter();
        local.refused(before.clone(), steady).or_else(|| {
            let all = before.chain(inquiry.after);
            (!inquiry.asks_of_identity()).then(|| local.refused(all, steady))?
        })
    }

    /// Observes how long after its end this gateway knew of the end of a session.
    pub(super) fn measure_lag(&self, inquiry: &Inquiry<'_>, findings: &Findings) {
        let lag = inquiry
            .session
            .and_then(|id| self.shared.replica.lag(id, &findings.session, findings.now));
        if let Some(lag) = lag {
            self.shared.metrics.revoked_after(lag);
        }
    }

    /// Spends one request from each of these limits, or from none if one refuses.
    pub async fn charge(&self, charges: &[Charge]) -> Result<Vec<Decision>, StoreError> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let asked_at = self.shared.leases.now();
        if let Some(refused) = self.shared.local.refused(charges.iter(), asked_at) {
            return Ok(refused);
        }
        if let Some(decided) = self.decide_by_permits(charges, &[]).await {
            return decided;
        }
        self.measured("charge", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.charge(charges)),
                Engine::Redis(redis) => {
                    let anything = Require::default();
                    let inquiry = Inquiry {
                        before: charges,
                        ..Inquiry::nothing(&anything)
                    };
                    let findings = redis.decide(&inquiry, None).await?;
                    self.note_limits(&inquiry, &findings, asked_at);
                    Ok(findings.decisions)
                }
            }
        })
        .await
    }

    /// Does as [`Store::charge`] with counters that only this process knows, of which each gateway has
    /// its share. It cannot fail, and marks what it decides as degraded.
    pub fn charge_locally(&self, charges: &[Charge]) -> Vec<Decision> {
        let (gateways, now) = (self.gateways(), self.clock() * 1000);
        self.shared.local.charge(charges, gateways, now)
    }

    /// Gives back what was spent from these limits a moment ago.
    pub async fn refund(&self, charges: &[Charge]) -> Result<(), StoreError> {
        self.measured("refund", async {
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
        self.measured("peek_limit", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.peek(charge)),
                Engine::Redis(redis) => redis.peek(charge).await,
            }
        })
        .await
    }

    /// Looks at a counter that only this process knows.
    pub fn peek_locally(&self, charge: &Charge) -> Decision {
        let (gateways, now) = (self.gateways(), self.clock() * 1000);
        self.shared.local.peek(charge, gateways, now)
    }

    /// Makes a counter whole again; tells whether there was anything to forget.
    pub async fn reset_limit(&self, charge: &Charge) -> Result<bool, StoreError> {
        self.shared.local.forget(&charge.counter);
        self.shared.leases.forget(charge);
        self.measured("reset_limit", async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.reset(charge)),
                Engine::Redis(redis) => redis.reset(charge).await,
            }
        })
        .await
    }
}
