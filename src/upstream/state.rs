//! What an upstream's requests and its background tasks share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::balance::ServerRotation;
use super::chosen::AttemptOutcome;
use super::connection::{Template, TlsIdentity};
use super::server::ServerState;
use crate::settings;
use crate::telemetry::metrics::Metrics;

#[derive(Debug)]
pub(super) struct UpstreamState {
    pub(super) settings: Arc<settings::Upstream>,
    pub(super) servers: Vec<ServerState>,
    pub(super) rotation: ArcSwap<ServerRotation>,
    /// One change of the rotation at a time.
    changing: Mutex<()>,
    metrics: MetricsHandle,
    runtime: Handle,
}

struct MetricsHandle(Arc<Metrics>);

impl UpstreamState {
    /// Without addresses yet, so with an empty rotation.
    pub(super) fn new(
        settings: Arc<settings::Upstream>,
        metrics: Arc<Metrics>,
        runtime: Handle,
    ) -> UpstreamState {
        let identity = TlsIdentity::read(&settings.tls);
        let servers = settings.servers.iter().map(|server| {
            let template = identity.as_ref().map_err(Clone::clone);
            let template = template.and_then(|identity| Template::new(&settings, server, identity));
            if let Err(fault) = &template {
                tracing::error!(
                    upstream = %settings.name,
                    server = %server.url,
                    "no connection can be made to this server: {fault}"
                );
            }
            ServerState::new(server.clone(), template.ok())
        });
        let servers: Vec<ServerState> = servers.collect();
        let rotation = ServerRotation::new(&settings.balance, &servers, Vec::new());
        UpstreamState {
            rotation: ArcSwap::from_pointee(rotation),
            settings,
            servers,
            changing: Mutex::new(()),
            metrics: MetricsHandle(metrics),
            runtime,
        }
    }

    /// A server that was not tried; if there is none left, one that has more addresses than were
    /// tried.
    pub(super) fn pick(&self, hash: Option<&[u8]>, tried: &[usize]) -> Option<usize> {
        let rotation = self.rotation.load();
        rotation.pick(&self.servers, hash, tried).or_else(|| {
            let mut members = rotation.members().iter().copied();
            members.find(|index| {
                let times = tried.iter().filter(|other| *other == index).count();
                let server = self.servers.get(*index);
                server.is_some_and(|server| server.addresses().len() > times)
            })
        })
    }

    /// Puts into rotation what belongs there now.
    pub(super) fn refresh(&self) {
        let _one_at_a_time = self.changing.lock();
        let now = Instant::now();
        let members = self.members(now);
        for server in &self.servers {
            let labels = [&*self.settings.name, &*server.settings.url];
            // An ejected server may stay in rotation where it is the last: it is not healthy.
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
            let (was, is) = (before.members().contains(&index), members.contains(&index));
            if was != is {
                let change = if is { "enters" } else { "leaves" };
                let (upstream, server) = (&self.settings.name, &server.settings.url);
                tracing::info!(%upstream, %server, "a server {change} the rotation");
            }
        }
        let rotation = ServerRotation::new(&self.settings.balance, &self.servers, members);
        self.rotation.store(Arc::new(rotation));
    }

    /// Ejection is a guess from few requests: it never takes the last servers away. Active checks
    /// asked the server itself, and may.
    fn members(&self, now: Instant) -> Vec<usize> {
        let of = |keep: &dyn Fn(&ServerState) -> bool| -> Vec<usize> {
            let servers = self.servers.iter().enumerate();
            servers
                .filter(|(_, server)| keep(server))
                .map(|(index, _)| index)
                .collect()
        };
        let sound = of(&|server| server.is_usable() && !server.is_ejected(now));
        if sound.is_empty() {
            of(&ServerState::is_usable)
        } else {
            sound
        }
    }

    /// Learns from what became of a request.
    pub(super) fn observe(self: &Arc<Self>, index: usize, outcome: AttemptOutcome) {
        let Some(server) = self.servers.get(index) else {
            return;
        };
        if outcome == AttemptOutcome::Success {
            if server.record_success(Instant::now()) {
                self.refresh();
            }
            return;
        }
        if let Some(out) = server.record_failure(Instant::now()) {
            self.refresh();
            let shared = Arc::downgrade(self);
            self.runtime.spawn(async move {
                tokio::time::sleep(out).await;
                if let Some(shared) = shared.upgrade() {
                    shared.refresh();
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
