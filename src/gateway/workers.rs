//! The workers: one thread each, with its own runtime and its own connection to the store.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Services;
use super::shutdown::wait_until_closed;
use super::sockets::Sockets;
use crate::api::PublicApi;
use crate::clock;
use crate::pipeline::admission::{AdmissionServices, Memo};
use crate::pipeline::via::Via;
use crate::proxy::http1::pool::UpstreamConnections;
use crate::proxy::http1::timer_wheel;
use crate::proxy::listener::{AcceptingSocket, ListenerState, ListeningSocket};
use crate::proxy::{Worker, WorkerProxy};
use crate::telemetry::logging::{AccessLog, Logs};
use crate::telemetry::metrics;

/// How long a start waits for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of the process waits for threads.
const JOIN_TIMEOUT: Duration = Duration::from_millis(200);

/// The running workers.
pub(super) struct Workers {
    threads: Vec<(JoinHandle<()>, Handle)>,
    accept: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    /// Dropped when the workers are to end.
    end: watch::Sender<()>,
    /// Closes when all workers are prepared.
    starting: mpsc::Receiver<()>,
}

/// What one worker starts with.
struct Start {
    index: usize,
    services: Services,
    access_log: AccessLog,
    listeners: Vec<Arc<ListenerState>>,
    sockets: Vec<ListeningSocket>,
    via: Via,
    /// Whether the worker is to accept connections.
    accepts: watch::Receiver<bool>,
    stopped: watch::Receiver<bool>,
    /// Closes when the worker is to end.
    ended: watch::Receiver<()>,
    /// Dropped when the worker is prepared to accept connections.
    starting: mpsc::Sender<()>,
}

impl Workers {
    /// Starts one thread per worker, each with a runtime of its own. They accept connections after
    /// [`Workers::accept_connections`].
    pub(super) fn start(
        count: usize,
        services: &Services,
        logs: &Logs,
        listeners: &[Arc<ListenerState>],
        sockets: &Sockets,
    ) -> anyhow::Result<Workers> {
        // One for all workers: a request may come back to another one.
        let pseudonym = Via::pseudonym();
        let (accept, accepts) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(());
        let (sender, starting) = mpsc::channel(1);
        let threads = (0..count).map(|index| {
            let start = Start {
                index,
                services: services.clone(),
                access_log: logs.access_log(count),
                listeners: listeners.to_vec(),
                sockets: sockets
                    .served_listeners()
                    .context("a socket could not be shared")?,
                via: Via::new(&pseudonym)?,
                accepts: accepts.clone(),
                stopped: stopped.clone(),
                ended: ended.clone(),
                starting: sender.clone(),
            };
            start_thread(start, logs.clone())
        });
        Ok(Workers {
            threads: threads.collect::<anyhow::Result<_>>()?,
            accept,
            stop,
            end,
            starting,
        })
    }

    /// Signals the workers to accept connections, now or once they are prepared.
    pub(super) fn accept_connections(&self) {
        self.accept.send_replace(true);
    }

    /// Waits until every worker is prepared to accept connections.
    pub(super) async fn wait_until_prepared(&mut self) {
        while self.starting.recv().await.is_some() {}
    }

    /// The runtimes of the workers.
    pub(super) fn runtimes(&self) -> Vec<Handle> {
        let runtimes = self.threads.iter().map(|(_, runtime)| runtime.clone());
        runtimes.collect()
    }

    /// Signals the workers to close their listeners.
    pub(super) fn stop_accepting(&self) {
        self.stop.send_replace(true);
    }

    /// Ends the workers and waits briefly for them. A thread that does not respond is left: the process
    /// ends anyway.
    pub(super) fn join(self) {
        drop(self.end);
        let deadline = clock::monotonic() + JOIN_TIMEOUT;
        let is_running = |(thread, _): &(JoinHandle<()>, _)| !thread.is_finished();
        while self.threads.iter().any(is_running) && clock::monotonic() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn start_thread(start: Start, logs: Logs) -> anyhow::Result<(JoinHandle<()>, Handle)> {
    let index = start.index;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be started")?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            if let Err(error) = run_worker(&runtime, start) {
                // A gateway with a dead worker would serve some connections and hang others.
                tracing::error!("worker {index} ended: {error:#}");
                logs.flush();
                std::process::exit(1);
            }
            // Past the grace period, requests may still be served. They are dropped, which writes
            // their log lines; blocking tasks are not waited for.
            runtime.shutdown_background();
        })
        .context("a worker could not be started")?;
    Ok((thread, handle))
}

fn run_worker(runtime: &Runtime, start: Start) -> anyhow::Result<()> {
    metrics::claim_shards();
    runtime.block_on(serve(start))
}

/// Serves until all connections are closed, or the worker is to end.
async fn serve(mut start: Start) -> anyhow::Result<()> {
    // On the runtime that serves the request: a reply of the store that crosses threads costs more
    // than everything else the gateway does.
    let services = start.services.connect();
    // The first requests find the store connected. A store that is away must not keep the gateway
    // from serving what needs none.
    services.store.wait_until_up(STORE_TIMEOUT).await;
    let open_streams = Arc::clone(&services.open_streams);
    tokio::spawn(open_streams.watch_timeouts(start.index));
    tokio::spawn(timer_wheel::run(start.stopped.clone()));
    let worker = build_worker(start.index, services, start.access_log, start.via);
    let connections = Arc::<UpstreamConnections>::default();
    tokio::spawn(Arc::clone(&connections).sweep());
    let proxy = WorkerProxy::new(Arc::new(worker), connections);
    let proxy = Arc::new(proxy);
    let sockets = start.sockets.into_iter().map(AcceptingSocket::new);
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    drop(start.starting);
    if start.accepts.wait_for(|accepts| *accepts).await.is_err() {
        // The gateway does not start.
        return Ok(());
    }
    let mut accepting = JoinSet::new();
    for (listener, socket) in start.listeners.iter().zip(sockets) {
        let (listener, proxy) = (Arc::clone(listener), Arc::clone(&proxy));
        accepting.spawn(listener.accept(socket, proxy, start.stopped.clone()));
    }
    let closed = async {
        accepting.join_all().await;
        // The requests that are still served run on this runtime.
        wait_until_closed(&start.listeners).await;
    };
    tokio::select! {
        () = closed => {}
        // Its sender is dropped.
        _ = start.ended.changed() => {}
    }
    Ok(())
}

fn build_worker(index: usize, services: Services, access_log: AccessLog, via: Via) -> Worker {
    Worker {
        index,
        api: PublicApi::new(services.api_state()),
        snapshot: services.snapshot,
        open_streams: services.open_streams,
        readiness: services.readiness,
        admission: AdmissionServices {
            store: services.store,
            sessions: services.sessions,
            metrics: Arc::clone(&services.metrics),
            events: services.events,
            memo: Memo::default(),
            provider_tokens: services.provider_tokens,
        },
        metrics: services.metrics,
        access_log,
        via,
        boot: services.boot,
    }
}
