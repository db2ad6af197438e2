//! Oracle of the simulation: tracks the true state and checks every decision against it.

use super::requests::{CACHED_FOR, Credential};
use super::statistics::Statistics;
use super::{MS, Micros, SECOND};
use crate::auth::session::{Millis, SessionId};
use crate::store::{Revocation, SessionLookup, cut_off_covers};

/// Time within which a sign-in takes effect on all gateways.
const BOUND: Micros = SECOND;

impl DecisionSource {
    /// Longest time after the end of a credential for which it may be accepted.
    ///
    /// Well within the guaranteed second, except for outages, where the operator's setting counts.
    /// Includes the differences between the clock rates.
    fn max_delay(self) -> Micros {
        match self {
            DecisionSource::NearCache => 702 * MS,
            DecisionSource::Store | DecisionSource::Sweep => 100 * MS,
            DecisionSource::Both => 802 * MS,
            DecisionSource::Outage => CACHED_FOR.as_micros() as u64 + 102 * MS,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Revoked,
    Missing,
    Expired,
    Unknown,
}

/// Source of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecisionSource {
    NearCache,
    Store,
    /// The store, for the check of an open stream's session.
    Sweep,
    /// The near cache for a part of the query, the store for the rest.
    Both,
    Outage,
}

impl DecisionSource {
    /// The source of a decision for which the store received the whole query or a part of it.
    pub(super) fn of_query(is_whole: bool) -> DecisionSource {
        if is_whole {
            DecisionSource::Store
        } else {
            DecisionSource::Both
        }
    }
}

/// A decided request.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) credential: usize,
    pub(super) gateway: usize,
    pub(super) started: Micros,
    /// Time up to which the gateway had announced its confirmation, by the store's clock.
    pub(super) confirmed_up_to: Millis,
    pub(super) source: DecisionSource,
    /// Revision of the session record on which the decision is based.
    pub(super) revision: Option<u64>,
}

impl Request {
    pub(super) fn new(
        credential: usize,
        gateway: usize,
        started: Micros,
        confirmed_up_to: Millis,
    ) -> Request {
        Request {
            credential,
            gateway,
            started,
            confirmed_up_to,
            source: DecisionSource::NearCache,
            revision: None,
        }
    }

    /// Sets the source of the decision and the revision of the record.
    pub(super) fn with_source(self, source: DecisionSource, lookup: &SessionLookup) -> Request {
        let revision = match lookup {
            SessionLookup::Active(session, _) => Some(session.revision),
            _ => None,
        };
        Request {
            source,
            revision,
            ..self
        }
    }
}

/// True state of a credential.
struct ExpectedState {
    credential: Credential,
    created: Option<Micros>,
    /// By the store's clock.
    expires_at: Millis,
    /// When the credential ended in the store, by real time and by the store's clock.
    ended: Option<(Micros, Millis)>,
    /// Per gateway: when it acknowledged the sign-in.
    signed_in: Vec<Option<Micros>>,
    /// Per gateway: since when it must refuse the credential.
    revoked_since: Vec<Option<Micros>>,
    /// When each revision of the session's record was written, oldest first.
    revision_times: Vec<Micros>,
    /// Gateway, time and number of each acknowledged revision.
    acknowledged_revisions: Vec<(usize, Micros, u64)>,
}

pub(super) struct Oracle {
    gateways: usize,
    is_logging: bool,
    expected: Vec<ExpectedState>,
    pub(super) log_lines: Vec<String>,
    pub(super) violation: Option<String>,
    pub(super) statistics: Statistics,
    clock_origin: Millis,
    /// Once the fleet has converged, the source that decisions must have.
    pub(super) settled_source: Option<DecisionSource>,
}

impl Oracle {
    pub(super) fn new(gateways: usize, clock_origin: Millis) -> Oracle {
        Oracle {
            gateways,
            is_logging: super::env_number("PORTCULLIS_SEED").is_some(),
            expected: Vec::new(),
            log_lines: Vec::new(),
            violation: None,
            statistics: Statistics {
                runs: 1,
                ..Statistics::default()
            },
            clock_origin,
            settled_source: None,
        }
    }

