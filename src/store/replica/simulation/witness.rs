//! Who knows what really happened, and whether each answer keeps the promises.

use super::asking::{CACHED_FOR, Credential};
use super::tally::Tally;
use super::{MS, Micros, SECOND};
use crate::auth::session::{Millis, SessionId};
use crate::store::{Found, Revocation, covers};

/// Within so long a sign-in is known everywhere.
const BOUND: Micros = SECOND;

impl By {
    /// How long after the end of a credential it may be accepted: well within the second that is
    /// promised, but for an outage whose operator chose otherwise. What steady clocks differ in is in it.
    fn late(self) -> Micros {
        match self {
            By::Replica => 702 * MS,
            By::Store | By::Sweep => 100 * MS,
            By::Both => 802 * MS,
            By::Outage => CACHED_FOR.as_micros() as u64 + 102 * MS,
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
pub(super) enum By {
    Replica,
    Store,
    /// The store's, about a session alone, as for an open stream.
    Sweep,
    /// The replica was sure of a part; the store was asked about the rest.
    Both,
    Outage,
}

/// A request that was answered.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) who: usize,
    pub(super) g: usize,
    pub(super) started: Micros,
    /// Up to when the gateway had confirmed by then, by the store's clock.
    pub(super) heard: Millis,
    pub(super) by: By,
    /// That of the session's record by which it was accepted.
    pub(super) revision: Option<u64>,
}

impl Request {
    pub(super) fn new(who: usize, g: usize, started: Micros, heard: Millis) -> Request {
        Request {
            who,
            g,
            started,
            heard,
            by: By::Replica,
            revision: None,
        }
    }

    /// On whose word it was answered, and by which record.
    pub(super) fn by(self, by: By, found: &Found) -> Request {
        let revision = match found {
            Found::Active(session, _) => Some(session.revision),
            _ => None,
        };
        Request {
            by,
            revision,
            ..self
        }
    }
}

/// The truth about a credential.
struct Truth {
    credential: Credential,
    created: Option<Micros>,
    /// The end of its life by the store's clock.
    expires: Millis,
    /// When it ended in the store, by real time and by the store's clock.
    ended: Option<(Micros, Millis)>,
    /// By gateway: since when it may be used there, as its owner knows.
    signed_in: Vec<Option<Micros>>,
    /// By gateway: since when it must be refused there.
    refused: Vec<Option<Micros>>,
    /// When each revision of its session's record was written, the first one first.
    written: Vec<Micros>,
    /// When a gateway acknowledged a revision.
    acknowledged: Vec<(usize, Micros, u64)>,
}

pub(super) struct Witness {
    gateways: usize,
    keeps: bool,
    truths: Vec<Truth>,
    pub(super) told: Vec<String>,
    pub(super) broken: Option<String>,
    pub(super) tally: Tally,
    began: Millis,
    /// From here on every answer is right, and the second one needs no store.
    pub(super) settled: Option<By>,
}

impl Witness {
    pub(super) fn new(gateways: usize, began: Millis) -> Witness {
        Witness {
            gateways,
            keeps: super::number("PORTCULLIS_SEED").is_some(),
            truths: Vec::new(),
            told: Vec::new(),
            broken: None,
            tally: Tally {
                stories: 1,
                ..Tally::default()
            },
            began,
            settled: None,
        }
    }

    /// Writes the story down, for who reads it.
    pub(super) fn tell(&mut self, now: Micros, what: impl FnOnce() -> String) {
        if self.keeps {
            let (seconds, micros) = (now / SECOND, now % SECOND);
            self.told.push(format!("{seconds}.{micros:06} {}", what()));
        }
    }

    pub(super) fn add(&mut self, credential: Credential, expires: Millis) -> usize {
        self.truths.push(Truth {
            credential,
            created: None,
            expires,
            ended: None,
            signed_in: vec![None; self.gateways],
            refused: vec![None; self.gateways],
            written: Vec::new(),
            acknowledged: Vec::new(),
        });
        self.truths.len() - 1
    }

    pub(super) fn count(&self) -> usize {
        self.truths.len()
    }

    pub(super) fn credential(&self, who: usize) -> &Credential {
        &self.truths[who].credential
    }

    fn of_session(&mut self, id: SessionId) -> impl Iterator<Item = &mut Truth> {
        let holds = move |truth: &&mut Truth| truth.credential.session == Some(id);
        self.truths.iter_mut().filter(holds)
    }

    pub(super) fn created(&mut self, id: SessionId, now: Micros) {
        self.tell(now, || format!("{id:?} is written"));
        self.of_session(id)
            .for_each(|truth| truth.created = Some(now));
    }

    /// The sessions that there are to be.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        let truths = self.truths.iter();
        truths.filter_map(|truth| truth.credential.session)
    }

    /// The credentials that are that session's and nothing else.
    pub(super) fn holders_of(&self, id: SessionId) -> Vec<usize> {
        let holds = |who: &usize| {
            let credential = self.credential(*who);
            credential.session == Some(id) && credential.key.is_none()
        };
        (0..self.count()).filter(holds).collect()
    }

    /// Takes down that a session's record has another revision in the store.
    pub(super) fn changed(&mut self, id: SessionId, revision: u64, now: Micros) {
        self.tell(now, || format!("{id:?} has revision {revision}"));
        self.tally.changes += 1;
        self.of_session(id)
            .for_each(|truth| truth.written.push(now));
    }

    /// Takes down that a client has heard from a gateway that a session's record is changed.
    pub(super) fn change_acknowledged(
        &mut self,
        g: usize,
        id: SessionId,
        revision: u64,
        now: Micros,
    ) {
        self.tell(now, || format!("{g} has written revision {revision}"));
        self.of_session(id)
            .for_each(|truth| truth.acknowledged.push((g, now, revision)));
    }

    pub(super) fn signed_in(&mut self, g: usize, id: SessionId, now: Micros) {
        self.tell(now, || format!("{g} has signed {id:?} in"));
        self.of_session(id)
            .for_each(|truth| truth.signed_in[g] = Some(now));
    }

    /// Takes down that what a revocation names has ended in the store.
    pub(super) fn ended(&mut self, what: &Revocation, now: Micros) {
        self.tell(now, || format!("{what:?} is in the store"));
        let store = self.began + now / MS;
        for truth in self.truths.iter_mut().filter(|it| it.is_ended_by(what)) {
            truth.ended.get_or_insert((now, store));
        }
    }

    /// Takes down that somebody has heard from a gateway that it is revoked.
    pub(super) fn acknowledged(&mut self, g: usize, what: &Revocation, now: Micros) {
        self.tell(now, || format!("{g} has revoked {what:?}"));
        let ended = |it: &&mut Truth| it.ended.is_some() && it.is_ended_by(what);
        for truth in self.truths.iter_mut().filter(ended) {
            truth.refused[g].get_or_insert(now);
        }
    }

    pub(super) fn judge(&mut self, now: Micros, store: Millis, request: &Request, v: Verdict) {
        self.tell(now, || {
            let Request {
                who,
                g,
                started,
                by,
                ..
            } = request;
            let age = now - started;
            format!("{g} says of {who} by {by:?}: {v:?} ({age} µs)")
        });
        self.tally.count(request.by, v);
        let settled = self.settled;
        let truth = &mut self.truths[request.who];
        if truth.ended.is_some_and(|(ended, _)| ended < now) {
            self.tally.answered_after_end += 1;
        }
        let outcome = match v {
            Verdict::Accepted => truth.may_be_accepted(now, store, request),
            Verdict::Revoked => {
                truth.refused[request.g].get_or_insert(now);
                // Whose time was up when somebody ended it is as good as revoked.
                let over = truth.ended.is_some() || store >= truth.expires;
                over.or("refused as revoked, untruly")
            }
            Verdict::Missing => truth.may_be_missing(now, request),
            Verdict::Expired => (store + 5 >= truth.expires).or("refused as expired, untruly"),
            Verdict::Unknown => Ok(()),
        };
        let outcome = outcome.and_then(|()| match settled {
            None => Ok(()),
            Some(_) if v == Verdict::Unknown => Err("unknown after a quiet time"),
            Some(By::Replica) => (request.by == By::Replica).or("asked again what is known"),
            Some(_) => Ok(()),
        });
        if let Err(promise) = outcome {
            let Request { who, g, .. } = request;
            self.broken = Some(format!("at {now} µs, {who} at gateway {g}: {promise}"));
        }
    }
}

impl Truth {
    fn is_ended_by(&self, what: &Revocation) -> bool {
        let credential = &self.credential;
        match what {
            Revocation::Session(id) => credential.session == Some(*id),
            Revocation::Token(key) => credential.key.as_ref() == Some(key),
            Revocation::Person(person, second) => {
                credential.person == Some(*person) && covers(*second, credential.issued_at)
            }
        }
    }

