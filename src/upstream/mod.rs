//! The servers behind the gateway: which are in rotation, which one takes a request, and how a
//! connection to it is made.

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

pub use chosen::{AttemptOutcome, ChosenServer, PinnedServer};
pub use errors::UpstreamError;
use futures_util::future::join_all;
use pingora::connectors::http::Connector;
use serde::Serialize;
use state::UpstreamState;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::settings;
use crate::telemetry::metrics::Metrics;

/// How long the gateway waits for names at start and reload. A name that takes longer starts out of
/// rotation and joins when it is resolved.
const FIRST_RESOLUTION: Duration = Duration::from_secs(2);

/// All upstreams of a configuration, in the file's order.
#[derive(Debug, Default)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
    probes: Probes,
}

/// The connector of health checks, made when the first one needs it.
#[derive(Clone, Default)]
struct Probes(Option<Arc<Connector>>);

/// One upstream. Its background tasks end with it.
#[derive(Debug)]
pub struct Upstream {
    state: Arc<UpstreamState>,
    tasks: Vec<AbortHandle>,
}

/// What `/admin/upstreams` shows of an upstream.
#[derive(Debug, Clone, Serialize)]
struct UpstreamDescription {
    name: String,
    servers: Vec<server::ServerDescription>,
}

impl Upstreams {
    /// Makes the upstreams of a configuration. One whose settings are the same as before keeps its
    /// health, names, connections' counts and position. Names are looked up for at most two
    /// seconds; background tasks run on `runtime`.
    pub async fn build(
        settings: &[Arc<settings::Upstream>],
        previous: Option<&Upstreams>,
        metrics: &Arc<Metrics>,
        runtime: Handle,
    ) -> Upstreams {
        let mut probes = previous
            .map(|before| before.probes.clone())
            .unwrap_or_default();
        if probes.0.is_none() && settings.iter().any(|one| one.health_check.is_some()) {
            probes.0 = Some(Arc::new(Connector::new(None)));
        }
        let upstreams = settings.iter().map(|settings| {
            let kept = previous.and_then(|before| before.unchanged(settings));
            let (probes, runtime) = (probes.clone(), runtime.clone());
            async move {
                match kept {
                    Some(upstream) => upstream,
                    None => Arc::new(Upstream::start(settings, metrics, probes, runtime).await),
                }
            }
        });
        let all = join_all(upstreams).await;
        let upstreams = Upstreams { all, probes };
        if let Some(previous) = previous {
            previous.remove_stale_metrics(&upstreams, metrics);
        }
        upstreams
    }

    /// By the index that a route holds.
    pub fn get(&self, index: usize) -> Option<&Arc<Upstream>> {
        self.all.get(index)
    }

    /// In the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.all.iter()
    }

    /// For the admin listener: each upstream's servers, their addresses and their health.
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

    /// Ends the series of servers that are no longer configured.
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
                // An error means that there was no such series, which is what is wanted.
                let _ = metrics.upstream_healthy.remove_label_values(&[&name, &url]);
            }
        }
    }
}

impl Upstream {
    async fn start(
        settings: &Arc<settings::Upstream>,
        metrics: &Arc<Metrics>,
        probes: Probes,
        runtime: Handle,
    ) -> Upstream {
        let shared = UpstreamState::new(Arc::clone(settings), Arc::clone(metrics), runtime.clone());
        let shared = Arc::new(shared);
        let first = join_all(shared.servers.iter().map(resolve::resolve_once));
        // What is too slow here is tried again by the task below.
        let _ = tokio::time::timeout(FIRST_RESOLUTION, first).await;
        shared.refresh();
        let mut tasks = Vec::new();
        for (index, server) in shared.servers.iter().enumerate() {
            if server.is_name() {
                let task = resolve::run_resolver(Arc::clone(&shared), index);
                tasks.push(runtime.spawn(task).abort_handle());
            }
            if let (Some(check), Some(connector)) = (&settings.health_check, &probes.0) {
                let connector = Arc::clone(connector);
                let task =
                    probe::run_health_checks(Arc::clone(&shared), index, check.clone(), connector);
                tasks.push(runtime.spawn(task).abort_handle());
            }
        }
        Upstream {
            state: shared,
            tasks,
        }
    }

    /// What the operator configured.
    pub fn settings(&self) -> &Arc<settings::Upstream> {
        &self.state.settings
    }

    /// Chooses a server in rotation that is not among those `tried`, or the next address of one that
    /// was tried less often than it has addresses. `hash` is what a consistent hash reads; without
    /// it such an upstream chooses at random. `None`: there is none (left).
    pub fn choose(&self, hash: Option<&[u8]>, tried: &[usize]) -> Option<ChosenServer> {
        let index = self.state.pick(hash, tried)?;
        ChosenServer::take(&self.state, index)
    }

    /// Chooses a pinned server of this upstream. `None`: it is another's, or out of rotation.
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

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Probes").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests;
