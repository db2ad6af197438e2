//! The composition root: the one place that knows every room. It builds the parts in the order in
//! which they need each other, starts the workers, follows reloads, and ends it all in good order.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api;
use crate::api::admin::{Readiness, ReloadOutcome};
use crate::clock;
use crate::database::Database;
use crate::events::Events;
use crate::identity::Accounts;
use crate::pipeline::snapshot::Snapshot;
use crate::proxy::listener::{self, ListenerState};
use crate::proxy::open_streams::OpenStreams;
use crate::sessions::Sessions;
use crate::settings::{Boot, Reloadable, Settings};
use crate::store::Store;
use crate::store::near_cache::NearCache;
use crate::telemetry::logging::Logs;
use crate::telemetry::metrics::Metrics;

pub(crate) mod admin;
mod background;
mod process;
mod reload;
mod workers;

pub use process::Process;

/// How to start.
pub struct StartOptions {
    pub process: Process,
    pub settings: Settings,
    /// The file that a reload reads again; without one there is no reload.
    pub file: Option<PathBuf>,
    pub metrics: Arc<Metrics>,
    pub logs: Logs,
    /// Called once the listeners are open.
    pub on_ready: Box<dyn FnOnce(&Services) + Send>,
    /// Users to make before the first request.
    pub seed_users: Vec<crate::identity::NewUser>,
}

/// The long-lived parts, shared by everybody.
#[derive(Clone)]
pub struct Services {
    pub boot: Arc<Boot>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub metrics: Arc<Metrics>,
    pub store: Store,
    pub sessions: Sessions,
    pub accounts: Accounts,
    pub events: Events,
    pub near_cache: Arc<NearCache>,
    pub open_streams: Arc<OpenStreams>,
    pub readiness: Readiness,
    pub logs: Logs,
}

/// A reload that somebody asked for, and whom to tell.
type ReloadRequest = oneshot::Sender<ReloadOutcome>;

/// Serves until a signal ends it.
///
/// # Errors
/// Whatever keeps it from starting: an address that cannot be bound, a database that cannot be
/// opened.
pub fn run(start: StartOptions) -> anyhow::Result<()> {
    let Settings {
        boot,
        reloadable: live,
        watched,
        fingerprint,
    } = start.settings;
    // First of all, and once: a gateway that cannot listen must not look alive.
    let sockets = Sockets::bind(&boot)?;
    process::raise_open_files(&boot.listeners);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);

    let password_rules = live.identity.passwords;
    let (parts, doors) = start.process.background.block_on(async {
        let parts = build_services(boot, live, workers, start.metrics, start.logs).await?;
        for user in start.seed_users {
            parts
                .accounts
                .add_user(user, password_rules)
                .await
                .context("a user could not be made")?;
        }
        let doors: Vec<Arc<ListenerState>> = parts
            .boot
            .listeners
            .iter()
            .enumerate()
            .map(|(index, settings)| Arc::new(ListenerState::new(index, settings.clone())))
            .collect();
        anyhow::Ok((parts, doors))
    })?;

    let (background, signals) = start.process.catch_signals()?;
    let (stop, stopped) = watch::channel(false);
    let (accepting, mut accepts) = mpsc::channel(workers);
    let threads = workers::start(
        workers,
        &parts,
        &doors,
        &sockets.public,
        &stopped,
        &accepting,
    )?;
    let (reload, reloads) = mpsc::channel(8);
    background.block_on(async {
        admin::serve(sockets.admin.try_clone()?, &parts, reload)?;
        background::start(&parts, &doors);
        anyhow::Ok(())
    })?;
    drop(accepting);
    background.block_on(async { while accepts.recv().await.is_some() {} });
    reload::record_load_time(&parts);
    // Whoever hears that it is ready finds the store looked at, if it answers.
    background.block_on(parts.sessions.durable().wait_until_verified(&parts.store));
    parts.readiness.set_serving();
    (start.on_ready)(&parts);
    let files = start.file.iter().cloned().chain(watched);
    let watch = crate::config::FileWatcher::new(files, fingerprint);
    let watch = watch.context("the configuration cannot be watched")?;
    background.block_on(reload::run_until_signal(
        &parts, start.file, watch, reloads, signals,
    ));
    drain(&background, &parts, &doors, sockets, &stop);
    join_workers(&threads);
    Ok(())
}

/// The listening sockets.
struct Sockets {
    public: Vec<StdListener>,
    admin: StdListener,
}

