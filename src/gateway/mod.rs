//! The composition root: the one place that knows every room. It builds the parts in the order in
//! which they need each other, starts the workers, follows reloads, and ends it all in good order.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::accounts::Accounts;
use crate::api;
use crate::api::admin::{Readiness, Reloaded};
use crate::directory::Directory;
use crate::events::Events;
use crate::issuers::Issuers;
use crate::issuers::verifier::Verifier;
use crate::proxy::Current;
use crate::proxy::listener::{self, Door};
use crate::proxy::live::Registry;
use crate::sessions::durable::Durable;
use crate::settings::{Boot, Live, Settings};
use crate::store::Store;
use crate::store::replica::Replica;
use crate::telemetry::logging::Logs;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstreams;

pub(crate) mod admin;
mod chores;
mod process;
mod reload;
mod workers;

pub use process::Process;

/// How to start.
pub struct Start {
    pub process: Process,
    pub settings: Settings,
    /// The file that a reload reads again; without one there is no reload.
    pub file: Option<PathBuf>,
    pub metrics: Arc<Metrics>,
    pub logs: Logs,
    /// Called once the listeners are open.
    pub announce: Box<dyn FnOnce(&Parts) + Send>,
    /// Users to make before the first request.
    pub seed: Vec<crate::accounts::NewUser>,
}

/// The long-lived parts, shared by everybody.
#[derive(Clone)]
pub struct Parts {
    pub boot: Arc<Boot>,
    pub current: Arc<ArcSwap<Current>>,
    pub live: Arc<ArcSwap<Live>>,
    pub metrics: Arc<Metrics>,
    pub store: Store,
    pub durable: Durable,
    pub accounts: Accounts,
    pub events: Events,
    pub replica: Arc<Replica>,
    pub registry: Arc<Registry>,
    pub readiness: Readiness,
    pub logs: Logs,
}

/// A reload that somebody asked for, and whom to tell.
type ReloadRequest = oneshot::Sender<Reloaded>;

/// Serves until a signal ends it.
///
/// # Errors
/// Whatever keeps it from starting: an address that cannot be bound, a database that cannot be
/// opened.
pub fn run(start: Start) -> anyhow::Result<()> {
    let Settings {
        boot,
        live,
        watched,
        fingerprint,
    } = start.settings;
    // First of all, and once: a gateway that cannot listen must not look alive.
    let sockets = Sockets::bind(&boot)?;
    process::raise_open_files(&boot.listeners);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);

    let password_rules = live.identity.passwords;
    let (parts, doors) = start.process.background.block_on(async {
        let parts = build(boot, live, workers, start.metrics, start.logs).await?;
        for user in start.seed {
            parts
                .accounts
                .add_user(user, password_rules)
                .await
                .context("a user could not be made")?;
        }
        let doors: Vec<Arc<Door>> = parts
            .boot
            .listeners
            .iter()
            .enumerate()
            .map(|(index, settings)| Arc::new(Door::new(index, settings.clone())))
            .collect();
        anyhow::Ok((parts, doors))
    })?;

    let (background, signals) = start.process.catch_all()?;
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
        chores::start(&parts, &doors);
        anyhow::Ok(())
    })?;
    drop(accepting);
    background.block_on(async { while accepts.recv().await.is_some() {} });
    reload::loaded(&parts);
    // Whoever hears that it is ready finds the store looked at, if it answers.
    background.block_on(parts.durable.comes_to_trust(&parts.store));
    parts.readiness.serving();
    (start.announce)(&parts);
    let files = start.file.iter().cloned().chain(watched);
    let watch = crate::config::Watch::new(files, fingerprint);
    let watch = watch.context("the configuration cannot be watched")?;
    background.block_on(reload::live_on(&parts, start.file, watch, reloads, signals));
    drain(&background, &parts, &doors, sockets, &stop);
    finish(&threads);
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
            listener::bind(listener.bind).with_context(|| taken(listener.bind, &key))
        });
        let public = public.collect::<anyhow::Result<_>>()?;
        let admin = listener::bind_admin(boot.admin);
        let admin = admin.with_context(|| taken(boot.admin, "admin.bind"))?;
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

