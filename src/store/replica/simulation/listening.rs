//! The listening connection, as `store/redis/listener` keeps it, and what is looked up of the news.

use super::world::{Link, World};
use super::{MS, Micros, SECOND, steady};
use crate::store::news::{self, News, Told};
use crate::store::replica::guard::Before;
use crate::store::{Found, Item};

/// How often the store is asked whether all was heard.
const EVERY: Micros = 200 * MS;
/// How long it may take to answer.
const ANSWER_WITHIN: Micros = 200 * MS;
/// How long opening may take.
const OPEN_WITHIN: Micros = SECOND;

/// What the store says of an item.
enum Said {
    Session(Box<Found>),
    Token(bool),
    Person(Option<u64>),
}

impl World {
    pub(super) fn listen(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        gateway.ear += 1;
        let ear = gateway.ear;
        self.bring_to_server(g, Link::Listening, move |world| {
            world.track(g, ear);
            world.bring_to_gateway(g, Link::Listening, move |world| {
                if world.gateways[g].ear == ear {
                    world.gateways[g].open = ear;
                    world.hear(g, News::Everything);
                    world.prove(g, ear);
                }
            });
        });
        self.later(g, OPEN_WITHIN, move |world| {
            if world.gateways[g].open != ear {
                world.lost(g, ear);
            }
        });
    }

    /// Asks whether all was heard.
    fn prove(&mut self, g: usize, ear: u64) {
        if self.gateways[g].ear != ear {
            return;
        }
        self.replica(g);
        let asked_at = steady();
        let gateway = &mut self.gateways[g];
        gateway.proof += 1;
        let proof = gateway.proof;
        self.bring_to_server(g, Link::Listening, move |world| {
            let store = world.server.clock(world.now);
            world.bring_to_gateway(g, Link::Listening, move |world| {
                let (now, gateway) = (world.now, &mut world.gateways[g]);
                if gateway.ear == ear && gateway.proof == proof {
                    gateway.proof += 1;
                    gateway.set_clock(now, store);
                    world.hear(g, News::HeardAll(asked_at, store));
                    world.later(g, EVERY, move |world| world.prove(g, ear));
                    if let Some(time) = world.gateways[g].drowsy_soon.take() {
                        world.starve(g, time);
                    }
                }
            });
        });
        self.later(g, ANSWER_WITHIN, move |world| world.give_up(g, ear, proof));
    }

    /// Notices that no answer has come, as soon as there is time for it.
    fn give_up(&mut self, g: usize, ear: u64, proof: u64) {
        let gateway = &self.gateways[g];
        if gateway.proof != proof {
            return;
        }
        if gateway.drowsy_until > self.now {
            let wait = gateway.drowsy_until - self.now;
            return self.later(g, wait, move |world| world.give_up(g, ear, proof));
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
                Told::Changed(item) => {
                    let before = self.replica(g).before(&item);
                    items.push((item, before));
                }
                Told::UpTo(now) => up_to = Some(now),
            }
        }
        if items.is_empty() {
            return self.looked(g, up_to);
        }
        self.gateways[g].looking = true;
        let asked: Vec<Item> = items.iter().map(|(item, _)| item.clone()).collect();
        self.question(
            g,
            move |world| asked.iter().map(|item| world.said(item)).collect(),
            move |world, said: Option<Vec<Said>>| {
                world.gateways[g].looking = false;
                match said {
                    Some(said) => {
                        world.note(g, &items, said);
                        world.looked(g, up_to);
                    }
                    None => world.looked(g, None),
                }
            },
        );
    }

    fn said(&self, item: &Item) -> Said {
        let now = self.server.clock(self.now);
        match item {
            Item::Session(id) => Said::Session(Box::new(self.server.find(*id, now))),
            Item::Token(key) => Said::Token(self.server.is_blacklisted(key)),
            Item::Person(person) => Said::Person(self.server.cut_off(person)),
        }
    }

    fn note(&mut self, g: usize, items: &[(Item, Before)], said: Vec<Said>) {
        let replica = self.replica(g);
        for ((item, before), said) in items.iter().zip(said) {
            match (item, said) {
                (Item::Session(id), Said::Session(found)) => {
                    replica.note_session(*id, &found, *before);
                }
                (Item::Token(key), Said::Token(listed)) => replica.note_token(key, listed, *before),
                (Item::Person(person), Said::Person(second)) => {
                    replica.note_person(*person, second, *before);
                }
                _ => unreachable!("each answer is to its question"),
            }
        }
    }

    fn looked(&mut self, g: usize, up_to: Option<u64>) {
        if let Some(up_to) = up_to {
            self.gateways[g].heard = up_to;
        }
        self.look(g);
    }
}
