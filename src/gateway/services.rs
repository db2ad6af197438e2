//! The long-lived parts of a gateway, built in one place.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::acme::Acme;
use super::reload;
use crate::api::admin::{AdminState, LocalEndpoints, Readiness, ReloadFn};
use crate::api::{ApiState, CountOpenStreams};
use crate::database::Database;
use crate::events::Events;
use crate::identity::Accounts;
use crate::identity::oidc::ProviderTokens;
use crate::pipeline::snapshot::Snapshot;
use crate::proxy::open_streams::OpenStreams;
use crate::sessions::Sessions;
use crate::settings::Boot;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::upstream::SendProbe;

/// State shared by workers, API, admin listener, background jobs and command line, and by clones.
#[derive(Clone)]
pub struct Services {
    /// Settings that only a restart changes.
    pub boot: Arc<Boot>,
    /// The configuration in force; a reload swaps it.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Sends the health checks of upstreams.
    pub send_probe: SendProbe,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// State that the fleet shares; each worker has a connection of its own.
    pub store: Store,
    /// Security events, for the audit log and the journal.
    pub events: Events,
    /// Sessions and revocations, in the store and in the database.
    pub sessions: Sessions,
    /// Users, sign-in and sign-out.
    pub accounts: Accounts,
    /// Tokens of providers that sessions keep.
    pub provider_tokens: ProviderTokens,
    /// Responses that end with their session or token.
    pub open_streams: Arc<OpenStreams>,
    /// Certificates by ACME.
    pub acme: Acme,
    /// Starting, serving or draining.
    pub readiness: Readiness,
}

impl Services {
    /// Builds the services in the order in which they need each other, on the current runtime.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn build(
        boot: Boot,
        snapshot: Snapshot,
        send_probe: SendProbe,
        database: Database,
        metrics: Arc<Metrics>,
        workers: usize,
    ) -> anyhow::Result<Services> {
        let store = Store::open(&boot.store, Arc::clone(&metrics)).connect();
        let events = Events::new(store.clone());
        let sessions = Sessions::new(
            store.clone(),
            &boot.store,
            database.clone(),
            Arc::clone(&metrics),
            snapshot.settings.sessions.durable,
        );
        let sessions = sessions.with_events(events.clone());
        let acme = Acme::new(
            database.clone(),
            store.clone(),
            events.clone(),
            Arc::clone(&metrics),
        );
        let accounts = Accounts::new(
            database,
            sessions.clone(),
            store.clone(),
            Arc::clone(&metrics),
            events.clone(),
        )
        .context("the operating system gives no randomness")?;
        Ok(Services {
            boot: Arc::new(boot),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            send_probe,
            store,
            events,
            sessions,
            provider_tokens: ProviderTokens::new(accounts.clone()),
            accounts,
            open_streams: Arc::new(OpenStreams::new(workers, Arc::clone(&metrics))),
            metrics,
            acme,
            readiness: Readiness::default(),
        })
    }

    /// The same services over a store connection of the current runtime.
    #[must_use]
    pub fn connect(&self) -> Services {
        let store = self.store.connect();
        Services {
            sessions: self.sessions.with_store(store.clone()),
            accounts: self.accounts.with_store(store.clone()),
            store,
            ..self.clone()
        }
    }

    /// What the public endpoints need.
    pub(super) fn api_state(&self) -> ApiState {
        ApiState {
            accounts: self.accounts.clone(),
            sessions: self.sessions.clone(),
            store: self.store.clone(),
            events: self.events.clone(),
            count_open_streams: self.open_stream_counter(),
        }
    }

    /// The admin endpoints for a process that neither serves traffic nor reloads.
    pub fn local_endpoints(&self) -> LocalEndpoints {
        let (reload, _) = mpsc::channel(1);
        LocalEndpoints::new(self.admin_state(reload::trigger(reload)))
    }

    /// What the admin endpoints need.
    pub(super) fn admin_state(&self, reload: Arc<ReloadFn>) -> AdminState {
        AdminState {
            snapshot: Arc::clone(&self.snapshot),
            accounts: self.accounts.clone(),
            sessions: self.sessions.clone(),
            store: self.store.clone(),
            metrics: Arc::clone(&self.metrics),
            events: self.events.clone(),
            count_open_streams: self.open_stream_counter(),
            readiness: self.readiness.clone(),
            sessions_on_outage: self.boot.store.sessions_on_outage,
            host_name: super::process::host_name(),
            reload,
        }
    }

    fn open_stream_counter(&self) -> CountOpenStreams {
        let open_streams = Arc::clone(&self.open_streams);
        Arc::new(move |session| open_streams.count_for_session(session) as u64)
    }
}
