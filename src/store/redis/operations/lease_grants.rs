//! Permits: requests that are spent for a gateway before it has them.

use redis::Value;

use super::limits::{PackedReply, encode_rule, packed_bytes};
use crate::limits::{
    Charge, Decision, LeaseReply, LeaseRequest, Micros, UnusedUnits, share_divisor,
};
use crate::store::StoreError;
use crate::store::redis::codec::record::ByteReader;
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};
use crate::telemetry::metrics::StoreOperation;

/// What the store says to one wish.
pub(in crate::store) struct LeaseGrant {
    /// By the store's clock.
    pub now: Micros,
    /// How the limit stands in the store.
    pub decision: Decision,
    pub response: LeaseReply,
}

impl Redis {
    /// Grants what is asked of each of these limits, or nothing if one refuses. In a cluster each is
    /// asked by itself, and what is granted has to be given back if another refuses.
    pub(in crate::store) async fn grant_units(
        &self,
        wishes: &[(&Charge, LeaseRequest)],
        gateways: u64,
    ) -> Result<Vec<LeaseGrant>, StoreError> {
        if self.client()?.is_cluster() {
            return self.grant_units_each(wishes, gateways).await;
        }
        let reply = self.run(self.grant_call(wishes, gateways, false)).await?;
        self.parse_grants(wishes, reply)
    }

    /// Grants what is asked of each of these limits, whatever the others say: many in one script, but in a
    /// cluster, where they lie apart.
    pub(in crate::store) async fn grant_units_each(
        &self,
        wishes: &[(&Charge, LeaseRequest)],
        gateways: u64,
    ) -> Result<Vec<LeaseGrant>, StoreError> {
        let together = self.batch_size()?;
        let some = || wishes.chunks(together);
        let calls = some().map(|some| self.grant_call(some, gateways, true));
        let replies = self.run_all(calls.collect()).await?;
        let mut granted = Vec::with_capacity(wishes.len());
        for (some, reply) in some().zip(replies) {
            granted.extend(self.parse_grants(some, exchange_error::reject_server_error(reply)?)?);
        }
        Ok(granted)
    }

    /// Gives back what was granted and not used.
    pub(in crate::store) async fn return_units(
        &self,
        unused: &[(Charge, UnusedUnits)],
    ) -> Result<(), StoreError> {
        let call = |(charge, unused): &(Charge, UnusedUnits)| {
            let call = self.scripts.refund.call(&[self.keys.limit(charge)]);
            call.arg(&encode_rule(charge))
                .arg(unused.count)
                .arg(unused.counted_at)
        };
        for reply in self.run_all(unused.iter().map(call).collect()).await? {
            self.count_malformed(StoreOperation::Refund, decode_reply(reply)?);
        }
        Ok(())
    }

    fn grant_call(
        &self,
        wishes: &[(&Charge, LeaseRequest)],
        gateways: u64,
        alone: bool,
    ) -> ScriptCall {
        let keys: Vec<String> = wishes.iter().map(|(it, _)| self.keys.limit(it)).collect();
        let call = self.scripts.grant.call(&keys);
        let mut call = call.arg(share_divisor(gateways)).arg(u8::from(alone));
        for (charge, ask) in wishes {
            call = call.arg(&encode_rule(charge)).arg(ask.want).arg(ask.held);
        }
        call
    }

    fn parse_grants(
        &self,
        wishes: &[(&Charge, LeaseRequest)],
        reply: Value,
    ) -> Result<Vec<LeaseGrant>, StoreError> {
        let reply = packed_bytes(reply)?;
        let mut said = PackedReply(ByteReader(&reply));
        let now = said.number()?;
        self.count_malformed(StoreOperation::Charge, said.number()?);
        let mut granted = Vec::with_capacity(wishes.len());
        for (charge, _) in wishes {
            let decision = said.decision(charge)?.ok_or(StoreError::Malformed)?;
            let answer = LeaseReply {
                granted: said.number()?,
                replied_at: now,
                counted_at: said.number()?,
                remaining: decision.remaining,
                reset_after: decision.reset_after.as_micros() as Micros,
                wait: decision.retry_after.as_micros() as Micros,
            };
            granted.push(LeaseGrant {
                now,
                decision,
                response: answer,
            });
        }
        Ok(granted)
    }
}
