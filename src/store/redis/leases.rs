//! Permits: requests that are spent for a gateway before it has them.

use redis::Value;

use super::super::StoreError;
use super::limits::{decision, number, with_rule};
use super::{Redis, fault, read};
use crate::limits::{Answer, Ask, Charge, Decision, Micros, Unused, parts};

/// What the store says to one wish.
pub(in super::super) struct Granted {
    /// By the store's clock.
    pub now: Micros,
    /// How the limit stands in the store.
    pub decision: Decision,
    pub answer: Answer,
}

impl Redis {
    /// Grants what is asked of each of these limits, or nothing if one refuses. In a cluster each is
    /// asked by itself, and what is granted has to be given back if another refuses.
    pub(in super::super) async fn grant(
        &self,
        wishes: &[(&Charge, Ask)],
        gateways: u64,
    ) -> Result<Vec<Granted>, StoreError> {
        if self.road()?.is_cluster() {
            return self.grant_each(wishes, gateways).await;
        }
        let reply = self.run(self.wishes(wishes, gateways)).await?;
        self.granted(wishes, reply)
    }

    /// Grants what is asked of each of these limits, whatever the others say.
    pub(in super::super) async fn grant_each(
        &self,
        wishes: &[(&Charge, Ask)],
        gateways: u64,
    ) -> Result<Vec<Granted>, StoreError> {
        let calls = wishes.chunks(1).map(|one| self.wishes(one, gateways));
        let replies = self.run_all(calls.collect()).await?;
        let mut granted = Vec::with_capacity(wishes.len());
        for (one, reply) in wishes.chunks(1).zip(replies) {
            granted.extend(self.granted(one, fault::settled(reply)?)?);
        }
        Ok(granted)
    }

    /// Gives back what was granted and not used.
    pub(in super::super) async fn give_back(
        &self,
        unused: &[(Charge, Unused)],
    ) -> Result<(), StoreError> {
        let call = |(charge, unused): &(Charge, Unused)| {
            with_rule(self.scripts.refund.on(&[self.keys.limit(charge)]), charge)
                .arg(unused.many)
                .arg(unused.counted_at)
        };
        for reply in self.run_all(unused.iter().map(call).collect()).await? {
            self.count_malformed("refund", read(reply)?);
        }
        Ok(())
    }

    fn wishes(&self, wishes: &[(&Charge, Ask)], gateways: u64) -> super::Call {
        let keys: Vec<String> = wishes.iter().map(|(it, _)| self.keys.limit(it)).collect();
        let mut call = self.scripts.grant.on(&keys).arg(parts(gateways));
        for (charge, ask) in wishes {
            call = with_rule(call, charge).arg(ask.want).arg(ask.held);
        }
        call
    }

    fn granted(&self, wishes: &[(&Charge, Ask)], reply: Value) -> Result<Vec<Granted>, StoreError> {
        let Value::Array(numbers) = reply else {
            return Err(StoreError::Malformed);
        };
        let [now, broken, numbers @ ..] = numbers.as_slice() else {
            return Err(StoreError::Malformed);
        };
        self.count_malformed("charge", number(broken)?);
        let now = number(now)?;
        let mut granted = Vec::with_capacity(wishes.len());
        for ((charge, _), numbers) in wishes.iter().zip(numbers.chunks_exact(6)) {
            let [allowed, left, whole, wait, many, as_of] = numbers else {
                return Err(StoreError::Malformed);
            };
            let answer = Answer {
                granted: number(many)?,
                counted_at: number(as_of)?,
                left: number(left)?,
                whole_after: number(whole)?,
                wait: number(wait)?,
            };
            let allowed = i64::from(number(allowed)? == 1);
            let decision = decision(
                charge,
                allowed,
                answer.left,
                answer.whole_after,
                answer.wait,
            );
            granted.push(Granted {
                now,
                decision,
                answer,
            });
        }
        if granted.len() < wishes.len() {
            return Err(StoreError::Malformed);
        }
        Ok(granted)
    }
}
