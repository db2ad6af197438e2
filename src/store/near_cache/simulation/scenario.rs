//! Scenario of a run: credentials that are used and revoked, and faults.

use std::net::Ipv4Addr;

use super::oracle::DecisionSource;
use super::requests::Credential;
use super::world::{Direction, LinkKind, World};
use super::{MS, Micros, SECOND};
use crate::auth::session::{Device, Millis, Session, SessionId, no_data};
use crate::store::{Revocation, UserHash};

/// End of all faults.
const FAULTS_END: Micros = 6 * SECOND;
/// Time by which all caches must have converged.
const SETTLED_AT: Micros = FAULTS_END + 2_500 * MS;
const CREDENTIALS: u64 = 9;
const LONG_LIFETIME: Millis = 3_600_000;

impl World {
    /// Runs the scenario to its end.
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
            // A hash collision may discard the first reply, but not the second.
            self.request_everywhere();
            self.run_until(SETTLED_AT + round * 150 * MS)?;
        }
        self.oracle.settled_source = Some(DecisionSource::NearCache);
        self.request_everywhere();
        self.run_until(SETTLED_AT + 450 * MS)
    }

    fn request_everywhere(&mut self) {
        for g in 0..self.gateways.len() {
            for credential in 0..self.oracle.count() {
                self.request(g, credential);
            }
        }
    }

    pub(super) fn any_gateway(&mut self) -> usize {
        self.rng.below(self.gateways.len() as u64) as usize
    }

    fn plan_credential(&mut self, n: u8) {
        let start = self.rng.between(300 * MS, 3 * SECOND);
        let session = SessionId([n; 32]);
        let user: UserHash = [n % 3; 16];
        let key = format!("jti-{n}");
        let created_at = self.server.clock(start);
        let with_session = !n.is_multiple_of(3);
        let credential = Credential {
            session: with_session.then_some(session),
            blacklist_key: (n % 3 != 1).then(|| key.clone()),
            user: (!with_session).then_some(user),
            issued_at: (!with_session).then_some(created_at / 1000),
            ..Credential::default()
        };
        let is_short = self.rng.percent(10);
        let lifetime = if is_short {
            self.rng.between(500, 2_500)
        } else {
            LONG_LIFETIME
        };
        let expires_at = if with_session {
            created_at + lifetime
        } else {
            created_at + LONG_LIFETIME
        };
        let index = self.oracle.add(credential, expires_at);
        if self.rng.percent(20) {
            let early = self.rng.below(250 * MS);
            self.request_at(start - early, index);
        }
        let revocation = match self.rng.below(100) {
            0..20 => None,
            _ if n % 3 == 1 => Some(Revocation::Session(session)),
            20..60 if n % 3 == 2 => Some(Revocation::Session(session)),
            20..50 => Some(Revocation::IssuedBefore(user, 0)).filter(|_| !with_session),
            _ => Some(Revocation::Token(key)),
        };
        let use_it = move |world: &mut World| world.use_credential(index, revocation);
        self.at(start, move |world| {
            if with_session {
                let g = world.any_gateway();
                world.sign_in(g, session_record(session, created_at, expires_at), use_it);
            } else {
                use_it(world);
            }
        });
    }

    /// Uses a credential on random gateways, and revokes it.
    fn use_credential(&mut self, credential: usize, revocation: Option<Revocation>) {
        let end = self.now + self.rng.between(300 * MS, 2_400 * MS);
        for _ in 0..10 {
            let at = self.rng.between(self.now, end);
            self.request_at(at, credential);
        }
        if let Some(id) = self.oracle.credential(credential).session {
            self.plan_changes(id, end);
        }
        for _ in 0..14 {
            let after = match self.rng.below(3) {
                0 => self.rng.below(200 * MS),
                1 => self.rng.between(650 * MS, 900 * MS),
                _ => self.rng.below(2 * SECOND),
            };
            self.request_at(end - 20 * MS + after, credential);
        }
        let Some(revocation) = revocation else {
            return;
        };
        let is_external = matches!(revocation, Revocation::Token(_)) && self.rng.percent(50);
        if !is_external && self.rng.percent(20) {
            let revocation = revocation.clone();
            let again = end + self.rng.below(500 * MS);
            self.at(again, move |world| world.end_credential(revocation, false));
        }
        self.at(end, move |world| {
            world.end_credential(revocation, is_external);
        });
    }

    fn end_credential(&mut self, revocation: Revocation, is_external: bool) {
        if is_external {
            // Another program writes to the store, with one `SET`.
            if self.server.is_up {
                self.run_on_server(Box::new(move |world| {
                    world.revoke(&revocation);
                }));
            }
        } else {
            let (g, retries) = (self.any_gateway(), self.rng.below(4) as u32);
            self.revoke_through(g, revocation, retries);
        }
    }

    /// Schedules bursts of changes to a session's record, each with a check of open streams.
    ///
    /// Such a burst occurs when a role change coincides with two changes of `data`.
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

    fn request_at(&mut self, at: Micros, credential: usize) {
        self.at(at, move |world| {
            let g = world.any_gateway();
            world.request(g, credential);
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

    /// Slows the connections of a gateway down, then cuts them or stalls the tracking task.
    fn slow_down(&mut self, time: Micros) {
        let g = self.any_gateway();
        let slow = (self.now + time / 2, self.rng.between(20 * MS, 95 * MS));
        for state in self.gateways[g].links.as_flattened_mut() {
            state.slow = slow;
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

    /// Stalls the tracking task of a gateway; requests continue.
    pub(super) fn stall_tracking(&mut self, g: usize, time: Micros) {
        let until = (self.now + time).min(FAULTS_END);
        let gateway = &mut self.gateways[g];
        gateway.stalled_until = until;
        let index = LinkKind::Tracking(0).index();
        let state = &mut gateway.links[index][Direction::ToGateway as usize];
        state.cut_until = state.cut_until.max(until);
        self.oracle
            .log(self.now, || format!("{g} stalls its tracking task"));
    }

    /// Cuts one or both connections of a gateway, in one or both directions.
    fn cut_links(&mut self, g: usize, time: Micros) {
        let until = self.now + time;
        let (links, directions) = (self.rng.between(1, 4), self.rng.between(1, 4));
        for link in 0..2_usize {
            for direction in 0..2_usize {
                if links & (1 << link) != 0 && directions & (1 << direction) != 0 {
                    let state = &mut self.gateways[g].links[link][direction];
                    state.cut_until = state.cut_until.max(until);
                }
            }
        }
        self.oracle.log(self.now, || {
            format!("{g} is cut, links {links} directions {directions}")
        });
    }
}

fn session_record(id: SessionId, created_at: Millis, expires_at: Millis) -> Session {
    Session {
        id,
        user: "ann".to_owned(),
        email: "ann@example.com".to_owned(),
        username: None,
        name: None,
        roles: [].into(),
        scopes: [].into(),
        created_at,
        expires_at,
        ip: Ipv4Addr::LOCALHOST.into(),
        user_agent: "".into(),
        device: Device::default(),
        ended: None,
        data: no_data(),
        revision: 0,
        provider: None,
        api_key: None,
    }
}
