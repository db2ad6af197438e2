//! The listening connection, as `store/redis/listener` keeps it, and what is looked up of the news.

use std::collections::HashSet;
use std::time::Instant;

use super::server::Server;
use super::world::{Link, SERVERS, World};
use super::{MS, Micros, SECOND, steady};
use crate::auth::session::{Millis, SessionId};
use crate::store::lookup::Lookup;
use crate::store::news::{self, News, Told};
use crate::store::{Found, Item, PersonHash};

/// How often the store is asked whether all was heard.
const EVERY: Micros = 200 * MS;
/// How long it may take to answer.
const ANSWER_WITHIN: Micros = 200 * MS;
/// How long opening may take.
const OPEN_WITHIN: Micros = SECOND;

impl World {
    pub(super) fn listen(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        gateway.ear += 1;
        let ear = gateway.ear;
        self.bring_to_server(g, Link::Listening(0), move |world| {
            world.track(g, ear);
            world.bring_to_gateway(g, Link::Listening(0), move |world| {
                if world.gateways[g].ear == ear {
                    world.gateways[g].open = ear;
                    world.gateways[g].proven = [None; SERVERS];
                    world.hear(g, News::Everything);
                    let servers = if world.clustered { SERVERS } else { 1 };
                    for server in 0..servers {
                        world.prove(g, ear, server);
                    }
                }
            });
        });
        self.later(g, OPEN_WITHIN, move |world| {
            if world.gateways[g].open != ear {
                world.lost(g, ear);
            }
        });
    }

    /// Asks a server whether all of its changes were heard.
    fn prove(&mut self, g: usize, ear: u64, server: usize) {
        if self.gateways[g].ear != ear {
            return;
        }
        self.replica(g);
        let asked_at = steady();
        let gateway = &mut self.gateways[g];
        gateway.proof[server] += 1;
        let proof = gateway.proof[server];
        self.bring_to_server(g, Link::Listening(server), move |world| {
            let store = world.server.clock(world.now);
            world.bring_to_gateway(g, Link::Listening(server), move |world| {
                let gateway = &world.gateways[g];
                if gateway.ear == ear && gateway.proof[server] == proof {
                    world.proven(g, server, (asked_at, store));
                    world.later(g, EVERY, move |world| world.prove(g, ear, server));
                    if let Some(time) = world.gateways[g].drowsy_soon.take() {
                        world.starve(g, time);
                    }
                }
            });
        });
        self.later(g, ANSWER_WITHIN, move |world| {
            world.give_up(g, ear, server, proof);
        });
    }

    /// Takes a proof down, and notes up to when all servers were heard.
    fn proven(&mut self, g: usize, server: usize, proof: (Instant, Millis)) {
        let servers = if self.clustered { SERVERS } else { 1 };
        let (now, gateway) = (self.now, &mut self.gateways[g]);
        gateway.proof[server] += 1;
        gateway.set_clock(now, proof.1);
        gateway.proven[server] = Some(proof);
        let proofs: Option<Vec<_>> = gateway.proven[..servers].iter().copied().collect();
        if let Some(proofs) = proofs {
            let as_of = proofs.iter().map(|proof| proof.0).min().unwrap();
            let store = proofs.iter().map(|proof| proof.1).min().unwrap();
            self.hear(g, News::HeardAll(as_of, store));
        }
    }

    /// Notices that no answer has come, as soon as there is time for it.
    fn give_up(&mut self, g: usize, ear: u64, server: usize, proof: u64) {
        let gateway = &self.gateways[g];
        if gateway.proof[server] != proof {
            return;
        }
        if gateway.drowsy_until > self.now {
            let wait = gateway.drowsy_until - self.now;
            return self.later(g, wait, move |world| world.give_up(g, ear, server, proof));
        }
        self.lost(g, ear);
    }

    /// A connection has failed: another one is opened after a pause.
    pub(super) fn lost(&mut self, g: usize, ear: u64) {
        if self.gateways[g].ear != ear {
            return;
        }
        self.gateways[g].ear += 1;
        if self.gateways[g].open == ear {
            self.hear(g, News::Deaf);
        }
        let pause = self.dice.between(25 * MS, 400 * MS);
        self.later(g, pause, move |world| world.listen(g));
    }

