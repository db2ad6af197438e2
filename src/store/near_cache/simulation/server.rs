//! A store that loses nothing, with a clock of its own.

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
    /// Counts its starts.
    pub(super) incarnation: u32,
    pub(super) is_up: bool,
    /// How many of those who stopped it have not let it go on.
    active_stops: u32,
    waiting: VecDeque<Action>,
    /// What its clock said when the story began.
    clock_origin: Millis,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    blacklist: BTreeSet<String>,
    cut_offs: BTreeMap<UserHash, u64>,
    /// The gateways that it tells of changes, by their connections.
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

    /// The record of a session, as a batch of look-ups gets it.
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

    /// How a session stands. A record that the gateway has in this revision is not sent again.
    fn find(&self, id: SessionId, known: Option<&Arc<Session>>, now: Millis) -> SessionLookup {
        let Some(session) = self.sessions.get(&id) else {
            return SessionLookup::Missing;
        };
        let same = known.filter(|known| known.revision == session.revision);
        if session.ended.is_some() {
            SessionLookup::Revoked((**session).clone())
        } else if now >= session.expires_at {
            SessionLookup::Expired((**session).clone())
        } else {
            let record = Arc::clone(same.unwrap_or(session));
            SessionLookup::Active(record, session.created_at)
        }
    }

    pub(super) fn is_blacklisted(&self, key: &str) -> bool {
        self.blacklist.contains(key)
    }

    pub(super) fn cut_off(&self, person: &UserHash) -> Option<u64> {
        self.cut_offs.get(person).copied()
    }

    /// Answers as `decide.lua` does.
    pub(super) fn decide(&self, inquiry: &Query<'_>, now: Millis) -> QueryResult {
        let known = inquiry.cached.as_ref();
        let session = inquiry.session.map(|id| self.find(id, known, now));
        QueryResult {
            now,
            session: session.unwrap_or(SessionLookup::NotQueried),
            blacklisted: inquiry
                .blacklist_key
                .is_some_and(|key| self.is_blacklisted(key)),
            cut_off: inquiry
                .cut_off_user
                .and_then(|person| self.cut_off(&person)),
            decisions: Vec::new(),
        }
    }
}

impl World {
    /// Does something at the server, now or when it goes on.
    pub(super) fn run_on_server(&mut self, deed: Action) {
        if self.server.active_stops > 0 {
            self.server.waiting.push_back(deed);
        } else {
            deed(self);
        }
    }

    pub(super) fn stop_server(&mut self, time: Micros) {
        self.server.active_stops += 1;
        self.after(time, |world| {
            world.server.active_stops -= 1;
            if world.server.active_stops == 0 {
                for deed in std::mem::take(&mut world.server.waiting) {
                    deed(world);
                }
            }
        });
    }

    /// Ends the server; everything that it answered for is on its disk.
    pub(super) fn crash_server(&mut self, time: Micros) {
        self.server.incarnation += 1;
        self.server.is_up = false;
        self.server.waiting.clear();
        for (g, ear) in std::mem::take(&mut self.server.tracking_connections) {
            self.send_to_gateway(g, LinkKind::Tracking(0), move |world| {
                world.tracking_lost(g, ear)
            });
        }
        self.after(time, |world| world.server.is_up = true);
    }

    pub(super) fn add_tracking(&mut self, g: usize, ear: u64) {
        self.server
            .tracking_connections
            .retain(|(other, _)| *other != g);
        self.server.tracking_connections.push((g, ear));
    }

    pub(super) fn write_session(&mut self, session: Session) {
        let id = session.id;
        let session = Arc::new(session);
        self.server.sessions.insert(id, Arc::clone(&session));
        self.oracle.session_created(id, self.now);
        self.send_invalidation(&CacheKey::Session(id));
    }

    /// Changes a session's record while it lives; gives its new revision.
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

    /// Ends what a revocation names; tells what is announced of it, if anything ended now.
    pub(super) fn revoke(&mut self, what: &Revocation) -> Option<Revocation> {
        let now = self.server.clock(self.now);
        match what {
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
                self.oracle.revocation_stored(what, self.now);
                Some(what.clone())
            }
            Revocation::Token(key) => {
                self.server.blacklist.insert(key.clone());
                self.send_invalidation(&CacheKey::Token(key.clone()));
                self.oracle.revocation_stored(what, self.now);
                Some(what.clone())
            }
            Revocation::IssuedBefore(person, _) => {
                let second = now / 1000;
                self.server.cut_offs.insert(*person, second);
                self.send_invalidation(&CacheKey::User(*person));
                let cut_off = Revocation::IssuedBefore(*person, second);
                self.oracle.revocation_stored(&cut_off, self.now);
                Some(cut_off)
            }
        }
    }

    /// Tells all who listen that something has changed.
    fn send_invalidation(&mut self, item: &CacheKey) {
        let server = if self.clustered { server_of(item) } else { 0 };
        for (g, ear) in self.server.tracking_connections.clone() {
            let item = item.clone();
            self.send_to_gateway(g, LinkKind::Tracking(server), move |world| {
                if world.gateways[g].tracking_id == ear {
                    world.apply_event(g, TrackingEvent::Changed(item));
                }
            });
        }
    }
}

/// Which server of a cluster has it.
fn server_of(item: &CacheKey) -> usize {
    let byte = match item {
        CacheKey::Session(id) => id.0[0],
        CacheKey::Token(key) => key.bytes().last().unwrap_or_default(),
        CacheKey::User(hash) => hash[0],
    };
    usize::from(byte) % SERVERS
}
