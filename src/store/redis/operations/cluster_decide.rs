//! Decisions in a cluster, where the keys of a request are on different servers.
//!
//! Each part of the query is sent to its server, in parallel, and spends there. If the request is
//! refused, its charges are refunded right after. A race may refuse a request too many, but never
//! admits one.

use std::future::poll_fn;
use std::slice::from_ref;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use crate::limits::{Charge, Decision};
use crate::routing::Requirements;
use crate::store::redis::Redis;
use crate::store::redis::links::exchange_error;
use crate::store::{Query, QueryResult, SessionLookup, StoreError};

/// Timeout of a refund; requests that are not refunded expire with their window.
const REFUND_TIMEOUT: Duration = Duration::from_secs(1);

/// Decision of a charge that was sent on its own.
struct ChargeOutcome<'a> {
    charge: &'a Charge,
    decision: Decision,
}

impl Redis {
    /// Decides in one round trip to several servers in parallel.
    ///
    /// A second one is needed only for limits that depend on roles if the session is not cached.
    pub(in crate::store::redis) async fn decide_in_cluster(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<QueryResult, StoreError> {
        let early: Vec<&Charge> = query
            .charges_after_auth
            .iter()
            .filter(|c| can_charge_early(c, query))
            .collect();
        let no_requirements = Requirements::default();
        let mut parts: Vec<Query<'_>> = query
            .charges_before_auth
            .iter()
            .map(|c| limit_query(c, &no_requirements))
            .collect();
        parts.extend(identity_queries(query, &no_requirements));
        parts.extend(early.iter().map(|c| limit_query(c, &no_requirements)));
        let mut results = self.query_parts(&parts, idle).await?;
        let now = results.iter().map(|result| result.now).max();
        let after = results.split_off(results.len().saturating_sub(early.len()));
        let after = pair_decisions(early, after);
        let identity = results.split_off(query.charges_before_auth.len().min(results.len()));
        let before = pair_decisions(query.charges_before_auth.iter(), results);
        let mut result = merge_results(identity, now.unwrap_or_default());
        if any_refused(&before) {
            self.refund_in_background(spent_charges(before.iter().chain(&after)))
                .await;
            result = merge_results(Vec::new(), result.now);
            result.decisions = before.into_iter().map(refunded_decision).collect();
        } else if !identity_passes(query, &result) {
            self.refund_in_background(spent_charges(&after)).await;
            result.decisions = before.into_iter().map(|outcome| outcome.decision).collect();
        } else {
            result.decisions = self
                .settle_limits(query, &result.session, before, after, idle)
                .await?;
        }
        Ok(result)
    }

    /// Decides the limits once the session is known.
    ///
    /// Sends the charges that apply to it and were not sent yet, and refunds those from which it is
    /// exempt.
    async fn settle_limits(
        &self,
        query: &Query<'_>,
        session: &SessionLookup,
        before: Vec<ChargeOutcome<'_>>,
        after: Vec<ChargeOutcome<'_>>,
        idle: Option<Duration>,
    ) -> Result<Vec<Decision>, StoreError> {
        let applies = |charge: &Charge| match session {
            SessionLookup::Active(session, _) => charge.limit.applies_to(&session.roles),
            _ => true,
        };
        let missing = query
            .charges_after_auth
            .iter()
            .filter(|c| applies(c) && !can_charge_early(c, query));
        let missing: Vec<&Charge> = missing.collect();
        let no_requirements = Requirements::default();
        let parts: Vec<Query<'_>> = missing
            .iter()
            .map(|c| limit_query(c, &no_requirements))
            .collect();
        let late = pair_decisions(missing, self.query_parts(&parts, idle).await?);
        let (mut applying, exempt): (Vec<ChargeOutcome<'_>>, Vec<ChargeOutcome<'_>>) = after
            .into_iter()
            .partition(|outcome| applies(outcome.charge));
        applying.extend(late);
        let position = |outcome: &ChargeOutcome<'_>| {
            let mut charges = query.charges_after_auth.iter();
            charges.position(|charge| std::ptr::eq(charge, outcome.charge))
        };
        applying.sort_by_key(position);
        let all: Vec<ChargeOutcome<'_>> = before.into_iter().chain(applying).collect();
        if any_refused(&all) {
            self.refund_in_background(spent_charges(all.iter().chain(&exempt)))
                .await;
            return Ok(all.into_iter().map(refunded_decision).collect());
        }
        self.refund_in_background(spent_charges(&exempt)).await;
        Ok(all.into_iter().map(|outcome| outcome.decision).collect())
    }

