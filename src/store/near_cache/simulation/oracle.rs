//! Who knows what really happened, and whether each answer keeps the promises.

use super::requests::{CACHED_FOR, Credential};
use super::statistics::Statistics;
use super::{MS, Micros, SECOND};
use crate::auth::session::{Millis, SessionId};
use crate::store::{Revocation, SessionLookup, cut_off_covers};

/// Within so long a sign-in is known everywhere.
const BOUND: Micros = SECOND;

impl DecisionSource {
    /// How long after the end of a credential it may be accepted: well within the second that is
    /// promised, but for an outage whose operator chose otherwise. What steady clocks differ in is in it.
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

/// On whose word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecisionSource {
    NearCache,
    Store,
    /// The store's, about a session alone, as for an open stream.
    Sweep,
    /// The replica was sure of a part; the store was asked about the rest.
    Both,
    Outage,
}

impl DecisionSource {
    /// The source of a decision for which the store was asked for everything, or only for a part.
    pub(super) fn of_query(whole: bool) -> DecisionSource {
        if whole {
            DecisionSource::Store
        } else {
            DecisionSource::Both
        }
    }
}

/// A request that was answered.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) credential: usize,
    pub(super) gateway: usize,
    pub(super) started: Micros,
    /// Up to when the gateway had confirmed by then, by the store's clock.
    pub(super) confirmed_up_to: Millis,
    pub(super) source: DecisionSource,
    /// That of the session's record by which it was accepted.
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

    /// On whose word it was answered, and by which record.
    pub(super) fn with_source(self, by: DecisionSource, found: &SessionLookup) -> Request {
        let revision = match found {
            SessionLookup::Active(session, _) => Some(session.revision),
            _ => None,
        };
        Request {
            source: by,
            revision,
            ..self
        }
    }
}

/// The truth about a credential.
struct ExpectedState {
    credential: Credential,
    created: Option<Micros>,
    /// The end of its life by the store's clock.
    expires_at: Millis,
    /// When it ended in the store, by real time and by the store's clock.
    ended: Option<(Micros, Millis)>,
    /// By gateway: since when it may be used there, as its owner knows.
    signed_in: Vec<Option<Micros>>,
    /// By gateway: since when it must be refused there.
    revoked_since: Vec<Option<Micros>>,
    /// When each revision of its session's record was written, the first one first.
    revision_times: Vec<Micros>,
    /// When a gateway acknowledged a revision.
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
    /// From here on every answer is right, and the second one needs no store.
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

    /// Writes the story down, for who reads it.
    pub(super) fn log(&mut self, now: Micros, what: impl FnOnce() -> String) {
        if self.is_logging {
            let (seconds, micros) = (now / SECOND, now % SECOND);
            self.log_lines
                .push(format!("{seconds}.{micros:06} {}", what()));
        }
    }