fn taken(address: SocketAddr, key: &str) -> String {
    format!("{key}: {address} cannot be bound")
}

async fn build(
    boot: Boot,
    live: Live,
    workers: usize,
    metrics: Arc<Metrics>,
    logs: Logs,
) -> anyhow::Result<Parts> {
    let store = Store::open(&boot.store, Arc::clone(&metrics)).link();
    let replica = Arc::clone(store.replica());
    let events = Events::new(store.clone());
    let directory = Directory::open(&boot.database)
        .await
        .context("the database could not be opened")?;
    let durable = Durable::new(directory.clone(), live.sessions.durable);
    let accounts = Accounts::new(
        directory,
        durable.clone(),
        store.clone(),
        Arc::clone(&metrics),
        events.clone(),
    )
    .map_err(|_| anyhow::anyhow!("the operating system gives no randomness"))?;
    let live = Arc::new(live);
    let current = assemble(&live, None, &metrics).await;
    Ok(Parts {
        boot: Arc::new(boot),
        current: Arc::new(ArcSwap::from_pointee(current)),
        live: Arc::new(ArcSwap::new(live)),
        registry: Arc::new(Registry::new(workers, Arc::clone(&metrics))),
        metrics,
        store,
        durable,
        accounts,
        events,
        replica,
        readiness: Readiness::default(),
        logs,
    })
}

/// Puts a configuration's moving parts together; what did not change keeps its state.
async fn assemble(live: &Arc<Live>, previous: Option<&Current>, metrics: &Arc<Metrics>) -> Current {
    let issuers = Issuers::new(
        &live.tokens,
        metrics,
        previous.map(|current| current.verifier.issuers()),
    );
    let verifier = Arc::new(Verifier::new(Arc::clone(&live.tokens), issuers, metrics));
    let runtime = tokio::runtime::Handle::current();
    let before = previous.map(|current| &current.upstreams);
    let upstreams = Upstreams::build(&live.upstreams, before, metrics, runtime).await;
    Current::new(Arc::clone(live), verifier, upstreams, metrics)
}

/// Lets the front desk count a session's live answers without knowing the wire.
fn live_of(parts: &Parts) -> api::LiveOf {
    let registry = Arc::clone(&parts.registry);
    Arc::new(move |session| registry.live_of(session) as u64)
}

/// Reports itself not ready for `delay`, then closes the listeners and finishes the requests that are
/// in flight, for at most `grace`.
fn drain(
    background: &Runtime,
    parts: &Parts,
    doors: &[Arc<Door>],
    sockets: Sockets,
    stop: &watch::Sender<bool>,
) {
    let shutdown = parts.live.load().shutdown.clone();
    tracing::info!("draining");
    parts.readiness.draining();
    background.block_on(async {
        tokio::time::sleep(shutdown.delay).await;
        sockets.release();
        stop.send_replace(true);
        let end = Instant::now() + shutdown.grace;
        // A response may become an endless one after the drain began: it is closed at the next look.
        while !is_closed(doors) && Instant::now() < end {
            parts.registry.drain();
            let pause = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                () = wait_until_closed(doors) => {}
                () = pause => {}
            }
        }
        parts.registry.retract(&parts.store).await;
        if let Err(error) = parts.store.leave(parts.registry.gateway()).await {
            tracing::debug!(%error, "the fleet will notice by itself");
        }
        chores::write_all(parts).await;
    });
}

fn is_closed(doors: &[Arc<Door>]) -> bool {
    doors.iter().all(|door| door.is_closed())
}

/// Polled, because connections end on other runtimes, and only the end of the process waits for it.
async fn wait_until_closed(doors: &[Arc<Door>]) {
    while !is_closed(doors) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits briefly for the workers. Past the grace period one may still serve a client that never ends;
/// the process ends anyway.
fn finish(threads: &[JoinHandle<()>]) {
    let deadline = Instant::now() + Duration::from_millis(200);
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}
