//! What a gateway does for a client: requests, as `Store::decide` and admission answer them, sign-ins
//! and revocations.

use std::time::Duration;

use super::oracle::{DecisionSource, Request, Verdict};
use super::server::Server;
use super::world::World;
use crate::auth::session::{Session, SessionId};
use crate::rejection::Refusal;
use crate::routing::Requirements;
use crate::store::near_cache::NearCache;
use crate::store::{CacheKey, Query, QueryResult, Revocation, SessionLookup, UserHash};

/// `store.on_outage.cached_for`.
pub(super) const CACHED_FOR: Duration = Duration::from_secs(2);

/// A credential: a session, a token of one, or a token without.
#[derive(Debug, Clone, Default)]
pub(super) struct Credential {
    pub(super) session: Option<SessionId>,
    pub(super) blacklist_key: Option<String>,
    pub(super) user: Option<UserHash>,
    pub(super) issued_at: Option<u64>,
    pub(super) require: Requirements,
}

impl Credential {
    fn query(&self) -> Query<'_> {
        Query {
            charges_before_auth: &[],
            session: self.session,
            cached: None,
            last_access: 0,
            blacklist_key: self.blacklist_key.as_deref(),
            cut_off_user: self.user,
            issued_at: self.issued_at,
            require: &self.require,
            charges_after_auth: &[],
        }
    }

    /// What is left of it to ask.
    fn from_query(rest: &Query<'_>) -> Credential {
        Credential {
            session: rest.session,
            blacklist_key: rest.blacklist_key.map(str::to_owned),
            user: rest.cut_off_user,
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
        let key = self.blacklist_key.clone().map(|key| Credential {
            blacklist_key: Some(key),
            ..Credential::default()
        });
        let person = self.user.map(|person| Credential {
            user: Some(person),
            issued_at: self.issued_at,
            ..Credential::default()
        });
        [session, key, person].into_iter().flatten().collect()
    }

    fn verdict(&self, findings: &QueryResult) -> Verdict {
        if findings.blacklisted || self.query().is_cut_off(findings.cut_off) {
            return Verdict::Revoked;
        }
        verdict_of(&findings.session)
    }

    /// As `admission/outage` judges.
    fn verdict_without_store(&self, replica: &NearCache, cached: bool, now: u64) -> Verdict {
        let Credential {
            session,
            blacklist_key: key,
            ..
        } = self;
        if key.as_ref().is_some_and(|key| replica.is_revoked(key))
            || self
                .user
                .is_some_and(|person| replica.is_cut_off(&person, self.issued_at))
        {
            return Verdict::Revoked;
        }
        match session.and_then(|id| replica.end_refusal(id)) {
            Some(Refusal::SessionExpired) => return Verdict::Expired,
            Some(_) => return Verdict::Revoked,
            None => {}
        }
        let known = match (session, key) {
            (Some(id), _) => replica.active_within(*id, CACHED_FOR, None, now).is_some(),
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
        if !self.gateways[g].is_up {
            return;
        }
        let started = self.now;
        let heard = self.gateways[g].confirmed_up_to;
        let credential = self.oracle.credential(who).clone();
        let clock = self.clock(g);
        let replica = self.near_cache(g);
        let inquiry = credential.query();
        let sure = replica.look_up(&inquiry, None, clock);
        let after = sure.charges_after_auth(&inquiry);
        let rest = sure.remaining_query(&inquiry, &after);
        let request = Request::new(who, g, started, heard);
        if rest.is_empty() {
            let mut findings = QueryResult::empty(clock);
            sure.merge_into(&mut findings);
            let verdict = credential.verdict(&findings);
            let request = request.with_source(DecisionSource::NearCache, &findings.session);
            return self.record_verdict(&request, verdict);
        }
        let whole = rest.session == credential.session
            && rest.blacklist_key == credential.blacklist_key.as_deref()
            && rest.cut_off_user == credential.user;
        let from = DecisionSource::of_query(whole);
        let asking = replica.stamp_query(&rest);
        let known = rest.session.and_then(|id| replica.session(id));
        let rest = Credential::from_query(&rest);
        let parts = match self.clustered {
            true => rest.parts(),
            false => vec![rest.clone()],
        };
        let decide = move |server: &Server, part: &Credential, now| {
            let mut inquiry = part.query();
            inquiry.cached.clone_from(&known);
            server.decide(&inquiry, now)
        };
        self.look_up(g, parts, decide, move |world, findings| {
            let now = world.clock(g);
            let replica = world.near_cache(g);
            let (request, verdict) = match findings {
                Some((_, parts)) => {
                    let mut findings = merge_results(parts);
                    replica.cache_result(&asking, &rest.query(), &findings);
                    sure.merge_into(&mut findings);
                    let request = request.with_source(from, &findings.session);
                    (request, credential.verdict(&findings))
                }
                None => {
                    let cached = world.serves_cached;
                    let session = SessionLookup::NotQueried;
                    let verdict = credential.verdict_without_store(replica, cached, now);
                    (
                        request.with_source(DecisionSource::Outage, &session),
                        verdict,
                    )
                }
            };
            world.record_verdict(&request, verdict);
        });
    }

    /// Checks the sessions of open streams, as `Store::ended_among` does.
    pub(super) fn check_open_streams(&mut self, g: usize) {
        if !self.gateways[g].is_up {
            return;
        }
        let (started, heard, clock) = (self.now, self.gateways[g].confirmed_up_to, self.clock(g));
        let replica = self.near_cache(g);
        let mut unsure: Vec<SessionId> = self.oracle.sessions().collect();
        unsure.retain(|id| !replica.is_cached_active(*id, None, clock));
        self.look_up_sessions(g, unsure, move |world, found| {
            for (id, found) in found.into_iter().flatten() {
                for who in world.oracle.holders_of(id) {
                    let request = Request::new(who, g, started, heard);
                    world.record_verdict(
                        &request.with_source(DecisionSource::Sweep, &found),
                        verdict_of(&found),
                    );
                }
            }
        });
    }

    /// Changes a session's record by way of a gateway.
    pub(super) fn change_session(&mut self, g: usize, id: SessionId) {
        if !self.gateways[g].is_up {
            return;
        }
        self.request_store(
            g,
            move |world| world.change_record(id),
            move |world, answer| {
                world.near_cache(g).invalidate(&CacheKey::Session(id), 0);
                if let Some(Some(revision)) = answer {
                    world.oracle.change_acknowledged(g, id, revision, world.now);
                }
            },
        );
    }

    fn record_verdict(&mut self, request: &Request, verdict: Verdict) {
        let store = self.server.clock(self.now);
        self.oracle.check(self.now, store, request, verdict);
    }

    /// Writes a session; its owner hears of it only if the store answers.
    pub(super) fn sign_in(
        &mut self,
        g: usize,
        session: Session,
        then: impl FnOnce(&mut World) + 'static,
    ) {
        if !self.gateways[g].is_up {
            return;
        }
        let id = session.id;
        self.request_store(
            g,
            move |world| world.write_session(session),
            move |world, answer| {
                world.near_cache(g).invalidate(&CacheKey::Session(id), 0);
                if answer.is_some() {
                    world.oracle.signed_in(g, id, world.now);
                    then(world);
                }
            },
        );
    }

    /// Asks a gateway to revoke something; who hears nothing may ask another.
    pub(super) fn revoke_through(&mut self, g: usize, what: Revocation, tries: u32) {
        if !self.gateways[g].is_up {
            return;
        }
        let asked = what.clone();
        self.request_store(
            g,
            move |world| world.revoke(&asked),
            move |world, answer| match answer {
                Some(ended) => {
                    let clock = world.clock(g);
                    match (&ended, &what) {
                        (Some(ended), _) => world.near_cache(g).apply(ended),
                        (None, Revocation::Session(id)) => {
                            world.near_cache(g).mark_ended(*id, None, clock);
                        }
                        (None, _) => unreachable!("these are written again"),
                    }
                    let ended = ended.as_ref().unwrap_or(&what);
                    world.oracle.revocation_acknowledged(g, ended, world.now);
                }
                None if tries > 0 => {
                    let g = world.any_gateway();
                    world.revoke_through(g, what, tries - 1);
                }
                None => {}
            },
        );
    }
}

fn verdict_of(found: &SessionLookup) -> Verdict {
    match found {
        SessionLookup::NotQueried | SessionLookup::Active(..) => Verdict::Accepted,
        SessionLookup::Missing => Verdict::Missing,
        SessionLookup::Expired(_) => Verdict::Expired,
        SessionLookup::Revoked(_) => Verdict::Revoked,
    }
}

/// What was found of a request's identity, on however many servers.
fn merge_results(parts: Vec<QueryResult>) -> QueryResult {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap();
    parts.fold(first, |all, part| QueryResult {
        now: part.now,
        session: match part.session {
            SessionLookup::NotQueried => all.session,
            session => session,
        },
        blacklisted: all.blacklisted || part.blacklisted,
        cut_off: all.cut_off.or(part.cut_off),
        decisions: Vec::new(),
    })
}
