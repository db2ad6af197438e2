//! Client operations of a simulated gateway: requests, sign-ins and revocations.
//!
//! Requests are decided as `Store::decide` and admission decide them.

use std::sync::Arc;
use std::time::Duration;

use super::oracle::{DecisionSource, Request, Verdict};
use super::server::Server;
use super::world::World;
use crate::auth::session::{Session, SessionId};
use crate::rejection::Refusal;
use crate::routing::Requirements;
use crate::store::near_cache::NearCache;
use crate::store::near_cache::reads::CachedResult;
use crate::store::{CacheKey, Query, QueryResult, Revocation, SessionLookup, UserHash};

/// `store.on_outage.cached_for`.
pub(super) const CACHED_FOR: Duration = Duration::from_secs(2);

/// A credential: a session, a token of a session, or a token without a session.
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

    /// The parts of a credential that a query names.
    fn from_query(query: &Query<'_>) -> Credential {
        Credential {
            session: query.session,
            blacklist_key: query.blacklist_key.map(str::to_owned),
            user: query.cut_off_user,
            issued_at: query.issued_at,
            require: query.require.clone(),
        }
    }

    /// The parts of a credential that are queried on their own: in a cluster, they may be stored on
    /// different servers.
    fn parts_for(&self, clustered: bool) -> Vec<Credential> {
        if !clustered {
            return vec![self.clone()];
        }
        let session = self.session.map(|id| Credential {
            session: Some(id),
            ..Credential::default()
        });
        let key = self.blacklist_key.clone().map(|key| Credential {
            blacklist_key: Some(key),
            ..Credential::default()
        });
        let user = self.user.map(|user| Credential {
            user: Some(user),
            issued_at: self.issued_at,
            ..Credential::default()
        });
        [session, key, user].into_iter().flatten().collect()
    }

    fn verdict(&self, result: &QueryResult) -> Verdict {
        if result.blacklisted || self.query().is_cut_off(result.cut_off) {
            return Verdict::Revoked;
        }
        verdict_of(&result.session)
    }

    /// The verdict in degraded mode, as admission decides it.
    fn verdict_without_store(&self, cache: &NearCache, serves_cached: bool, now: u64) -> Verdict {
        let Credential {
            session,
            blacklist_key: key,
            ..
        } = self;
        if key.as_ref().is_some_and(|key| cache.is_revoked(key))
            || self
                .user
                .is_some_and(|user| cache.is_cut_off(&user, self.issued_at))
        {
            return Verdict::Revoked;
        }
        match session.and_then(|id| cache.end_refusal(id)) {
            Some(Refusal::SessionExpired) => return Verdict::Expired,
            Some(_) => return Verdict::Revoked,
            None => {}
        }
        let is_cached = match (session, key) {
            (Some(id), _) => cache.active_within(*id, CACHED_FOR, None, now).is_some(),
            (None, Some(key)) => cache.was_accepted(key, CACHED_FOR),
            (None, None) => false,
        };
        if serves_cached && is_cached {
            Verdict::Accepted
        } else {
            Verdict::Unknown
        }
    }
}

impl World {
    /// Sends a request with a credential to a gateway.
    pub(super) fn request(&mut self, g: usize, credential_index: usize) {
        if !self.gateways[g].is_up {
            return;
        }
        let started = self.now;
        let confirmed_up_to = self.gateways[g].confirmed_up_to;
        let credential = self.oracle.credential(credential_index).clone();
        let clock = self.clock(g);
        let cache = self.near_cache(g);
        let query = credential.query();
        let cached = cache.look_up(&query, None, clock);
        let charges = cached.charges_after_auth(&query);
        let remaining = cached.remaining_query(&query, &charges);
        let request = Request::new(credential_index, g, started, confirmed_up_to);
        self.check_valid_entries(&request, &credential, &cached);
        let cache = self.near_cache(g);
        if remaining.is_empty() {
            let mut result = QueryResult::empty(clock);
            cached.merge_into(&mut result);
            return self.record_result(&request, DecisionSource::NearCache, &credential, &result);
        }
        let is_whole = remaining.session == credential.session
            && remaining.blacklist_key == credential.blacklist_key.as_deref()
            && remaining.cut_off_user == credential.user;
        let source = DecisionSource::of_query(is_whole);
        let stamps = cache.stamp_query(&remaining);
        let record = remaining.session.and_then(|id| cache.session(id));
        let remaining = Credential::from_query(&remaining);
        let parts = remaining.parts_for(self.clustered);
        let decide = move |server: &Server, part: &Credential, now| {
            let mut query = part.query();
            query.cached.clone_from(&record);
            server.decide(&query, now)
        };
        self.look_up(g, parts, decide, move |world, results| {
            let now = world.clock(g);
            let cache = world.near_cache(g);
            let Some((_, parts)) = results else {
                let verdict = credential.verdict_without_store(cache, world.serves_cached, now);
                let request =
                    request.with_source(DecisionSource::Outage, &SessionLookup::NotQueried);
                return world.record_verdict(&request, verdict);
            };
            let mut result = merge_results(parts);
            cache.cache_result(&stamps, &remaining.query(), &result);
            cached.merge_into(&mut result);
            world.record_result(&request, source, &credential, &result);
        });
    }

