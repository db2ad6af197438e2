//! The state of an account and its sessions, as their clients saw it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;

use super::propagation_bound;
use crate::support::client::Response;
use crate::support::echo::Echo;
use crate::support::gateway::SignedIn;
use crate::support::history::{ClientOperation, Event};

/// How many ended sessions of a user stay distinguishable from those that never were.
const ENDED_KEPT: usize = 50;

/// A session, and what its clients saw of it.
pub(super) struct ObservedSession {
    pub(super) user: SignedIn,
    pub(super) refresh_token: Mutex<String>,
    pub(super) events: Mutex<Vec<Event>>,
    /// By client: the latest number confirmed to it is in the session's `data`.
    data: Mutex<BTreeMap<String, u64>>,
    /// A client has begun to end it.
    ending: AtomicBool,
}

/// A change whose values are counted: the first makes 1.
struct Change {
    gateway: usize,
    called: Instant,
    /// `None`: it may have been made or not.
    returned: Option<Instant>,
}

/// The changes of one value, made one after another.
#[derive(Default)]
pub(super) struct Changes {
    changing: Mutex<()>,
    made: Mutex<Vec<Change>>,
}

/// A call that ends several sessions of an account.
struct BulkEnd {
    called: Instant,
    returned: Option<Instant>,
}

#[derive(Default)]
struct Sessions {
    all: Vec<Arc<ObservedSession>>,
    bulk_ends: Vec<BulkEnd>,
}

pub(super) struct Account {
    pub(super) email: &'static str,
    pub(super) user: String,
    pub(super) roles: Changes,
    pub(super) names: Changes,
    sessions: Mutex<Sessions>,
}

impl ObservedSession {
    pub(super) fn record(
        &self,
        deed: ClientOperation,
        gateway: usize,
        called: Instant,
        done: bool,
    ) {
        self.events.lock().push(Event {
            gateway,
            operation: deed,
            called,
            returned: done.then(Instant::now),
        });
    }

    /// Whether no client has begun to end it.
    pub(super) fn is_alive(&self) -> bool {
        !self.ending.load(Ordering::SeqCst)
    }

    /// To be called before the call that ends it.
    pub(super) fn mark_ending(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Takes down how a call with one of its credentials ended; `true`: it was let through.
    pub(super) fn record_response(
        &self,
        account: &Account,
        gateway: usize,
        called: Instant,
        response: &Response,
    ) -> bool {
        match response.status {
            200..300 => {
                self.record(ClientOperation::Accepted, gateway, called, true);
                true
            }
            401 => {
                let code = response.code();
                let session = &self.user.session;
                assert!(!self.is_alive(), "{session} was not ended: {code}");
                let evicted = account.ended_count() > ENDED_KEPT;
                let expected = matches!(&*code, "SESSION_REVOKED" | "TOKEN_REVOKED");
                assert!(expected || evicted, "{session} was revoked: {code}");
                self.record(ClientOperation::Refused, gateway, called, true);
                false
            }
            503 => {
                response.assert_refused(503, "STORE_UNAVAILABLE");
                false
            }
            other => panic!("{other}: {}", response.text()),
        }
    }

    /// What `data` must have at least, if it is read from now on.
    pub(super) fn data(&self) -> BTreeMap<String, u64> {
        self.data.lock().clone()
    }

    /// Takes down that this was in `data`.
    pub(super) fn assert_has_data(&self, least: &BTreeMap<String, u64>, data: &Value) {
        let number = |client: &str| data[client].as_u64().unwrap_or_default();
        for (client, reported) in least {
            let number = number(client);
            assert!(number >= *reported, "{client} lost {reported}: {data}");
        }
        let mut kept = self.data.lock();
        for (client, number) in data.as_object().unwrap() {
            let kept = kept.entry(client.clone()).or_default();
            *kept = number.as_u64().unwrap().max(*kept);
        }
    }
}

impl Changes {
    /// Makes the next change, unless another is being made; `change` says whether it is sure to be
    /// made.
    pub(super) fn apply(&self, gateway: usize, change: impl FnOnce(usize) -> bool) {
        let Some(_turn) = self.changing.try_lock() else {
            return;
        };
        let number = {
            let mut made = self.made.lock();
            made.push(Change {
                gateway,
                called: Instant::now(),
                returned: None,
            });
            made.len()
        };
        if change(number) {
            self.made.lock()[number - 1].returned = Some(Instant::now());
        }
    }