    /// Logs an event if a single seed is run.
    pub(super) fn log(&mut self, now: Micros, message: impl FnOnce() -> String) {
        if self.is_logging {
            let (seconds, micros) = (now / SECOND, now % SECOND);
            self.log_lines
                .push(format!("{seconds}.{micros:06} {}", message()));
        }
    }

    pub(super) fn add(&mut self, credential: Credential, expires_at: Millis) -> usize {
        self.expected.push(ExpectedState {
            credential,
            created: None,
            expires_at,
            ended: None,
            signed_in: vec![None; self.gateways],
            revoked_since: vec![None; self.gateways],
            revision_times: Vec::new(),
            acknowledged_revisions: Vec::new(),
        });
        self.expected.len() - 1
    }

    pub(super) fn count(&self) -> usize {
        self.expected.len()
    }

    pub(super) fn credential(&self, index: usize) -> &Credential {
        &self.expected[index].credential
    }

    fn of_session(&mut self, id: SessionId) -> impl Iterator<Item = &mut ExpectedState> {
        let uses_session = move |state: &&mut ExpectedState| state.credential.session == Some(id);
        self.expected.iter_mut().filter(uses_session)
    }

    pub(super) fn session_created(&mut self, id: SessionId, now: Micros) {
        self.log(now, || format!("{id:?} is written"));
        self.of_session(id)
            .for_each(|state| state.created = Some(now));
    }

    /// Sessions of all credentials, including those that are not created yet.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let expected = self.expected.iter();
        expected.filter_map(|state| state.credential.session)
    }

    /// Credentials that consist of this session alone.
    pub(super) fn session_credentials(&self, id: SessionId) -> Vec<usize> {
        let is_session = |index: &usize| {
            let credential = self.credential(*index);
            credential.session == Some(id) && credential.blacklist_key.is_none()
        };
        (0..self.count()).filter(is_session).collect()
    }

    /// Records a new revision of a session's record in the store.
    pub(super) fn session_changed(&mut self, id: SessionId, revision: u64, now: Micros) {
        self.log(now, || format!("{id:?} has revision {revision}"));
        self.statistics.changes += 1;
        self.of_session(id)
            .for_each(|state| state.revision_times.push(now));
    }

    /// Records that a gateway has acknowledged a change to a client.
    pub(super) fn change_acknowledged(
        &mut self,
        g: usize,
        id: SessionId,
        revision: u64,
        now: Micros,
    ) {
        self.log(now, || format!("{g} has written revision {revision}"));
        self.of_session(id)
            .for_each(|state| state.acknowledged_revisions.push((g, now, revision)));
    }

    pub(super) fn signed_in(&mut self, g: usize, id: SessionId, now: Micros) {
        self.log(now, || format!("{g} has signed {id:?} in"));
        self.of_session(id)
            .for_each(|state| state.signed_in[g] = Some(now));
    }

    /// Records that a revocation is in the store.
    pub(super) fn revocation_stored(&mut self, revocation: &Revocation, now: Micros) {
        self.log(now, || format!("{revocation:?} is in the store"));
        let store_now = self.clock_origin + now / MS;
        let is_ended = |state: &&mut ExpectedState| state.is_ended_by(revocation);
        for state in self.expected.iter_mut().filter(is_ended) {
            state.ended.get_or_insert((now, store_now));
        }
    }

    /// Records that a gateway has acknowledged a revocation.
    pub(super) fn revocation_acknowledged(
        &mut self,
        g: usize,
        revocation: &Revocation,
        now: Micros,
    ) {
        self.log(now, || format!("{g} has revoked {revocation:?}"));
        let is_ended =
            |state: &&mut ExpectedState| state.ended.is_some() && state.is_ended_by(revocation);
        for state in self.expected.iter_mut().filter(is_ended) {
            state.revoked_since[g].get_or_insert(now);
        }
    }

    /// Checks a decision; a violation ends the run.
    pub(super) fn check(
        &mut self,
        now: Micros,
        store_now: Millis,
        request: &Request,
        verdict: Verdict,
    ) {
        let Request {
            credential,
            gateway,
            started,
            source,
            ..
        } = *request;
        self.log(now, || {
            let age = now - started;
            format!("{gateway} decides {credential} by {source:?}: {verdict:?} ({age} µs)")
        });
        self.statistics.count(source, verdict);
        let settled = self.settled_source;
        let state = &mut self.expected[credential];
        if state.ended.is_some_and(|(ended, _)| ended < now) {
            self.statistics.decided_after_end += 1;
        }
        let outcome = match verdict {
            Verdict::Accepted => state.check_accepted(now, store_now, request),
            Verdict::Revoked => {
                state.revoked_since[gateway].get_or_insert(now);
                // An expired credential that is revoked may be refused for either reason.
                let is_over = state.ended.is_some() || store_now >= state.expires_at;
                is_over.or_violation("refused as revoked, but not revoked")
            }
            Verdict::Missing => state.check_missing(now, request),
            Verdict::Expired => (store_now + 5 >= state.expires_at)
                .or_violation("refused as expired, but not expired"),
            Verdict::Unknown => Ok(()),
        };
        let outcome = outcome.and_then(|()| match settled {
            None => Ok(()),
            Some(_) if verdict == Verdict::Unknown => Err("unknown after all faults"),
            Some(DecisionSource::NearCache) => (source == DecisionSource::NearCache)
                .or_violation("queried the store for a cached item"),
            Some(_) => Ok(()),
        });
        if let Err(violation) = outcome {
            self.violation = Some(format!(
                "at {now} µs, credential {credential} at gateway {gateway}: {violation}"
            ));
        }
    }
}

