//! Periodic maintenance, off the request path.

use std::sync::Arc;
use std::time::Duration;

use super::Services;
use crate::auth::session::Session;
use crate::events::{Event, EventKind};
use crate::identity::oidc::{ProviderStatus, TokenContext};
use crate::proxy::listener::ListenerState;
use crate::store::StoreError;
use crate::telemetry::metrics::CleanUpStatus;

/// Interval at which session uses are written.
const USE_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which changes of the providers' status are recorded.
const STATUS_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which changes of users and API keys are applied to a store that may lack them.
const PENDING_CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of the process waits for exchanges of provider tokens.
const EXCHANGE_TIME: Duration = Duration::from_secs(10);
/// Interval at which expired data is removed and counted.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(30);
/// Time in which the connections to the store are established, before the first cleanup.
const FIRST_CLEANUP_DELAY: Duration = Duration::from_secs(1);

/// Starts the maintenance jobs on the current runtime.
pub(super) fn start(services: &Services, listeners: &[Arc<ListenerState>]) {
    let snapshot = Arc::clone(&services.snapshot);
    let idle = move || snapshot.load().settings.sessions.idle_timeout;
    tokio::spawn(Arc::clone(&services.open_streams).sweep(services.sessions.clone(), idle));
    tokio::spawn(Arc::clone(&services.open_streams).report(services.sessions.clone()));
    let registry = Arc::clone(&services.open_streams);
    let watched = move |session| registry.is_watched(session);
    tokio::spawn(services.store.clone().follow_changes(watched));
    let name = Arc::clone(services.open_streams.gateway());
    tokio::spawn(services.store.clone().announce_presence(name));
    tokio::spawn(services.store.clone().run_journal_writer());
    tokio::spawn(services.events.clone().flush_periodically());
    let (events, metrics) = (services.events.clone(), Arc::clone(&services.metrics));
    let lost = move || {
        metrics.store_data_lost.inc();
        events.record(Event::new(EventKind::StoreDataLost));
    };
    tokio::spawn(services.sessions.clone().run_integrity_checks(lost));
    tokio::spawn(services.sessions.clone().record_announced_revocations());
    tokio::spawn(services.store.clone().run_limit_reconciliation());
    tokio::spawn(run_every(
        USE_WRITE_INTERVAL,
        services.clone(),
        |services| async move { write_uses(&services).await },
    ));
    tokio::spawn(run_every(
        PENDING_CHANGE_INTERVAL,
        services.clone(),
        |services| async move { apply_pending_changes(&services).await },
    ));
    let snapshot = Arc::clone(&services.snapshot);
    let current = move || {
        let snapshot = snapshot.load();
        let keys = snapshot.settings.encryption.clone()?;
        Some((keys, snapshot.providers.clone()))
    };
    tokio::spawn(services.provider_tokens.clone().revoke_dropped(current));
    tokio::spawn(run_every(
        STATUS_REPORT_INTERVAL,
        services.clone(),
        |services| async move { report_providers(&services) },
    ));
    tokio::spawn(services.acme.clone().run(Arc::clone(&services.snapshot)));
    tokio::spawn(run_cleanups(services.clone(), listeners.to_vec()));
}

/// Applies changes that sessions and API keys may not follow yet.
async fn apply_pending_changes(services: &Services) {
    services.accounts.apply_pending_changes().await;
    if services.snapshot.load().settings.api_keys.is_some() {
        services.sessions.replay_api_keys().await;
    }
}

/// Writes the uses of sessions, and rechecks those that their providers have to confirm.
async fn write_uses(services: &Services) {
    let snapshot = services.snapshot.load_full();
    let now = services.store.clock();
    let used = |session: &Arc<Session>| {
        let context = TokenContext::of(&snapshot.settings, &snapshot.providers, session);
        if let Some(context) = context {
            services
                .provider_tokens
                .session_used(&context, session, now);
        }
    };
    services.sessions.write_uses(used).await;
}

/// Records providers that stopped or began to respond, at most one change of each per interval.
fn report_providers(services: &Services) {
    for provider in services.snapshot.load().providers.iter() {
        let kind = match provider.take_status_change() {
            Some(ProviderStatus::Down) => EventKind::ProviderUnavailable,
            Some(ProviderStatus::Up) => EventKind::ProviderBack,
            Some(ProviderStatus::Unknown) | None => continue,
        };
        let name = &*provider.settings().name;
        services.events.record(Event::new(kind).provider(name));
    }
}

async fn run_every<T: Clone, F: Future<Output = ()>>(
    period: Duration,
    with: T,
    job: impl Fn(T) -> F,
) {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        job(with.clone()).await;
    }
}

/// Writes pending data before the process ends.
pub(super) async fn flush_all(services: &Services) {
    services.provider_tokens.finish(EXCHANGE_TIME).await;
    services.store.return_all_units().await;
    services.store.report_admitted().await;
    services.sessions.flush_uses().await;
    apply_pending_changes(services).await;
    services.events.flush();
    if let Err(error) = services.store.flush_journal().await {
        tracing::warn!(%error, "the latest events are in the log only");
    }
}

async fn run_cleanups(services: Services, listeners: Vec<Arc<ListenerState>>) {
    tokio::time::sleep(FIRST_CLEANUP_DELAY).await;
    run_every(
        CLEANUP_INTERVAL,
        (services, listeners),
        |(services, listeners)| async move { clean_up(&services, &listeners).await },
    )
    .await;
}

async fn clean_up(services: &Services, listeners: &[Arc<ListenerState>]) {
    for listener in listeners {
        listener.clean_up();
    }
    let outcome = match clean_up_shared(services).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(%error, "the store could not be cleaned up");
            CleanUpStatus::Failed
        }
    };
    let runs = &services.metrics.cleanup_runs;
    runs.with_label_values(&[outcome.as_str()]).inc();
    services.sessions.count_api_keys().await;
    // Every gateway reports the fleet's counts, whichever gateway cleaned up.
    if let Ok(Some(counts)) = services.store.counts().await {
        let active = i64::try_from(counts.active_sessions).unwrap_or(i64::MAX);
        services.metrics.sessions_active.set(active);
    }
}

/// Cleans up shared data if this gateway holds the clean-up lease.
async fn clean_up_shared(services: &Services) -> Result<CleanUpStatus, StoreError> {
    // Slightly less than the interval, so that a single gateway gets the lease every time.
    let Some(lease) = services
        .store
        .begin_clean_up(CLEANUP_INTERVAL * 9 / 10)
        .await?
    else {
        return Ok(CleanUpStatus::Skipped);
    };
    // Other shared data is cleaned up under the same lease.
    services.sessions.delete_expired().await;
    let marked = services.store.extend_marker().await;
    let mut revocations = Vec::new();
    let cleaned = services.store.clean_up(&lease, &mut revocations).await;
    services
        .sessions
        .record_existing_revocations(revocations)
        .await;
    services.store.end_clean_up(lease).await?;
    marked?;
    cleaned.map(|_| CleanUpStatus::Done)
}
