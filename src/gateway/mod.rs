//! The composition root: builds the services, starts the workers, applies reloads, and shuts down.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::api::admin::ReloadOutcome;
use crate::config::{self, ConfigSource, FilesRead};
use crate::database::Database;
use crate::identity::NewUser;
use crate::pipeline::snapshot::Snapshot;
use crate::proxy;
use crate::proxy::listener::ListenerState;
use crate::settings::{Boot, Reloadable, Settings};
use crate::telemetry::logging::Logs;
use crate::telemetry::metrics::Metrics;

mod accepting;
pub mod acme;
mod activation;
mod background;
mod process;
mod reload;
mod services;
mod shutdown;
mod sockets;
mod supervisor;
mod upgrade;
mod workers;

use accepting::{Opening, Requests};
pub use activation::ActivatedSockets;
pub use process::Process;
use process::Termination;
use reload::Reloads;
pub use services::Services;
use shutdown::Ending;
use sockets::{Inherited, InheritedSockets, Sockets};
use tokio::sync::oneshot;
pub use upgrade::{Predecessor, request_upgrade};
use upgrade::{Successor, Upgrades};
use workers::Workers;

/// How to start.
pub struct StartOptions<'p> {
    pub process: Process,
    pub sockets: SocketSource<'p>,
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

/// The process that has opened listening sockets for this one.
pub enum SocketSource<'p> {
    /// It may have opened none.
    ServiceManager(ActivatedSockets),
    Predecessor(&'p Predecessor),
}

impl SocketSource<'_> {
    fn receive(&mut self, boot: &Boot) -> anyhow::Result<InheritedSockets> {
        match self {
            SocketSource::Predecessor(predecessor) => predecessor.receive_sockets(),
            SocketSource::ServiceManager(sockets) => {
                let sockets = std::mem::take(sockets).assign(boot)?;
                Ok(sockets
                    .into_iter()
                    .map(Inherited::Listener)
                    .map(Some)
                    .collect())
            }
        }
    }

    fn predecessor(&self) -> Option<&Predecessor> {
        match self {
            SocketSource::Predecessor(predecessor) => Some(predecessor),
            SocketSource::ServiceManager(_) => None,
        }
    }
}

/// A requested reload: where to send its outcome.
type ReloadRequest = oneshot::Sender<ReloadOutcome>;

/// Serves until a signal ends it, or a successor serves.
///
/// # Errors
/// An address cannot be bound, the database cannot be opened, or the operating system gives no
/// threads or no randomness.
pub fn run(mut start: StartOptions<'_>) -> anyhow::Result<()> {
    let Settings { boot, reloadable } = start.settings;
    // First of all, and once: a gateway that cannot listen must not look alive.
    let mut inherited = start.sockets.receive(&boot)?;
    let mut sockets = Sockets::open(&boot, &mut inherited)?;
    process::raise_open_files(&boot);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let services = open_services(boot, reloadable, start.metrics, workers, start.seed_users);
    let services = start.process.background.block_on(services)?;
    let listeners = listener_states(&services.boot);
    let watch = config::FileWatcher::new(start.files);
    let watch = watch.context("the configuration cannot be watched")?;

    let (background, signals) = start.process.catch_signals()?;
    let mut workers = Workers::start(workers, &services, &start.logs, &listeners, &sockets)?;
    let (reload, reloads) = mpsc::channel(8);
    let (upgrade, upgrades) = mpsc::channel(8);
    let opening = Opening {
        services: &services,
        listeners: &listeners,
        sockets: &sockets,
        workers: &mut workers,
        requests: Requests { reload, upgrade },
    };
    let accepting = opening.begin(start.sockets.predecessor(), taken(&inherited));
    let accepting = background.block_on(accepting)?;
    drop(inherited);
    (start.on_ready)(&services);
    supervisor::ready("serving");
    let watchdog = background.spawn(supervisor::run_watchdog(workers.runtimes()));

    let obstacle = upgrade::process_obstacle(start.source.as_ref());
    let mut termination = signals.termination;
    let reloads = Reloads::new(signals.hangup, start.source, watch, reloads);
    let upgrades = Upgrades::new(signals.upgrade, upgrades, obstacle);
    background.block_on(async {
        let successor =
            run_until_ended(&services, &sockets, reloads, upgrades, &mut termination).await;
        let ending = match successor {
            None => Ending::Terminated,
            Some(successor) => {
                watchdog.abort();
                accepting.leave_to(successor, &services, &listeners, &mut sockets);
                Ending::Replaced
            }
        };
        shutdown::drain(
            &services,
            &listeners,
            sockets,
            &workers,
            &mut termination,
            ending,
        )
        .await;
    });
    workers.join();
    Ok(())
}

/// Applies reloads and upgrades until a signal ends the gateway, or a successor serves.
async fn run_until_ended(
    services: &Services,
    sockets: &Sockets,
    mut reloads: Reloads,
    mut upgrades: Upgrades,
    termination: &mut Termination,
) -> Option<Successor> {
    loop {
        let reply = tokio::select! {
            () = termination.requested() => return None,
            reply = reloads.next() => reply,
            successor = upgrades.until_replaced(services, sockets) => return Some(successor),
        };
        reloads.perform(services, reply).await;
    }
}

async fn open_services(
    boot: Boot,
    settings: Reloadable,
    metrics: Arc<Metrics>,
    worker_count: usize,
    users: Vec<NewUser>,
) -> anyhow::Result<Services> {
    let database = Database::open(&boot.database).await;
    let database = database.context("the database could not be opened")?;
    let send_probe = proxy::probe_sender();
    let snapshot = Snapshot::start(settings, None, &send_probe, &metrics).await;
    let services = Services::build(boot, snapshot, send_probe, database, metrics, worker_count)?;
    create_users(&services, users).await?;
    services.acme.load(&services.snapshot.load().settings).await;
    Ok(services)
}

async fn create_users(services: &Services, users: Vec<NewUser>) -> anyhow::Result<()> {
    let password_rules = services.snapshot.load().settings.identity.passwords;
    for user in users {
        let created = services.accounts.add_user(user, password_rules).await;
        created.context("a user could not be made")?;
    }
    Ok(())
}

/// Positions of the sockets that were taken.
fn taken(inherited: &InheritedSockets) -> Vec<usize> {
    let positions = inherited.iter().enumerate();
    let taken = positions.filter(|(_, socket)| socket.is_none());
    taken.map(|(position, _)| position).collect()
}

fn listener_states(boot: &Boot) -> Vec<Arc<ListenerState>> {
    let listeners = boot.served_listeners();
    listeners
        .map(|(id, settings)| Arc::new(ListenerState::new(id, settings.clone())))
        .collect()
}
