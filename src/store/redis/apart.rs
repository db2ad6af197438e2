//! Decisions in a cluster, where what a request asks for lies apart: each part is asked of the server
//! that has it, all side by side, and spends there. What a request that is refused has spent is given
//! back right after. So a race may refuse one too many, and never admits one.

use std::future::poll_fn;
use std::slice::from_ref;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::super::{Findings, Found, Inquiry, StoreError};
use super::{Redis, fault};
use crate::limits::{Algorithm, Charge, Decision};
use crate::routing::Require;

/// How long giving back may take; what is not given back then leaves with its window.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(1);

/// A limit that was asked on its own.
struct Asked<'a> {
    charge: &'a Charge,
    decision: Decision,
}

impl Redis {
    /// One trip, to several servers at once. A second one only for limits that bind by roles, where
    /// this gateway did not know the session's.
    pub(super) async fn decide_apart(
        &self,
        inquiry: &Inquiry<'_>,
        idle: Option<Duration>,
    ) -> Result<Findings, StoreError> {
        let early: Vec<&Charge> = inquiry.after.iter().filter(|c| early(c, inquiry)).collect();
        let anything = Require::default();
        let mut parts: Vec<Inquiry<'_>> =
            inquiry.before.iter().map(|c| only(c, &anything)).collect();
        parts.extend(identity(inquiry, &anything));
        parts.extend(early.iter().map(|c| only(c, &anything)));
        let mut found = self.ask_parts(&parts, idle).await?;
        let now = found.iter().map(|one| one.now).max();
        let after = found.split_off(found.len().saturating_sub(early.len()));
        let after = asked(early, after);
        let rest = found.split_off(inquiry.before.len().min(found.len()));
        let before = asked(inquiry.before.iter(), found);
        let mut findings = together(rest, now.unwrap_or_default());
        if refuse(&before) {
            self.refund_aside(spent(before.iter().chain(&after))).await;
            findings = together(Vec::new(), findings.now);
            findings.decisions = before.into_iter().map(unspent).collect();
        } else if !passes(inquiry, &findings) {
            self.refund_aside(spent(&after)).await;
            findings.decisions = before.into_iter().map(|asked| asked.decision).collect();
        } else {
            findings.decisions = self
                .settle(inquiry, &findings.session, before, after, idle)
                .await?;
        }
        Ok(findings)
    }

    /// What is left once the session is known: those limits are asked that bind it and were not yet,
    /// and those do not count that it is exempt from.
    async fn settle(
        &self,
        inquiry: &Inquiry<'_>,
        session: &Found,
        before: Vec<Asked<'_>>,
        after: Vec<Asked<'_>>,
        idle: Option<Duration>,
    ) -> Result<Vec<Decision>, StoreError> {
        let binds = |charge: &Charge| match session {
            Found::Active(session, _) => charge.limit.binds(&session.roles),
            _ => true,
        };
        let missing = inquiry
            .after
            .iter()
            .filter(|c| binds(c) && !early(c, inquiry));
        let missing: Vec<&Charge> = missing.collect();
        let anything = Require::default();
        let parts: Vec<Inquiry<'_>> = missing.iter().map(|c| only(c, &anything)).collect();
        let late = asked(missing, self.ask_parts(&parts, idle).await?);
        let (mut bound, exempt): (Vec<Asked<'_>>, Vec<Asked<'_>>) =
            after.into_iter().partition(|asked| binds(asked.charge));
        bound.extend(late);
        let place = |asked: &Asked<'_>| {
            let mut charges = inquiry.after.iter();
            charges.position(|charge| std::ptr::eq(charge, asked.charge))
        };
        bound.sort_by_key(place);
        let all: Vec<Asked<'_>> = before.into_iter().chain(bound).collect();
        if refuse(&all) {
            self.refund_aside(spent(all.iter().chain(&exempt))).await;
            return Ok(all.into_iter().map(unspent).collect());
        }
        self.refund_aside(spent(&exempt)).await;
        Ok(all.into_iter().map(|asked| asked.decision).collect())
    }

    async fn ask_parts(
        &self,
        parts: &[Inquiry<'_>],
        idle: Option<Duration>,
    ) -> Result<Vec<Findings>, StoreError> {
        let calls = parts.iter().map(|part| self.question(part, idle));
        let replies = self.run_all(calls.collect()).await?;
        let found = parts.iter().zip(replies);
        found
            .map(|(part, reply)| self.findings(part, fault::settled(reply)?))
            .collect()
    }

    /// Does not wait for it, but has it on its way ahead of whatever this handle asks next.
    pub(in super::super) async fn refund_aside(&self, charges: Vec<Charge>) {
        if charges.is_empty() {
            return;
        }
        let redis = self.clone();
        let mut giving = Box::pin(async move {
            // A failure is one of the store, which is counted there.
            let _ = timeout(GIVE_BACK_WITHIN, redis.refund(&charges)).await;
        });
        let done = poll_fn(|context| Poll::Ready(giving.as_mut().poll(context).is_ready()));
        if !done.await {
            tokio::spawn(giving);
        }
    }
}