    fn may_be_accepted(
        &self,
        now: Micros,
        store: Millis,
        request: &Request,
    ) -> Result<(), &'static str> {
        let before = |moment: Option<Micros>| moment.is_some_and(|at| at <= request.started);
        if before(self.refused[request.g]) {
            return Err("accepted by a gateway that had revoked or refused it");
        }
        let in_outage = request.by == By::Outage;
        // Of a token with a session it is the session that is remembered.
        let twofold = self.credential.session.is_some() && self.credential.key.is_some();
        if in_outage && twofold {
            return Ok(());
        }
        if let Some((ended, at)) = self.ended {
            (now <= ended + request.by.late()).or("accepted too long after its end")?;
            (in_outage || request.heard <= at).or("accepted after its end was confirmed")?;
        }
        let late = store.saturating_sub(self.expires) * MS;
        (late <= BOUND).or("accepted too long after its time")?;
        match request.revision {
            Some(revision) => self.may_be_read_as(revision, now, request),
            None => Ok(()),
        }
    }

    /// Whether the record may be this old: a change is in force at once where it was made, and as soon
    /// as a revocation would be elsewhere.
    fn may_be_read_as(
        &self,
        revision: u64,
        now: Micros,
        request: &Request,
    ) -> Result<(), &'static str> {
        let here = |(g, at, newer): &(usize, Micros, u64)| {
            *g == request.g && *at <= request.started && *newer > revision
        };
        if self.acknowledged.iter().any(here) {
            return Err("a record from before a change that the gateway had made");
        }
        // The first change makes revision 1.
        let next = self.written.get(revision as usize);
        next.is_none_or(|next| now <= next + request.by.late())
            .or("a record too long after its change")
    }

    fn may_be_missing(&self, now: Micros, request: &Request) -> Result<(), &'static str> {
        let Some(created) = self.created else {
            return Ok(());
        };
        let known = self.signed_in[request.g].is_some_and(|at| at <= request.started);
        (!known && now <= created + BOUND).or("refused as missing, untruly")
    }
}

trait Or {
    fn or(self, promise: &'static str) -> Result<(), &'static str>;
}

impl Or for bool {
    fn or(self, promise: &'static str) -> Result<(), &'static str> {
        if self { Ok(()) } else { Err(promise) }
    }
}
