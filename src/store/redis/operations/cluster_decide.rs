//! Decisions in a cluster, where what a request asks for lies apart: each part is asked of the server
//! that has it, all side by side, and spends there. What a request that is refused has spent is given
//! back right after. So a race may refuse one too many, and never admits one.

use std::future::poll_fn;
use std::slice::from_ref;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use crate::limits::{Algorithm, Charge, Decision};
use crate::routing::Requirements;
use crate::store::redis::Redis;
use crate::store::redis::links::exchange_error;
use crate::store::{Query, QueryResult, SessionLookup, StoreError};

/// How long giving back may take; what is not given back then leaves with its window.
const REFUND_TIMEOUT: Duration = Duration::from_secs(1);

/// A limit that was asked on its own.
struct ChargeOutcome<'a> {
    charge: &'a Charge,
    decision: Decision,
}

impl Redis {
    /// One trip, to several servers at once. A second one only for limits that bind by roles, where
    /// this gateway did not know the session's.
    pub(in crate::store::redis) async fn decide_in_cluster(
        &self,
        inquiry: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<QueryResult, StoreError> {
        let early: Vec<&Charge> = inquiry
            .charges_after_auth
            .iter()
            .filter(|c| can_charge_early(c, inquiry))
            .collect();
        let anything = Requirements::default();
        let mut parts: Vec<Query<'_>> = inquiry
            .charges_before_auth
            .iter()
            .map(|c| limit_query(c, &anything))
            .collect();
        parts.extend(identity_queries(inquiry, &anything));
        parts.extend(early.iter().map(|c| limit_query(c, &anything)));
        let mut found = self.query_parts(&parts, idle).await?;
        let now = found.iter().map(|one| one.now).max();
        let after = found.split_off(found.len().saturating_sub(early.len()));
        let after = pair_decisions(early, after);
        let rest = found.split_off(inquiry.charges_before_auth.len().min(found.len()));
        let before = pair_decisions(inquiry.charges_before_auth.iter(), found);
        let mut findings = merge_results(rest, now.unwrap_or_default());
        if any_refused(&before) {
            self.refund_in_background(spent_charges(before.iter().chain(&after)))
                .await;
            findings = merge_results(Vec::new(), findings.now);
            findings.decisions = before.into_iter().map(refunded_decision).collect();
        } else if !identity_passes(inquiry, &findings) {
            self.refund_in_background(spent_charges(&after)).await;
            findings.decisions = before.into_iter().map(|asked| asked.decision).collect();
        } else {
            findings.decisions = self
                .settle_limits(inquiry, &findings.session, before, after, idle)
                .await?;
        }
        Ok(findings)
    }

    /// What is left once the session is known: those limits are asked that bind it and were not yet,
    /// and those do not count that it is exempt from.
    async fn settle_limits(
        &self,
        inquiry: &Query<'_>,
        session: &SessionLookup,
        before: Vec<ChargeOutcome<'_>>,
        after: Vec<ChargeOutcome<'_>>,
        idle: Option<Duration>,
    ) -> Result<Vec<Decision>, StoreError> {
        let binds = |charge: &Charge| match session {
            SessionLookup::Active(session, _) => charge.limit.applies_to(&session.roles),
            _ => true,
        };
        let missing = inquiry
            .charges_after_auth
            .iter()
            .filter(|c| binds(c) && !can_charge_early(c, inquiry));
        let missing: Vec<&Charge> = missing.collect();
        let anything = Requirements::default();
        let parts: Vec<Query<'_>> = missing.iter().map(|c| limit_query(c, &anything)).collect();
        let late = pair_decisions(missing, self.query_parts(&parts, idle).await?);
        let (mut bound, exempt): (Vec<ChargeOutcome<'_>>, Vec<ChargeOutcome<'_>>) =
            after.into_iter().partition(|asked| binds(asked.charge));
        bound.extend(late);
        let place = |asked: &ChargeOutcome<'_>| {
            let mut charges = inquiry.charges_after_auth.iter();
            charges.position(|charge| std::ptr::eq(charge, asked.charge))
        };
        bound.sort_by_key(place);
        let all: Vec<ChargeOutcome<'_>> = before.into_iter().chain(bound).collect();
        if any_refused(&all) {
            self.refund_in_background(spent_charges(all.iter().chain(&exempt)))
                .await;
            return Ok(all.into_iter().map(refunded_decision).collect());
        }
        self.refund_in_background(spent_charges(&exempt)).await;
        Ok(all.into_iter().map(|asked| asked.decision).collect())
    }

