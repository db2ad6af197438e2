//! What happens: people come and go, and things fail.

use std::net::Ipv4Addr;

use super::asking::Credential;
use super::witness::By;
use super::world::{Link, Way, World};
use super::{MS, Micros, SECOND};
use crate::auth::session::{Device, Millis, Session, SessionId, no_data};
use crate::store::{PersonHash, Revocation};

/// When everything that failed works again.
const CALM: Micros = 6 * SECOND;
/// When everything must be known again.
const QUIET: Micros = CALM + 2_500 * MS;
const CREDENTIALS: u64 = 9;
const LONG: Millis = 3_600_000;

impl World {
    /// Plays the story to its end.
    pub(super) fn play(&mut self) -> Result<(), String> {
        for g in 0..self.gateways.len() {
            self.listen(g);
        }
        for n in 0..CREDENTIALS {
            self.plan_life(n as u8 + 1);
        }
        for _ in 0..self.dice.below(6) {
            self.plan_fault();
        }
        self.run_until(CALM + 200 * MS)?;
        self.calm = true;
        self.run_until(QUIET)?;
        self.witness.settled = Some(By::Store);
        for round in 1..3 {
            // An answer may be dropped because of news of something else: that is not so twice.
            self.everybody_asks();
            self.run_until(QUIET + round * 150 * MS)?;
        }
        self.witness.settled = Some(By::Replica);
        self.everybody_asks();
        self.run_until(QUIET + 450 * MS)
    }

    fn everybody_asks(&mut self) {
        for g in 0..self.gateways.len() {
            for who in 0..self.witness.count() {
                self.request(g, who);
            }
        }
    }

    pub(super) fn any_gateway(&mut self) -> usize {
        self.dice.below(self.gateways.len() as u64) as usize
    }

    fn plan_life(&mut self, n: u8) {
        let birth = self.dice.between(300 * MS, 3 * SECOND);
        let session = SessionId([n; 32]);
        let person: PersonHash = [n % 3; 16];
        let key = format!("jti-{n}");
        let born = self.server.clock(birth);
        let with_session = !n.is_multiple_of(3);
        let credential = Credential {
            session: with_session.then_some(session),
            key: (n % 3 != 1).then(|| key.clone()),
            person: (!with_session).then_some(person),
            issued_at: (!with_session).then_some(born / 1000),
            ..Credential::default()
        };
        let short = self.dice.percent(10);
        let life = if short {
            self.dice.between(500, 2_500)
        } else {
            LONG
        };
        let expires = if with_session {
            born + life
        } else {
            born + LONG
        };
        let who = self.witness.add(credential, expires);
        if self.dice.percent(20) {
            let early = self.dice.below(250 * MS);
            self.ask_at(birth - early, who);
        }
        let ending = match self.dice.below(100) {
            0..20 => None,
            _ if n % 3 == 1 => Some(Revocation::Session(session)),
            20..60 if n % 3 == 2 => Some(Revocation::Session(session)),
            20..50 => Some(Revocation::Person(person, 0)).filter(|_| !with_session),
            _ => Some(Revocation::Token(key)),
        };
        let live = move |world: &mut World| world.live(who, ending);
        self.at(birth, move |world| {
            if with_session {
                let g = world.any_gateway();
                world.sign_in(g, record(session, born, expires), live);
            } else {
                live(world);
            }
        });
    }

    /// Uses a credential here and there, and ends it.
    fn live(&mut self, who: usize, ending: Option<Revocation>) {
        let end = self.now + self.dice.between(300 * MS, 2_400 * MS);
        for _ in 0..10 {
            let at = self.dice.between(self.now, end);
            self.ask_at(at, who);
        }
        if let Some(id) = self.witness.credential(who).session {
            self.plan_changes(id, end);
        }
        for _ in 0..14 {
            let after = match self.dice.below(3) {
                0 => self.dice.below(200 * MS),
                1 => self.dice.between(650 * MS, 900 * MS),
                _ => self.dice.below(2 * SECOND),
            };
            self.ask_at(end - 20 * MS + after, who);
        }
        let Some(what) = ending else {
            return;
        };
        let single = matches!(what, Revocation::Token(_)) && self.dice.percent(50);
        if !single && self.dice.percent(20) {
            let what = what.clone();
            let again = end + self.dice.below(500 * MS);
            self.at(again, move |world| world.end(what, false));
        }
        self.at(end, move |world| world.end(what, single));
    }

