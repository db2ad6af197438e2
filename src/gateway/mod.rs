//! The composition root: builds the services, starts the workers, applies reloads, and shuts down.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::api::admin::{self, ReloadOutcome};
use crate::config::{self, ConfigSource, FilesRead};
use crate::database::Database;
use crate::identity::NewUser;
use crate::pipeline::snapshot::Snapshot;
use crate::proxy;
use crate::proxy::listener::ListenerState;
use crate::settings::{Boot, Reloadable, Settings};
use crate::telemetry::logging::Logs;
use crate::telemetry::metrics::Metrics;

pub mod acme;
mod activation;
mod background;
mod process;
mod reload;
mod services;
mod shutdown;
mod sockets;
mod supervisor;
mod workers;

pub use activation::ActivatedSockets;
pub use process::Process;
pub use services::Services;
use sockets::Sockets;
use tokio::sync::oneshot;
use workers::Workers;

/// How to start.
pub struct StartOptions {
    pub process: Process,
    /// Listening sockets that the service manager has opened.
    pub sockets: ActivatedSockets,
    pub settings: Settings,
    /// What a reload reads again; without it there is no reload.
    pub source: Option<ConfigSource>,
    /// The files that the settings were read from.
    pub files: FilesRead,
    pub metrics: Arc<Metrics>,
    pub logs: Logs,
    /// Called once the listeners are open.
    pub on_ready: Box<dyn FnOnce(&Services) + Send>,
    /// Users to create before the first request.
    pub seed_users: Vec<NewUser>,
}

/// A requested reload: where to send its outcome.
type ReloadRequest = oneshot::Sender<ReloadOutcome>;

/// Serves until a signal ends it.
///
/// # Errors
/// An address cannot be bound, the database cannot be opened, or the operating system gives no
/// threads or no randomness.
pub fn run(start: StartOptions) -> anyhow::Result<()> {
    let Settings { boot, reloadable } = start.settings;
    // First of all, and once: a gateway that cannot listen must not look alive.
    let inherited = start.sockets.assign(&boot)?;
    let sockets = Sockets::open(&boot, inherited)?;
    process::raise_open_files(&boot.listeners);
    let worker_count = std::thread::available_parallelism().map_or(1, usize::from);
    let services = start.process.background.block_on(async {
        let services = open_services(boot, reloadable, start.metrics, worker_count).await?;
        create_users(&services, start.seed_users).await?;
        services.acme.load(&services.snapshot.load().settings).await;
        anyhow::Ok(services)
    })?;
    let listeners = listener_states(&services.boot);
    let watch = config::FileWatcher::new(start.files);
    let watch = watch.context("the configuration cannot be watched")?;

    let (background, signals) = start.process.catch_signals()?;
    let public = &sockets.public;
    let mut workers = Workers::start(worker_count, &services, &start.logs, &listeners, public)?;
    let (reload, reloads) = mpsc::channel(8);
    background.block_on(async {
        serve_admin(sockets.admin.listener.try_clone()?, &services, reload)?;
        background::start(&services, &listeners);
        workers.wait_until_accepting().await;
        reload::record_load_time(&services);
        // A gateway that reports to be ready has verified its store, if the store responds.
        services.sessions.wait_until_verified().await;
        anyhow::Ok(())
    })?;
    services.readiness.set_serving();
    (start.on_ready)(&services);
    supervisor::ready("serving");
    background.spawn(supervisor::run_watchdog(workers.runtimes()));

    background.block_on(async {
        reload::run_until_signal(&services, start.source, watch, reloads, signals).await;
        shutdown::drain(&services, &listeners, sockets, &workers).await;
    });
    workers.join();
    Ok(())
}

async fn open_services(
    boot: Boot,
    settings: Reloadable,
    metrics: Arc<Metrics>,
    worker_count: usize,
) -> anyhow::Result<Services> {
    let database = Database::open(&boot.database).await;
    let database = database.context("the database could not be opened")?;
    let send_probe = proxy::probe_sender();
    let snapshot = Snapshot::start(settings, None, &send_probe, &metrics).await;
    Services::build(boot, snapshot, send_probe, database, metrics, worker_count)
}

async fn create_users(services: &Services, users: Vec<NewUser>) -> anyhow::Result<()> {
    let password_rules = services.snapshot.load().settings.identity.passwords;
    for user in users {
        let created = services.accounts.add_user(user, password_rules).await;
        created.context("a user could not be made")?;
    }
    Ok(())
}

/// Serves the admin endpoints on the current runtime, so that they still respond while the public
/// listeners drain.
fn serve_admin(
    socket: TcpListener,
    services: &Services,
    reload: mpsc::Sender<ReloadRequest>,
) -> anyhow::Result<()> {
    let listener = services.boot.listeners.first();
    let limits = listener.context("there is no listener")?.limits.clone();
    let state = services.admin_state(reload::trigger(reload));
    admin::serve(socket, state, limits).context("the admin listener cannot be served")
}

fn listener_states(boot: &Boot) -> Vec<Arc<ListenerState>> {
    let listeners = boot.listeners.iter().enumerate();
    listeners
        .map(|(index, settings)| Arc::new(ListenerState::new(index, settings.clone())))
        .collect()
}
