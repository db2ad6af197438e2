//! One client and its calls.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::account::{Account, ObservedSession, roles_of};
use super::{Fixture, GATEWAYS};
use crate::support::client::{Request, Response};
use crate::support::history::ClientOperation;

/// How many sessions of an account live at a time.
const LIVE_SESSIONS: usize = 4;
/// How many of the latest sessions calls are made with.
const RECENT_SESSIONS: u64 = 5;

const CURRENT: &str = "/api/v1/sessions/current";

pub(super) struct Client<'s> {
    fixture: &'s Fixture,
    name: String,
    dice: u64,
    /// How many changes of `data` it has made.
    written: u64,
}

impl<'s> Client<'s> {
    pub(super) fn new(fixture: &'s Fixture, number: u64, seed: u64) -> Client<'s> {
        Client {
            fixture,
            name: format!("client-{number}"),
            dice: seed.wrapping_add(number << 32) | 1,
            written: 0,
        }
    }

    /// `xorshift64*`.
    fn random_below(&mut self, end: u64) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        (self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }

    /// Makes this many calls, most of them with live sessions.
    pub(super) fn make_calls(&mut self, times: u64) {
        for _ in 0..times {
            let gateway = self.random_below(GATEWAYS as u64) as usize;
            let account = &self.fixture.accounts[usize::from(self.random_below(3) == 0)];
            let mut subjects = account.observed_sessions();
            let alive = subjects.iter().filter(|it| it.is_alive()).count();
            if alive == 0 || (alive < LIVE_SESSIONS && self.random_below(16) == 0) {
                self.sign_in(account, gateway);
                continue;
            }
            if self.random_below(5) > 0 {
                let before = subjects.clone();
                subjects.retain(|subject| subject.is_alive());
                if subjects.is_empty() {
                    subjects = before;
                }
            }
            let latest = self.random_below(RECENT_SESSIONS.min(subjects.len() as u64)) as usize;
            let subject = &subjects[subjects.len() - 1 - latest];
            match self.random_below(1_000) {
                0..350 => self.forward(account, subject, gateway),
                350..540 => self.patch(account, subject, gateway),
                540..600 => self.extend(account, subject, gateway),
                600..660 => self.refresh(account, subject, gateway),
                660..720 => self.show(account, subject, gateway),
                720..780 => self.profile(account, subject, gateway),
                780..870 => self.rename(account, subject, gateway),
                870..960 => self.set_roles(account, gateway),
                960..997 => self.end(account, subject, gateway),
                _ => self.end_many(account, subject, gateway),
            }
        }
    }

    /// Makes a call. On a busy machine it may still be under way when one of these sessions, whose
    /// credentials it has, is ended: its connection is closed then.
    fn send(&self, gateway: usize, request: &Request, of: &[&ObservedSession]) -> Option<Response> {
        match request.try_send(self.fixture.gateways[gateway].public) {
            Ok(response) => Some(response),
            Err(error) => {
                assert!(of.iter().any(|it| !it.is_alive()), "no response: {error}");
                None
            }
        }
    }

    /// The request with one of the session's credentials.
    fn with_credential(&mut self, subject: &ObservedSession, request: Request) -> Request {
        match self.random_below(3) {
            0 => request.cookie(&subject.user.cookie).same_origin(),
            1 => request.bearer(&subject.user.access_token),
            _ => {
                let token = format!("Session {}", subject.user.session_token);
                request.header("Authorization", &token)
            }
        }
    }

    /// Makes a call with one of the session's credentials; gives the response if it was let through.
    fn request(
        &mut self,
        account: &Account,
        subject: &ObservedSession,
        gateway: usize,
        request: Request,
    ) -> Option<Response> {
        let request = self.with_credential(subject, request);
        let called = Instant::now();
        let response = self.send(gateway, &request, &[subject])?;
        let passed = subject.record_response(account, gateway, called, &response);
        passed.then_some(response)
    }

    fn sign_in(&self, account: &Account, gateway: usize) {
        let called = Instant::now();
        if let Some(caller) = self.fixture.gateways[gateway].try_login(account.email) {
            account.add_session(caller, gateway, called);
        }
    }

    fn forward(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        let called = Instant::now();
        let request = Request::get("/private/a");
        if let Some(response) = self.request(account, subject, gateway, request) {
            let roles = roles_of(&response.echo());
            let session = format!("roles of {}", subject.user.session);
            account
                .roles
                .assert_possible(&session, roles, gateway, called);
        }
    }

    fn patch(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        self.written += 1;
        let (least, own) = (subject.data(), self.written);
        let change = json!({ "data": { &self.name: own } });
        let request = Request::new("PATCH", CURRENT).json(&change);
        if let Some(response) = self.request(account, subject, gateway, request) {
            let data = &response.data()["data"];
            assert_eq!(data[&self.name], own);
            subject.assert_has_data(&least, data);
        }
    }

    fn show(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        let least = subject.data();
        let request = Request::get(CURRENT);
        if let Some(response) = self.request(account, subject, gateway, request) {
            let shown = response.data();
            assert_eq!(shown["id"], *subject.user.session);
            subject.assert_has_data(&least, &shown["data"]);
        }
    }

    fn extend(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        let request = Request::post("/api/v1/sessions/current/extend");
        self.request(account, subject, gateway, request);
    }

    fn refresh(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        let token = subject.refresh_token.lock().clone();
        let body = json!({ "refresh_token": token });
        let request = Request::post("/api/v1/auth/refresh").json(&body);
        let called = Instant::now();
        let Some(response) = self.send(gateway, &request, &[subject]) else {
            return;
        };
        if subject.record_response(account, gateway, called, &response) {
            let token = response.data()["refresh_token"].clone();
            *subject.refresh_token.lock() = token.as_str().unwrap().to_owned();
        }
    }

    fn profile(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        let called = Instant::now();
        let request = Request::get("/api/v1/profile");
        if let Some(response) = self.request(account, subject, gateway, request) {
            let profile = response.data();
            let name = profile["name"].as_str().unwrap_or_default();
            let number = name.trim_start_matches("Name ").parse().unwrap_or(0);
            account
                .names
                .assert_possible("name", number, gateway, called);
        }
    }

    fn rename(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        account.names.apply(gateway, |number| {
            let body = json!({ "name": format!("Name {number}") });
            let request = Request::new("PUT", "/api/v1/profile").json(&body);
            self.request(account, subject, gateway, request).is_some()
        });
    }

    fn set_roles(&self, account: &Account, gateway: usize) {
        account.roles.apply(gateway, |number| {
            let body = json!({ "roles": [format!("role-{number}")] });
            let path = format!("/admin/users/{}", account.user);
            let request = Request::new("PATCH", &path).json(&body);
            self.fixture.gateways[gateway].admin(request).status == 200
        });
    }

    /// Ends one session: by a sign-out, by the administrator, or by another session of its user.
    fn end(&mut self, account: &Account, subject: &Arc<ObservedSession>, gateway: usize) {
        let subjects = account.observed_sessions();
        let other = subjects.iter().rev().find(|it| it.is_alive());
        subject.mark_ending();
        let called = Instant::now();
        let session = &subject.user.session;
        let logout = Request::post("/api/v1/auth/logout");
        let response = match (self.random_below(4), other) {
            (0, _) => {
                let path = format!("/admin/sessions/{session}");
                Some(self.fixture.gateways[gateway].admin(Request::delete(&path)))
            }
            (1, Some(other)) if other.user.session != *session => {
                let path = format!("/api/v1/sessions/{session}");
                let request = self.with_credential(other, Request::delete(&path));
                let response = self.send(gateway, &request, &[subject, other]);
                response.filter(|response| {
                    let is_gone = response.status == 401;
                    if is_gone {
                        other.record_response(account, gateway, called, response);
                    }
                    !is_gone
                })
            }
            (2, _) => {
                let token = subject.refresh_token.lock().clone();
                let logout = logout.json(&json!({ "refresh_token": token }));
                self.send(gateway, &logout, &[subject])
            }
            _ => {
                let request = self.with_credential(subject, logout);
                self.send(gateway, &request, &[subject])
            }
        };
        let done = response.is_some_and(|response| match response.status {
            200 | 204 => true,
            503 => false,
            other => panic!("{other}: {}", response.text()),
        });
        subject.record(ClientOperation::Revoke, gateway, called, done);
    }

    /// Ends all of an account's sessions, or all but the one that asks.
    fn end_many(&mut self, account: &Account, subject: &ObservedSession, gateway: usize) {
        let all = self.random_below(2) == 0;
        let except = (!all).then_some(&*subject.user.session);
        account.end_many(gateway, except, || {
            let request = match all {
                true => Request::post("/api/v1/auth/logout-all"),
                false => Request::delete("/api/v1/sessions"),
            };
            let request = self.with_credential(subject, request);
            let called = Instant::now();
            let response = self.send(gateway, &request, &[subject])?;
            match (response.status, all) {
                (200, true) => Some(true),
                (503, _) => None,
                _ => Some(subject.record_response(account, gateway, called, &response)),
            }
        });
    }
}
