//! A store that loses nothing, with a clock of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::world::{Deed, Link, World};
use super::{MS, Micros};
use crate::session::{EndReason, Ended, Millis, Session, SessionId};
use crate::store::news::News;
use crate::store::{Findings, Found, Inquiry, Item, PersonHash, Revocation};

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

    pub(super) fn find(&self, id: SessionId, now: Millis) -> Found {
        let Some(session) = self.sessions.get(&id) else {
            return Found::Missing;
        };
        if session.ended.is_some() {
            Found::Revoked((**session).clone())
        } else if now >= session.expires_at {
            Found::Expired((**session).clone())
        } else {
            Found::Active(Arc::clone(session), session.created_at)
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
        let session = inquiry.session.map(|id| self.find(id, now));
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
            self.bring_to_gateway(g, Link::Listening, move |world| world.lost(g, ear));
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
        for (g, ear) in self.server.ears.clone() {
            let item = item.clone();
            self.bring_to_gateway(g, Link::Listening, move |world| {
                if world.gateways[g].ear == ear {
                    world.hear(g, News::Changed(item));
                }
            });
        }
    }
}