/// Whether a limit can be asked before the session is known: where it binds is no question of roles,
/// or those that this gateway knows say that it does.
fn early(charge: &Charge, inquiry: &Inquiry<'_>) -> bool {
    let limit = &charge.limit;
    let by_roles = !(limit.roles.is_empty() && limit.except_roles.is_empty());
    let known = inquiry.known.as_ref();
    !by_roles
        || inquiry.session.is_none()
        || known.is_some_and(|session| limit.binds(&session.roles))
}

fn only<'a>(charge: &'a Charge, anything: &'a Require) -> Inquiry<'a> {
    Inquiry {
        before: from_ref(charge),
        ..Inquiry::nothing(anything)
    }
}

/// The session, the blacklist entry and the cut-off, as far as they are asked for.
fn identity<'a>(inquiry: &Inquiry<'a>, anything: &'a Require) -> impl Iterator<Item = Inquiry<'a>> {
    let session = inquiry.session.map(|id| Inquiry {
        session: Some(id),
        known: inquiry.known.clone(),
        last_access: inquiry.last_access,
        ..Inquiry::nothing(anything)
    });
    let blacklist = inquiry.blacklist_key.map(|key| Inquiry {
        blacklist_key: Some(key),
        ..Inquiry::nothing(anything)
    });
    let cut_off = inquiry.cut_off_of.map(|person| Inquiry {
        cut_off_of: Some(person),
        issued_at: inquiry.issued_at,
        ..Inquiry::nothing(anything)
    });
    [session, blacklist, cut_off].into_iter().flatten()
}

/// What was found of a request's identity, as one.
fn together(parts: Vec<Findings>, now: u64) -> Findings {
    let nothing = Findings::without_asking(now);
    parts.into_iter().fold(nothing, |all, part| Findings {
        now: part.now,
        session: match part.session {
            Found::NotAsked => all.session,
            session => session,
        },
        blacklisted: all.blacklisted || part.blacklisted,
        cut_off: all.cut_off.or(part.cut_off),
        decisions: all.decisions,
    })
}

fn asked<'a>(
    charges: impl IntoIterator<Item = &'a Charge>,
    found: Vec<Findings>,
) -> Vec<Asked<'a>> {
    let decisions = found.into_iter().flat_map(|one| one.decisions);
    let both = charges.into_iter().zip(decisions);
    both.map(|(charge, decision)| Asked { charge, decision })
        .collect()
}

fn refuse(asked: &[Asked<'_>]) -> bool {
    let mut asked = asked.iter();
    asked.any(|one| !one.decision.allowed && !one.charge.limit.shadow)
}

fn passes(inquiry: &Inquiry<'_>, findings: &Findings) -> bool {
    let session = match &findings.session {
        Found::NotAsked => true,
        Found::Active(session, _) => inquiry.is_met_by(session),
        Found::Missing | Found::Expired(_) | Found::Revoked(_) => false,
    };
    session && !findings.blacklisted && !inquiry.is_cut_off(findings.cut_off)
}

/// Those that have counted the request: a limit that does not allow it does not.
fn spent<'a>(asked: impl IntoIterator<Item = &'a Asked<'a>>) -> Vec<Charge> {
    let spent = asked.into_iter().filter(|one| one.decision.allowed);
    spent.map(|one| one.charge.clone()).collect()
}

/// As the limit stands when the request has been given back.
fn unspent(asked: Asked<'_>) -> Decision {
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
