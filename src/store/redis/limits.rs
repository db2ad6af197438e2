//! Decisions and charges: one script each.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::super::{Findings, Found, Inquiry, StoreError};
use super::record::{self, Reader, Reading};
use super::scripts::Call;
use super::sessions::millis;
use super::{Redis, fault, keys, names, read};
use crate::auth::session::SessionId;
use crate::limits::{Charge, Decision, Micros, Rule, Unused};

/// What `decide.lua` says of the session.
const MALFORMED: u8 = 2;
const EXPIRED: u8 = 3;
const REVOKED: u8 = 4;
const ACTIVE: u8 = 5;

impl Redis {
    pub(in super::super) async fn decide(
        &self,
        inquiry: &Inquiry<'_>,
        idle: Option<Duration>,
    ) -> Result<Findings, StoreError> {
        if self.road()?.is_cluster() {
            // Boxed, as all that is rare on this path: the whole future is moved a few times.
            return Box::pin(self.decide_apart(inquiry, idle)).await;
        }
        let reply = if inquiry.asks_of_limits() {
            self.run(self.question(inquiry, idle)).await?
        } else {
            self.introspect(inquiry, idle).await?
        };
        self.findings(inquiry, reply)
    }

    /// Spends so many requests from each, as far as there is room; gives for each of them how it
    /// stands then, or why the server did not do it.
    pub(in super::super) async fn spend(
        &self,
        untold: &[(Charge, u64)],
    ) -> Result<Vec<Result<Decision, StoreError>>, StoreError> {
        let call = |(charge, many): &(Charge, u64)| {
            let call = self.scripts.spend.on(&[self.keys.limit(charge)]);
            call.arg(&rule(charge)).arg(many)
        };
        let replies = self.run_all(untold.iter().map(call).collect()).await?;
        let told = untold.iter().zip(replies).map(|((charge, _), reply)| {
            let reply = packed(reply)?;
            let mut said = Said(Reader(&reply));
            self.count_malformed("charge", said.number()?);
            said.decision(charge)?.ok_or(StoreError::Malformed)
        });
        Ok(told.collect())
    }

    /// Gives back what was spent a moment ago.
    pub(in super::super) async fn refund(&self, charges: &[Charge]) -> Result<(), StoreError> {
        let just_now = Unused {
            many: 1,
            counted_at: 0,
        };
        let spent = charges.iter().map(|charge| (charge.clone(), just_now));
        self.give_back(&spent.collect::<Vec<_>>()).await
    }

    pub(in super::super) async fn peek(&self, charge: &Charge) -> Result<Decision, StoreError> {
        let peek = &self.scripts.peek;
        let call = peek.on(&[self.keys.limit(charge)]).arg(&rule(charge));
        let reply = packed(self.run(call).await?)?;
        let mut said = Said(Reader(&reply));
        let _now = said.number()?;
        self.count_malformed("peek_limit", said.number()?);
        said.decision(charge)?.ok_or(StoreError::Malformed)
    }

