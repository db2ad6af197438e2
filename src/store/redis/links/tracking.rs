//! Tracking connection, on which Redis sends invalidations of the keys that gateways cache.
//!
//! Uses `CLIENT TRACKING` in broadcast mode: every gateway is notified of each change, also of its own.

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

/// Interval of the heartbeats that confirm all invalidations to have arrived.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// Timeout of a heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(200);

/// Estimate of the store's time, advanced by this machine's monotonic clock.
#[derive(Debug)]
pub(in crate::store::redis) struct StoreClock {
    started: Instant,
    /// The store's time at `started`; 0: unknown.
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
            store_time_at_start => store_time_at_start + self.elapsed(),
        }
    }

    fn elapsed(&self) -> u64 {
        clock::millis(self.started.elapsed())
    }
}

/// Latest heartbeat of each server.
struct Heartbeats(Mutex<Vec<Option<(Instant, Millis)>>>);

impl Heartbeats {
    /// Records a server's heartbeat; returns the oldest of all servers, once each has one.
    fn record(&self, index: usize, heartbeat: (Instant, Millis)) -> Option<(Instant, Millis)> {
        let mut heartbeats = self.0.lock();
        if let Some(entry) = heartbeats.get_mut(index) {
            *entry = Some(heartbeat);
        }
        let mut all = heartbeats.iter().copied();
        let first = all.next()?;
        all.fold(first, |oldest, heartbeat| {
            let ((as_of, now), (other_as_of, other_now)) = (oldest?, heartbeat?);
            Some((as_of.min(other_as_of), now.min(other_now)))
        })
    }
}

/// Tracking connection to one server.
struct TrackingConnection {
    connection: MultiplexedConnection,
    lost: Arc<Notify>,
}

impl Redis {
    /// The estimate of the store's time; this machine's time before the first heartbeat.
    pub(in crate::store) fn clock(&self) -> Millis {
        self.clock.now()
    }

    /// Tracks changes on separate connections; runs forever.
    pub(in crate::store) async fn track_changes(
        &self,
        on_event: impl Fn(TrackingEvent) + Send + Sync + 'static,
    ) {
        let on_event = Arc::new(on_event);
        match &self.connector {
            TopologyConnector::Direct(target) => self.track_server(target, on_event).await,
            TopologyConnector::Cluster(map) => self.track_cluster(map, on_event).await,
        }
    }