    pub(super) fn add(&mut self, credential: Credential, expires: Millis) -> usize {
        self.expected.push(ExpectedState {
            credential,
            created: None,
            expires_at: expires,
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

    pub(super) fn credential(&self, who: usize) -> &Credential {
        &self.expected[who].credential
    }

    fn of_session(&mut self, id: SessionId) -> impl Iterator<Item = &mut ExpectedState> {
        let holds = move |truth: &&mut ExpectedState| truth.credential.session == Some(id);
        self.expected.iter_mut().filter(holds)
    }

    pub(super) fn session_created(&mut self, id: SessionId, now: Micros) {
        self.log(now, || format!("{id:?} is written"));
        self.of_session(id)
            .for_each(|truth| truth.created = Some(now));
    }

    /// The sessions that there are to be.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let truths = self.expected.iter();
        truths.filter_map(|truth| truth.credential.session)
    }

    /// The credentials that are that session's and nothing else.
    pub(super) fn holders_of(&self, id: SessionId) -> Vec<usize> {
        let holds = |who: &usize| {
            let credential = self.credential(*who);
            credential.session == Some(id) && credential.blacklist_key.is_none()
        };
        (0..self.count()).filter(holds).collect()
    }

    /// Takes down that a session's record has another revision in the store.
    pub(super) fn session_changed(&mut self, id: SessionId, revision: u64, now: Micros) {
        self.log(now, || format!("{id:?} has revision {revision}"));
        self.statistics.changes += 1;
        self.of_session(id)
            .for_each(|truth| truth.revision_times.push(now));
    }

    /// Takes down that a client has heard from a gateway that a session's record is changed.
    pub(super) fn change_acknowledged(
        &mut self,
        g: usize,
        id: SessionId,
        revision: u64,
        now: Micros,
    ) {
        self.log(now, || format!("{g} has written revision {revision}"));
        self.of_session(id)
            .for_each(|truth| truth.acknowledged_revisions.push((g, now, revision)));
    }

    pub(super) fn signed_in(&mut self, g: usize, id: SessionId, now: Micros) {
        self.log(now, || format!("{g} has signed {id:?} in"));
        self.of_session(id)
            .for_each(|truth| truth.signed_in[g] = Some(now));
    }

    /// Takes down that what a revocation names has ended in the store.
    pub(super) fn revocation_stored(&mut self, what: &Revocation, now: Micros) {
        self.log(now, || format!("{what:?} is in the store"));
        let store = self.clock_origin + now / MS;
        for truth in self.expected.iter_mut().filter(|it| it.is_ended_by(what)) {
            truth.ended.get_or_insert((now, store));
        }
    }

    /// Takes down that somebody has heard from a gateway that it is revoked.
    pub(super) fn revocation_acknowledged(&mut self, g: usize, what: &Revocation, now: Micros) {
        self.log(now, || format!("{g} has revoked {what:?}"));
        let ended = |it: &&mut ExpectedState| it.ended.is_some() && it.is_ended_by(what);
        for truth in self.expected.iter_mut().filter(ended) {
            truth.revoked_since[g].get_or_insert(now);
        }
    }

    pub(super) fn check(&mut self, now: Micros, store: Millis, request: &Request, v: Verdict) {
        self.log(now, || {
            let Request {
                credential: who,
                gateway: g,
                started,
                source: by,
                ..
            } = request;
            let age = now - started;
            format!("{g} says of {who} by {by:?}: {v:?} ({age} µs)")
        });
        self.statistics.count(request.source, v);
        let settled = self.settled_source;
        let truth = &mut self.expected[request.credential];
        if truth.ended.is_some_and(|(ended, _)| ended < now) {
            self.statistics.decided_after_end += 1;
        }
        let outcome = match v {
            Verdict::Accepted => truth.check_accepted(now, store, request),
            Verdict::Revoked => {
                truth.revoked_since[request.gateway].get_or_insert(now);
                // Whose time was up when somebody ended it is as good as revoked.
                let over = truth.ended.is_some() || store >= truth.expires_at;
                over.or_violation("refused as revoked, untruly")
            }
            Verdict::Missing => truth.check_missing(now, request),
            Verdict::Expired => {
                (store + 5 >= truth.expires_at).or_violation("refused as expired, untruly")
            }
            Verdict::Unknown => Ok(()),
        };
        let outcome = outcome.and_then(|()| match settled {
            None => Ok(()),
            Some(_) if v == Verdict::Unknown => Err("unknown after a quiet time"),
            Some(DecisionSource::NearCache) => (request.source == DecisionSource::NearCache)
                .or_violation("asked again what is known"),
            Some(_) => Ok(()),
        });
        if let Err(promise) = outcome {
            let Request {
                credential: who,
                gateway: g,
                ..
            } = request;
            self.violation = Some(format!("at {now} µs, {who} at gateway {g}: {promise}"));
        }
    }
}

impl ExpectedState {
    fn is_ended_by(&self, what: &Revocation) -> bool {
        let credential = &self.credential;
        match what {
            Revocation::Session(id) => credential.session == Some(*id),
            Revocation::Token(key) => credential.blacklist_key.as_ref() == Some(key),
            Revocation::IssuedBefore(person, second) => {
                credential.user == Some(*person) && cut_off_covers(*second, credential.issued_at)
            }
        }
    }

    fn check_accepted(
        &self,
        now: Micros,
        store: Millis,
        request: &Request,
    ) -> Result<(), &'static str> {
        let before = |moment: Option<Micros>| moment.is_some_and(|at| at <= request.started);
        if before(self.revoked_since[request.gateway]) {
            return Err("accepted by a gateway that had revoked or refused it");
        }
        let in_outage = request.source == DecisionSource::Outage;
        // Of a token with a session it is the session that is remembered.
        let twofold = self.credential.session.is_some() && self.credential.blacklist_key.is_some();
        if in_outage && twofold {
            return Ok(());
        }
        if let Some((ended, at)) = self.ended {
            (now <= ended + request.source.max_delay())
                .or_violation("accepted too long after its end")?;
            (in_outage || request.confirmed_up_to <= at)
                .or_violation("accepted after its end was confirmed")?;
        }
        let late = store.saturating_sub(self.expires_at) * MS;
        (late <= BOUND).or_violation("accepted too long after its time")?;
        match request.revision {
            Some(revision) => self.check_revision(revision, now, request),
            None => Ok(()),
        }
    }

    /// Whether the record may be this old: a change is in force at once where it was made, and as soon
    /// as a revocation would be elsewhere.
    fn check_revision(
        &self,
        revision: u64,
        now: Micros,
        request: &Request,
    ) -> Result<(), &'static str> {
        let here = |(g, at, newer): &(usize, Micros, u64)| {
            *g == request.gateway && *at <= request.started && *newer > revision
        };
        if self.acknowledged_revisions.iter().any(here) {
            return Err("a record from before a change that the gateway had made");
        }
        // The first change makes revision 1.
        let next = self.revision_times.get(revision as usize);
        next.is_none_or(|next| now <= next + request.source.max_delay())
            .or_violation("a record too long after its change")
    }

    fn check_missing(&self, now: Micros, request: &Request) -> Result<(), &'static str> {
        let Some(created) = self.created else {
            return Ok(());
        };
        let known = self.signed_in[request.gateway].is_some_and(|at| at <= request.started);
        (!known && now <= created + BOUND).or_violation("refused as missing, untruly")
    }
}

trait OrViolation {
    fn or_violation(self, promise: &'static str) -> Result<(), &'static str>;
}

impl OrViolation for bool {
    fn or_violation(self, promise: &'static str) -> Result<(), &'static str> {
        if self { Ok(()) } else { Err(promise) }
    }
}
