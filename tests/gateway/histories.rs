//! Histories of what clients of four gateways see while Redis, clocks and the network fail, checked
//! for an order in which one gateway could have produced them. The Redis loses no confirmed write.
//!
//! `PORTCULLIS_ROUNDS` is the number of passes through all faults: one without it.

mod faults;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use self::faults::InjectedFault;
use crate::support::client::{Request, Response};
use crate::support::clock::Clock;
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::history::{ClientOperation, Event, is_linearizable};
use crate::support::redis::Redis;
use crate::support::tokens;
use crate::support::upstream::Upstream;
use crate::support::wait::{SetOnDrop, within};

/// A response arrives within this time, whatever fails.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(1);
/// How long the end of a fault is watched.
const SETTLE_DURATION: Duration = Duration::from_millis(700);
/// How many gateways there are. Half of them are behind a line of their own.
const GATEWAYS: usize = 4;
/// How many sessions there are at a time.
const LIVE_SESSIONS: usize = 8;
const EMAIL: &str = "alice@example.com";

/// A credential of a session, and all that clients saw of it.
struct ObservedSession {
    user: SignedIn,
    by_token: bool,
    ended: AtomicBool,
    events: Mutex<Vec<Event>>,
}

/// The responses that clients received during a fault.
#[derive(Debug, Default)]
struct FaultStats {
    statuses: BTreeMap<u16, usize>,
    max_latency: Duration,
    /// From the end of the fault until every gateway served again.
    recovery: Duration,
}

struct Fixture {
    // Fields go in this order: the gateways before what they use.
    gateways: [Gateway; GATEWAYS],
    redis_proxy: FaultProxy,
    redis: Mutex<Redis>,
    /// That of the first gateway, and that of Redis.
    clocks: [Clock; 2],
    subjects: Mutex<Vec<std::sync::Arc<ObservedSession>>>,
    done: AtomicBool,
    next_turn: AtomicU64,
    fault: Mutex<InjectedFault>,
    stats: Mutex<BTreeMap<InjectedFault, FaultStats>>,
}

impl ObservedSession {
    fn request(&self) -> Request {
        let request = Request::get("/private/a");
        if self.by_token {
            request.bearer(&self.user.access_token)
        } else {
            request.cookie(&self.user.cookie)
        }
    }

    fn record(
        &self,
        gateway: usize,
        deed: ClientOperation,
        called: Instant,
        returned: Option<Instant>,
    ) {
        self.events.lock().push(Event {
            gateway,
            operation: deed,
            called,
            returned,
        });
    }
}

fn fixture() -> Fixture {
    let clocks = [Clock::start(), Clock::start()];
    let redis = Redis::start_persistent_by(&clocks[1]);
    let upstream = Upstream::start();
    let line = FaultProxy::before(redis.address);
    let config = |store| {
        Config::new(upstream.address)
            .store(&format!("redis://{store}"))
            .set("/store/timeout", json!("100ms"))
            .set("/sessions/max_per_user", json!(10_000))
            .set(
                "/identity/builtin/sign_in_limits/attempts_per_address",
                json!({ "limit": 100_000, "window": "1m" }),
            )
    };
    let first = config(redis.address).clock(&clocks[0]);
    let database = first.file["database"]["url"].clone();
    let other = |store| Gateway::start(config(store).set("/database/url", database.clone()));
    let gateways = [
        Gateway::start(first),
        other(redis.address),
        other(line.address),
        other(line.address),
    ];
    gateways[0].register(EMAIL);
    Fixture {
        gateways,
        redis_proxy: line,
        redis: Mutex::new(redis),
        clocks,
        subjects: Mutex::default(),
        done: AtomicBool::new(false),
        next_turn: AtomicU64::new(0),
        fault: Mutex::new(InjectedFault::None),
        stats: Mutex::default(),
    }
}

impl Fixture {
    fn take_turn(&self) -> usize {
        self.next_turn.fetch_add(1, Ordering::Relaxed) as usize
    }

