//! Decisions and charges, one script each.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::sessions::idle_millis;
use crate::auth::session::SessionId;
use crate::limits::{Charge, Decision, Micros, Rule, UnusedUnits};
use crate::store::redis::codec::record::{ByteReader, DecodedRecord};
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::codec::{keys, record, text_codec};
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};
use crate::store::{Query, QueryResult, SessionLookup, StoreError};
use crate::telemetry::metrics::StoreOperation;

/// Session statuses in the reply of `decide.lua`.
const MALFORMED: u8 = 2;
const EXPIRED: u8 = 3;
const REVOKED: u8 = 4;
const ACTIVE: u8 = 5;

impl Redis {
    pub(in crate::store) async fn decide(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<QueryResult, StoreError> {
        if self.client()?.is_cluster() {
            // Boxed, as other rare branches of this path: the future is moved several times.
            return Box::pin(self.decide_in_cluster(query, idle)).await;
        }
        let reply = if query.has_limits() {
            self.run(self.decide_call(query, idle)).await?
        } else {
            self.look_up_identity(query, idle).await?
        };
        self.parse_query_result(query, reply)
    }

    /// Spends requests that were admitted without the store, as far as each limit has room.
    ///
    /// Returns the new state of each limit, or the server's error.
    pub(in crate::store) async fn spend(
        &self,
        reports: &[(Charge, u64)],
    ) -> Result<Vec<Result<Decision, StoreError>>, StoreError> {
        let call = |(charge, count): &(Charge, u64)| {
            let call = self.scripts.spend.call(&[self.keys.limit(charge)]);
            call.arg(&encode_rule(charge)).arg(count)
        };
        let replies = self.run_all(reports.iter().map(call).collect()).await?;
        let outcomes = reports.iter().zip(replies).map(|((charge, _), reply)| {
            let reply = packed_bytes(reply)?;
            let mut reader = PackedReply(ByteReader(&reply));
            self.count_malformed(StoreOperation::Charge, reader.number()?);
            reader.decision(charge)?.ok_or(StoreError::Malformed)
        });
        Ok(outcomes.collect())
    }

    /// Refunds one request, spent a moment ago, to each limit.
    pub(in crate::store) async fn refund(&self, charges: &[Charge]) -> Result<(), StoreError> {
        let just_spent = UnusedUnits {
            count: 1,
            counted_at: 0,
        };
        let units = charges.iter().map(|charge| (charge.clone(), just_spent));
        self.return_units(&units.collect::<Vec<_>>()).await
    }

    pub(in crate::store) async fn peek(&self, charge: &Charge) -> Result<Decision, StoreError> {
        let peek = &self.scripts.peek;
        let call = peek
            .call(&[self.keys.limit(charge)])
            .arg(&encode_rule(charge));
        let reply = packed_bytes(self.run(call).await?)?;
        let mut reader = PackedReply(ByteReader(&reply));
        let _now = reader.number()?;
        self.count_malformed(StoreOperation::PeekLimit, reader.number()?);
        reader.decision(charge)?.ok_or(StoreError::Malformed)
    }

    pub(in crate::store) async fn reset(&self, charge: &Charge) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        decode_reply(self.execute(command.arg(self.keys.limit(charge))).await?)
    }

    /// The call for a query. Queries without limits or without identity have cheaper scripts.
    pub(in crate::store::redis) fn decide_call(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
    ) -> ScriptCall {
        if !query.has_limits() {
            return self.single_lookup_call(query, idle);
        }
        if query.has_identity() {
            return self.full_decide_call(query, idle);
        }
        let charges = || {
            query
                .charges_before_auth
                .iter()
                .chain(query.charges_after_auth)
        };
        let keys: Vec<String> = charges().map(|charge| self.keys.limit(charge)).collect();
        let call = self.scripts.charge.call(&keys);
        charges().fold(call, |call, charge| call.arg(&encode_rule(charge)))
    }

    fn full_decide_call(&self, query: &Query<'_>, idle: Option<Duration>) -> ScriptCall {
        let charges = || {
            query
                .charges_before_auth
                .iter()
                .chain(query.charges_after_auth)
        };
        let mut keys: Vec<String> = charges().map(|charge| self.keys.limit(charge)).collect();
        if let Some(id) = query.session {
            keys.extend(self.keys.record_and_usage(&id));
        }
        keys.extend(query.blacklist_key.map(|key| self.keys.blacklist(key)));
        keys.extend(query.cut_off_user.map(|user| self.keys.cut_off(&user)));
        let mut call = self
            .scripts
            .decide
            .call(&keys)
            .arg(query.charges_before_auth.len())
            .arg(query.charges_after_auth.len())
            .arg(idle_millis(idle))
            .arg(query.last_access)
            .arg(text_codec::encode_list(&query.require.roles))
            .arg(text_codec::encode_list(&query.require.scopes))
            .arg(u8::from(query.session.is_some()))
            .arg(u8::from(query.blacklist_key.is_some()))
            .arg(cached_revision(query))
            .arg(u8::from(query.cut_off_user.is_some()))
            .arg(or_empty(query.issued_at));
        for charge in charges() {
            call = call
                .arg(&encode_rule(charge))
                .arg(text_codec::encode_list(&charge.limit.roles))
                .arg(text_codec::encode_list(&charge.limit.except_roles));
        }
        call
    }

