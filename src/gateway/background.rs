//! What has to be done now and then, off every request's path.

use std::sync::Arc;
use std::time::Duration;

use super::Services;
use crate::events::{Event, EventKind};
use crate::proxy::listener::ListenerState;
use crate::store::StoreError;
use crate::telemetry::metrics::{CleanUpKind, CleanUpStatus};

/// How often uses are written.
const USE_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// How often what is over is forgotten and counted.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(30);

/// Starts them on the current runtime.
pub(super) fn start(parts: &Services, doors: &[Arc<ListenerState>]) {
    let snapshot = Arc::clone(&parts.snapshot);
    let idle = move || snapshot.load().settings.sessions.idle_timeout;
    tokio::spawn(Arc::clone(&parts.open_streams).sweep(
        parts.store.clone(),
        parts.sessions.durable().clone(),
        idle,
    ));
    tokio::spawn(Arc::clone(&parts.open_streams).report(parts.store.clone()));
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
    tokio::spawn(
        parts
            .sessions
            .durable()
            .clone()
            .run_integrity_checks(parts.store.clone(), lost),
    );
    tokio::spawn(
        parts
            .sessions
            .durable()
            .clone()
            .record_announced_revocations(parts.store.clone()),
    );
    tokio::spawn(parts.store.clone().run_limit_reconciliation());
    tokio::spawn(run_every(
        USE_WRITE_INTERVAL,
        parts.clone(),
        |parts| async move { write_uses(&parts).await },
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
    write_uses(parts).await;
    if let Some(durable) = parts.sessions.durable().if_enabled()
        && let Err(error) = durable.flush_uses(&parts.store).await
    {
        tracing::warn!(%error, "the latest uses are not in the database");
    }
    parts.events.flush();
    if let Err(error) = parts.store.flush_journal().await {
        tracing::warn!(%error, "the latest events are in the log only");
    }
}

/// Writes what sessions were used for; what cannot be written waits for the next time.
async fn write_uses(parts: &Services) {
    let uses = parts.near_cache.take_uses();
    if let Some(durable) = parts.sessions.durable().if_enabled()
        && let Err(error) = durable.write_uses(&parts.store, &uses).await
    {
        tracing::debug!(%error, "uses wait to be written to the database");
    }
    if !uses.is_empty() && parts.store.record_uses(&uses).await.is_err() {
        parts.near_cache.restore_uses(uses);
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
    trim_database(parts).await;
    let marked = parts.store.extend_marker().await;
    let mut standing = Vec::new();
    let cleaned = parts.store.clean_up(&turn, &mut standing).await;
    if let Some(durable) = parts.sessions.durable().if_enabled()
        && let Err(error) = durable
            .record_existing_revocations(&parts.store, standing)
            .await
    {
        tracing::debug!(%error, "revocations wait to be written to the database");
    }
    parts.store.end_clean_up(turn).await?;
    marked?;
    cleaned.map(|_| CleanUpStatus::Done)
}

/// Drops durable sessions and revocations that are over for good.
async fn trim_database(parts: &Services) {
    let (Some(durable), Ok(now)) = (
        parts.sessions.durable().if_enabled(),
        parts.store.now().await,
    ) else {
        return;
    };
    match durable.delete_expired(now).await {
        Ok((sessions, revocations)) => {
            let metrics = &parts.metrics;
            metrics.count_removed(CleanUpKind::DurableSessions, sessions);
            metrics.count_removed(CleanUpKind::Revocations, revocations);
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "durable sessions and revocations could not be trimmed"
            );
        }
    }
}
