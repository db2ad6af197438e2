//! The workers: one thread each, with its own runtime and its own link to the store.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use super::{Services, wait_until_closed};
use crate::api;
use crate::pipeline::via::Via;
use crate::proxy::listener::ListenerState;
use crate::proxy::{Worker, WorkerProxy};

/// How long a start waits for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts one thread a worker, each with a runtime of its own.
pub(super) fn start(
    count: usize,
    parts: &Services,
    doors: &[Arc<ListenerState>],
    sockets: &[StdListener],
    stopped: &watch::Receiver<bool>,
    accepting: &mpsc::Sender<()>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    // One for all workers: a request may come back to another one.
    let pseudonym = Via::pseudonym();
    (0..count)
        .map(|index| {
            let sockets = sockets
                .iter()
                .map(StdListener::try_clone)
                .collect::<Result<Vec<_>, _>>()
                .context("a socket could not be shared")?;
            let (parts, doors, stopped) = (parts.clone(), doors.to_vec(), stopped.clone());
            let (accepting, pseudonym) = (accepting.clone(), pseudonym.clone());
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let via = Via::new(&pseudonym);
                    let worked = via.map_err(anyhow::Error::from).and_then(|via| {
                        run_worker(index, &parts, &doors, sockets, &stopped, accepting, via)
                    });
                    if let Err(error) = worked {
                        // A gateway with a dead worker answers some and hangs others.
                        tracing::error!("worker {index} ended: {error:#}");
                        parts.logs.flush();
                        std::process::exit(1);
                    }
                })
                .context("a worker could not be started")
        })
        .collect()
}

fn run_worker(
    index: usize,
    parts: &Services,
    doors: &[Arc<ListenerState>],
    sockets: Vec<StdListener>,
    stopped: &watch::Receiver<bool>,
    accepting: mpsc::Sender<()>,
    via: Via,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // The store is spoken to from the runtime that serves the request: a reply that has to
        // cross threads costs more than everything else the gateway does.
        let store = parts.store.connect();
        // A store that is there is waited for, so that the first requests find it; one that is not
        // is no reason not to serve what needs none.
        store.wait_until_up(STORE_TIMEOUT).await;
        let desk = api::ApiState {
            accounts: parts.accounts.with_store(store.clone()),
            sessions: parts.sessions.with_store(store.clone()),
            store: store.clone(),
            events: parts.events.clone(),
            count_open_streams: super::open_stream_counter(parts),
        };
        let worker = Worker {
            index,
            snapshot: Arc::clone(&parts.snapshot),
            store,
            durable: parts.sessions.durable().clone(),
            store_settings: parts.boot.store.clone(),
            near_cache: Arc::clone(&parts.near_cache),
            open_streams: Arc::clone(&parts.open_streams),
            readiness: parts.readiness.clone(),
            metrics: Arc::clone(&parts.metrics),
            access_log: parts.logs.access.clone(),
            api: api::router(desk),
            via,
            events: parts.events.clone(),
            boot: Arc::clone(&parts.boot),
        };
        let lane = Arc::new(WorkerProxy::new(Arc::new(worker)));
        tokio::spawn(Arc::clone(&parts.open_streams).watch_timeouts(index));
        let mut doorkeepers = tokio::task::JoinSet::new();
        for (door, socket) in doors.iter().zip(sockets) {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            doorkeepers.spawn(Arc::clone(door).accept(socket, Arc::clone(&lane), stopped.clone()));
        }
        // Dropping it says that this worker accepts.
        drop(accepting);
        doorkeepers.join_all().await;
        // The requests that are still served live on this runtime.
        wait_until_closed(doors).await;
        anyhow::Ok(())
    })
}