    async fn query_parts(
        &self,
        parts: &[Query<'_>],
        idle: Option<Duration>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let calls = parts.iter().map(|part| self.decide_call(part, idle));
        let replies = self.run_all(calls.collect()).await?;
        let results = parts.iter().zip(replies);
        results
            .map(|(part, reply)| {
                self.parse_query_result(part, exchange_error::reject_server_error(reply)?)
            })
            .collect()
    }

    /// Refunds charges without waiting, but ahead of the next request of this handle.
    pub(in crate::store) async fn refund_in_background(&self, charges: Vec<Charge>) {
        if charges.is_empty() {
            return;
        }
        let redis = self.clone();
        let mut refund = Box::pin(async move {
            // A refund that fails is not repeated: the charges expire with their window.
            let _ = timeout(REFUND_TIMEOUT, redis.refund(&charges)).await;
        });
        // The first poll queues the commands.
        let is_done = poll_fn(|context| Poll::Ready(refund.as_mut().poll(context).is_ready()));
        if !is_done.await {
            tokio::spawn(refund);
        }
    }
}

/// Whether a charge can be sent before the session is known.
///
/// It can if the limit does not depend on roles, or applies to the roles of the cached session.
fn can_charge_early(charge: &Charge, query: &Query<'_>) -> bool {
    let limit = &charge.limit;
    let depends_on_roles = !(limit.roles.is_empty() && limit.except_roles.is_empty());
    let cached = query.cached.as_ref();
    !depends_on_roles
        || query.session.is_none()
        || cached.is_some_and(|session| limit.applies_to(&session.roles))
}

fn limit_query<'a>(charge: &'a Charge, no_requirements: &'a Requirements) -> Query<'a> {
    Query {
        charges_before_auth: from_ref(charge),
        ..Query::empty(no_requirements)
    }
}

/// Splits off the query's session, blacklist entry and cut-off, each as a query of its own.
fn identity_queries<'a>(
    query: &Query<'a>,
    no_requirements: &'a Requirements,
) -> impl Iterator<Item = Query<'a>> {
    let session = query.session.map(|id| Query {
        session: Some(id),
        cached: query.cached.clone(),
        last_access: query.last_access,
        ..Query::empty(no_requirements)
    });
    let blacklist = query.blacklist_key.map(|key| Query {
        blacklist_key: Some(key),
        ..Query::empty(no_requirements)
    });
    let cut_off = query.cut_off_user.map(|user| Query {
        cut_off_user: Some(user),
        issued_at: query.issued_at,
        ..Query::empty(no_requirements)
    });
    [session, blacklist, cut_off].into_iter().flatten()
}

/// Merges the results of the identity queries.
fn merge_results(parts: Vec<QueryResult>, now: u64) -> QueryResult {
    let empty = QueryResult::empty(now);
    parts.into_iter().fold(empty, |merged, part| QueryResult {
        now: part.now,
        session: match part.session {
            SessionLookup::NotQueried => merged.session,
            session => session,
        },
        blacklisted: merged.blacklisted || part.blacklisted,
        cut_off: merged.cut_off.or(part.cut_off),
        decisions: merged.decisions,
    })
}

fn pair_decisions<'a>(
    charges: impl IntoIterator<Item = &'a Charge>,
    results: Vec<QueryResult>,
) -> Vec<ChargeOutcome<'a>> {
    let decisions = results.into_iter().flat_map(|result| result.decisions);
    let pairs = charges.into_iter().zip(decisions);
    pairs
        .map(|(charge, decision)| ChargeOutcome { charge, decision })
        .collect()
}

fn any_refused(outcomes: &[ChargeOutcome<'_>]) -> bool {
    outcomes.iter().any(|outcome| outcome.decision.refuses())
}

fn identity_passes(query: &Query<'_>, result: &QueryResult) -> bool {
    let session_passes = match &result.session {
        SessionLookup::NotQueried => true,
        SessionLookup::Active(session, _) => query.is_met_by(session),
        SessionLookup::Missing | SessionLookup::Expired(_) | SessionLookup::Revoked(_) => false,
    };
    session_passes && !result.blacklisted && !query.is_cut_off(result.cut_off)
}

/// The charges that were spent: a limit that refuses does not count the request.
fn spent_charges<'a>(outcomes: impl IntoIterator<Item = &'a ChargeOutcome<'a>>) -> Vec<Charge> {
    let spent = outcomes
        .into_iter()
        .filter(|outcome| outcome.decision.allowed);
    spent.map(|outcome| outcome.charge.clone()).collect()
}

/// The state of a limit after the request has been refunded.
fn refunded_decision(outcome: ChargeOutcome<'_>) -> Decision {
    let mut decision = outcome.decision;
    if decision.allowed {
        decision.remaining += 1;
        if decision.remaining >= outcome.charge.limit.quota() {
            decision.reset_after = Duration::ZERO;
        }
    }
    decision
}