    pub(in super::super) async fn reset(&self, charge: &Charge) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        read(self.ask(command.arg(self.keys.limit(charge))).await?)
    }

    /// What asks an inquiry: where only limits or no limits are asked, a script of its own that has less
    /// to do.
    pub(super) fn question(&self, inquiry: &Inquiry<'_>, idle: Option<Duration>) -> Call {
        if !inquiry.asks_of_limits() {
            return self.introspection_alone(inquiry, idle);
        }
        if inquiry.asks_of_identity() {
            return self.whole_question(inquiry, idle);
        }
        let charges = || inquiry.before.iter().chain(inquiry.after);
        let keys: Vec<String> = charges().map(|charge| self.keys.limit(charge)).collect();
        let call = self.scripts.charge.on(&keys);
        charges().fold(call, |call, charge| call.arg(&rule(charge)))
    }

    fn whole_question(&self, inquiry: &Inquiry<'_>, idle: Option<Duration>) -> Call {
        let charges = || inquiry.before.iter().chain(inquiry.after);
        let mut keys: Vec<String> = charges().map(|charge| self.keys.limit(charge)).collect();
        if let Some(id) = inquiry.session {
            keys.extend(self.keys.both(&id));
        }
        keys.extend(inquiry.blacklist_key.map(|key| self.keys.blacklist(key)));
        keys.extend(inquiry.cut_off_of.map(|person| self.keys.cut_off(&person)));
        let mut call = self
            .scripts
            .decide
            .on(&keys)
            .arg(inquiry.before.len())
            .arg(inquiry.after.len())
            .arg(millis(idle))
            .arg(inquiry.last_access)
            .arg(names::list(&inquiry.require.roles))
            .arg(names::list(&inquiry.require.scopes))
            .arg(u8::from(inquiry.session.is_some()))
            .arg(u8::from(inquiry.blacklist_key.is_some()))
            .arg(known_revision(inquiry))
            .arg(u8::from(inquiry.cut_off_of.is_some()))
            .arg(or_nothing(inquiry.issued_at));
        for charge in charges() {
            call = call
                .arg(&rule(charge))
                .arg(names::list(&charge.limit.roles))
                .arg(names::list(&charge.limit.except_roles));
        }
        call
    }

    pub(super) fn findings(
        &self,
        inquiry: &Inquiry<'_>,
        reply: Value,
    ) -> Result<Findings, StoreError> {
        let reply = packed(reply)?;
        let mut said = Said(Reader(&reply));
        let mut findings = Findings::without_asking(said.number()? / 1000);
        if !inquiry.asks_of_identity() {
            self.count_malformed("decide", said.number()?);
            let charges = inquiry.before.iter().chain(inquiry.after);
            findings.decisions = said.decisions(charges)?;
            return Ok(findings);
        }
        let (status, last) = (said.byte()?, said.number()?);
        findings.blacklisted = said.byte()? > 0;
        findings.cut_off = Some(said.number()?).filter(|second| *second > 0);
        self.count_malformed("decide", said.number()?);
        let evaluated = usize::try_from(said.number()?).unwrap_or(usize::MAX);
        let charges = inquiry.before.iter().chain(inquiry.after);
        findings.decisions = said.decisions(charges.take(evaluated))?;
        if let Some(id) = inquiry.session {
            findings.session = self.found(id, inquiry, status, said.0.0, last);
        }
        Ok(findings)
    }

    /// A session that is not understood is as good as none; it is counted, and whoever holds it
    /// signs in again.
    fn found(
        &self,
        id: SessionId,
        inquiry: &Inquiry<'_>,
        status: u8,
        record: &[u8],
        last: u64,
    ) -> Found {
        if !(MALFORMED..=ACTIVE).contains(&status) {
            // Missing; or a limit refused before it was looked for.
            return if status == 0 {
                Found::NotAsked
            } else {
                Found::Missing
            };
        }
        if let (ACTIVE, [], Some(known)) = (status, record, &inquiry.known) {
            return Found::Active(Arc::clone(known), last);
        }
        match (status, record::of(id, record, &self.alike)) {
            (EXPIRED, Reading::There(session)) => Found::Expired(*session),
            (REVOKED, Reading::There(session)) => Found::Revoked(*session),
            (ACTIVE, Reading::There(session)) => Found::Active(Arc::new(*session), last),
            _ => {
                self.count_malformed("decide", 1);
                Found::Missing
            }
        }
    }
}

/// Empty: the caller has no record.
fn known_revision(inquiry: &Inquiry<'_>) -> String {
    or_nothing(inquiry.known.as_ref().map(|session| session.revision))
}

fn or_nothing(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// What the scripts read a counter's rule from.
pub(super) fn rule(charge: &Charge) -> [u8; 26] {
    let rule = Rule::of(&charge.limit);
    let head = [keys::algorithm(charge), u8::from(charge.limit.shadow)];
    let numbers = [rule.limit, rule.width, rule.burst].map(u64::to_le_bytes);
    let mut packed = [0; 26];
    let bytes = head.into_iter().chain(numbers.into_iter().flatten());
    for (to, from) in packed.iter_mut().zip(bytes) {
        *to = from;
    }
    packed
}

pub(super) fn packed(reply: Value) -> Result<Vec<u8>, StoreError> {
    match fault::settled(reply)? {
        Value::BulkString(packed) => Ok(packed),
        // That of a script that may be asked several things, and was asked one.
        Value::Array(mut answers) if answers.len() == 1 => {
            packed(answers.pop().unwrap_or(Value::Nil))
        }
        _ => Err(StoreError::Malformed),
    }
}

/// A packed reply, read from its start.
pub(super) struct Said<'a>(pub Reader<'a>);

impl Said<'_> {
    pub(super) fn byte(&mut self) -> Result<u8, StoreError> {
        let byte = self.0.take(1).and_then(<[u8]>::first);
        byte.copied().ok_or(StoreError::Malformed)
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        self.0.number(8).ok_or(StoreError::Malformed)
    }

    /// `None`: the limit does not bind the session.
    pub(super) fn decision(&mut self, charge: &Charge) -> Result<Option<Decision>, StoreError> {
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
