//! Simulated store, without data loss and with its own clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::world::{Action, LinkKind, SERVERS, World};
use super::{MS, Micros};
use crate::auth::session::{Activity, EndReason, Millis, Session, SessionEnd, SessionId};
use crate::store::invalidation::TrackingEvent;
use crate::store::{
    CacheKey, Query, QueryResult, Revocation, SessionEntry, SessionLookup, UserHash,
};

pub(super) struct Server {
    /// Number of restarts.
    pub(super) incarnation: u32,
    pub(super) is_up: bool,
    /// Number of overlapping stop faults.
    active_stops: u32,
    waiting: VecDeque<Action>,
    /// The server's time at the start of the run.
    clock_origin: Millis,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    blacklist: BTreeSet<String>,
    cut_offs: BTreeMap<UserHash, u64>,
    /// Gateways that receive invalidations, with the ids of their connections.
    tracking_connections: Vec<(usize, u64)>,
}

impl Server {
    pub(super) fn new(clock_origin: Millis) -> Server {
        Server {
            incarnation: 0,
            is_up: true,
            active_stops: 0,
            waiting: VecDeque::new(),
            clock_origin,
            sessions: BTreeMap::new(),
            blacklist: BTreeSet::new(),
            cut_offs: BTreeMap::new(),
            tracking_connections: Vec::new(),
        }
    }

    pub(super) fn clock(&self, now: Micros) -> Millis {
        self.clock_origin + now / MS
    }

    /// The record of a session, as a batched look-up returns it.
    pub(super) fn entry(&self, id: SessionId) -> Option<SessionEntry> {
        let session = self.sessions.get(&id)?;
        Some(SessionEntry {
            session: Session::clone(session),
            activity: Activity {
                last_access: session.created_at,
                ..Activity::default()
            },
        })
    }

    /// Looks a session up; a record whose revision the gateway has cached is not sent again.
    fn look_up_session(
        &self,
        id: SessionId,
        cached: Option<&Arc<Session>>,
        now: Millis,
    ) -> SessionLookup {
        let Some(session) = self.sessions.get(&id) else {
            return SessionLookup::Missing;
        };
        let same = cached.filter(|cached| cached.revision == session.revision);
        if session.ended.is_some() {
            SessionLookup::Revoked(Arc::clone(session))
        } else if now >= session.expires_at {
            SessionLookup::Expired(Arc::clone(session))
        } else {
            let record = Arc::clone(same.unwrap_or(session));
            SessionLookup::Active(record, session.created_at)
        }
    }

    pub(super) fn is_blacklisted(&self, key: &str) -> bool {
        self.blacklist.contains(key)
    }

    pub(super) fn cut_off(&self, user: &UserHash) -> Option<u64> {
        self.cut_offs.get(user).copied()
    }

    /// Answers a query as `decide.lua` does.
    pub(super) fn decide(&self, query: &Query<'_>, now: Millis) -> QueryResult {
        let cached = query.cached.as_ref();
        let session = query
            .session
            .map(|id| self.look_up_session(id, cached, now));
        QueryResult {
            now,
            session: session.unwrap_or(SessionLookup::NotQueried),
            blacklisted: query
                .blacklist_key
                .is_some_and(|key| self.is_blacklisted(key)),
            cut_off: query.cut_off_user.and_then(|user| self.cut_off(&user)),
            decisions: Vec::new(),
        }
    }
}

impl World {
    /// Runs an action on the server, now or when it resumes.
    pub(super) fn run_on_server(&mut self, action: Action) {
        if self.server.active_stops > 0 {
            self.server.waiting.push_back(action);
        } else {
            action(self);
        }
    }

    pub(super) fn stop_server(&mut self, time: Micros) {
        self.server.active_stops += 1;
        self.after(time, |world| {
            world.server.active_stops -= 1;
            if world.server.active_stops == 0 {
                for action in std::mem::take(&mut world.server.waiting) {
                    action(world);
                }
            }
        });
    }

    /// Crashes the server; all acknowledged writes are on its disk.
    pub(super) fn crash_server(&mut self, time: Micros) {
        self.server.incarnation += 1;
        self.server.is_up = false;
        self.server.waiting.clear();
        for (g, tracking_id) in std::mem::take(&mut self.server.tracking_connections) {
            self.send_to_gateway(g, LinkKind::Tracking(0), move |world| {
                world.tracking_lost(g, tracking_id)
            });
        }
        self.after(time, |world| world.server.is_up = true);
    }

    pub(super) fn add_tracking(&mut self, g: usize, tracking_id: u64) {
        self.server
            .tracking_connections
            .retain(|(other, _)| *other != g);
        self.server.tracking_connections.push((g, tracking_id));
    }

    pub(super) fn write_session(&mut self, session: Session) {
        let id = session.id;
        let session = Arc::new(session);
        self.server.sessions.insert(id, Arc::clone(&session));
        self.oracle.session_created(id, self.now);
        self.send_invalidation(&CacheKey::Session(id));
    }

    /// Changes the record of an active session; returns its new revision.
    pub(super) fn change_record(&mut self, id: SessionId) -> Option<u64> {
        let now = self.server.clock(self.now);
        let session = self.server.sessions.get_mut(&id)?;
        if session.ended.is_some() || now >= session.expires_at {
            return None;
        }
        Arc::make_mut(session).revision += 1;
        let revision = session.revision;
        self.send_invalidation(&CacheKey::Session(id));
        self.oracle.session_changed(id, revision, self.now);
        Some(revision)
    }

    /// Stores a revocation; returns the effective one if anything ended now.
    pub(super) fn revoke(&mut self, revocation: &Revocation) -> Option<Revocation> {
        let now = self.server.clock(self.now);
        match revocation {
            Revocation::Session(id) => {
                let session = self.server.sessions.get_mut(id)?;
                if session.ended.is_some() || now >= session.expires_at {
                    return None;
                }
                Arc::make_mut(session).ended = Some(SessionEnd {
                    at: now,
                    reason: EndReason::Admin,
                });
                self.send_invalidation(&CacheKey::Session(*id));
                self.oracle.revocation_stored(revocation, self.now);
                Some(revocation.clone())
            }
            Revocation::Token(key) => {
                self.server.blacklist.insert(key.clone());
                self.send_invalidation(&CacheKey::Token(key.clone()));
                self.oracle.revocation_stored(revocation, self.now);
                Some(revocation.clone())
            }
            Revocation::IssuedBefore(user, _) => {
                let second = now / 1000;
                self.server.cut_offs.insert(*user, second);
                self.send_invalidation(&CacheKey::User(*user));
                let cut_off = Revocation::IssuedBefore(*user, second);
                self.oracle.revocation_stored(&cut_off, self.now);
                Some(cut_off)
            }
        }
    }

    /// Sends an invalidation to all tracking connections.
    fn send_invalidation(&mut self, item: &CacheKey) {
        let server = if self.clustered { server_of(item) } else { 0 };
        for (g, tracking_id) in self.server.tracking_connections.clone() {
            let item = item.clone();
            self.send_to_gateway(g, LinkKind::Tracking(server), move |world| {
                if world.gateways[g].tracking_id == tracking_id {
                    world.apply_event(g, TrackingEvent::Changed(item));
                }
            });
        }
    }
}

/// The server of a cluster that holds the item.
fn server_of(item: &CacheKey) -> usize {
    let byte = match item {
        CacheKey::Session(id) => id.0[0],
        CacheKey::Token(key) => key.bytes().last().unwrap_or_default(),
        CacheKey::User(hash) => hash[0],
    };
    usize::from(byte) % SERVERS
}
