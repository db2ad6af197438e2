//! What happens: people come and go, and things fail.

use std::net::Ipv4Addr;

use super::oracle::DecisionSource;
use super::requests::Credential;
use super::world::{Direction, LinkKind, World};
use super::{MS, Micros, SECOND};
use crate::auth::session::{Device, Millis, Session, SessionId, no_data};
use crate::store::{Revocation, UserHash};

/// When everything that failed works again.
const FAULTS_END: Micros = 6 * SECOND;
/// When everything must be known again.
const SETTLED_AT: Micros = FAULTS_END + 2_500 * MS;
const CREDENTIALS: u64 = 9;
const LONG_LIFETIME: Millis = 3_600_000;

impl World {
    /// Plays the story to its end.
    pub(super) fn run(&mut self) -> Result<(), String> {
        for g in 0..self.gateways.len() {
            self.open_tracking(g);
        }
        for n in 0..CREDENTIALS {
            self.plan_credential(n as u8 + 1);
        }
        for _ in 0..self.rng.below(6) {
            self.plan_fault();
        }
        self.run_until(FAULTS_END + 200 * MS)?;
        self.faults_ended = true;
        self.run_until(SETTLED_AT)?;
        self.oracle.settled_source = Some(DecisionSource::Store);
        for round in 1..3 {
            // An answer may be dropped because of news of something else: that is not so twice.
            self.request_everywhere();
            self.run_until(SETTLED_AT + round * 150 * MS)?;
        }
        self.oracle.settled_source = Some(DecisionSource::NearCache);
        self.request_everywhere();
        self.run_until(SETTLED_AT + 450 * MS)
    }

    fn request_everywhere(&mut self) {
        for g in 0..self.gateways.len() {
            for who in 0..self.oracle.count() {
                self.request(g, who);
            }
        }
    }

    pub(super) fn any_gateway(&mut self) -> usize {
        self.rng.below(self.gateways.len() as u64) as usize
    }

    fn plan_credential(&mut self, n: u8) {
        let birth = self.rng.between(300 * MS, 3 * SECOND);
        let session = SessionId([n; 32]);
        let person: UserHash = [n % 3; 16];
        let key = format!("jti-{n}");
        let born = self.server.clock(birth);
        let with_session = !n.is_multiple_of(3);
        let credential = Credential {
            session: with_session.then_some(session),
            blacklist_key: (n % 3 != 1).then(|| key.clone()),
            user: (!with_session).then_some(person),
            issued_at: (!with_session).then_some(born / 1000),
            ..Credential::default()
        };
        let short = self.rng.percent(10);
        let life = if short {
            self.rng.between(500, 2_500)
        } else {
            LONG_LIFETIME
        };
        let expires = if with_session {
            born + life
        } else {
            born + LONG_LIFETIME
        };
        let who = self.oracle.add(credential, expires);
        if self.rng.percent(20) {
            let early = self.rng.below(250 * MS);
            self.request_at(birth - early, who);
        }
        let ending = match self.rng.below(100) {
            0..20 => None,
            _ if n % 3 == 1 => Some(Revocation::Session(session)),
            20..60 if n % 3 == 2 => Some(Revocation::Session(session)),
            20..50 => Some(Revocation::IssuedBefore(person, 0)).filter(|_| !with_session),
            _ => Some(Revocation::Token(key)),
        };
        let live = move |world: &mut World| world.use_credential(who, ending);
        self.at(birth, move |world| {
            if with_session {
                let g = world.any_gateway();
                world.sign_in(g, session_record(session, born, expires), live);
            } else {
                live(world);
            }
        });
    }

    /// Uses a credential here and there, and ends it.
    fn use_credential(&mut self, who: usize, ending: Option<Revocation>) {
        let end = self.now + self.rng.between(300 * MS, 2_400 * MS);
        for _ in 0..10 {
            let at = self.rng.between(self.now, end);
            self.request_at(at, who);
        }
        if let Some(id) = self.oracle.credential(who).session {
            self.plan_changes(id, end);
        }
        for _ in 0..14 {
            let after = match self.rng.below(3) {
                0 => self.rng.below(200 * MS),
                1 => self.rng.between(650 * MS, 900 * MS),
                _ => self.rng.below(2 * SECOND),
            };
            self.request_at(end - 20 * MS + after, who);
        }
        let Some(what) = ending else {
            return;
        };
        let single = matches!(what, Revocation::Token(_)) && self.rng.percent(50);
        if !single && self.rng.percent(20) {
            let what = what.clone();
            let again = end + self.rng.below(500 * MS);
            self.at(again, move |world| world.end_credential(what, false));
        }
        self.at(end, move |world| world.end_credential(what, single));
    }