    fn end(&mut self, what: Revocation, single: bool) {
        if single {
            // A program beside the store, with one `SET`.
            if self.server.up {
                self.serve(Box::new(move |world| {
                    world.revoke(&what);
                }));
            }
        } else {
            let (g, tries) = (self.any_gateway(), self.dice.below(4) as u32);
            self.revoke_at(g, what, tries);
        }
    }

    /// Changes a session's record in bursts, as a role change beside two changes of its `data` does,
    /// and has gateways check it as those with open streams do.
    fn plan_changes(&mut self, id: SessionId, end: Micros) {
        for _ in 0..self.dice.below(4) {
            let burst = self.dice.between(self.now, end);
            for _ in 0..self.dice.between(1, 5) {
                let at = burst + self.dice.below(3 * MS);
                self.at(at, move |world| {
                    let g = world.any_gateway();
                    world.change(g, id);
                });
            }
            let at = burst + self.dice.below(3 * MS);
            self.at(at, |world| {
                let g = world.any_gateway();
                world.sweep(g);
            });
        }
    }

    fn ask_at(&mut self, at: Micros, who: usize) {
        self.at(at, move |world| {
            let g = world.any_gateway();
            world.request(g, who);
        });
    }

    fn plan_fault(&mut self) {
        let from = self.dice.between(300 * MS, 5 * SECOND);
        let longest = (CALM - from).min(2_500 * MS);
        let time = self.dice.between(30 * MS, longest);
        let kind = self.dice.below(14);
        self.at(from, move |world| {
            let now = world.now;
            world
                .witness
                .tell(now, || format!("fault {kind} for {time} µs"));
            match kind {
                0 | 1 => world.stop_server(time),
                2 if world.server.up => world.crash_server(time.min(SECOND)),
                3 => {
                    let g = world.any_gateway();
                    if world.gateways[g].up {
                        world.crash_gateway(g, time);
                    }
                }
                4..9 => {
                    let g = world.any_gateway();
                    world.cut(g, time);
                }
                _ => world.slow_down(time),
            }
        });
    }

    /// Makes the connections of a gateway slow, but not too slow, and cuts them then.
    fn slow_down(&mut self, time: Micros) {
        let g = self.any_gateway();
        let slow = (self.now + time / 2, self.dice.between(20 * MS, 95 * MS));
        for line in self.gateways[g].lines.as_flattened_mut() {
            line.slow = slow;
        }
        self.witness.tell(self.now, || format!("{g} is slow"));
        self.after(time / 2, move |world| {
            if world.dice.percent(40) {
                world.cut(g, time / 2);
            } else {
                world.gateways[g].drowsy_soon = Some(time / 2);
            }
        });
    }

    /// Lets requests go on while what listens gets no time to run.
    pub(super) fn starve(&mut self, g: usize, time: Micros) {
        let until = (self.now + time).min(CALM);
        let gateway = &mut self.gateways[g];
        gateway.drowsy_until = until;
        let line = &mut gateway.lines[Link::Listening(0).place()][Way::ToGateway as usize];
        line.cut_until = line.cut_until.max(until);
        self.witness
            .tell(self.now, || format!("{g} does not listen"));
    }

    /// Cuts one connection of a gateway or both, in one direction or both.
    fn cut(&mut self, g: usize, time: Micros) {
        let until = self.now + time;
        let (links, ways) = (self.dice.between(1, 4), self.dice.between(1, 4));
        for link in 0..2_usize {
            for way in 0..2_usize {
                if links & (1 << link) != 0 && ways & (1 << way) != 0 {
                    let line = &mut self.gateways[g].lines[link][way];
                    line.cut_until = line.cut_until.max(until);
                }
            }
        }
        self.witness.tell(self.now, || {
            format!("{g} is cut, links {links} ways {ways}")
        });
    }
}

fn record(id: SessionId, born: Millis, expires: Millis) -> Session {
    Session {
        id,
        user: "ann".to_owned(),
        email: "ann@example.com".to_owned(),
        username: None,
        name: None,
        roles: [].into(),
        scopes: [].into(),
        created_at: born,
        expires_at: expires,
        ip: Ipv4Addr::LOCALHOST.into(),
        user_agent: "".into(),
        device: Device::default(),
        ended: None,
        data: no_data(),
        revision: 0,
    }
}
