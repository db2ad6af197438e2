//! What has to be done now and then, off every request's path.

use std::sync::Arc;
use std::time::Duration;

use super::Parts;
use crate::events::{Event, Kind};
use crate::proxy::listener::Door;
use crate::store::StoreError;

/// How often uses are written.
const WRITE_USES: Duration = Duration::from_secs(1);
/// How often what is over is forgotten and counted.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// Starts them on the current runtime.
pub(super) fn start(parts: &Parts, doors: &[Arc<Door>]) {
    let live = Arc::clone(&parts.live);
    let idle = move || live.load().sessions.idle_timeout;
    tokio::spawn(Arc::clone(&parts.registry).sweep(
        parts.store.clone(),
        parts.durable.clone(),
        idle,
    ));
    tokio::spawn(Arc::clone(&parts.registry).report(parts.store.clone()));
    let registry = Arc::clone(&parts.registry);
    let watched = move |session| registry.is_watched(session);
    tokio::spawn(parts.store.clone().follow(watched));
    let name = Arc::clone(parts.registry.gateway());
    tokio::spawn(parts.store.clone().stay_present(name));
    tokio::spawn(parts.store.clone().keep_journal());
    tokio::spawn(parts.events.clone().keep_flushing());
    let (events, metrics) = (parts.events.clone(), Arc::clone(&parts.metrics));
    let lost = move || {
        metrics.store_data_lost.inc();
        events.record(Event::new(Kind::StoreDataLost));
    };
    tokio::spawn(
        parts
            .durable
            .clone()
            .keep_in_order(parts.store.clone(), lost),
    );
    tokio::spawn(
        parts
            .durable
            .clone()
            .keep_what_is_heard(parts.store.clone()),
    );
    tokio::spawn(parts.store.clone().tend_limits());
    tokio::spawn(every(WRITE_USES, parts.clone(), |parts| async move {
        write_uses(&parts).await
    }));
    tokio::spawn(every(
        CLEAN_UP,
        (parts.clone(), doors.to_vec()),
        |(parts, doors)| async move {
            clean_up(&parts, &doors).await;
        },
    ));
}

async fn every<T: Clone, F: Future<Output = ()>>(
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
pub(super) async fn write_all(parts: &Parts) {
    parts.store.give_back_permits().await;
    parts.store.tell_admitted().await;
    write_uses(parts).await;
    if let Some(durable) = parts.durable.on()
        && let Err(error) = durable.flush(&parts.store).await
    {
        tracing::warn!(%error, "the latest uses are not in the database");
    }
    parts.events.flush();
    if let Err(error) = parts.store.write_journal().await {
        tracing::warn!(%error, "the latest events are in the log only");
    }
}

/// Writes what sessions were used for; what cannot be written waits for the next time.
async fn write_uses(parts: &Parts) {
    let uses = parts.replica.take_uses();
    if let Some(durable) = parts.durable.on()
        && let Err(error) = durable.write_uses(&parts.store, &uses).await
    {
        tracing::debug!(%error, "uses wait to be written to the database");
    }
    if !uses.is_empty() && parts.store.record_uses(&uses).await.is_err() {
        parts.replica.put_back(uses);
    }
}

async fn clean_up(parts: &Parts, doors: &[Arc<Door>]) {
    for door in doors {
        door.clean_up();
    }
    let outcome = match clean_up_for_all(parts).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(%error, "the store could not be cleaned up");
            "failed"
        }
    };
    let runs = &parts.metrics.cleanup_runs;
    runs.with_label_values(&[outcome]).inc();
    // Whoever cleaned up, all gateways say the same.
    if let Ok(Some(counts)) = parts.store.counts().await {
        let active = i64::try_from(counts.active_sessions).unwrap_or(i64::MAX);
        parts.metrics.sessions_active.set(active);
    }
}

/// Cleans up what the fleet shares, if it is this gateway's turn.
async fn clean_up_for_all(parts: &Parts) -> Result<&'static str, StoreError> {
    // A little less than the period: a gateway that is alone has every turn.
    let Some(turn) = parts.store.begin_clean_up(CLEAN_UP * 9 / 10).await? else {
        return Ok("skipped");
    };
    // Whatever else the fleet shares is cleaned up here, while the turn is held.
    trim(parts).await;
    let marked = parts.store.keep_marker().await;
    let mut standing = Vec::new();
    let cleaned = parts.store.clean_up(&turn, &mut standing).await;
    if let Some(durable) = parts.durable.on()
        && let Err(error) = durable.keep_what_stands(&parts.store, standing).await
    {
        tracing::debug!(%error, "revocations wait to be written to the database");
    }
    parts.store.end_clean_up(turn).await?;
    marked?;
    cleaned.map(|_| "done")
}

/// Drops durable sessions and revocations that are over for good.
async fn trim(parts: &Parts) {
    let (Some(durable), Ok(now)) = (parts.durable.on(), parts.store.now().await) else {
        return;
    };
    match durable.trim(now).await {
        Ok((sessions, revocations)) => {
            let removed = &parts.metrics.cleanup_removed;
            for (kind, many) in [("durable_sessions", sessions), ("revocations", revocations)] {
                removed.with_label_values(&[kind]).inc_by(many);
            }
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
