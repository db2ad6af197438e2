//! Permits: requests that are spent for a gateway before it has them.

use redis::Value;

use super::super::StoreError;
use super::limits::{Said, packed, rule};
use super::record::Reader;
use super::scripts::Call;
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
        let reply = self.run(self.wishes(wishes, gateways, false)).await?;
        self.granted(wishes, reply)
    }

    /// Grants what is asked of each of these limits, whatever the others say: many in one script, but in a
    /// cluster, where they lie apart.
    pub(in super::super) async fn grant_each(
        &self,
        wishes: &[(&Charge, Ask)],
        gateways: u64,
    ) -> Result<Vec<Granted>, StoreError> {
        let together = self.together()?;
        let some = || wishes.chunks(together);
        let calls = some().map(|some| self.wishes(some, gateways, true));
        let replies = self.run_all(calls.collect()).await?;
        let mut granted = Vec::with_capacity(wishes.len());
        for (some, reply) in some().zip(replies) {
            granted.extend(self.granted(some, fault::settled(reply)?)?);
        }
        Ok(granted)
    }

    /// Gives back what was granted and not used.
    pub(in super::super) async fn give_back(
        &self,
        unused: &[(Charge, Unused)],
    ) -> Result<(), StoreError> {
        let call = |(charge, unused): &(Charge, Unused)| {
            let call = self.scripts.refund.on(&[self.keys.limit(charge)]);
            call.arg(&rule(charge))
                .arg(unused.many)
                .arg(unused.counted_at)
        };
        for reply in self.run_all(unused.iter().map(call).collect()).await? {
            self.count_malformed("refund", read(reply)?);
        }
        Ok(())
    }

    fn wishes(&self, wishes: &[(&Charge, Ask)], gateways: u64, alone: bool) -> Call {
        let keys: Vec<String> = wishes.iter().map(|(it, _)| self.keys.limit(it)).collect();
        let call = self.scripts.grant.on(&keys);
        let mut call = call.arg(parts(gateways)).arg(u8::from(alone));
        for (charge, ask) in wishes {
            call = call.arg(&rule(charge)).arg(ask.want).arg(ask.held);
        }
        call
    }

    fn granted(&self, wishes: &[(&Charge, Ask)], reply: Value) -> Result<Vec<Granted>, StoreError> {
        let reply = packed(reply)?;
        let mut said = Said(Reader(&reply));
        let now = said.number()?;
        self.count_malformed("charge", said.number()?);
        let mut granted = Vec::with_capacity(wishes.len());
        for (charge, _) in wishes {
            let decision = said.decision(charge)?.ok_or(StoreError::Malformed)?;
            let answer = Answer {
                granted: said.number()?,
                said_at: now,
                counted_at: said.number()?,
                left: decision.remaining,
                whole_after: decision.reset_after.as_micros() as Micros,
                wait: decision.retry_after.as_micros() as Micros,
            };
            granted.push(Granted {
                now,
                decision,
                answer,
            });
        }
        Ok(granted)
    }
}