    /// Checks that entries by which the near cache has accepted a credential hold only while it would
    /// accept the credential again, with the same record.
    fn check_valid_entries(
        &mut self,
        request: &Request,
        credential: &Credential,
        cached: &CachedResult,
    ) {
        let (g, clock) = (request.gateway, self.clock(request.gateway));
        let query = credential.query();
        let cache = self.near_cache(g);
        let kept = self.gateways[g].accepted_by.get(&request.credential);
        match kept.filter(|kept| cache.holds(kept, None, clock)) {
            Some(kept) => {
                let is_accepted = cached.remaining_query(&query, &[]).is_empty()
                    && cached.blacklisted != Some(true)
                    && !query.is_cut_off(cached.cut_off.flatten())
                    && match (&cached.session, kept.session()) {
                        (Some(SessionLookup::Active(session, _)), Some(kept)) => {
                            Arc::ptr_eq(session, kept)
                        }
                        (cached, kept) => cached.is_none() && kept.is_none(),
                    };
                self.oracle.statistics.held += 1;
                if !is_accepted {
                    let credential = request.credential;
                    let violation = format!("{g} holds void entries of credential {credential}");
                    self.oracle.violation = Some(violation);
                }
            }
            None => {
                let entries = cache.valid_entries(&query, None, clock);
                let accepted_by = &mut self.gateways[g].accepted_by;
                match entries {
                    Some(entries) => accepted_by.insert(request.credential, entries),
                    None => accepted_by.remove(&request.credential),
                };
            }
        }
    }

    fn record_result(
        &mut self,
        request: &Request,
        source: DecisionSource,
        credential: &Credential,
        result: &QueryResult,
    ) {
        let request = request.with_source(source, &result.session);
        self.record_verdict(&request, credential.verdict(result));
    }

    /// Checks the sessions of open streams, as `Store::ended_among` does.
    pub(super) fn check_open_streams(&mut self, g: usize) {
        if !self.gateways[g].is_up {
            return;
        }
        let (started, clock) = (self.now, self.clock(g));
        let confirmed_up_to = self.gateways[g].confirmed_up_to;
        let cache = self.near_cache(g);
        let mut ids: Vec<SessionId> = self.oracle.sessions().collect();
        ids.retain(|id| !cache.is_cached_active(*id, None, clock));
        self.look_up_sessions(g, ids, move |world, lookups| {
            for (id, lookup) in lookups.into_iter().flatten() {
                for credential in world.oracle.session_credentials(id) {
                    let request = Request::new(credential, g, started, confirmed_up_to);
                    world.record_verdict(
                        &request.with_source(DecisionSource::Sweep, &lookup),
                        verdict_of(&lookup),
                    );
                }
            }
        });
    }

    /// Changes a session's record through a gateway.
    pub(super) fn change_session(&mut self, g: usize, id: SessionId) {
        if !self.gateways[g].is_up {
            return;
        }
        self.request_store(
            g,
            move |world| world.change_record(id),
            move |world, reply| {
                world.near_cache(g).invalidate(&CacheKey::Session(id), 0);
                if let Some(Some(revision)) = reply {
                    world.oracle.change_acknowledged(g, id, revision, world.now);
                }
            },
        );
    }

    fn record_verdict(&mut self, request: &Request, verdict: Verdict) {
        let store_now = self.server.clock(self.now);
        self.oracle.check(self.now, store_now, request, verdict);
    }

    /// Writes a session; the sign-in is acknowledged only if the store replies.
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
            move |world, reply| {
                world.near_cache(g).invalidate(&CacheKey::Session(id), 0);
                if reply.is_some() {
                    world.oracle.signed_in(g, id, world.now);
                    then(world);
                }
            },
        );
    }

    /// Revokes through a gateway; without a reply, the client retries on any gateway.
    pub(super) fn revoke_through(&mut self, g: usize, revocation: Revocation, retries: u32) {
        if !self.gateways[g].is_up {
            return;
        }
        let requested = revocation.clone();
        self.request_store(
            g,
            move |world| world.revoke(&requested),
            move |world, reply| match reply {
                Some(effective) => {
                    let clock = world.clock(g);
                    match (&effective, &revocation) {
                        (Some(effective), _) => world.near_cache(g).apply(effective),
                        (None, Revocation::Session(id)) => {
                            world.near_cache(g).mark_ended(*id, None, clock);
                        }
                        (None, _) => unreachable!("these are written even if they exist"),
                    }
                    let effective = effective.as_ref().unwrap_or(&revocation);
                    world
                        .oracle
                        .revocation_acknowledged(g, effective, world.now);
                }
                None if retries > 0 => {
                    let g = world.any_gateway();
                    world.revoke_through(g, revocation, retries - 1);
                }
                None => {}
            },
        );
    }
}

fn verdict_of(lookup: &SessionLookup) -> Verdict {
    match lookup {
        SessionLookup::NotQueried | SessionLookup::Active(..) => Verdict::Accepted,
        SessionLookup::Missing => Verdict::Missing,
        SessionLookup::Expired(_) => Verdict::Expired,
        SessionLookup::Revoked(_) => Verdict::Revoked,
    }
}

/// Merges the results of several servers for one request.
fn merge_results(parts: Vec<QueryResult>) -> QueryResult {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap();
    parts.fold(first, |merged, part| QueryResult {
        now: part.now,
        session: match part.session {
            SessionLookup::NotQueried => merged.session,
            session => session,
        },
        blacklisted: merged.blacklisted || part.blacklisted,
        cut_off: merged.cut_off.or(part.cut_off),
        decisions: Vec::new(),
    })
}
