//! Decisions and charges: one script each.

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

/// What `decide.lua` says of the session.
const MALFORMED: u8 = 2;
const EXPIRED: u8 = 3;
const REVOKED: u8 = 4;
const ACTIVE: u8 = 5;

impl Redis {
    pub(in crate::store) async fn decide(
        &self,
        inquiry: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<QueryResult, StoreError> {
        if self.client()?.is_cluster() {
            // Boxed, as all that is rare on this path: the whole future is moved a few times.
            return Box::pin(self.decide_in_cluster(inquiry, idle)).await;
        }
        let reply = if inquiry.has_limits() {
            self.run(self.decide_call(inquiry, idle)).await?
        } else {
            self.look_up_identity(inquiry, idle).await?
        };
        self.parse_query_result(inquiry, reply)
    }

    /// Spends so many requests from each, as far as there is room; gives for each of them how it
    /// stands then, or why the server did not do it.
    pub(in crate::store) async fn spend(
        &self,
        untold: &[(Charge, u64)],
    ) -> Result<Vec<Result<Decision, StoreError>>, StoreError> {
        let call = |(charge, many): &(Charge, u64)| {
            let call = self.scripts.spend.call(&[self.keys.limit(charge)]);
            call.arg(&encode_rule(charge)).arg(many)
        };
        let replies = self.run_all(untold.iter().map(call).collect()).await?;
        let told = untold.iter().zip(replies).map(|((charge, _), reply)| {
            let reply = packed_bytes(reply)?;
            let mut said = PackedReply(ByteReader(&reply));
            self.count_malformed(StoreOperation::Charge, said.number()?);
            said.decision(charge)?.ok_or(StoreError::Malformed)
        });
        Ok(told.collect())
    }

    /// Gives back what was spent a moment ago.
    pub(in crate::store) async fn refund(&self, charges: &[Charge]) -> Result<(), StoreError> {
        let just_now = UnusedUnits {
            count: 1,
            counted_at: 0,
        };
        let spent = charges.iter().map(|charge| (charge.clone(), just_now));
        self.return_units(&spent.collect::<Vec<_>>()).await
    }

    pub(in crate::store) async fn peek(&self, charge: &Charge) -> Result<Decision, StoreError> {
        let peek = &self.scripts.peek;
        let call = peek
            .call(&[self.keys.limit(charge)])
            .arg(&encode_rule(charge));
        let reply = packed_bytes(self.run(call).await?)?;
        let mut said = PackedReply(ByteReader(&reply));
        let _now = said.number()?;
        self.count_malformed(StoreOperation::PeekLimit, said.number()?);
        said.decision(charge)?.ok_or(StoreError::Malformed)
    }

    pub(in crate::store) async fn reset(&self, charge: &Charge) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        decode_reply(self.execute(command.arg(self.keys.limit(charge))).await?)
    }

    /// What asks an inquiry: where only limits or no limits are asked, a script of its own that has less
    /// to do.
    pub(in crate::store::redis) fn decide_call(
        &self,
        inquiry: &Query<'_>,
        idle: Option<Duration>,
    ) -> ScriptCall {
        if !inquiry.has_limits() {
            return self.single_lookup_call(inquiry, idle);
        }
        if inquiry.has_identity() {
            return self.full_decide_call(inquiry, idle);
        }
        let charges = || {
            inquiry
                .charges_before_auth
                .iter()
                .chain(inquiry.charges_after_auth)
        };
        let keys: Vec<String> = charges().map(|charge| self.keys.limit(charge)).collect();
        let call = self.scripts.charge.call(&keys);
        charges().fold(call, |call, charge| call.arg(&encode_rule(charge)))
    }

