//! Reloads of the configuration.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::{ReloadRequest, Services, supervisor};
use crate::api::admin::{ReloadFn, ReloadOutcome};
use crate::clock;
use crate::config::{self, ConfigSource, FilesRead, Loaded, Purpose};
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

/// What causes reloads: SIGHUP, a changed file, and requests.
pub(super) struct Reloads {
    hangup: Signal,
    /// Without it there is no reload.
    source: Option<ConfigSource>,
    watch: config::FileWatcher,
    requests: mpsc::Receiver<ReloadRequest>,
}

impl Reloads {
    pub(super) fn new(
        hangup: Signal,
        source: Option<ConfigSource>,
        watch: config::FileWatcher,
        requests: mpsc::Receiver<ReloadRequest>,
    ) -> Reloads {
        Reloads {
            hangup,
            source,
            watch,
            requests,
        }
    }

    /// Waits until a reload is due; returns where to send its outcome, if it was requested.
    pub(super) async fn next(&mut self) -> Option<ReloadRequest> {
        tokio::select! {
            _ = self.hangup.recv() => None,
            () = self.watch.changed(), if self.source.is_some() => None,
            Some(reply) = self.requests.recv() => Some(reply),
        }
    }

    /// Reloads the configuration.
    pub(super) async fn perform(&mut self, services: &Services, reply: Option<ReloadRequest>) {
        let outcome = match &self.source {
            Some(source) => {
                let (outcome, files) = reload(services, source).await;
                match outcome {
                    ReloadOutcome::Applied => self.watch.follow(files),
                    ReloadOutcome::Rejected(_) | ReloadOutcome::RestartRequired(_) => {
                        self.watch.follow_rejected(files);
                    }
                }
                outcome
            }
            None => ReloadOutcome::Rejected(vec!["there is no configuration file".to_owned()]),
        };
        if let Some(reply) = reply {
            // The requester may have disconnected.
            let _ = reply.send(outcome);
        }
    }
}

/// Reloads all or nothing: an invalid file changes nothing. Also returns the files that were read.
async fn reload(services: &Services, source: &ConfigSource) -> (ReloadOutcome, FilesRead) {
    supervisor::reloading();
    let source = source.clone();
    let loading = move || config::load_watched(&source, Purpose::Serve);
    let loaded = tokio::task::spawn_blocking(loading).await;
    let (outcome, files) = match loaded {
        Ok(Loaded { outcome, files }) => match outcome {
            Ok((settings, _)) => (apply(services, settings).await, files),
            Err(mistakes) => {
                let lines = mistakes.to_string().lines().map(str::to_owned).collect();
                (ReloadOutcome::Rejected(lines), files)
            }
        },
        Err(_) => {
            let message = "the configuration could not be read".to_owned();
            (ReloadOutcome::Rejected(vec![message]), FilesRead::default())
        }
    };
    report(services, &outcome);
    supervisor::ready(match outcome {
        ReloadOutcome::Applied => "serving",
        ReloadOutcome::Rejected(_) | ReloadOutcome::RestartRequired(_) => {
            "serving; the last reload was rejected, see the log"
        }
    });
    (outcome, files)
}

async fn apply(services: &Services, settings: Settings) -> ReloadOutcome {
    let changed = services.boot.changed_keys(&settings.boot);
    if !changed.is_empty() {
        return ReloadOutcome::RestartRequired(changed);
    }
    let previous = services.snapshot.load_full();
    let (send_probe, metrics) = (&services.send_probe, &services.metrics);
    let next = Snapshot::start(settings.reloadable, Some(&previous), send_probe, metrics).await;
    let durable = next.settings.sessions.durable;
    services.acme.prepare(&next.settings);
    services.snapshot.store(Arc::new(next));
    services.acme.wake();
    services.sessions.set_durable(durable);
    ReloadOutcome::Applied
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