    /// The latest number that was sure to be made; others after it may have been.
    pub(super) fn latest_confirmed(&self) -> usize {
        let made = self.made.lock();
        let confirmed = made.iter().rposition(|change| change.returned.is_some());
        confirmed.map_or(0, |place| place + 1)
    }

    /// Checks a number that a call at a gateway returned just now.
    pub(super) fn assert_possible(
        &self,
        what: &str,
        number: usize,
        gateway: usize,
        called: Instant,
    ) {
        let made = self.made.lock();
        let in_force = |change: &Change| {
            let bound = propagation_bound(change.gateway, gateway);
            change.returned.is_some_and(|at| at + bound <= called)
        };
        let least = made.iter().rposition(in_force).map_or(0, |place| place + 1);
        let now = Instant::now();
        let most = made.iter().filter(|change| change.called <= now).count();
        assert!(
            (least..=most).contains(&number),
            "{what}: {number} is none of {least} to {most}"
        );
    }
}

impl Account {
    pub(super) fn new(email: &'static str, user: &str) -> Account {
        Account {
            email,
            user: user.to_owned(),
            roles: Changes::default(),
            names: Changes::default(),
            sessions: Mutex::default(),
        }
    }

    /// Takes a new session in. A call that ends all of them and was under way may have ended it.
    pub(super) fn add_session(&self, caller: SignedIn, gateway: usize, called: Instant) {
        let subject = ObservedSession {
            refresh_token: Mutex::new(caller.refresh_token.clone()),
            user: caller,
            events: Mutex::default(),
            data: Mutex::default(),
            ending: AtomicBool::new(false),
        };
        subject.record(ClientOperation::SignIn, gateway, called, true);
        let mut sessions = self.sessions.lock();
        let under_way = |sweep: &BulkEnd| sweep.returned.is_none_or(|at| at >= called);
        if sessions.bulk_ends.iter().any(under_way) {
            subject.mark_ending();
            subject.record(ClientOperation::Revoke, gateway, called, false);
        }
        sessions.all.push(Arc::new(subject));
    }

    pub(super) fn observed_sessions(&self) -> Vec<Arc<ObservedSession>> {
        self.sessions.lock().all.clone()
    }

    /// Ends all sessions but one by a call that says whether it is done.
    pub(super) fn end_many(
        &self,
        gateway: usize,
        except: Option<&str>,
        call: impl FnOnce() -> Option<bool>,
    ) {
        let called = Instant::now();
        let (place, mut swept) = {
            let mut sessions = self.sessions.lock();
            sessions.bulk_ends.push(BulkEnd {
                called,
                returned: None,
            });
            (sessions.bulk_ends.len() - 1, sessions.all.clone())
        };
        swept.retain(|subject| Some(&*subject.user.session) != except);
        swept.iter().for_each(|subject| subject.mark_ending());
        let done = call();
        let mut sessions = self.sessions.lock();
        let sweep = &mut sessions.bulk_ends[place];
        sweep.returned = done.map(|_| Instant::now());
        let called = sweep.called;
        drop(sessions);
        for subject in swept {
            subject.record(ClientOperation::Revoke, gateway, called, done == Some(true));
        }
    }

    /// The number of sessions whose end has begun.
    fn ended_count(&self) -> usize {
        let sessions = self.sessions.lock();
        sessions.all.iter().filter(|it| !it.is_alive()).count()
    }

    /// Sessions, accepted calls, and refused ones.
    pub(super) fn counts(&self) -> [usize; 3] {
        let subjects = self.observed_sessions();
        let of = |deed: ClientOperation| {
            let of = |subject: &Arc<ObservedSession>| {
                let events = subject.events.lock();
                events
                    .iter()
                    .filter(|event| event.operation == deed)
                    .count()
            };
            subjects.iter().map(of).sum()
        };
        [
            subjects.len(),
            of(ClientOperation::Accepted),
            of(ClientOperation::Refused),
        ]
    }
}

/// The number of the roles by which a request was forwarded.
pub(super) fn roles_of(echo: &Echo) -> usize {
    let roles = echo.header("x-user-roles").unwrap_or_default();
    roles.trim_start_matches("role-").parse().unwrap_or(0)
}
