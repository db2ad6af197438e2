//! Decisions and charges: one script each.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::super::{Findings, Found, Inquiry, StoreError};
use super::record::{self, Reading};
use super::scripts::Call;
use super::sessions::millis;
use super::{Redis, keys, names, read};
use crate::limits::{Charge, Decision, Micros, Rule, Unused};
use crate::session::SessionId;

/// What `decide.lua` says of the session.
const MALFORMED: i64 = 2;
const EXPIRED: i64 = 3;
const REVOKED: i64 = 4;
const ACTIVE: i64 = 5;

impl Redis {
    pub(in super::super) async fn decide(
        &self,
        inquiry: &Inquiry<'_>,
        idle: Option<Duration>,
    ) -> Result<Findings, StoreError> {
        if self.road()?.is_cluster() {
            return self.decide_apart(inquiry, idle).await;
        }
        let reply = self.run(self.question(inquiry, idle)).await?;
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
            with_rule(call, charge).arg(many)
        };
        let replies = self.run_all(untold.iter().map(call).collect()).await?;
        let told = untold.iter().zip(replies).map(|((charge, _), reply)| {
            let (broken, allowed, left, whole, wait) = read(reply)?;
            self.count_malformed("charge", broken);
            Ok(decision(charge, allowed, left, whole, wait))
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
        let call = with_rule(self.scripts.peek.on(&[self.keys.limit(charge)]), charge);
        let (_, broken, allowed, left, whole, wait) =
            read::<(u64, u64, i64, u64, u64, u64)>(self.run(call).await?)?;
        self.count_malformed("peek_limit", broken);
        Ok(decision(charge, allowed, left, whole, wait))
    }

    pub(in super::super) async fn reset(&self, charge: &Charge) -> Result<bool, StoreError> {
        let mut command = redis::cmd("DEL");
        read(self.ask(command.arg(self.keys.limit(charge))).await?)
    }

    pub(super) fn question(&self, inquiry: &Inquiry<'_>, idle: Option<Duration>) -> Call {
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
            call = with_rule(call, charge)
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
        let Value::Array(parts) = reply else {
            return Err(StoreError::Malformed);
        };
        let [
            now,
            status,
            record,
            last,
            blacklisted,
            broken,
            cut_off,
            limits @ ..,
        ] = parts.as_slice()
        else {
            return Err(StoreError::Malformed);
        };
        self.count_malformed("decide", number(broken)?);
        let status = i64::try_from(number(status)?).map_err(|_| StoreError::Malformed)?;
        let session = match inquiry.session {
            Some(id) => self.found(id, inquiry, status, record, number(last)?),
            None => Found::NotAsked,
        };
        let mut decisions = Vec::with_capacity(limits.len() / 4);
        let charges = inquiry.before.iter().chain(inquiry.after);
        for (charge, numbers) in charges.zip(limits.chunks_exact(4)) {
            let [allowed, left, whole, wait] = numbers else {
                return Err(StoreError::Malformed);
            };
            let allowed = number(allowed)?;
            // 2: it does not bind this session.
            if allowed < 2 {
                let (left, whole, wait) = (number(left)?, number(whole)?, number(wait)?);
                decisions.push(decision(charge, i64::from(allowed == 1), left, whole, wait));
            }
        }
        Ok(Findings {
            now: number(now)? / 1000,
            session,
            blacklisted: number(blacklisted)? > 0,
            // Negative: there is none.
            cut_off: number(cut_off).ok(),
            decisions,
        })
    }

    /// A session that is not understood is as good as none; it is counted, and whoever holds it
    /// signs in again.
    fn found(
        &self,
        id: SessionId,
        inquiry: &Inquiry<'_>,
        status: i64,
        record: &Value,
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
        if let (Value::Int(_), Some(known)) = (record, &inquiry.known) {
            return Found::Active(Arc::clone(known), last);
        }
        match (status, record::read(id, record)) {
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

pub(super) fn with_rule(call: Call, charge: &Charge) -> Call {
    let rule = Rule::of(&charge.limit);
    call.arg(keys::algorithm(charge).to_string())
        .arg(rule.limit)
        .arg(rule.width)
        .arg(rule.burst)
        .arg(u8::from(charge.limit.shadow))
}

pub(super) fn number(value: &Value) -> Result<u64, StoreError> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| StoreError::Malformed),
        _ => Err(StoreError::Malformed),
    }
}

pub(super) fn decision(
    charge: &Charge,
    allowed: i64,
    left: u64,
    whole: Micros,
    wait: Micros,
) -> Decision {
    Decision {
        limit: Arc::clone(&charge.limit),
        allowed: allowed == 1,
        remaining: left,
        reset_after: Duration::from_micros(whole),
        retry_after: Duration::from_micros(wait),
        degraded: false,
    }
}
