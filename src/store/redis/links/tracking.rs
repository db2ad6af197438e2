//! The connection on which the store tells of its changes: of the keys that gateways remember, to
//! every gateway, whoever wrote them (`CLIENT TRACKING` in its broadcasting mode).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{select_all, try_join_all};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::cluster_map::ClusterMap;
use super::connection::Target;
use super::dial;
use super::exchange_error::ExchangeError;
use super::supervision::{MAX_BACKOFF, MIN_BACKOFF};
use super::topology_client::TopologyConnector;
use crate::auth::session::Millis;
use crate::clock;
use crate::settings::RedisNode;
use crate::store::invalidation::TrackingEvent;
use crate::store::redis::codec::keys::Keys;
use crate::store::redis::{Redis, parse_time};

/// How often the store is asked whether all was heard.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// How long it may take to answer.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(200);

/// The store's clock, carried on by this machine's steady one.
#[derive(Debug)]
pub(in crate::store::redis) struct StoreClock {
    started: Instant,
    /// What the store's clock said when this began; 0: nobody knows.
    store_time_at_start: AtomicU64,
}

impl Default for StoreClock {
    fn default() -> StoreClock {
        StoreClock {
            started: clock::monotonic(),
            store_time_at_start: AtomicU64::new(0),
        }
    }
}

impl StoreClock {
    fn set(&self, now: Millis) {
        self.store_time_at_start
            .store(now.saturating_sub(self.elapsed()), Ordering::Relaxed);
    }

