//! A Redis that answers, and always too late: nobody waits for it more than a few times.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::settings::Engine;
use portcullis::store::{Store, StoreError};

use crate::captured::Captured;
use crate::cuttable::Cuttable;
use crate::server::Server;
use crate::support::{address, log, metrics, open, redis};

const TIMEOUT: Duration = Duration::from_millis(100);

/// Asks once, and tells how long that took.
async fn ask(store: &Store) -> (Result<u64, StoreError>, Duration) {
    let began = Instant::now();
    (store.now().await, began.elapsed())
}

#[tokio::test]
async fn a_store_that_is_too_slow_is_left_alone_until_it_is_not() {
    // Each way: below what its watch takes for dead, and above it.
    for delay in [55, 160].map(Duration::from_millis) {
        let (log, _guard) = Captured::start();
        let server = Server::start();
        let line = Cuttable::before(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port)));
        let metrics = metrics();
        assert_eq!(metrics.store_breaker.get(), 0);
        let engine = Engine::Redis(address(line.address.port()));
        let store = open(engine, TIMEOUT, Arc::clone(&metrics)).link();
        assert!(store.wait_until_up(Duration::from_secs(5)).await);
        line.delay(delay);
        let (mut waited, slow) = (0, Instant::now());
        loop {
            let (answer, took) = ask(&store).await;
            assert!(answer.is_err() && took < TIMEOUT + Duration::from_millis(50));
            if took < TIMEOUT / 4 {
                break;
            }
            waited += 1;
        }
        assert!(waited <= 7, "{waited} waited, {:?}", slow.elapsed());
        assert_eq!(metrics.store_breaker.get(), 2);
        // It stays so, whatever its probes find.
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            let (answer, took) = ask(&store).await;
            assert!(took < Duration::from_millis(20), "{took:?}");
            let slow = [StoreError::BreakerOpen, StoreError::Unreachable];
            assert!(slow.contains(&answer.unwrap_err()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        line.restore();
        let began = Instant::now();
        while ask(&store).await.0.is_err() {
            let late = began.elapsed();
            // What is on its way in the slow line comes first; where the server seemed dead, an attempt
            // to connect is under way.
            let bound = if delay < TIMEOUT { 500 } else { 900 };
            let bound = Duration::from_millis(bound) + 2 * delay;
            assert!(late < bound, "{late:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(metrics.store_breaker.get(), 0);
        let text = log.text();
        for state in ["open", "closed"] {
            assert!(text.contains(&format!("state=\"{state}\"")), "{text}");
        }
    }
}

#[tokio::test]
async fn one_late_answer_opens_nothing() {
    let server = Server::start();
    let line = Cuttable::before(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port)));
    let metrics = metrics();
    let engine = Engine::Redis(address(line.address.port()));
    let store = open(engine, TIMEOUT, Arc::clone(&metrics)).link();
    assert!(store.wait_until_up(Duration::from_secs(5)).await);
    for _ in 0..8 {
        line.delay(TIMEOUT * 6 / 10);
        assert_eq!(ask(&store).await.0, Err(StoreError::Timeout));
        line.restore();
        while store.now().await.is_err() {}
        assert_eq!(metrics.store_breaker.get(), 0);
    }
}

#[tokio::test]
async fn thousands_of_questions_at_once_of_a_busy_runtime_are_all_answered() {
    let server = Server::start();
    let store = redis(&server, TIMEOUT).await;
    let asked: Vec<_> = (0..3000)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.peek_limit(&log("l", 9)).await })
        })
        .collect();
    // Whoever takes turns with others gets one only now and then.
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
    for one in asked {
        refused.extend(one.await.unwrap().err());
    }
    busy.iter().for_each(|task| task.abort());
    assert_eq!(refused, []);
}
