//! A store that loses nothing, with a clock of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::world::{Deed, Link, SERVERS, World};
use super::{MS, Micros};
use crate::auth::session::{Activity, EndReason, Ended, Millis, Session, SessionId};
use crate::store::news::News;
use crate::store::{Entry, Findings, Found, Inquiry, Item, PersonHash, Revocation};

pub(super) struct Server {
    /// Counts its starts.
    pub(super) life: u32,
    pub(super) up: bool,
    /// How many of those who stopped it have not let it go on.
    stops: u32,
    waiting: VecDeque<Deed>,
    /// What its clock said when the story began.
    began: Millis,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    blacklist: BTreeSet<String>,
    cut_offs: BTreeMap<PersonHash, u64>,
    /// The gateways that it tells of changes, by their connections.
    ears: Vec<(usize, u64)>,
}

impl Server {
    pub(super) fn new(began: Millis) -> Server {
        Server {
            life: 0,
            up: true,
            stops: 0,
            waiting: VecDeque::new(),
            began,
            sessions: BTreeMap::new(),
            blacklist: BTreeSet::new(),
            cut_offs: BTreeMap::new(),
            ears: Vec::new(),
        }
    }

    pub(super) fn clock(&self, now: Micros) -> Millis {
        self.began + now / MS
    }

    /// The record of a session, as a batch of look-ups gets it.
    pub(super) fn entry(&self, id: SessionId) -> Option<Entry> {
        let session = self.sessions.get(&id)?;
        Some(Entry {
            session: Session::clone(session),
            activity: Activity {
                last_access: session.created_at,
                ..Activity::default()
            },
        })
    }

    /// How a session stands. A record that the gateway has in this revision is not sent again.
    fn find(&self, id: SessionId, known: Option<&Arc<Session>>, now: Millis) -> Found {
        let Some(session) = self.sessions.get(&id) else {
            return Found::Missing;
        };
        let same = known.filter(|known| known.revision == session.revision);
        if session.ended.is_some() {
            Found::Revoked((**session).clone())
        } else if now >= session.expires_at {
            Found::Expired((**session).clone())
        } else {
            let record = Arc::clone(same.unwrap_or(session));
            Found::Active(record, session.created_at)
        }
    }

    pub(super) fn is_blacklisted(&self, key: &str) -> bool {
        self.blacklist.contains(key)
    }

    pub(super) fn cut_off(&self, person: &PersonHash) -> Option<u64> {
        self.cut_offs.get(person).copied()
    }

    /// Answers as `decide.lua` does.
    pub(super) fn decide(&self, inquiry: &Inquiry<'_>, now: Millis) -> Findings {
        let known = inquiry.known.as_ref();
        let session = inquiry.session.map(|id| self.find(id, known, now));
        Findings {
            now,
            session: session.unwrap_or(Found::NotAsked),
            blacklisted: inquiry
                .blacklist_key
                .is_some_and(|key| self.is_blacklisted(key)),
            cut_off: inquiry.cut_off_of.and_then(|person| self.cut_off(&person)),
            decisions: Vec::new(),
        }
    }
}

impl World {
    /// Does something at the server, now or when it goes on.
    pub(super) fn serve(&mut self, deed: Deed) {
        if self.server.stops > 0 {
            self.server.waiting.push_back(deed);
        } else {
            deed(self);
        }
    }

    pub(super) fn stop_server(&mut self, time: Micros) {
        self.server.stops += 1;
        self.after(time, |world| {
            world.server.stops -= 1;
            if world.server.stops == 0 {
                for deed in std::mem::take(&mut world.server.waiting) {
                    deed(world);
                }
            }
        });
    }

    /// Ends the server; everything that it answered for is on its disk.
    pub(super) fn crash_server(&mut self, time: Micros) {
        self.server.life += 1;
        self.server.up = false;
        self.server.waiting.clear();
        for (g, ear) in std::mem::take(&mut self.server.ears) {
            self.bring_to_gateway(g, Link::Listening(0), move |world| world.lost(g, ear));
        }
        self.after(time, |world| world.server.up = true);
    }

    pub(super) fn track(&mut self, g: usize, ear: u64) {
        self.server.ears.retain(|(other, _)| *other != g);
        self.server.ears.push((g, ear));
    }

    pub(super) fn write_session(&mut self, session: Session) {
        let id = session.id;
        let session = Arc::new(session);
        self.server.sessions.insert(id, Arc::clone(&session));
        self.witness.created(id, self.now);
        self.tell(&Item::Session(id));
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
        self.tell(&Item::Session(id));
        self.witness.changed(id, revision, self.now);
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
                Arc::make_mut(session).ended = Some(Ended {
                    at: now,
                    reason: EndReason::Admin,
                });
                self.tell(&Item::Session(*id));
                self.witness.ended(what, self.now);
                Some(what.clone())
            }
            Revocation::Token(key) => {
                self.server.blacklist.insert(key.clone());
                self.tell(&Item::Token(key.clone()));
                self.witness.ended(what, self.now);
                Some(what.clone())
            }
            Revocation::Person(person, _) => {
                let second = now / 1000;
                self.server.cut_offs.insert(*person, second);
                self.tell(&Item::Person(*person));
                let cut_off = Revocation::Person(*person, second);
                self.witness.ended(&cut_off, self.now);
                Some(cut_off)
            }
        }
    }

    /// Tells all who listen that something has changed.
    fn tell(&mut self, item: &Item) {
        let server = if self.clustered { server_of(item) } else { 0 };
        for (g, ear) in self.server.ears.clone() {
            let item = item.clone();
            self.bring_to_gateway(g, Link::Listening(server), move |world| {
                if world.gateways[g].ear == ear {
                    world.hear(g, News::Changed(item));
                }
            });
        }
    }
}

/// Which server of a cluster has it.
fn server_of(item: &Item) -> usize {
    let byte = match item {
        Item::Session(id) => id.0[0],
        Item::Token(key) => key.bytes().last().unwrap_or_default(),
        Item::Person(hash) => hash[0],
    };
    usize::from(byte) % SERVERS
}
