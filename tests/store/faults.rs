//! Faults of a Redis: lost scripts, hangs, crashes, refusals, a change to a replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::auth::session::OnSessionLimit;
use portcullis::settings::{Engine, RedisAddress};
use portcullis::store::{SessionUse, Store, StoreError};

use crate::captured_logs::CapturedLogs;
use crate::server::Server;
use crate::support::{IDLE, address, eventually, log, metrics, open, redis, session};

const TIMEOUT: Duration = Duration::from_millis(100);
/// Not what a test is about.
const AMPLE: Duration = Duration::from_secs(5);
/// An outage is noticed within this time, and so is its end.
const BOUND: Duration = Duration::from_millis(600);
/// What else the machine does makes an attempt slower, never faster: one that keeps the bound will do.
const ATTEMPTS: usize = 6;

/// Asks until the store is found to be down, at which it must fail without waiting.
async fn until_down(store: &Store) -> Duration {
    let noticed = eventually("noticed", async || {
        let outcome = store.now().await;
        assert!(outcome.is_err());
        outcome == Err(StoreError::Unreachable)
    })
    .await;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(store.now().await, Err(StoreError::Unreachable));
    }
    assert!(began.elapsed() < TIMEOUT * 50, "{:?}", began.elapsed());
    noticed
}

#[tokio::test]
async fn hung_server_is_detected_and_used_again() {
    let server = Server::start();
    let metrics = metrics();
    let store = open(
        Engine::Redis(address(server.port)),
        TIMEOUT,
        Arc::clone(&metrics),
    )
    .connect();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    assert_eq!(metrics.store_up.get(), 1);
    let mut attempts = Vec::new();
    while attempts.len() < ATTEMPTS {
        server.signal("STOP");
        let noticed = until_down(&store).await;
        assert_eq!(metrics.store_up.get(), 0);
        // Meanwhile the pause between two attempts to connect grows to its longest.
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.signal("CONT");
        let back = eventually("back", async || store.now().await.is_ok()).await;
        assert_eq!(metrics.store_up.get(), 1);
        if noticed < BOUND && back < BOUND {
            return;
        }
        attempts.push((noticed, back));
    }
    panic!("{attempts:?}");
}

#[tokio::test]
async fn dead_server_fails_fast_and_recovers() {
    let mut server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let mut attempts = Vec::new();
    while attempts.len() < ATTEMPTS {
        let port = server.kill();
        until_down(&store).await;
        server = Server::start_on(port, &[]);
        let back = eventually("back", async || {
            store.charge(&[log("l", 1000)]).await.is_ok()
        });
        let back = back.await;
        if back < BOUND {
            return;
        }
        attempts.push(back);
    }
    panic!("{attempts:?}");
}

#[tokio::test]
async fn flushed_scripts_are_reloaded() {
    let server = Server::start();
    let store = redis(&server, Duration::from_secs(5)).await;
    let mut client = server.client().await;
    let one = session("ann", store.now().await.unwrap());
    for n in 0..3 {
        redis::cmd("SCRIPT")
            .arg("FLUSH")
            .exec_async(&mut client)
            .await
            .unwrap();
        assert_eq!(
            store.charge(&[log("l", 9)]).await.unwrap()[0].remaining,
            8 - n
        );
    }
    redis::cmd("SCRIPT")
        .arg("FLUSH")
        .exec_async(&mut client)
        .await
        .unwrap();
    store
        .create_session(&one, None, 5, OnSessionLimit::Reject, IDLE)
        .await
        .unwrap();
    redis::cmd("SCRIPT")
        .arg("FLUSH")
        .exec_async(&mut client)
        .await
        .unwrap();
    let used = SessionUse {
        session: one.id,
        last_access: 1,
        requests: 3,
        address: one.ip,
    };
    store.record_uses(&[used.clone(), used]).await.unwrap();
    assert_eq!(
        store
            .session(one.id)
            .await
            .unwrap()
            .unwrap()
            .activity
            .request_count,
        6
    );
}

#[tokio::test]
async fn wrong_password_is_refused_and_not_logged() {
    let (log_lines, _guard) = CapturedLogs::start();
    let port = Server::start().kill();
    let server = Server::start_on(port, &["--requirepass", "the-real-secret"]);
    for (password, error) in [
        (Some("canary-secret"), StoreError::Refused),
        (None, StoreError::Refused),
    ] {
        let address = RedisAddress {
            password: password.map(Into::into),
            ..address(server.port)
        };
        let store = open(Engine::Redis(address), AMPLE, metrics()).connect();
        eventually("refused", async || store.now().await == Err(error)).await;
        assert!(!store.is_up());
    }
    let right = RedisAddress {
        password: Some("the-real-secret".into()),
        ..address(server.port)
    };
    let store = open(Engine::Redis(right), AMPLE, metrics()).connect();
    assert!(store.wait_until_up(AMPLE).await);
    let text = log_lines.text();
    assert!(text.contains("cannot use the store"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn full_server_refuses_writes_but_serves_reads() {
    let server = Server::start();
    let store = redis(&server, Duration::from_secs(5)).await;
    let one = session("ann", store.now().await.unwrap());
    store
        .create_session(&one, None, 5, OnSessionLimit::Reject, IDLE)
        .await
        .unwrap();
    let mut client = server.client().await;
    let full = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory")
        .arg("1")
        .take();
    full.exec_async(&mut client).await.unwrap();
    let two = session("ann", one.created_at);
    let outcome = store
        .create_session(&two, None, 5, OnSessionLimit::Reject, IDLE)
        .await;
    let no_writes = StoreError::ReadOnly;
    assert_eq!(outcome, Err(no_writes));
    assert_eq!(store.charge(&[log("l", 1)]).await, Err(no_writes));
    assert!(store.session(one.id).await.unwrap().is_some());
    assert!(store.is_up());
}

#[tokio::test]
async fn replica_serves_reads_until_promoted() {
    let server = Server::start();
    let store = redis(&server, AMPLE).await;
    let one = session("ann", store.now().await.unwrap());
    store
        .create_session(&one, None, 5, OnSessionLimit::Reject, IDLE)
        .await
        .unwrap();
    let mut client = server.client().await;
    let role = async |client: &mut redis::aio::MultiplexedConnection, host: &str, port: &str| {
        let mut command = redis::cmd("REPLICAOF");
        command
            .arg(host)
            .arg(port)
            .exec_async(client)
            .await
            .unwrap();
    };
    role(&mut client, "127.0.0.1", "1").await;
    for _ in 0..50 {
        let charged = store.charge(&[log("l", 9)]).await;
        assert_eq!(charged, Err(StoreError::ReadOnly));
        assert!(store.session(one.id).await.unwrap().is_some());
        assert!(store.is_up());
    }
    role(&mut client, "NO", "ONE").await;
    eventually("writes are taken", async || {
        store.charge(&[log("l", 9)]).await.is_ok()
    })
    .await;
}