    pub(in crate::store::redis) fn parse_query_result(
        &self,
        query: &Query<'_>,
        reply: Value,
    ) -> Result<QueryResult, StoreError> {
        let reply = packed_bytes(reply)?;
        let mut reader = PackedReply(ByteReader(&reply));
        let mut result = QueryResult::empty(reader.number()? / 1000);
        if !query.has_identity() {
            self.count_malformed(StoreOperation::Decide, reader.number()?);
            let charges = query
                .charges_before_auth
                .iter()
                .chain(query.charges_after_auth);
            result.decisions = reader.decisions(charges)?;
            return Ok(result);
        }
        let (status, last) = (reader.byte()?, reader.number()?);
        result.blacklisted = reader.byte()? > 0;
        result.cut_off = Some(reader.number()?).filter(|second| *second > 0);
        self.count_malformed(StoreOperation::Decide, reader.number()?);
        let evaluated = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
        let charges = query
            .charges_before_auth
            .iter()
            .chain(query.charges_after_auth);
        result.decisions = reader.decisions(charges.take(evaluated))?;
        if let Some(id) = query.session {
            result.session = self.parse_session_lookup(id, query, status, reader.0.0, last);
        }
        Ok(result)
    }

    /// Decodes the session. A malformed record is counted and taken as missing.
    fn parse_session_lookup(
        &self,
        id: SessionId,
        query: &Query<'_>,
        status: u8,
        record: &[u8],
        last: u64,
    ) -> SessionLookup {
        if !(MALFORMED..=ACTIVE).contains(&status) {
            // Missing, or not looked up because a limit refused.
            return if status == 0 {
                SessionLookup::NotQueried
            } else {
                SessionLookup::Missing
            };
        }
        if let (ACTIVE, [], Some(cached)) = (status, record, &query.cached) {
            return SessionLookup::Active(Arc::clone(cached), last);
        }
        match (status, record::decode(id, record, &self.interner)) {
            (EXPIRED, DecodedRecord::Present(session)) => SessionLookup::Expired(session.into()),
            (REVOKED, DecodedRecord::Present(session)) => SessionLookup::Revoked(session.into()),
            (ACTIVE, DecodedRecord::Present(session)) => {
                SessionLookup::Active(Arc::new(*session), last)
            }
            _ => {
                self.count_malformed(StoreOperation::Decide, 1);
                SessionLookup::Missing
            }
        }
    }
}

/// The cached revision; empty: no record is cached.
fn cached_revision(query: &Query<'_>) -> String {
    or_empty(query.cached.as_ref().map(|session| session.revision))
}

fn or_empty(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// Encodes a counter's rule for the scripts.
pub(in crate::store::redis) fn encode_rule(charge: &Charge) -> [u8; 26] {
    let rule = Rule::of(&charge.limit);
    let head = [keys::algorithm_code(charge), u8::from(charge.limit.shadow)];
    let mut packed = [0; 26];
    let (first, rest) = packed.split_at_mut(head.len());
    first.copy_from_slice(&head);
    let (numbers, _) = rest.as_chunks_mut();
    for (packed, number) in numbers.iter_mut().zip([rule.limit, rule.width, rule.burst]) {
        *packed = u64::to_le_bytes(number);
    }
    packed
}

pub(in crate::store::redis) fn packed_bytes(reply: Value) -> Result<Vec<u8>, StoreError> {
    match exchange_error::reject_server_error(reply)? {
        Value::BulkString(packed) => Ok(packed),
        // The reply of `look_up.lua` to a single look-up.
        Value::Array(mut replies) if replies.len() == 1 => {
            packed_bytes(replies.pop().unwrap_or(Value::Nil))
        }
        _ => Err(StoreError::Malformed),
    }
}

/// A packed reply, read from its start.
pub(in crate::store::redis) struct PackedReply<'a>(pub ByteReader<'a>);

impl PackedReply<'_> {
    pub(in crate::store::redis) fn byte(&mut self) -> Result<u8, StoreError> {
        let byte = self.0.take(1).and_then(<[u8]>::first);
        byte.copied().ok_or(StoreError::Malformed)
    }

    pub(in crate::store::redis) fn number(&mut self) -> Result<u64, StoreError> {
        self.0.number(8).ok_or(StoreError::Malformed)
    }

    /// Reads the report of a limit; `None`: it does not apply to the session.
    pub(in crate::store::redis) fn decision(
        &mut self,
        charge: &Charge,
    ) -> Result<Option<Decision>, StoreError> {
        let allowed = self.byte()?;
        let (left, reset_after, wait) = (self.number()?, self.number()?, self.number()?);
        Ok((allowed < 2).then(|| decision(charge, allowed == 1, left, reset_after, wait)))
    }

    fn decisions<'c>(
        &mut self,
        charges: impl Iterator<Item = &'c Charge>,
    ) -> Result<Vec<Decision>, StoreError> {
        let decisions = charges.map(|charge| self.decision(charge));
        decisions.filter_map(Result::transpose).collect()
    }
}

fn decision(
    charge: &Charge,
    allowed: bool,
    left: u64,
    reset_after: Micros,
    wait: Micros,
) -> Decision {
    Decision {
        limit: Arc::clone(&charge.limit),
        allowed,
        remaining: left,
        reset_after: Duration::from_micros(reset_after),
        retry_after: Duration::from_micros(wait),
        degraded: false,
    }
}
