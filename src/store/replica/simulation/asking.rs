//! What a gateway does for a client: requests, as `Store::decide` and admission answer them, sign-ins
//! and revocations.

use std::time::Duration;

use super::server::Server;
use super::witness::{By, Request, Verdict};
use super::world::World;
use crate::auth::session::{Session, SessionId};
use crate::refusal::Refusal;
use crate::routing::Require;
use crate::store::replica::Replica;
use crate::store::{Findings, Found, Inquiry, Item, PersonHash, Revocation};

/// `store.on_outage.cached_for`.
pub(super) const CACHED_FOR: Duration = Duration::from_secs(2);

/// A credential: a session, a token of one, or a token without.
#[derive(Debug, Clone, Default)]
pub(super) struct Credential {
    pub(super) session: Option<SessionId>,
    pub(super) key: Option<String>,
    pub(super) person: Option<PersonHash>,
    pub(super) issued_at: Option<u64>,
    pub(super) require: Require,
}

impl Credential {
    fn inquiry(&self) -> Inquiry<'_> {
        Inquiry {
            before: &[],
            session: self.session,
            known: None,
            last_access: 0,
            blacklist_key: self.key.as_deref(),
            cut_off_of: self.person,
            issued_at: self.issued_at,
            require: &self.require,
            after: &[],
        }
    }

    /// What is left of it to ask.
    fn rest(rest: &Inquiry<'_>) -> Credential {
        Credential {
            session: rest.session,
            key: rest.blacklist_key.map(str::to_owned),
            person: rest.cut_off_of,
            issued_at: rest.issued_at,
            require: rest.require.clone(),
        }
    }

    /// Its parts, each of which may lie on a server of its own.
    fn parts(&self) -> Vec<Credential> {
        let session = self.session.map(|id| Credential {
            session: Some(id),
            ..Credential::default()
        });
        let key = self.key.clone().map(|key| Credential {
            key: Some(key),
            ..Credential::default()
        });
        let person = self.person.map(|person| Credential {
            person: Some(person),
            issued_at: self.issued_at,
            ..Credential::default()
        });
        [session, key, person].into_iter().flatten().collect()
    }

    fn judge(&self, findings: &Findings) -> Verdict {
        if findings.blacklisted || self.inquiry().is_cut_off(findings.cut_off) {
            return Verdict::Revoked;
        }
        verdict_of(&findings.session)
    }

    /// As `admission/outage` judges.
    fn judge_without_store(&self, replica: &Replica, cached: bool, now: u64) -> Verdict {
        let Credential { session, key, .. } = self;
        if key.as_ref().is_some_and(|key| replica.is_revoked(key))
            || self
                .person
                .is_some_and(|person| replica.is_cut_off(&person, self.issued_at))
        {
            return Verdict::Revoked;
        }
        match session.and_then(|id| replica.ended(id)) {
            Some(Refusal::SessionExpired) => return Verdict::Expired,
            Some(_) => return Verdict::Revoked,
            None => {}
        }
        let known = match (session, key) {
            (Some(id), _) => replica.still_active(*id, CACHED_FOR, None, now).is_some(),
            (None, Some(key)) => replica.was_accepted(key, CACHED_FOR),
            (None, None) => false,
        };
        if cached && known {
            Verdict::Accepted
        } else {
            Verdict::Unknown
        }
    }
}

impl World {
    /// A request with a credential.
    pub(super) fn request(&mut self, g: usize, who: usize) {
        if !self.gateways[g].up {
            return;
        }
        let started = self.now;
        let heard = self.gateways[g].heard;
        let credential = self.witness.credential(who).clone();
        let clock = self.clock(g);
        let replica = self.replica(g);
        let inquiry = credential.inquiry();
        let sure = replica.sure(&inquiry, None, clock);
        let after = sure.after(&inquiry);
        let rest = sure.rest(&inquiry, &after);
        let request = Request::new(who, g, started, heard);
        if rest.asks_nothing() {
            let mut findings = Findings::without_asking(clock);
            sure.complete(&mut findings);
            let verdict = credential.judge(&findings);
            return self.settle(&request.by(By::Replica, &findings.session), verdict);
        }
        let whole = rest.session == credential.session
            && rest.blacklist_key == credential.key.as_deref()
            && rest.cut_off_of == credential.person;
        let from = if whole { By::Store } else { By::Both };
        let asking = replica.asking(&rest);
        let known = rest.session.and_then(|id| replica.session(id));
        let rest = Credential::rest(&rest);
        let parts = match self.clustered {
            true => rest.parts(),
            false => vec![rest.clone()],
        };
        let decide = move |server: &Server, part: &Credential, now| {
            let mut inquiry = part.inquiry();
            inquiry.known.clone_from(&known);
            server.decide(&inquiry, now)
        };
        self.look_up(g, parts, decide, move |world, findings| {
            let now = world.clock(g);
            let replica = world.replica(g);
            let (request, verdict) = match findings {
                Some((_, parts)) => {
                    let mut findings = together(parts);
                    replica.keep(&asking, &rest.inquiry(), &findings);
                    sure.complete(&mut findings);
                    let request = request.by(from, &findings.session);
                    (request, credential.judge(&findings))
                }
                None => {
                    let cached = world.cached;
                    let verdict = credential.judge_without_store(replica, cached, now);
                    (request.by(By::Outage, &Found::NotAsked), verdict)
                }
            };
            world.settle(&request, verdict);
        });
    }

