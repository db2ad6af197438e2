//! Fills a Redis with sessions of distinct users through the gateway's own store, and measures a
//! request's decision, a list, a sign-in and a refresh. `bench/sessions` runs it.
//!
//! `fill PORT PREFIX FROM TO`: creates the sessions of these numbers, refreshes each once, then
//! measures. It prints one line of JSON: medians in microseconds. `fill PORT PREFIX FROM TO only`
//! signs their users in without measuring, for `bench/run` and `bench/scale`.

#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "what it measured is what it prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use portcullis::auth::session::{Millis, OnSessionLimit, Session, SessionId};
use portcullis::routing::Requirements;
use portcullis::settings::{self, Engine, RedisAddress, RedisNode, SessionsOnOutage, Topology};
use portcullis::store::{
    InitialRefreshToken, Query, RefreshRotation, SessionListQuery, SessionUse, Store,
};
use portcullis::telemetry::metrics::Metrics;
use sha2::{Digest, Sha256};

mod sample;

use sample::{id, session};

const TTL: Duration = Duration::from_secs(30 * 86_400);
const IDLE: Option<Duration> = Some(Duration::from_secs(86_400));
/// How many operations are under way at once while it fills.
const CONCURRENCY: usize = 64;
/// How often each operation is measured.
const SAMPLES: usize = 500;
/// The number of sessions of the user whose list is measured.
const SESSIONS_PER_USER: u64 = 50;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("fill PORT PREFIX FROM TO");
    let (port, prefix) = (next(), next());
    let number = |text: String| text.parse::<u64>().expect("a number");
    let (from, to) = (number(next()), number(next()));
    let store = open(port.parse().expect("a port"), prefix);
    assert!(
        store.wait_until_up(Duration::from_secs(5)).await,
        "no Redis"
    );
    let now = store.now().await.expect("the time");
    if arguments.next().is_some() {
        return futures_util::stream::iter(from..to)
            .for_each_concurrent(CONCURRENCY, async |n| {
                sign_in(&store, &session(n, now)).await
            })
            .await;
    }
    futures_util::stream::iter(from..to)
        .for_each_concurrent(CONCURRENCY, |n| fill(&store, n, now))
        .await;
    measure(&store, to, now).await;
}

fn open(port: u16, prefix: String) -> Store {
    let settings = settings::Store {
        engine: Engine::Redis(RedisAddress {
            topology: Topology::Standalone(RedisNode {
                host: "127.0.0.1".to_owned(),
                port,
            }),
            tls: None,
            database: 0,
            username: None,
            password: None,
        }),
        key_prefix: prefix,
        timeout: Duration::from_secs(10),
        revocation_replicas: 0,
        sessions_on_outage: SessionsOnOutage::Deny,
        cached_for: Duration::from_secs(60),
        limits_on_outage: portcullis::limits::OnOutage::Local,
    };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    Store::open(&settings, metrics).connect()
}

/// Signs a user in, uses the session and refreshes it, as most sessions will have been.
async fn fill(store: &Store, n: u64, now: Millis) {
    let session = session(n, now);
    sign_in(store, &session).await;
    let used = SessionUse {
        session: session.id,
        last_access: now,
        requests: 1,
        address: session.ip,
    };
    let uses = store.record_uses(std::slice::from_ref(&used));
    uses.await.expect("a use");
    refresh(store, session.id, 0).await;
}

async fn sign_in(store: &Store, session: &Session) {
    let grant = InitialRefreshToken {
        hash: token(session.id, 0),
        until: session.expires_at,
    };
    let limit = OnSessionLimit::EvictOldest;
    let created = store.create_session(session, Some(grant), 50, limit, IDLE);
    created.await.expect("a sign-in");
}

async fn refresh(store: &Store, id: SessionId, generation: u64) {
    let turnover = RefreshRotation {
        presented: token(id, generation),
        is_authentic: true,
        successor: token(id, generation + 1),
        grace: Duration::from_secs(30),
        ttl: TTL,
        address: [198, 51, 100, 23].into(),
    };
    let turned = store.rotate_refresh(id, &turnover, IDLE).await;
    turned.expect("a refresh");
}

async fn measure(store: &Store, users: u64, now: Millis) {
    let seen = |n: usize| id((n as u64).wrapping_mul(7_919) % users);
    let nothing = Requirements::default();
    let decision = median(async |n| {
        let inquiry = Query {
            charges_before_auth: &[],
            session: Some(seen(n)),
            cached: None,
            last_access: 0,
            blacklist_key: Some("nobody"),
            cut_off_user: None,
            issued_at: None,
            require: &nothing,
            charges_after_auth: &[],
        };
        store.decide(&inquiry, IDLE).await.expect("a decision");
    });
    let decision = decision.await;
    // Beyond the users that fill the store: one with many sessions, and one a sign-in.
    let beyond = u64::MAX / 2;
    for n in 0..SESSIONS_PER_USER {
        let session = Session {
            user: "listed".to_owned(),
            ..session(beyond + n, now + n)
        };
        sign_in(store, &session).await;
    }
    let list = median(async |_| {
        let wanted = SessionListQuery {
            status: None,
            address: None,
            idle: IDLE,
            limit: 100,
            cursor: None,
        };
        let page = store.sessions_of("listed", wanted).await.expect("a list");
        assert_eq!(page.total as u64, SESSIONS_PER_USER);
    });
    let list = list.await;
    let first = beyond + SESSIONS_PER_USER;
    let signing_in = median(async |n| {
        let n = first + n as u64;
        sign_in(store, &session(n, now)).await;
    });
    let signing_in = signing_in.await;
    let refreshing = median(async |n| refresh(store, id(first + n as u64), 0).await);
    let refreshing = refreshing.await;
    println!(
        r#"{{"decision": {decision}, "list": {list}, "sign_in": {signing_in}, "refresh": {refreshing}}}"#
    );
}

/// The median of many times, one after another, in microseconds.
async fn median(one: impl AsyncFn(usize)) -> u128 {
    let mut times = Vec::with_capacity(SAMPLES);
    for n in 0..SAMPLES {
        let started = Instant::now();
        one(n).await;
        times.push(started.elapsed().as_micros());
    }
    times.sort_unstable();
    times.get(SAMPLES / 2).copied().unwrap_or_default()
}

fn token(id: SessionId, generation: u64) -> [u8; 32] {
    let hash = Sha256::new().chain_update(id.0);
    hash.chain_update(generation.to_be_bytes())
        .finalize()
        .into()
}
