//! Upstream servers: rotation, load balancing, health and connection settings.

mod address;
mod balance;
mod chosen;
mod connection;
mod ejection;
mod errors;
mod probe;
mod resolve;
mod server;
mod state;

use std::sync::Arc;
use std::time::Duration;

pub use address::{Address, AddressId, SocketAddress};
pub use chosen::{AttemptOutcome, ChosenServer, PinnedServer};
pub use connection::{ClientCertificate, ConnectionSettings, TlsIdentity, TlsSettings};
pub use errors::UpstreamError;
use futures_util::future::join_all;
pub use probe::{Probe, ProbeError, SendProbe};
use serde::Serialize;
use state::UpstreamState;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::settings;
use crate::telemetry::metrics::Metrics;

/// Time limit for resolving names at start and reload. A server whose name takes longer starts out
/// of rotation and joins once the name is resolved.
const FIRST_RESOLUTION: Duration = Duration::from_secs(2);

/// All upstreams of a configuration, in file order.
#[derive(Debug, Default)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
}

/// One upstream. Its background tasks are aborted when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    state: Arc<UpstreamState>,
    tasks: Vec<AbortHandle>,
}

/// An upstream as `/admin/upstreams` shows it.
#[derive(Debug, Clone, Serialize)]
struct UpstreamDescription {
    name: String,
    servers: Vec<server::ServerDescription>,
}

impl Upstreams {
    /// Builds the upstreams of a configuration.
    ///
    /// An upstream with unchanged settings is kept, with its health, addresses, requests in flight and
    /// position in the rotation. Names are resolved for at most two seconds. Background tasks run on
    /// `runtime`; health checks are sent by `send_probe`.
    pub async fn build(
        settings: &[Arc<settings::Upstream>],
        previous: Option<&Upstreams>,
        send_probe: &SendProbe,
        metrics: &Arc<Metrics>,
        runtime: Handle,
    ) -> Upstreams {
        for upstream in settings {
            for kind in UpstreamError::ALL {
                let errors = &metrics.upstream_errors;
                errors.with_label_values(&[&*upstream.name, kind.as_str()]);
            }
        }
        let upstreams = settings.iter().map(|settings| {
            let kept = previous.and_then(|before| before.unchanged(settings));
            let runtime = runtime.clone();
            async move {
                match kept {
                    Some(upstream) => upstream,
                    None => Arc::new(Upstream::start(settings, send_probe, metrics, runtime).await),
                }
            }
        });
        let all = join_all(upstreams).await;
        let upstreams = Upstreams { all };
        if let Some(previous) = previous {
            previous.remove_stale_metrics(&upstreams, metrics);
        }
        upstreams
    }

    /// Returns the upstream with the index that a route holds.
    pub fn get(&self, index: usize) -> Option<&Arc<Upstream>> {
        self.all.get(index)
    }

    /// Iterates in file order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.all.iter()
    }

    /// Describes all upstreams for the admin listener: servers, addresses, health.
    pub fn describe(&self) -> serde_json::Value {
        let upstreams: Vec<UpstreamDescription> =
            self.all.iter().map(|one| one.describe()).collect();
        serde_json::json!(upstreams)
    }

    fn unchanged(&self, settings: &settings::Upstream) -> Option<Arc<Upstream>> {
        let mut all = self.all.iter();
        all.find(|upstream| **upstream.settings() == *settings)
            .cloned()
    }

    /// Removes the metric series of servers that are no longer configured.
    fn remove_stale_metrics(&self, new: &Upstreams, metrics: &Metrics) {
        let labels = |upstreams: &Upstreams| -> Vec<(Arc<str>, Arc<str>)> {
            let of = |one: &Arc<Upstream>| {
                let servers = one.settings().servers.iter();
                let labels =
                    servers.map(|s| (Arc::clone(&one.settings().name), Arc::clone(&s.url)));
                labels.collect::<Vec<_>>()
            };
            upstreams.all.iter().flat_map(of).collect()
        };
        let kept = labels(new);
        for (name, url) in labels(self) {
            if !kept.contains(&(Arc::clone(&name), Arc::clone(&url))) {
                // An error means that there is no such series, which is the desired state.
                let _ = metrics.upstream_healthy.remove_label_values(&[&name, &url]);
            }
        }
    }
}

impl Upstream {
    async fn start(
        settings: &Arc<settings::Upstream>,
        send_probe: &SendProbe,
        metrics: &Arc<Metrics>,
        runtime: Handle,
    ) -> Upstream {
        let state = UpstreamState::new(Arc::clone(settings), Arc::clone(metrics), runtime.clone());
        let state = Arc::new(state);
        let first = join_all(state.servers.iter().map(resolve::resolve_once));
        // Names that are not resolved by then are retried by the resolver task.
        let _ = tokio::time::timeout(FIRST_RESOLUTION, first).await;
        state.refresh();
        let mut tasks = Vec::new();
        for (index, server) in state.servers.iter().enumerate() {
            if server.is_name() {
                let task = resolve::run_resolver(Arc::clone(&state), index);
                tasks.push(runtime.spawn(task).abort_handle());
            }
            if let Some(check) = &settings.health_check {
                let (state, send_probe) = (Arc::clone(&state), Arc::clone(send_probe));
                let task = probe::run_health_checks(state, index, check.clone(), send_probe);
                tasks.push(runtime.spawn(task).abort_handle());
            }
        }
        Upstream { state, tasks }
    }

    /// The configured settings.
    pub fn settings(&self) -> &Arc<settings::Upstream> {
        &self.state.settings
    }

    /// Chooses a server in rotation that was not `tried`, or another address of one that was.
    ///
    /// `hash` is the input of a consistent hash; without it, such an upstream chooses at random.
    /// Returns `None` if no untried server or address is left.
    pub fn choose(&self, hash: Option<&[u8]>, tried: &[usize]) -> Option<ChosenServer> {
        let index = self.state.pick(hash, tried)?;
        ChosenServer::take(&self.state, index)
    }

    /// Chooses a pinned server again; `None` if it is of another upstream or out of rotation.
    pub fn choose_again(&self, pinned: &PinnedServer) -> Option<ChosenServer> {
        ChosenServer::take_again(&self.state, pinned)
    }

    /// Whether any server is in rotation.
    pub fn is_available(&self) -> bool {
        !self.state.rotation.load().members().is_empty()
    }

    fn describe(&self) -> UpstreamDescription {
        let rotation = self.state.rotation.load();
        let servers = self.state.servers.iter().enumerate();
        UpstreamDescription {
            name: self.settings().name.to_string(),
            servers: servers
                .map(|(index, server)| server.describe(rotation.members().contains(&index)))
                .collect(),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
