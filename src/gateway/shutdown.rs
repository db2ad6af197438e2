//! The end of a gateway: it reports that it is not ready, drains, and writes what is pending.

use std::sync::Arc;
use std::time::Duration;

use super::sockets::Sockets;
use super::workers::Workers;
use super::{Services, background, supervisor};
use crate::clock;
use crate::proxy::listener::ListenerState;

/// How often open responses are looked at during a drain.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// Reports the gateway not ready for `shutdown.delay`, then closes the listeners and finishes the
/// requests in flight, for at most `shutdown.grace`.
pub(super) async fn drain(
    services: &Services,
    listeners: &[Arc<ListenerState>],
    sockets: Sockets,
    workers: &Workers,
) {
    let shutdown = services.snapshot.load().settings.shutdown.clone();
    tracing::info!("draining");
    supervisor::stopping(shutdown.delay.saturating_add(shutdown.grace));
    services.readiness.set_draining();
    tokio::time::sleep(shutdown.delay).await;
    sockets.release(listeners);
    workers.stop_accepting();
    let end = clock::monotonic() + shutdown.grace;
    // A response may become an endless one after the drain began: it is closed at the next look.
    while !is_closed(listeners) && clock::monotonic() < end {
        services.open_streams.drain();
        let pause = tokio::time::sleep(DRAIN_INTERVAL);
        tokio::select! {
            () = wait_until_closed(listeners) => {}
            () = pause => {}
        }
    }
    services.open_streams.close_all();
    services.open_streams.retract(&services.sessions).await;
    let name = services.open_streams.gateway();
    if let Err(error) = services.store.withdraw_presence(name).await {
        tracing::debug!(%error, "the fleet will notice by itself");
    }
    background::flush_all(services).await;
}

fn is_closed(listeners: &[Arc<ListenerState>]) -> bool {
    listeners.iter().all(|listener| listener.is_closed())
}

/// Polled, because connections end on other runtimes, and only the end of the process waits for it.
pub(super) async fn wait_until_closed(listeners: &[Arc<ListenerState>]) {
    while !is_closed(listeners) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
