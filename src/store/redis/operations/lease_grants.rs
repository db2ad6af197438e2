//! Lease units: requests that are spent in the store before a gateway admits them.

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

/// The store's reply for one counter.
pub(in crate::store) struct LeaseGrant {
    /// The store's time.
    pub now: Micros,
    /// State of the limit in the store.
    pub decision: Decision,
    pub response: LeaseReply,
}

impl Redis {
    /// Requests units of the limits of one request; nothing is granted if one of them refuses.
    ///
    /// In a cluster the limits are independent: the caller refunds grants if another limit refuses.
    pub(in crate::store) async fn grant_units(
        &self,
        requests: &[(&Charge, LeaseRequest)],
        gateways: u64,
    ) -> Result<Vec<LeaseGrant>, StoreError> {
        if self.client()?.is_cluster() {
            return self.grant_units_each(requests, gateways).await;
        }
        let reply = self.run(self.grant_call(requests, gateways, false)).await?;
        self.parse_grants(requests, reply)
    }

    /// Requests units of independent limits, several per script unless in a cluster.
    pub(in crate::store) async fn grant_units_each(
        &self,
        requests: &[(&Charge, LeaseRequest)],
        gateways: u64,
    ) -> Result<Vec<LeaseGrant>, StoreError> {
        let batch_size = self.batch_size()?;
        let batches = || requests.chunks(batch_size);
        let calls = batches().map(|batch| self.grant_call(batch, gateways, true));
        let replies = self.run_all(calls.collect()).await?;
        let mut grants = Vec::with_capacity(requests.len());
        for (batch, reply) in batches().zip(replies) {
            grants.extend(self.parse_grants(batch, exchange_error::reject_server_error(reply)?)?);
        }
        Ok(grants)
    }

    /// Refunds unused units.
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
        requests: &[(&Charge, LeaseRequest)],
        gateways: u64,
        independent: bool,
    ) -> ScriptCall {
        let keys: Vec<String> = requests
            .iter()
            .map(|(charge, _)| self.keys.limit(charge))
            .collect();
        let call = self.scripts.grant.call(&keys);
        let mut call = call.arg(share_divisor(gateways)).arg(u8::from(independent));
        for (charge, request) in requests {
            call = call
                .arg(&encode_rule(charge))
                .arg(request.want)
                .arg(request.held);
        }
        call
    }

    fn parse_grants(
        &self,
        requests: &[(&Charge, LeaseRequest)],
        reply: Value,
    ) -> Result<Vec<LeaseGrant>, StoreError> {
        let reply = packed_bytes(reply)?;
        let mut reader = PackedReply(ByteReader(&reply));
        let now = reader.number()?;
        self.count_malformed(StoreOperation::Charge, reader.number()?);
        let mut grants = Vec::with_capacity(requests.len());
        for (charge, _) in requests {
            let decision = reader.decision(charge)?.ok_or(StoreError::Malformed)?;
            let response = LeaseReply {
                granted: reader.number()?,
                replied_at: now,
                counted_at: reader.number()?,
                remaining: decision.remaining,
                reset_after: decision.reset_after.as_micros() as Micros,
                wait: decision.retry_after.as_micros() as Micros,
            };
            grants.push(LeaseGrant {
                now,
                decision,
                response,
            });
        }
        Ok(grants)
    }
}
