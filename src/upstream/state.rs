//! State of an upstream, shared by requests and background tasks.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::balance::ServerRotation;
use super::chosen::AttemptOutcome;
use super::connection::{ConnectionSettings, TlsIdentity};
use super::server::ServerState;
use crate::settings;
use crate::telemetry::metrics::Metrics;

#[derive(Debug)]
pub(super) struct UpstreamState {
    pub(super) settings: Arc<settings::Upstream>,
    pub(super) servers: Vec<ServerState>,
    pub(super) rotation: ArcSwap<ServerRotation>,
    /// Serializes changes of the rotation.
    rotation_lock: Mutex<()>,
    metrics: MetricsHandle,
    runtime: Handle,
}

struct MetricsHandle(Arc<Metrics>);

impl UpstreamState {
    /// Creates the state without addresses, and therefore with an empty rotation.
    pub(super) fn new(
        settings: Arc<settings::Upstream>,
        metrics: Arc<Metrics>,
        runtime: Handle,
    ) -> UpstreamState {
        let identity = TlsIdentity::read(&settings.tls);
        let servers = settings.servers.iter().map(|server| {
            let connection = identity.as_ref().map_err(Clone::clone);
            let connection = connection
                .and_then(|identity| ConnectionSettings::new(&settings, server, identity));
            if let Err(error) = &connection {
                tracing::error!(
                    upstream = %settings.name,
                    server = %server.url,
                    %error,
                    "cannot connect to an upstream server with these settings"
                );
            }
            ServerState::new(server.clone(), connection.ok().map(Arc::new))
        });
        let servers: Vec<ServerState> = servers.collect();
        let rotation = ServerRotation::new(&settings.balance, &servers, Vec::new());
        UpstreamState {
            rotation: ArcSwap::from_pointee(rotation),
            settings,
            servers,
            rotation_lock: Mutex::new(()),
            metrics: MetricsHandle(metrics),
            runtime,
        }
    }

    /// Selects a server that was not tried, or else one with more addresses than attempts.
    pub(super) fn pick(&self, hash: Option<&[u8]>, tried: &[usize]) -> Option<usize> {
        let rotation = self.rotation.load();
        rotation.pick(&self.servers, hash, tried).or_else(|| {
            let mut members = rotation.members().iter().copied();
            members.find(|index| {
                let attempts = tried.iter().filter(|other| *other == index).count();
                let server = self.servers.get(*index);
                server.is_some_and(|server| server.addresses().len() > attempts)
            })
        })
    }

    /// Rebuilds the rotation from the current health of the servers.
    pub(super) fn refresh(&self) {
        let _guard = self.rotation_lock.lock();
        let now = Instant::now();
        let members = self.members(now);
        for server in &self.servers {
            let labels = [&*self.settings.name, &*server.settings.url];
            // An ejected server that stays in rotation as one of the last is still not healthy.
            let healthy = i64::from(server.is_usable() && !server.is_ejected(now));
            let metrics = &self.metrics.0;
            metrics
                .upstream_healthy
                .with_label_values(&labels)
                .set(healthy);
        }
        let before = self.rotation.load();
        if before.members() == members {
            return;
        }
        for (index, server) in self.servers.iter().enumerate() {
            let (upstream, server) = (&self.settings.name, &server.settings.url);
            match (before.members().contains(&index), members.contains(&index)) {
                (false, true) => tracing::info!(%upstream, %server, "server enters the rotation"),
                (true, false) => tracing::info!(%upstream, %server, "server leaves the rotation"),
                (true, true) | (false, false) => {}
            }
        }
        let rotation = ServerRotation::new(&self.settings.balance, &self.servers, members);
        self.rotation.store(Arc::new(rotation));
    }

    /// Returns the servers that belong into the rotation. Ejection is a guess from a few requests, so it
    /// never removes the last ones; an active health check, which queries the server itself, may.
    fn members(&self, now: Instant) -> Vec<usize> {
        let select = |keep: &dyn Fn(&ServerState) -> bool| -> Vec<usize> {
            let servers = self.servers.iter().enumerate();
            servers
                .filter(|(_, server)| keep(server))
                .map(|(index, _)| index)
                .collect()
        };
        let healthy = select(&|server| server.is_usable() && !server.is_ejected(now));
        if healthy.is_empty() {
            select(&ServerState::is_usable)
        } else {
            healthy
        }
    }

    /// Records the outcome of a request for the passive health check.
    pub(super) fn observe(self: &Arc<Self>, index: usize, outcome: AttemptOutcome) {
        let Some(server) = self.servers.get(index) else {
            return;
        };
        if outcome == AttemptOutcome::Success {
            if server.record_success() {
                self.refresh();
            }
            return;
        }
        if let Some(ejection) = server.record_failure(Instant::now()) {
            self.refresh();
            let state = Arc::downgrade(self);
            self.runtime.spawn(async move {
                tokio::time::sleep(ejection).await;
                if let Some(state) = state.upgrade() {
                    state.refresh();
                }
            });
        }
    }
}

impl std::fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