    /// Asks with one credential after another at one gateway after the other.
    fn request_until_done(&self) {
        while !self.done.load(Ordering::SeqCst) {
            let turn = self.take_turn();
            let subject = {
                let subjects = self.subjects.lock();
                let latest = subjects.len().saturating_sub(2 * LIVE_SESSIONS);
                let recent = &subjects[latest..];
                recent.get(turn / GATEWAYS % recent.len().max(1)).cloned()
            };
            if let Some(subject) = subject {
                self.request_once(&subject, turn % GATEWAYS);
            }
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    fn request_once(&self, subject: &ObservedSession, gateway: usize) {
        let called = Instant::now();
        let response = subject
            .request()
            .try_send(self.gateways[gateway].public)
            .expect("an answer");
        let took = called.elapsed();
        assert!(took < RESPONSE_DEADLINE, "{took:?}: {}", response.text());
        {
            let mut seen = self.stats.lock();
            let seen = seen.entry(*self.fault.lock()).or_default();
            *seen.statuses.entry(response.status).or_default() += 1;
            seen.max_latency = seen.max_latency.max(took);
        }
        let deed = match response.status {
            200 => ClientOperation::Accepted,
            401 => ClientOperation::Refused,
            503 => {
                response.assert_refused(503, "STORE_UNAVAILABLE");
                return;
            }
            other => panic!("{other}: {}", response.text()),
        };
        subject.record(gateway, deed, called, Some(called + took));
    }

    /// Signs people in and ends what they have, now here, now there.
    fn sign_in_and_end_until_done(&self) {
        while !self.done.load(Ordering::SeqCst) {
            let turn = self.take_turn();
            self.sign_in(turn / 2 % GATEWAYS, turn.is_multiple_of(3));
            let oldest = {
                let subjects = self.subjects.lock();
                let alive =
                    |it: &&std::sync::Arc<ObservedSession>| !it.ended.load(Ordering::SeqCst);
                let mut alive = subjects.iter().filter(alive);
                let oldest = alive.next().cloned();
                oldest.filter(|_| alive.count() >= LIVE_SESSIONS)
            };
            if let Some(subject) = oldest {
                subject.ended.store(true, Ordering::SeqCst);
                self.end_session(&subject, turn);
            }
        }
    }

    fn sign_in(&self, gateway: usize, by_token: bool) {
        let called = Instant::now();
        if let Some(user) = self.gateways[gateway].try_login(EMAIL) {
            let subject = ObservedSession {
                user,
                by_token,
                ended: AtomicBool::new(false),
                events: Mutex::default(),
            };
            subject.record(
                gateway,
                ClientOperation::SignIn,
                called,
                Some(Instant::now()),
            );
            self.subjects.lock().push(std::sync::Arc::new(subject));
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it by a sign-out, by the admin or by a single `SET`; repeats the request until it is
    /// confirmed, or sends it once.
    fn end_session(&self, subject: &ObservedSession, turn: usize) {
        for attempt in 0..4 {
            let gateway = (turn + attempt) % GATEWAYS;
            let called = Instant::now();
            let done = if subject.by_token {
                self.blacklist(subject)
            } else {
                let response = self.revoke(subject, gateway, turn);
                assert!(
                    matches!(response.status, 200 | 204 | 503),
                    "{}",
                    response.text()
                );
                response.status != 503
            };
            // A program beside the store is not a client of a gateway.
            let by = if subject.by_token {
                usize::MAX
            } else {
                gateway
            };
            subject.record(by, ClientOperation::Revoke, called, done.then(Instant::now));
            if done || turn.is_multiple_of(7) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn revoke(&self, subject: &ObservedSession, gateway: usize, turn: usize) -> Response {
        let gateway = &self.gateways[gateway];
        if turn.is_multiple_of(2) {
            let path = format!("/admin/sessions/{}", subject.user.session);
            return gateway.admin(Request::delete(&path));
        }
        let out = Request::post("/api/v1/auth/logout").same_origin();
        gateway.request(&out.cookie(&subject.user.cookie))
    }

    fn blacklist(&self, subject: &ObservedSession) -> bool {
        let claims = tokens::claims(&subject.user.access_token);
        let key = format!("portcullis:blacklist:{}", claims["jti"].as_str().unwrap());
        // It is unavailable while it is killed and restarted.
        let Some(redis) = self.redis.try_lock() else {
            return false;
        };
        redis.command(&["SET", &key, "1", "EX", "600"]) == "OK"
    }

    fn inject(&self, fault: InjectedFault) {
        *self.fault.lock() = fault;
        fault.run(self);
        let ended = Instant::now();
        for gateway in &self.gateways {
            within(Duration::from_secs(5), "normal again", || {
                let cached = self.subjects.lock().iter().find_map(|subject| {
                    let alive = !subject.ended.load(Ordering::SeqCst);
                    alive.then(|| subject.request())
                });
                let response = cached?.try_send(gateway.public).ok()?;
                (response.status == 200).then_some(())
            });
        }
        let normal = ended.elapsed();
        let mut seen = self.stats.lock();
        let seen = seen.entry(fault).or_default();
        seen.recovery = seen.recovery.max(normal);
    }

    /// A session that was created and not ended is valid on every gateway.
    fn assert_live_sessions_valid(&self) {
        let subjects = self.subjects.lock();
        let alive = |it: &&std::sync::Arc<ObservedSession>| !it.ended.load(Ordering::SeqCst);
        for subject in subjects.iter().filter(alive) {
            for gateway in &self.gateways {
                gateway.request(&subject.request()).assert_ok();
            }
        }
    }
}

#[test]
fn client_histories_are_linearizable() {
    let rounds = std::env::var("PORTCULLIS_ROUNDS").ok();
    let rounds: usize = rounds.and_then(|it| it.parse().ok()).unwrap_or(1);
    let fixture = fixture();
    std::thread::scope(|scope| {
        let _over = SetOnDrop(&fixture.done);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(scope.spawn(|| fixture.request_until_done()));
        }
        clients.push(scope.spawn(|| fixture.sign_in_and_end_until_done()));
        for _ in 0..rounds {
            for fault in InjectedFault::ALL {
                fixture.inject(fault);
                std::thread::sleep(SETTLE_DURATION);
                assert!(clients.iter().all(|it| !it.is_finished()), "{fault:?}");
            }
        }
    });
    fixture.assert_live_sessions_valid();
    let subjects = fixture.subjects.lock();
    let (mut responses, mut refused) = (0, 0);
    for subject in subjects.iter() {
        let events = subject.events.lock();
        let of = |deed| {
            events
                .iter()
                .filter(|event| event.operation == deed)
                .count()
        };
        responses += of(ClientOperation::Accepted);
        refused += of(ClientOperation::Refused);
        assert!(
            is_linearizable(&events, GATEWAYS),
            "{}: {events:#?}",
            subject.user.session
        );
    }
    // Otherwise it would say nothing.
    assert!(subjects.len() > 10 && responses > 200 && refused > 50);
    eprintln!(
        "{} sessions, {responses} accepted, {refused} refused",
        subjects.len()
    );
    for (fault, seen) in fixture.stats.lock().iter() {
        eprintln!("{fault:?}: {seen:?}");
    }
}