impl Sockets {
    fn bind(boot: &Boot) -> anyhow::Result<Sockets> {
        let public = boot.listeners.iter().enumerate().map(|(index, listener)| {
            let key = format!("listeners[{index}].bind");
            listener::bind(listener.bind).with_context(|| bind_error(listener.bind, &key))
        });
        let public = public.collect::<anyhow::Result<_>>()?;
        let admin = listener::bind_admin(boot.admin);
        let admin = admin.with_context(|| bind_error(boot.admin, "admin.bind"))?;
        Ok(Sockets { public, admin })
    }

    /// Gives the addresses up for a successor. The public sockets close when the workers have accepted
    /// what the kernel still has; the admin socket is shared, so that this gateway goes on to report
    /// that it is not ready.
    fn release(self) {
        for socket in &self.public {
            if let Err(error) = listener::ignore_new_connections(socket) {
                tracing::debug!(%error, "new connections may be reset while the socket is closed");
            }
        }
        if let Err(error) = listener::share_with_successor(&self.admin) {
            tracing::debug!(%error, "the admin address is free when this process has ended");
        }
    }
}

fn bind_error(address: SocketAddr, key: &str) -> String {
    format!("{key}: {address} cannot be bound")
}

async fn build_services(
    boot: Boot,
    live: Reloadable,
    workers: usize,
    metrics: Arc<Metrics>,
    logs: Logs,
) -> anyhow::Result<Services> {
    let store = Store::open(&boot.store, Arc::clone(&metrics)).connect();
    let replica = Arc::clone(store.near_cache());
    let events = Events::new(store.clone());
    let directory = Database::open(&boot.database)
        .await
        .context("the database could not be opened")?;
    let sessions = Sessions::new(
        store.clone(),
        directory.clone(),
        Arc::clone(&metrics),
        live.sessions.durable,
    );
    let accounts = Accounts::new(
        directory,
        sessions.clone(),
        store.clone(),
        Arc::clone(&metrics),
        events.clone(),
    )
    .map_err(|_| anyhow::anyhow!("the operating system gives no randomness"))?;
    let snapshot = Snapshot::start(live, None, &metrics).await;
    Ok(Services {
        boot: Arc::new(boot),
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        open_streams: Arc::new(OpenStreams::new(workers, Arc::clone(&metrics))),
        metrics,
        store,
        sessions,
        accounts,
        events,
        near_cache: replica,
        readiness: Readiness::default(),
        logs,
    })
}

/// Lets the front desk count a session's live answers without knowing the wire.
fn open_stream_counter(parts: &Services) -> api::CountOpenStreams {
    let registry = Arc::clone(&parts.open_streams);
    Arc::new(move |session| registry.count_for_session(session) as u64)
}

/// Reports itself not ready for `delay`, then closes the listeners and finishes the requests that are
/// in flight, for at most `grace`.
fn drain(
    background: &Runtime,
    parts: &Services,
    doors: &[Arc<ListenerState>],
    sockets: Sockets,
    stop: &watch::Sender<bool>,
) {
    let shutdown = parts.snapshot.load().settings.shutdown.clone();
    tracing::info!("draining");
    parts.readiness.set_draining();
    background.block_on(async {
        tokio::time::sleep(shutdown.delay).await;
        sockets.release();
        stop.send_replace(true);
        let end = clock::monotonic() + shutdown.grace;
        // A response may become an endless one after the drain began: it is closed at the next look.
        while !is_closed(doors) && clock::monotonic() < end {
            parts.open_streams.drain();
            let pause = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                () = wait_until_closed(doors) => {}
                () = pause => {}
            }
        }
        parts.open_streams.retract(&parts.store).await;
        if let Err(error) = parts
            .store
            .withdraw_presence(parts.open_streams.gateway())
            .await
        {
            tracing::debug!(%error, "the fleet will notice by itself");
        }
        background::flush_all(parts).await;
    });
}

fn is_closed(doors: &[Arc<ListenerState>]) -> bool {
    doors.iter().all(|door| door.is_closed())
}

/// Polled, because connections end on other runtimes, and only the end of the process waits for it.
async fn wait_until_closed(doors: &[Arc<ListenerState>]) {
    while !is_closed(doors) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits briefly for the workers. Past the grace period one may still serve a client that never ends;
/// the process ends anyway.
fn join_workers(threads: &[JoinHandle<()>]) {
    let deadline = clock::monotonic() + Duration::from_millis(200);
    while threads.iter().any(|thread| !thread.is_finished()) && clock::monotonic() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}