    pub(super) fn hear(&mut self, g: usize, news: News) {
        let clock = self.clock(g);
        let told = news::hear(self.replica(g), news, || clock, |_| false);
        self.gateways[g].told.extend(told);
        self.look(g);
    }

    /// Looks at what was told, one batch after another.
    fn look(&mut self, g: usize) {
        if self.gateways[g].looking || self.gateways[g].told.is_empty() {
            return;
        }
        let (mut items, mut up_to) = (Vec::new(), None);
        for told in std::mem::take(&mut self.gateways[g].told) {
            match told {
                Told::Changed(item) => items.push(item),
                Told::UpTo(now) => up_to = Some(now),
            }
        }
        let distinct: HashSet<&Item> = items.iter().collect();
        self.witness.tally.repeated += (items.len() - distinct.len()) as u64;
        self.gateways[g].looking = true;
        self.look_at_sessions(g, items, move |world, is_done| {
            world.gateways[g].looking = false;
            world.looked(g, up_to.filter(|_| is_done));
        });
    }

    /// As `Store::look_at` does: sessions, then tokens, then cut-offs.
    fn look_at_sessions(
        &mut self,
        g: usize,
        items: Vec<Item>,
        then: impl FnOnce(&mut World, bool) + 'static,
    ) {
        let sessions = items.iter().filter_map(|item| match item {
            Item::Session(id) => Some(*id),
            Item::Token(_) | Item::Person(_) => None,
        });
        let sessions: Vec<SessionId> = sessions.collect();
        self.find_sessions(g, sessions, move |world, found| match found {
            Some(_) => world.look_at_tokens(g, items, then),
            None => then(world, false),
        });
    }

    fn look_at_tokens(
        &mut self,
        g: usize,
        items: Vec<Item>,
        then: impl FnOnce(&mut World, bool) + 'static,
    ) {
        let tokens = items.iter().filter_map(|item| match item {
            Item::Token(key) => Some(key.clone()),
            Item::Session(_) | Item::Person(_) => None,
        });
        let lookup = Lookup::<String>::new(tokens, self.replica(g), |key| Item::Token(key.clone()));
        let keys = lookup.keys().to_vec();
        let read = |server: &Server, key: &String, _| server.is_blacklisted(key);
        self.look_up(g, keys, read, move |world, listed| {
            let Some((_, listed)) = listed else {
                return then(world, false);
            };
            lookup.note(world.replica(g), listed).unwrap();
            world.look_at_people(g, &items, then);
        });
    }

    fn look_at_people(
        &mut self,
        g: usize,
        items: &[Item],
        then: impl FnOnce(&mut World, bool) + 'static,
    ) {
        let people = items.iter().filter_map(|item| match item {
            Item::Person(hash) => Some(*hash),
            Item::Session(_) | Item::Token(_) => None,
        });
        let lookup = Lookup::<PersonHash>::new(people, self.replica(g), |user| Item::Person(*user));
        let keys = lookup.keys().to_vec();
        let read = |server: &Server, user: &PersonHash, _| server.cut_off(user);
        self.look_up(g, keys, read, move |world, cut_offs| {
            let is_done = cut_offs.is_some();
            if let Some((_, cut_offs)) = cut_offs {
                lookup.note(world.replica(g), cut_offs).unwrap();
            }
            then(world, is_done);
        });
    }

    /// As `Store::found` does, without an idle timeout.
    pub(super) fn find_sessions(
        &mut self,
        g: usize,
        ids: Vec<SessionId>,
        then: impl FnOnce(&mut World, Option<Vec<(SessionId, Found)>>) + 'static,
    ) {
        let lookup = Lookup::<SessionId>::new(ids, self.replica(g), |id| Item::Session(*id));
        let keys = lookup.keys().to_vec();
        let read = |server: &Server, id: &SessionId, _| server.entry(*id);
        self.look_up(g, keys, read, move |world, entries| {
            let found = entries.map(|(now, entries)| {
                let noted = lookup.note(world.replica(g), entries, None, now, |_| {});
                noted.unwrap()
            });
            then(world, found);
        });
    }

    fn looked(&mut self, g: usize, up_to: Option<u64>) {
        if let Some(up_to) = up_to {
            self.gateways[g].heard = up_to;
        }
        self.look(g);
    }
}