    fn full_decide_call(&self, inquiry: &Query<'_>, idle: Option<Duration>) -> ScriptCall {
        let charges = || {
            inquiry
                .charges_before_auth
                .iter()
                .chain(inquiry.charges_after_auth)
        };
        let mut keys: Vec<String> = charges().map(|charge| self.keys.limit(charge)).collect();
        if let Some(id) = inquiry.session {
            keys.extend(self.keys.record_and_usage(&id));
        }
        keys.extend(inquiry.blacklist_key.map(|key| self.keys.blacklist(key)));
        keys.extend(
            inquiry
                .cut_off_user
                .map(|person| self.keys.cut_off(&person)),
        );
        let mut call = self
            .scripts
            .decide
            .call(&keys)
            .arg(inquiry.charges_before_auth.len())
            .arg(inquiry.charges_after_auth.len())
            .arg(idle_millis(idle))
            .arg(inquiry.last_access)
            .arg(text_codec::encode_list(&inquiry.require.roles))
            .arg(text_codec::encode_list(&inquiry.require.scopes))
            .arg(u8::from(inquiry.session.is_some()))
            .arg(u8::from(inquiry.blacklist_key.is_some()))
            .arg(cached_revision(inquiry))
            .arg(u8::from(inquiry.cut_off_user.is_some()))
            .arg(or_empty(inquiry.issued_at));
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
        inquiry: &Query<'_>,
        reply: Value,
    ) -> Result<QueryResult, StoreError> {
        let reply = packed_bytes(reply)?;
        let mut said = PackedReply(ByteReader(&reply));
        let mut findings = QueryResult::empty(said.number()? / 1000);
        if !inquiry.has_identity() {
            self.count_malformed(StoreOperation::Decide, said.number()?);
            let charges = inquiry
                .charges_before_auth
                .iter()
                .chain(inquiry.charges_after_auth);
            findings.decisions = said.decisions(charges)?;
            return Ok(findings);
        }
        let (status, last) = (said.byte()?, said.number()?);
        findings.blacklisted = said.byte()? > 0;
        findings.cut_off = Some(said.number()?).filter(|second| *second > 0);
        self.count_malformed(StoreOperation::Decide, said.number()?);
        let evaluated = usize::try_from(said.number()?).unwrap_or(usize::MAX);
        let charges = inquiry
            .charges_before_auth
            .iter()
            .chain(inquiry.charges_after_auth);
        findings.decisions = said.decisions(charges.take(evaluated))?;
        if let Some(id) = inquiry.session {
            findings.session = self.parse_session_lookup(id, inquiry, status, said.0.0, last);
        }
        Ok(findings)
    }

    /// A session that is not understood is as good as none; it is counted, and whoever holds it
    /// signs in again.
    fn parse_session_lookup(
        &self,
        id: SessionId,
        inquiry: &Query<'_>,
        status: u8,
        record: &[u8],
        last: u64,
    ) -> SessionLookup {
        if !(MALFORMED..=ACTIVE).contains(&status) {
            // Missing; or a limit refused before it was looked for.
            return if status == 0 {
                SessionLookup::NotQueried
            } else {
                SessionLookup::Missing
            };
        }
        if let (ACTIVE, [], Some(known)) = (status, record, &inquiry.cached) {
            return SessionLookup::Active(Arc::clone(known), last);
        }
        match (status, record::decode(id, record, &self.interner)) {
            (EXPIRED, DecodedRecord::Present(session)) => SessionLookup::Expired(*session),
            (REVOKED, DecodedRecord::Present(session)) => SessionLookup::Revoked(*session),
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

/// Empty: the caller has no record.
fn cached_revision(inquiry: &Query<'_>) -> String {
    or_empty(inquiry.cached.as_ref().map(|session| session.revision))
}

fn or_empty(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// What the scripts read a counter's rule from.
pub(in crate::store::redis) fn encode_rule(charge: &Charge) -> [u8; 26] {
    let rule = Rule::of(&charge.limit);
    let head = [keys::algorithm_code(charge), u8::from(charge.limit.shadow)];
    let numbers = [rule.limit, rule.width, rule.burst].map(u64::to_le_bytes);
    let mut packed = [0; 26];
    let bytes = head.into_iter().chain(numbers.into_iter().flatten());
    for (to, from) in packed.iter_mut().zip(bytes) {
        *to = from;
    }
    packed
}

pub(in crate::store::redis) fn packed_bytes(reply: Value) -> Result<Vec<u8>, StoreError> {
    match exchange_error::reject_server_error(reply)? {
        Value::BulkString(packed) => Ok(packed),
        // That of a script that may be asked several things, and was asked one.
        Value::Array(mut answers) if answers.len() == 1 => {
            packed_bytes(answers.pop().unwrap_or(Value::Nil))
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

    /// `None`: the limit does not bind the session.
    pub(in crate::store::redis) fn decision(
        &mut self,
        charge: &Charge,
    ) -> Result<Option<Decision>, StoreError> {
        let allowed = self.byte()?;
        let (left, whole, wait) = (self.number()?, self.number()?, self.number()?);
        Ok((allowed < 2).then(|| decision(charge, allowed == 1, left, whole, wait)))
    }

    fn decisions<'c>(
        &mut self,
        charges: impl Iterator<Item = &'c Charge>,
    ) -> Result<Vec<Decision>, StoreError> {
        let read = charges.map(|charge| self.decision(charge));
        read.filter_map(Result::transpose).collect()
    }
}

fn decision(charge: &Charge, allowed: bool, left: u64, whole: Micros, wait: Micros) -> Decision {
    Decision {
        limit: Arc::clone(&charge.limit),
        allowed,
        remaining: left,
        reset_after: Duration::from_micros(whole),
        retry_after: Duration::from_micros(wait),
        degraded: false,
    }
}
