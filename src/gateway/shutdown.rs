//! The end of a gateway: it reports that it is not ready, drains, and writes what is pending.

use std::sync::Arc;
use std::time::Duration;

use super::process::Termination;
use super::sockets::Sockets;
use super::workers::Workers;
use super::{Services, background, supervisor};
use crate::clock;
use crate::proxy::listener::ListenerState;

/// How often open responses are looked at during a drain.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// How long endless streams may take to close after the grace period, if they were kept until then.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Why a gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By a signal.
    Terminated,
    /// A successor serves.
    Replaced,
}

/// Reports the gateway not ready for `shutdown.delay`, then closes the listeners and finishes the
/// requests in flight, for at most `shutdown.grace`. Endless streams end at once, but if there is a
/// successor, with the grace period or at a signal.
pub(super) async fn drain(
    services: &Services,
    listeners: &[Arc<ListenerState>],
    sockets: Sockets,
    workers: &Workers,
    termination: &mut Termination,
    mut ending: Ending,
) {
    let shutdown = services.snapshot.load().settings.shutdown.clone();
    tracing::info!("draining");
    let delay = tokio::time::sleep(shutdown.delay);
    if ending == Ending::Terminated {
        supervisor::stopping(shutdown.delay.saturating_add(shutdown.grace));
        services.readiness.set_draining();
        delay.await;
    } else {
        tokio::select! {
            () = delay => {}
            () = termination.requested() => ending = Ending::Terminated,
        }
    }
    sockets.release(listeners);
    workers.stop_accepting();
    finish_requests(services, listeners, termination, ending, shutdown.grace).await;
    services.open_streams.close_all();
    services.open_streams.retract(&services.sessions).await;
    let name = services.open_streams.gateway();
    if let Err(error) = services.store.withdraw_presence(name).await {
        tracing::debug!(%error, "the fleet will notice by itself");
    }
    background::flush_all(services).await;
}

/// Waits until all connections are closed, at most until the end of the grace period.
async fn finish_requests(
    services: &Services,
    listeners: &[Arc<ListenerState>],
    termination: &mut Termination,
    mut ending: Ending,
    grace: Duration,
) {
    let mut end = clock::monotonic() + grace;
    loop {
        let now = clock::monotonic();
        if ending == Ending::Replaced && now >= end {
            end = now + CLOSE_TIME;
            ending = Ending::Terminated;
        }
        if is_closed(listeners) || now >= end {
            return;
        }
        if ending == Ending::Terminated {
            // A response may become an endless one after the drain began: it is closed at the next
            // look.
            services.open_streams.drain();
        }
        let pause = tokio::time::sleep(DRAIN_INTERVAL);
        tokio::select! {
            () = wait_until_closed(listeners) => {}
            () = pause => {}
            () = termination.requested(), if ending == Ending::Replaced => {
                ending = Ending::Terminated;
            }
        }
    }
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