impl ExpectedState {
    fn is_ended_by(&self, revocation: &Revocation) -> bool {
        let credential = &self.credential;
        match revocation {
            Revocation::Session(id) => credential.session == Some(*id),
            Revocation::Token(key) => credential.blacklist_key.as_ref() == Some(key),
            Revocation::IssuedBefore(user, second) => {
                credential.user == Some(*user) && cut_off_covers(*second, credential.issued_at)
            }
        }
    }

    fn check_accepted(
        &self,
        now: Micros,
        store_now: Millis,
        request: &Request,
    ) -> Result<(), &'static str> {
        if self.revoked_since[request.gateway].is_some_and(|at| at <= request.started) {
            return Err("accepted by a gateway that had revoked or refused it");
        }
        let in_outage = request.source == DecisionSource::Outage;
        // During an outage, a token with a session is decided by its session alone.
        let is_session_token =
            self.credential.session.is_some() && self.credential.blacklist_key.is_some();
        if in_outage && is_session_token {
            return Ok(());
        }
        if let Some((ended, ended_at_store)) = self.ended {
            (now <= ended + request.source.max_delay())
                .or_violation("accepted too long after its end")?;
            (in_outage || request.confirmed_up_to <= ended_at_store)
                .or_violation("accepted after its end was confirmed")?;
        }
        let late = store_now.saturating_sub(self.expires_at) * MS;
        (late <= BOUND).or_violation("accepted too long after its expiry")?;
        match request.revision {
            Some(revision) => self.check_revision(revision, now, request),
            None => Ok(()),
        }
    }

    /// Checks that the record is recent enough.
    ///
    /// A change takes effect at once on the gateway that made it, and on the others within the bound
    /// of a revocation.
    fn check_revision(
        &self,
        revision: u64,
        now: Micros,
        request: &Request,
    ) -> Result<(), &'static str> {
        let is_newer_here = |(g, at, newer): &(usize, Micros, u64)| {
            *g == request.gateway && *at <= request.started && *newer > revision
        };
        if self.acknowledged_revisions.iter().any(is_newer_here) {
            return Err("used a record from before a change that the gateway had made");
        }
        // The first change creates revision 1.
        let next = self.revision_times.get(revision as usize);
        next.is_none_or(|next| now <= next + request.source.max_delay())
            .or_violation("used a record too long after its change")
    }

    fn check_missing(&self, now: Micros, request: &Request) -> Result<(), &'static str> {
        let Some(created) = self.created else {
            return Ok(());
        };
        let signed_in = self.signed_in[request.gateway].is_some_and(|at| at <= request.started);
        (!signed_in && now <= created + BOUND).or_violation("refused as missing, but present")
    }
}

trait OrViolation {
    fn or_violation(self, violation: &'static str) -> Result<(), &'static str>;
}

impl OrViolation for bool {
    fn or_violation(self, violation: &'static str) -> Result<(), &'static str> {
        if self { Ok(()) } else { Err(violation) }
    }
}
