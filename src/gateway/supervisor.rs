//! Notifications to the service manager, by the protocol of systemd (`sd_notify(3)`). Without
//! `NOTIFY_SOCKET` in the environment, none is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::Handle;

/// Time that the end of a drain takes beside `shutdown.delay` and `shutdown.grace`.
const EXIT_TIME: Duration = Duration::from_secs(30);

/// Reports that the gateway serves.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that a reload has begun. [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "a reload could not be reported"),
    }
}

/// Reports that the gateway drains, and that it may take this long.
pub(super) fn stopping(time: Duration) {
    let limit = (time + EXIT_TIME).as_micros();
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    send(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(limit),
        NotifyState::Status("draining"),
    ]);
}

/// Reports that another process is the main one of the service from now on.
pub(super) fn replaced_by(process: u32) {
    send(&[NotifyState::MainPid(process)]);
}

/// Sends the notifications of the watchdog for as long as every worker runs its tasks, if the
/// service manager expects them.
pub(super) async fn run_watchdog(workers: Vec<Handle>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut tick = tokio::time::interval(limit / 2);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for worker in &workers {
            // Fails if the worker has ended, which is part of a drain.
            let _ = worker.spawn(async {}).await;
        }
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