    async fn query_parts(
        &self,
        parts: &[Query<'_>],
        idle: Option<Duration>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let calls = parts.iter().map(|part| self.decide_call(part, idle));
        let replies = self.run_all(calls.collect()).await?;
        let found = parts.iter().zip(replies);
        found
            .map(|(part, reply)| {
                self.parse_query_result(part, exchange_error::reject_server_error(reply)?)
            })
            .collect()
    }

    /// Does not wait for it, but has it on its way ahead of whatever this handle asks next.
    pub(in crate::store) async fn refund_in_background(&self, charges: Vec<Charge>) {
        if charges.is_empty() {
            return;
        }
        let redis = self.clone();
        let mut giving = Box::pin(async move {
            // A failure is one of the store, which is counted there.
            let _ = timeout(REFUND_TIMEOUT, redis.refund(&charges)).await;
        });
        let done = poll_fn(|context| Poll::Ready(giving.as_mut().poll(context).is_ready()));
        if !done.await {
            tokio::spawn(giving);
        }
    }
}

/// Whether a limit can be asked before the session is known: where it binds is no question of roles,
/// or those that this gateway knows say that it does.
fn can_charge_early(charge: &Charge, inquiry: &Query<'_>) -> bool {
    let limit = &charge.limit;
    let by_roles = !(limit.roles.is_empty() && limit.except_roles.is_empty());
    let known = inquiry.cached.as_ref();
    !by_roles
        || inquiry.session.is_none()
        || known.is_some_and(|session| limit.applies_to(&session.roles))
}

fn limit_query<'a>(charge: &'a Charge, anything: &'a Requirements) -> Query<'a> {
    Query {
        charges_before_auth: from_ref(charge),
        ..Query::empty(anything)
    }
}

/// The session, the blacklist entry and the cut-off, as far as they are asked for.
fn identity_queries<'a>(
    inquiry: &Query<'a>,
    anything: &'a Requirements,
) -> impl Iterator<Item = Query<'a>> {
    let session = inquiry.session.map(|id| Query {
        session: Some(id),
        cached: inquiry.cached.clone(),
        last_access: inquiry.last_access,
        ..Query::empty(anything)
    });
    let blacklist = inquiry.blacklist_key.map(|key| Query {
        blacklist_key: Some(key),
        ..Query::empty(anything)
    });
    let cut_off = inquiry.cut_off_user.map(|person| Query {
        cut_off_user: Some(person),
        issued_at: inquiry.issued_at,
        ..Query::empty(anything)
    });
    [session, blacklist, cut_off].into_iter().flatten()
}

/// What was found of a request's identity, as one.
fn merge_results(parts: Vec<QueryResult>, now: u64) -> QueryResult {
    let nothing = QueryResult::empty(now);
    parts.into_iter().fold(nothing, |all, part| QueryResult {
        now: part.now,
        session: match part.session {
            SessionLookup::NotQueried => all.session,
            session => session,
        },
        blacklisted: all.blacklisted || part.blacklisted,
        cut_off: all.cut_off.or(part.cut_off),
        decisions: all.decisions,
    })
}

fn pair_decisions<'a>(
    charges: impl IntoIterator<Item = &'a Charge>,
    found: Vec<QueryResult>,
) -> Vec<ChargeOutcome<'a>> {
    let decisions = found.into_iter().flat_map(|one| one.decisions);
    let both = charges.into_iter().zip(decisions);
    both.map(|(charge, decision)| ChargeOutcome { charge, decision })
        .collect()
}

fn any_refused(asked: &[ChargeOutcome<'_>]) -> bool {
    let mut asked = asked.iter();
    asked.any(|one| !one.decision.allowed && !one.charge.limit.shadow)
}

fn identity_passes(inquiry: &Query<'_>, findings: &QueryResult) -> bool {
    let session = match &findings.session {
        SessionLookup::NotQueried => true,
        SessionLookup::Active(session, _) => inquiry.is_met_by(session),
        SessionLookup::Missing | SessionLookup::Expired(_) | SessionLookup::Revoked(_) => false,
    };
    session && !findings.blacklisted && !inquiry.is_cut_off(findings.cut_off)
}

/// Those that have counted the request: a limit that does not allow it does not.
fn spent_charges<'a>(asked: impl IntoIterator<Item = &'a ChargeOutcome<'a>>) -> Vec<Charge> {
    let spent = asked.into_iter().filter(|one| one.decision.allowed);
    spent.map(|one| one.charge.clone()).collect()
}

/// As the limit stands when the request has been given back.
fn refunded_decision(asked: ChargeOutcome<'_>) -> Decision {
    let mut decision = asked.decision;
    if decision.allowed {
        let limit = &asked.charge.limit;
        let whole = match limit.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            Algorithm::SlidingWindow | Algorithm::SlidingLog => limit.limit,
        };
        decision.remaining += 1;
        if decision.remaining >= whole {
            decision.reset_after = Duration::ZERO;
        }
    }
    decision
}
