//! Main loop of a running gateway: applies reload requests until a signal ends it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::process::Signals;
use super::{ReloadRequest, Services, supervisor};
use crate::api::admin::{ReloadFn, ReloadOutcome};
use crate::clock;
use crate::config;
use crate::events::{Event, EventKind};
use crate::pipeline::snapshot::Snapshot;
use crate::settings::Settings;
use crate::telemetry::metrics::ReloadStatus;

/// A function that sends reload requests to the main loop, one at a time.
pub(super) fn trigger(reload: mpsc::Sender<ReloadRequest>) -> Arc<ReloadFn> {
    Arc::new(move || {
        let reload = reload.clone();
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            let gone = || ReloadOutcome::Rejected(vec!["the gateway is shutting down".to_owned()]);
            if reload.send(reply).await.is_err() {
                return gone();
            }
            outcome.await.unwrap_or_else(|_| gone())
        })
    })
}

/// Runs until SIGTERM or SIGINT, applying reload requests.
pub(super) async fn run_until_signal(
    services: &Services,
    file: Option<PathBuf>,
    mut watch: config::FileWatcher,
    mut reloads: mpsc::Receiver<ReloadRequest>,
    mut signals: Signals,
) {
    loop {
        let reply = tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => None,
            () = watch.changed(), if file.is_some() => None,
            Some(reply) = reloads.recv() => Some(reply),
        };
        let (outcome, read) = match &file {
            Some(file) => reload(services, file).await,
            None => (
                ReloadOutcome::Rejected(vec!["there is no configuration file".to_owned()]),
                None,
            ),
        };
        if let Some((watched, fingerprint)) = read {
            watch.replace(file.iter().cloned().chain(watched), fingerprint);
        }
        if let Some(reply) = reply {
            // The requester may have disconnected.
            let _ = reply.send(outcome);
        }
    }
}

/// The files to watch from now on, and the fingerprint of what was read.
type WatchedFiles = (Vec<PathBuf>, u64);

/// Reloads all or nothing: an invalid file changes nothing.
async fn reload(services: &Services, file: &Path) -> (ReloadOutcome, Option<WatchedFiles>) {
    supervisor::reloading();
    let path = file.to_owned();
    let loaded = tokio::task::spawn_blocking(move || config::load(&path)).await;
    let (outcome, read) = match loaded {
        Ok(Ok(settings)) => apply(services, settings).await,
        Ok(Err(mistakes)) => {
            let lines = mistakes.to_string().lines().map(str::to_owned).collect();
            (ReloadOutcome::Rejected(lines), None)
        }
        Err(_) => (
            ReloadOutcome::Rejected(vec!["the file could not be read".to_owned()]),
            None,
        ),
    };
    report(services, &outcome);
    supervisor::ready(match outcome {
        ReloadOutcome::Applied => "serving",
        ReloadOutcome::Rejected(_) | ReloadOutcome::RestartRequired(_) => {
            "serving; the last reload was rejected, see the log"
        }
    });
    (outcome, read)
}

async fn apply(services: &Services, settings: Settings) -> (ReloadOutcome, Option<WatchedFiles>) {
    let changed = services.boot.changed_keys(&settings.boot);
    if !changed.is_empty() {
        return (ReloadOutcome::RestartRequired(changed), None);
    }
    let previous = services.snapshot.load_full();
    let (send_probe, metrics) = (&services.send_probe, &services.metrics);
    let next = Snapshot::start(settings.reloadable, Some(&previous), send_probe, metrics).await;
    let durable = next.settings.sessions.durable;
    services.snapshot.store(Arc::new(next));
    services.sessions.set_durable(durable);
    let read = (settings.watched, settings.fingerprint);
    (ReloadOutcome::Applied, Some(read))
}

/// Records when the running configuration was loaded.
pub(super) fn record_load_time(services: &Services) {
    let now = clock::since_epoch(clock::system_time());
    services.metrics.last_reload_success.set(now.as_secs_f64());
}

fn report(services: &Services, outcome: &ReloadOutcome) {
    let status = match outcome {
        ReloadOutcome::Applied => {
            record_load_time(services);
            tracing::info!("the configuration was reloaded");
            ReloadStatus::Applied
        }
        ReloadOutcome::Rejected(mistakes) => {
            for mistake in mistakes {
                tracing::error!("the configuration was not reloaded: {mistake}");
            }
            ReloadStatus::Rejected
        }
        ReloadOutcome::RestartRequired(keys) => {
            tracing::error!(
                "the configuration was not reloaded: a restart is required for {}",
                keys.join(", ")
            );
            ReloadStatus::RestartRequired
        }
    };
    services
        .metrics
        .config_reloads
        .with_label_values(&[status.as_str()])
        .inc();
    services
        .events
        .record(Event::new(EventKind::Reload).detail(status.as_str()));
}