    fn now(&self) -> Millis {
        match self.store_time_at_start.load(Ordering::Relaxed) {
            0 => clock::unix_millis(),
            began => began + self.elapsed(),
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Up to when each server was heard.
struct Heartbeats(Mutex<Vec<Option<(Instant, Millis)>>>);

impl Heartbeats {
    /// Takes one down, and tells up to when all of them were heard.
    fn record(&self, place: usize, proof: (Instant, Millis)) -> Option<(Instant, Millis)> {
        let mut proofs = self.0.lock();
        if let Some(kept) = proofs.get_mut(place) {
            *kept = Some(proof);
        }
        let mut all = proofs.iter().copied();
        let first = all.next()?;
        all.fold(first, |all, one| {
            let ((as_of, now), (also_as_of, also_now)) = (all?, one?);
            Some((as_of.min(also_as_of), now.min(also_now)))
        })
    }
}

/// A connection on which one server tells of its changes.
struct TrackingConnection {
    connection: MultiplexedConnection,
    lost: Arc<Notify>,
}

impl Redis {
    /// The store's clock as it was last told, and this machine's until then.
    pub(in crate::store) fn clock(&self) -> Millis {
        self.clock.now()
    }

    /// Listens for ever, on connections of its own.
    pub(in crate::store) async fn track_changes(
        &self,
        hear: impl Fn(TrackingEvent) + Send + Sync + 'static,
    ) {
        let hear = Arc::new(hear);
        match &self.connector {
            TopologyConnector::Direct(target) => self.track_server(target, hear).await,
            TopologyConnector::Cluster(atlas) => self.track_cluster(atlas, hear).await,
        }
    }

    async fn track_server(
        &self,
        target: &Target,
        hear: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
    ) {
        let mut pause = MIN_BACKOFF;
        loop {
            let listening = async {
                let server = target.resolve().await?;
                let ear = self.open_tracking(&server, Arc::clone(&hear)).await?;
                Ok::<_, ExchangeError>((server, ear))
            };
            match listening.await {
                Ok((server, ear)) => {
                    pause = MIN_BACKOFF;
                    hear(TrackingEvent::InvalidateAll);
                    let proof = |as_of, now| hear(TrackingEvent::ConfirmedUpTo(as_of, now));
                    let fault = tokio::select! {
                        fault = self.run_heartbeat(&ear, false, proof) => fault,
                        () = target.replaced(&server) => ExchangeError::unreachable("another master"),
                    };
                    hear(TrackingEvent::Suspended);
                    self.warn_not_tracking(&fault);
                }
                Err(fault) => {
                    self.warn_not_tracking(&fault);
                    pause = (pause * 2).min(MAX_BACKOFF);
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    /// In a cluster each master tells of its own keys: all of them must be heard.
    async fn track_cluster(
        &self,
        atlas: &Arc<ClusterMap>,
        hear: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
    ) {
        let mut maps = atlas.subscribe();
        let mut pause = MIN_BACKOFF;
        loop {
            let map = maps.borrow_and_update().clone();
            let masters = map.iter().flat_map(|map| map.masters());
            let opening = masters.map(|server| self.open_tracking(server, Arc::clone(&hear)));
            match try_join_all(opening).await {
                Ok(ears) if !ears.is_empty() => {
                    pause = MIN_BACKOFF;
                    hear(TrackingEvent::InvalidateAll);
                    let fault = tokio::select! {
                        fault = self.run_heartbeats(&ears, &*hear) => fault,
                        _ = maps.changed() => ExchangeError::unreachable("other masters"),
                    };
                    hear(TrackingEvent::Suspended);
                    atlas.request_refresh();
                    self.warn_not_tracking(&fault);
                }
                Ok(_) => {}
                Err(fault) => {
                    atlas.request_refresh();
                    self.warn_not_tracking(&fault);
                    pause = (pause * 2).min(MAX_BACKOFF);
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    async fn run_heartbeats(
        &self,
        ears: &[TrackingConnection],
        hear: &(impl Fn(TrackingEvent) + Send + Sync),
    ) -> ExchangeError {
        let proofs = Heartbeats(Mutex::new(vec![None; ears.len()]));
        let proofs = &proofs;
        let listening = ears.iter().enumerate().map(|(place, ear)| {
            let proof = move |as_of, now| {
                if let Some((as_of, now)) = proofs.record(place, (as_of, now)) {
                    hear(TrackingEvent::ConfirmedUpTo(as_of, now));
                }
            };
            Box::pin(self.run_heartbeat(ear, true, proof))
        });
        select_all(listening).await.0
    }

    fn warn_not_tracking(&self, fault: &ExchangeError) {
        let topology = &self.context.address.topology;
        self.context
            .warn(topology, "changes in the store are not heard", fault);
    }

    /// What is done with each message, before any answer that comes after it is read.
    fn push_handler(
        &self,
        hear: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
        lost: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static {
        let keys = Arc::clone(&self.keys);
        move |message| {
            match message.kind {
                PushKind::Invalidate => dispatch_invalidation(&keys, &message.data, &*hear),
                PushKind::Disconnection => lost.notify_one(),
                _ => {}
            }
            Ok(())
        }
    }

    async fn open_tracking(
        &self,
        server: &RedisNode,
        hear: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
    ) -> Result<TrackingConnection, ExchangeError> {
        let lost = Arc::new(Notify::new());
        let heard = self.push_handler(hear, Arc::clone(&lost));
        let mut connection = dial::connect_tracking(server, &self.context.address, heard).await?;
        let asking = tracking_command(&self.keys);
        timeout(
            HEARTBEAT_TIMEOUT * 5,
            asking.query_async::<Value>(&mut connection),
        )
        .await
        .map_err(|_| no_response())??;
        Ok(TrackingConnection { connection, lost })
    }

    /// Proves again and again that everything was heard: an answer comes after all messages that the
    /// store had sent by then. A server of a cluster must still be one that takes writes: if another
    /// has taken its place, it is there that changes are told.
    async fn run_heartbeat(
        &self,
        ear: &TrackingConnection,
        member: bool,
        proof: impl Fn(Instant, Millis) + Send,
    ) -> ExchangeError {
        let mut connection = ear.connection.clone();
        let mut questions = redis::pipe();
        questions.cmd("TIME");
        if member {
            questions.cmd("ROLE");
            questions.cmd("CLUSTER").arg("INFO");
        }
        let count = questions.len();
        loop {
            let asked_at = clock::monotonic();
            let asking = connection.send_packed_commands(&questions, 0, count);
            match timeout(HEARTBEAT_TIMEOUT, asking).await {
                Ok(Ok(replies)) => {
                    let Some(now) = replies.first().and_then(parse_time) else {
                        return no_response();
                    };
                    if replies.iter().any(dial::is_not_master) {
                        return ExchangeError::unreachable("another master");
                    }
                    self.clock.set(now);
                    proof(asked_at, now);
                }
                Ok(Err(error)) => return ExchangeError::from(error),
                Err(_) => return no_response(),
            }
            tokio::select! {
                () = sleep(HEARTBEAT_INTERVAL) => {}
                () = ear.lost.notified() => return no_response(),
            }
        }
    }
}

/// Asks to be told of every change of what gateways remember.
fn tracking_command(keys: &Keys) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in keys.tracked_prefixes() {
        command.arg("PREFIX").arg(prefix);
    }
    command
}

/// A message names the keys that changed, or none where all did.
fn dispatch_invalidation(keys: &Keys, message: &[Value], hear: &impl Fn(TrackingEvent)) {
    match message.first() {
        Some(Value::Array(changed)) => {
            for key in changed {
                if let Value::BulkString(key) = key
                    && let Some(item) = keys.tracked_item(key)
                {
                    hear(TrackingEvent::Changed(item));
                }
            }
        }
        _ => hear(TrackingEvent::InvalidateAll),
    }
}

fn no_response() -> ExchangeError {
    ExchangeError::unreachable("no answer")
}