    /// Checks the sessions of open streams, as `Store::ended_among` does.
    pub(super) fn sweep(&mut self, g: usize) {
        if !self.gateways[g].up {
            return;
        }
        let (started, heard, clock) = (self.now, self.gateways[g].heard, self.clock(g));
        let replica = self.replica(g);
        let mut unsure: Vec<SessionId> = self.witness.sessions().collect();
        unsure.retain(|id| !replica.is_surely_active(*id, None, clock));
        self.find_sessions(g, unsure, move |world, found| {
            for (id, found) in found.into_iter().flatten() {
                for who in world.witness.holders_of(id) {
                    let request = Request::new(who, g, started, heard);
                    world.settle(&request.by(By::Sweep, &found), verdict_of(&found));
                }
            }
        });
    }

    /// Changes a session's record by way of a gateway.
    pub(super) fn change(&mut self, g: usize, id: SessionId) {
        if !self.gateways[g].up {
            return;
        }
        self.question(
            g,
            move |world| world.change_record(id),
            move |world, answer| {
                world.replica(g).changed(&Item::Session(id), 0);
                if let Some(Some(revision)) = answer {
                    world
                        .witness
                        .change_acknowledged(g, id, revision, world.now);
                }
            },
        );
    }

    fn settle(&mut self, request: &Request, verdict: Verdict) {
        let store = self.server.clock(self.now);
        self.witness.judge(self.now, store, request, verdict);
    }

    /// Writes a session; its owner hears of it only if the store answers.
    pub(super) fn sign_in(
        &mut self,
        g: usize,
        session: Session,
        then: impl FnOnce(&mut World) + 'static,
    ) {
        if !self.gateways[g].up {
            return;
        }
        let id = session.id;
        self.question(
            g,
            move |world| world.write_session(session),
            move |world, answer| {
                world.replica(g).changed(&Item::Session(id), 0);
                if answer.is_some() {
                    world.witness.signed_in(g, id, world.now);
                    then(world);
                }
            },
        );
    }

    /// Asks a gateway to revoke something; who hears nothing may ask another.
    pub(super) fn revoke_at(&mut self, g: usize, what: Revocation, tries: u32) {
        if !self.gateways[g].up {
            return;
        }
        let asked = what.clone();
        self.question(
            g,
            move |world| world.revoke(&asked),
            move |world, answer| match answer {
                Some(ended) => {
                    let clock = world.clock(g);
                    match (&ended, &what) {
                        (Some(ended), _) => world.replica(g).apply(ended),
                        (None, Revocation::Session(id)) => {
                            world.replica(g).was_over(*id, None, clock);
                        }
                        (None, _) => unreachable!("these are written again"),
                    }
                    let ended = ended.as_ref().unwrap_or(&what);
                    world.witness.acknowledged(g, ended, world.now);
                }
                None if tries > 0 => {
                    let g = world.any_gateway();
                    world.revoke_at(g, what, tries - 1);
                }
                None => {}
            },
        );
    }
}

fn verdict_of(found: &Found) -> Verdict {
    match found {
        Found::NotAsked | Found::Active(..) => Verdict::Accepted,
        Found::Missing => Verdict::Missing,
        Found::Expired(_) => Verdict::Expired,
        Found::Revoked(_) => Verdict::Revoked,
    }
}

/// What was found of a request's identity, on however many servers.
fn together(parts: Vec<Findings>) -> Findings {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap();
    parts.fold(first, |all, part| Findings {
        now: part.now,
        session: match part.session {
            Found::NotAsked => all.session,
            session => session,
        },
        blacklisted: all.blacklisted || part.blacklisted,
        cut_off: all.cut_off.or(part.cut_off),
        decisions: Vec::new(),
    })
}