    fn end_credential(&mut self, what: Revocation, single: bool) {
        if single {
            // A program beside the store, with one `SET`.
            if self.server.is_up {
                self.run_on_server(Box::new(move |world| {
                    world.revoke(&what);
                }));
            }
        } else {
            let (g, tries) = (self.any_gateway(), self.rng.below(4) as u32);
            self.revoke_through(g, what, tries);
        }
    }

    /// Changes a session's record in bursts, as a role change beside two changes of its `data` does,
    /// and has gateways check it as those with open streams do.
    fn plan_changes(&mut self, id: SessionId, end: Micros) {
        for _ in 0..self.rng.below(4) {
            let burst = self.rng.between(self.now, end);
            for _ in 0..self.rng.between(1, 5) {
                let at = burst + self.rng.below(3 * MS);
                self.at(at, move |world| {
                    let g = world.any_gateway();
                    world.change_session(g, id);
                });
            }
            let at = burst + self.rng.below(3 * MS);
            self.at(at, |world| {
                let g = world.any_gateway();
                world.check_open_streams(g);
            });
        }
    }

    fn request_at(&mut self, at: Micros, who: usize) {
        self.at(at, move |world| {
            let g = world.any_gateway();
            world.request(g, who);
        });
    }

    fn plan_fault(&mut self) {
        let from = self.rng.between(300 * MS, 5 * SECOND);
        let longest = (FAULTS_END - from).min(2_500 * MS);
        let time = self.rng.between(30 * MS, longest);
        let kind = self.rng.below(14);
        self.at(from, move |world| {
            let now = world.now;
            world
                .oracle
                .log(now, || format!("fault {kind} for {time} µs"));
            match kind {
                0 | 1 => world.stop_server(time),
                2 if world.server.is_up => world.crash_server(time.min(SECOND)),
                3 => {
                    let g = world.any_gateway();
                    if world.gateways[g].is_up {
                        world.crash_gateway(g, time);
                    }
                }
                4..9 => {
                    let g = world.any_gateway();
                    world.cut_links(g, time);
                }
                _ => world.slow_down(time),
            }
        });
    }

    /// Makes the connections of a gateway slow, but not too slow, and cuts them then.
    fn slow_down(&mut self, time: Micros) {
        let g = self.any_gateway();
        let slow = (self.now + time / 2, self.rng.between(20 * MS, 95 * MS));
        for line in self.gateways[g].links.as_flattened_mut() {
            line.slow = slow;
        }
        self.oracle.log(self.now, || format!("{g} is slow"));
        self.after(time / 2, move |world| {
            if world.rng.percent(40) {
                world.cut_links(g, time / 2);
            } else {
                world.gateways[g].next_stall = Some(time / 2);
            }
        });
    }

    /// Lets requests go on while what listens gets no time to run.
    pub(super) fn stall_tracking(&mut self, g: usize, time: Micros) {
        let until = (self.now + time).min(FAULTS_END);
        let gateway = &mut self.gateways[g];
        gateway.stalled_until = until;
        let line = &mut gateway.links[LinkKind::Tracking(0).index()][Direction::ToGateway as usize];
        line.cut_until = line.cut_until.max(until);
        self.oracle.log(self.now, || format!("{g} does not listen"));
    }

    /// Cuts one connection of a gateway or both, in one direction or both.
    fn cut_links(&mut self, g: usize, time: Micros) {
        let until = self.now + time;
        let (links, ways) = (self.rng.between(1, 4), self.rng.between(1, 4));
        for link in 0..2_usize {
            for way in 0..2_usize {
                if links & (1 << link) != 0 && ways & (1 << way) != 0 {
                    let line = &mut self.gateways[g].links[link][way];
                    line.cut_until = line.cut_until.max(until);
                }
            }
        }
        self.oracle.log(self.now, || {
            format!("{g} is cut, links {links} ways {ways}")
        });
    }
}

fn session_record(id: SessionId, born: Millis, expires: Millis) -> Session {
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