    async fn track_server(
        &self,
        target: &Target,
        on_event: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
    ) {
        let mut pause = MIN_BACKOFF;
        loop {
            let opening = async {
                let server = target.resolve().await?;
                let tracking = self.open_tracking(&server, Arc::clone(&on_event)).await?;
                Ok::<_, ExchangeError>((server, tracking))
            };
            match opening.await {
                Ok((server, tracking)) => {
                    pause = MIN_BACKOFF;
                    on_event(TrackingEvent::InvalidateAll);
                    let confirm = |as_of, now| on_event(TrackingEvent::ConfirmedUpTo(as_of, now));
                    let error = tokio::select! {
                        error = self.run_heartbeat(&tracking, false, confirm) => error,
                        () = target.replaced(&server) => ExchangeError::unreachable("another master"),
                    };
                    on_event(TrackingEvent::Suspended);
                    self.warn_not_tracking(&error);
                }
                Err(error) => {
                    self.warn_not_tracking(&error);
                    pause = (pause * 2).min(MAX_BACKOFF);
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    /// Tracks a cluster, in which each master sends the invalidations of its own keys.
    async fn track_cluster(
        &self,
        cluster_map: &Arc<ClusterMap>,
        on_event: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
    ) {
        let mut maps = cluster_map.subscribe();
        let mut pause = MIN_BACKOFF;
        loop {
            let map = maps.borrow_and_update().clone();
            let masters = map.iter().flat_map(|map| map.masters());
            let opening = masters.map(|server| self.open_tracking(server, Arc::clone(&on_event)));
            match try_join_all(opening).await {
                Ok(connections) if !connections.is_empty() => {
                    pause = MIN_BACKOFF;
                    on_event(TrackingEvent::InvalidateAll);
                    let error = tokio::select! {
                        error = self.run_heartbeats(&connections, &*on_event) => error,
                        _ = maps.changed() => ExchangeError::unreachable("other masters"),
                    };
                    on_event(TrackingEvent::Suspended);
                    cluster_map.request_refresh();
                    self.warn_not_tracking(&error);
                }
                Ok(_) => {}
                Err(error) => {
                    cluster_map.request_refresh();
                    self.warn_not_tracking(&error);
                    pause = (pause * 2).min(MAX_BACKOFF);
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    async fn run_heartbeats(
        &self,
        connections: &[TrackingConnection],
        on_event: &(impl Fn(TrackingEvent) + Send + Sync),
    ) -> ExchangeError {
        let heartbeats = Heartbeats(Mutex::new(vec![None; connections.len()]));
        let heartbeats = &heartbeats;
        let running = connections.iter().enumerate().map(|(index, tracking)| {
            let confirm = move |as_of, now| {
                if let Some((as_of, now)) = heartbeats.record(index, (as_of, now)) {
                    on_event(TrackingEvent::ConfirmedUpTo(as_of, now));
                }
            };
            Box::pin(self.run_heartbeat(tracking, true, confirm))
        });
        select_all(running).await.0
    }

    fn warn_not_tracking(&self, error: &ExchangeError) {
        let topology = &self.context.address.topology;
        self.context
            .warn(topology, "cannot track changes in the store", error);
    }

    /// Handles each push message, before any reply that arrives after it is read.
    fn push_handler(
        &self,
        on_event: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
        lost: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static {
        let keys = Arc::clone(&self.keys);
        move |message| {
            match message.kind {
                PushKind::Invalidate => dispatch_invalidation(&keys, &message.data, &*on_event),
                PushKind::Disconnection => lost.notify_one(),
                _ => {}
            }
            Ok(())
        }
    }

    async fn open_tracking(
        &self,
        server: &RedisNode,
        on_event: Arc<impl Fn(TrackingEvent) + Send + Sync + 'static>,
    ) -> Result<TrackingConnection, ExchangeError> {
        let lost = Arc::new(Notify::new());
        let handler = self.push_handler(on_event, Arc::clone(&lost));
        let mut connection = dial::connect_tracking(server, &self.context.address, handler).await?;
        let command = tracking_command(&self.keys);
        timeout(
            HEARTBEAT_TIMEOUT * 5,
            command.query_async::<Value>(&mut connection),
        )
        .await
        .map_err(|_| no_response())??;
        Ok(TrackingConnection { connection, lost })
    }

    /// Sends heartbeats until one fails.
    ///
    /// A reply arrives after all invalidations that the server had sent before it, and so confirms
    /// that none is missing. A server of a cluster must still be a master: another one in its place
    /// sends the invalidations.
    async fn run_heartbeat(
        &self,
        tracking: &TrackingConnection,
        is_member: bool,
        confirm: impl Fn(Instant, Millis) + Send,
    ) -> ExchangeError {
        let mut connection = tracking.connection.clone();
        let mut commands = redis::pipe();
        commands.cmd("TIME");
        if is_member {
            commands.cmd("ROLE");
            commands.cmd("CLUSTER").arg("INFO");
        }
        let count = commands.len();
        loop {
            let sent_at = clock::monotonic();
            let replies = connection.send_packed_commands(&commands, 0, count);
            match timeout(HEARTBEAT_TIMEOUT, replies).await {
                Ok(Ok(replies)) => {
                    let Some(now) = replies.first().and_then(parse_time) else {
                        return no_response();
                    };
                    if replies.iter().any(dial::is_not_master) {
                        return ExchangeError::unreachable("another master");
                    }
                    self.clock.set(now);
                    confirm(sent_at, now);
                }
                Ok(Err(error)) => return ExchangeError::from(error),
                Err(_) => return no_response(),
            }
            tokio::select! {
                () = sleep(HEARTBEAT_INTERVAL) => {}
                () = tracking.lost.notified() => return no_response(),
            }
        }
    }
}

/// The command that enables invalidations of all keys that gateways cache.
fn tracking_command(keys: &Keys) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in keys.tracked_prefixes() {
        command.arg("PREFIX").arg(prefix);
    }
    command
}

/// Dispatches an invalidation message, which lists the changed keys, or none if all have changed.
fn dispatch_invalidation(keys: &Keys, message: &[Value], on_event: &impl Fn(TrackingEvent)) {
    match message.first() {
        Some(Value::Array(changed)) => {
            for key in changed {
                if let Value::BulkString(key) = key
                    && let Some(item) = keys.tracked_item(key)
                {
                    on_event(TrackingEvent::Changed(item));
                }
            }
        }
        _ => on_event(TrackingEvent::InvalidateAll),
    }
}

fn no_response() -> ExchangeError {
    ExchangeError::unreachable("no response")
}
