//! What has to be done now and then, off every request's path.

use std::sync::Arc;
use std::time::Duration;

use super::Services;
use crate::events::{Event, EventKind};
use crate::proxy::listener::ListenerState;
use crate::store::StoreError;
use crate::telemetry::metrics::CleanUpStatus;

/// How often uses are written.
const USE_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// How often what is over is forgotten and counted.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(30);

/// Starts them on the current runtime.
pub(super) fn start(parts: &Services, doors: &[Arc<ListenerState>]) {
    let snapshot = Arc::clone(&parts.snapshot);
    let idle = move || snapshot.load().settings.sessions.idle_timeout;
    tokio::spawn(Arc::clone(&parts.open_streams).sweep(parts.sessions.clone(), idle));
    tokio::spawn(Arc::clone(&parts.open_streams).report(parts.sessions.clone()));
    let registry = Arc::clone(&parts.open_streams);
    let watched = move |session| registry.is_watched(session);
    tokio::spawn(parts.store.clone().follow_changes(watched));
    let name = Arc::clone(parts.open_streams.gateway());
    tokio::spawn(parts.store.clone().announce_presence(name));
    tokio::spawn(parts.store.clone().run_journal_writer());
    tokio::spawn(parts.events.clone().flush_periodically());
    let (events, metrics) = (parts.events.clone(), Arc::clone(&parts.metrics));
    let lost = move || {
        metrics.store_data_lost.inc();
        events.record(Event::new(EventKind::StoreDataLost));
    };
    tokio::spawn(parts.sessions.clone().run_integrity_checks(lost));
    tokio::spawn(parts.sessions.clone().record_announced_revocations());
    tokio::spawn(parts.store.clone().run_limit_reconciliation());
    tokio::spawn(run_every(
        USE_WRITE_INTERVAL,
        parts.sessions.clone(),
        |sessions| async move { sessions.write_uses().await },
    ));
    tokio::spawn(run_every(
        CLEANUP_INTERVAL,
        (parts.clone(), doors.to_vec()),
        |(parts, doors)| async move {
            clean_up(&parts, &doors).await;
        },
    ));
}

async fn run_every<T: Clone, F: Future<Output = ()>>(
    period: Duration,
    with: T,
    chore: impl Fn(T) -> F,
) {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        chore(with.clone()).await;
    }
}

/// Writes what waits, before the process ends.
pub(super) async fn flush_all(parts: &Services) {
    parts.store.return_all_units().await;
    parts.store.report_admitted().await;
    parts.sessions.flush_uses().await;
    parts.events.flush();
    if let Err(error) = parts.store.flush_journal().await {
        tracing::warn!(%error, "the latest events are in the log only");
    }
}

async fn clean_up(parts: &Services, doors: &[Arc<ListenerState>]) {
    for door in doors {
        door.clean_up();
    }
    let outcome = match clean_up_shared(parts).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(%error, "the store could not be cleaned up");
            CleanUpStatus::Failed
        }
    };
    let runs = &parts.metrics.cleanup_runs;
    runs.with_label_values(&[outcome.as_str()]).inc();
    // Whoever cleaned up, all gateways say the same.
    if let Ok(Some(counts)) = parts.store.counts().await {
        let active = i64::try_from(counts.active_sessions).unwrap_or(i64::MAX);
        parts.metrics.sessions_active.set(active);
    }
}

/// Cleans up what the fleet shares, if it is this gateway's turn.
async fn clean_up_shared(parts: &Services) -> Result<CleanUpStatus, StoreError> {
    // A little less than the period: a gateway that is alone has every turn.
    let Some(turn) = parts
        .store
        .begin_clean_up(CLEANUP_INTERVAL * 9 / 10)
        .await?
    else {
        return Ok(CleanUpStatus::Skipped);
    };
    // Whatever else the fleet shares is cleaned up here, while the turn is held.
    parts.sessions.delete_expired().await;
    let marked = parts.store.extend_marker().await;
    let mut standing = Vec::new();
    let cleaned = parts.store.clean_up(&turn, &mut standing).await;
    parts.sessions.record_existing_revocations(standing).await;
    parts.store.end_clean_up(turn).await?;
    marked?;
    cleaned.map(|_| CleanUpStatus::Done)
}
