//! A Redis that responds too late each time: only a few callers wait for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::settings::Engine;
use portcullis::store::StoreError;

use crate::captured_logs::CapturedLogs;
use crate::fault_proxy::FaultProxy;
use crate::server::Server;
use crate::support::{address, eventually, log, metrics, open, redis};

const TIMEOUT: Duration = Duration::from_millis(100);

/// What else the machine does makes an attempt slower, never faster: one that keeps the bound will do.
const ATTEMPTS: usize = 6;

#[tokio::test]
async fn breaker_stays_open_while_the_store_is_slow() {
    // Each way: below what its watch takes for dead, and above it.
    for delay in [55, 160].map(Duration::from_millis) {
        // What is on its way in the slow line comes first; where the server seemed dead, an attempt
        // to connect is under way.
        let bound = if delay < TIMEOUT { 500 } else { 900 };
        let bound = Duration::from_millis(bound) + 2 * delay;
        let mut attempts = Vec::new();
        while attempts.last().is_none_or(|late| *late >= bound) {
            assert!(attempts.len() < ATTEMPTS, "{attempts:?}");
            attempts.push(breaker_open_after_recovery(delay).await);
        }
    }
}

/// Slows the line to a store and restores it; returns how long the store is not used then.
async fn breaker_open_after_recovery(delay: Duration) -> Duration {
    let (log, _guard) = CapturedLogs::start();
    let server = Server::start();
    let line = FaultProxy::before(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port)));
    let metrics = metrics();
    assert_eq!(metrics.store_breaker.get(), 0);
    let engine = Engine::Redis(address(line.address.port()));
    let store = open(engine, TIMEOUT, Arc::clone(&metrics)).connect();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    line.delay(delay);
    let mut waited = 0;
    while store.now().await.unwrap_err() == StoreError::Timeout {
        waited += 1;
    }
    assert!(waited <= 7, "{waited} waited");
    assert_eq!(metrics.store_breaker.get(), 2);
    // It stays so, whatever its probes find, and no operation waits until it times out.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let slow = [StoreError::BreakerOpen, StoreError::Unreachable];
        assert!(slow.contains(&store.now().await.unwrap_err()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    line.restore();
    let late = eventually("it is used again", async || store.now().await.is_ok()).await;
    assert_eq!(metrics.store_breaker.get(), 0);
    let text = log.text();
    for state in ["open", "closed"] {
        assert!(text.contains(&format!("state=\"{state}\"")), "{text}");
    }
    late
}

#[tokio::test]
async fn single_late_response_does_not_open_the_breaker() {
    let server = Server::start();
    let line = FaultProxy::before(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port)));
    let metrics = metrics();
    let engine = Engine::Redis(address(line.address.port()));
    let store = open(engine, TIMEOUT, Arc::clone(&metrics)).connect();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    for _ in 0..8 {
        line.delay(TIMEOUT * 6 / 10);
        assert_eq!(store.now().await, Err(StoreError::Timeout));
        line.restore();
        while store.now().await.is_err() {}
        assert_eq!(metrics.store_breaker.get(), 0);
    }
}

#[tokio::test]
async fn busy_runtime_does_not_open_the_breaker() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let requested: Vec<_> = (0..3000)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.peek_limit(&log("l", 9)).await })
        })
        .collect();
    // A caller that alternates with others is served only now and then.
    let busy: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async {
                loop {
                    std::thread::sleep(TIMEOUT / 4);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut refused = Vec::new();
    for one in requested {
        refused.extend(one.await.unwrap().err());
    }
    busy.iter().for_each(|task| task.abort());
    assert_eq!(refused, []);
}
