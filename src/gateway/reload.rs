//! The life of a running gateway: it follows every wish to reload until a signal ends it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::process::Signals;
use super::{Parts, ReloadRequest, assemble};
use crate::api::admin::Reloaded;
use crate::config;
use crate::events::{Event, Kind};
use crate::settings::Settings;

/// Runs until SIGTERM or SIGINT; follows every wish to reload meanwhile.
pub(super) async fn live_on(
    parts: &Parts,
    file: Option<PathBuf>,
    mut watch: config::Watch,
    mut reloads: mpsc::Receiver<ReloadRequest>,
    mut signals: Signals,
) {
    loop {
        let answer = tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hangup.recv() => None,
            () = watch.changed(), if file.is_some() => None,
            Some(answer) = reloads.recv() => Some(answer),
        };
        let (outcome, read) = match &file {
            Some(file) => reload(parts, file).await,
            None => (
                Reloaded::Rejected(vec!["there is no configuration file".to_owned()]),
                None,
            ),
        };
        if let Some((watched, fingerprint)) = read {
            watch.replace(file.iter().cloned().chain(watched), fingerprint);
        }
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _ = answer.send(outcome);
        }
    }
}

/// The files to watch from now on, and the fingerprint of what was read.
type Read = (Vec<PathBuf>, u64);

/// All or nothing: a file with a mistake changes nothing.
async fn reload(parts: &Parts, file: &Path) -> (Reloaded, Option<Read>) {
    let path = file.to_owned();
    let loaded = tokio::task::spawn_blocking(move || config::load(&path)).await;
    let (outcome, read) = match loaded {
        Ok(Ok(settings)) => apply(parts, settings).await,
        Ok(Err(mistakes)) => {
            let lines = mistakes.to_string().lines().map(str::to_owned).collect();
            (Reloaded::Rejected(lines), None)
        }
        Err(_) => (
            Reloaded::Rejected(vec!["the file could not be read".to_owned()]),
            None,
        ),
    };
    tell(parts, &outcome);
    (outcome, read)
}

async fn apply(parts: &Parts, settings: Settings) -> (Reloaded, Option<Read>) {
    let changed = parts.boot.differences(&settings.boot);
    if !changed.is_empty() {
        return (Reloaded::RestartRequired(changed), None);
    }
    let live = Arc::new(settings.live);
    let current = assemble(&live, Some(&parts.current.load_full()), &parts.metrics).await;
    parts.current.store(Arc::new(current));
    parts.durable.set(live.sessions.durable);
    parts.live.store(live);
    let read = (settings.watched, settings.fingerprint);
    (Reloaded::Applied, Some(read))
}

/// Notes when the running configuration was loaded.
pub(super) fn loaded(parts: &Parts) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    parts.metrics.last_reload_success.set(now);
}

fn tell(parts: &Parts, outcome: &Reloaded) {
    let word = match outcome {
        Reloaded::Applied => {
            loaded(parts);
            tracing::info!("the configuration was reloaded");
            "applied"
        }
        Reloaded::Rejected(mistakes) => {
            for mistake in mistakes {
                tracing::error!("the configuration was not reloaded: {mistake}");
            }
            "rejected"
        }
        Reloaded::RestartRequired(keys) => {
            tracing::error!(
                "the configuration was not reloaded: a restart is required for {}",
                keys.join(", ")
            );
            "restart_required"
        }
    };
    parts
        .metrics
        .config_reloads
        .with_label_values(&[word])
        .inc();
    parts.events.record(Event::new(Kind::Reload).detail(word));
}
