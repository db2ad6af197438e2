//! The task that keeps one connection: connects, watches, replaces, and lets nobody wait for a server
//! that does not answer in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::{Notify, watch};

use super::connection::Target;
use super::connection_context::ConnectionContext;
use super::dial;
use super::exchange_error::ExchangeError;
use crate::settings::RedisNode;
use crate::store::StoreError;
use crate::store::deadline::{REPLY_ROUNDS, timeout_with_grace};
use crate::store::redis::codec::scripts::Scripts;

/// How often a silent connection is tried.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long it may take to answer then. Both together stay below half a second.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// After so many operations without an answer in time, and none with one, nobody is let wait any
/// more: the breaker opens.
const BREAKER_THRESHOLD: u32 = 5;
/// How often a server is tried then.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Connecting takes a few answers; so long it may take in any case.
const MIN_CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
pub(in crate::store::redis) const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// A server that is back is used well within half a second.
pub(in crate::store::redis) const MAX_BACKOFF: Duration = Duration::from_millis(400);

/// What the link and its task share.
pub(in crate::store::redis) struct ConnectionState {
    pub target: Target,
    pub context: Arc<ConnectionContext>,
    pub scripts: Arc<Scripts>,
    pub availability: ArcSwap<Availability>,
    pub timeout_reported: Notify,
    /// Notified when the server has refused a write because it is a replica.
    pub demoted: Notify,
    /// Operations since the last answer that got none in time.
    pub timeouts: AtomicU32,
    /// When the first of them was noticed, in milliseconds since the links were made.
    pub first_timeout_at: AtomicU64,
    /// Whether nothing is let through.
    pub breaker_open: AtomicBool,
    /// Whether it is known if the server can be reached.
    pub attempted: watch::Sender<bool>,
}

pub(in crate::store::redis) enum Availability {
    Up(Connected),
    Down(StoreError),
}

#[derive(Clone)]
pub(in crate::store::redis) struct Connected {
    pub connection: MultiplexedConnection,
    pub failed: Arc<Notify>,
    /// Milliseconds since the links were made, as of the last answer.
    pub last_response_at: Arc<AtomicU64>,
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        // Only now is the task gone as well, and cannot come up again.
        self.mark_down(StoreError::Unreachable);
        self.context
            .connection_dropped(self.breaker_open.load(Ordering::SeqCst));
    }
}

impl ConnectionState {
    pub(in crate::store::redis) fn elapsed(&self) -> u64 {
        self.context.elapsed()
    }

    fn mark_up(&self, connected: Connected) {
        // Counted first: who finds the link up knows that it came up.
        self.context.up_count_changed(1);
        self.timeouts.store(0, Ordering::Relaxed);
        self.availability
            .store(Arc::new(Availability::Up(connected)));
        if self.breaker_open.swap(false, Ordering::SeqCst) {
            self.context.breaker_closed();
        }
        self.attempted.send_replace(true);
    }

    fn open_breaker(&self, error: StoreError) {
        if !self.breaker_open.swap(true, Ordering::SeqCst) {
            self.context.breaker_opened();
        }
        self.mark_down(error);
    }

    /// Many that were asked at once and were late together are no reason yet.
    fn is_too_slow(&self) -> bool {
        let since = self.first_timeout_at.load(Ordering::Relaxed);
        let silent_for = Duration::from_millis(self.elapsed().saturating_sub(since));
        let timeouts = self.timeouts.load(Ordering::Relaxed);
        timeouts >= BREAKER_THRESHOLD && silent_for >= self.context.timeout * 2
    }

    fn mark_down(&self, error: StoreError) {
        let before = self.availability.swap(Arc::new(Availability::Down(error)));
        if matches!(*before, Availability::Up(_)) {
            self.context.up_count_changed(-1);
        }
        self.attempted.send_replace(true);
    }

    pub(in crate::store::redis) fn warn(&self, what: &str, fault: &ExchangeError) {
        match &self.target {
            Target::Member(server, _) => self.context.warn(server, what, fault),
            Target::Server(_) | Target::Master(_) => {
                self.context
                    .warn(&self.context.address.topology, what, fault);
            }
        }
    }

    /// What is to be done besides connecting again, now that the server cannot be used.
    fn handle_loss(&self, what: &str, fault: &ExchangeError) {
        self.open_breaker(fault.error);
        if let Target::Member(_, atlas) = &self.target {
            atlas.request_refresh();
        }
        self.warn(what, fault);
    }
}

/// Keeps the connection for ever.
pub(in crate::store::redis) async fn supervise(line: Arc<ConnectionState>) {
    let mut pause = MIN_BACKOFF;
    loop {
        match connect(&line).await {
            Ok((server, connection)) => {
                pause = MIN_BACKOFF;
                tracing::debug!(%server, "connected to the store");
                let fault = tokio::select! {
                    fault = serve(&line, connection) => fault,
                    () = line.target.replaced(&server) => ExchangeError::unreachable("another master"),
                };
                line.handle_loss("lost the store", &fault);
            }
            Err(fault) => {
                line.handle_loss("cannot use the store", &fault);
                pause = (pause * 2).min(MAX_BACKOFF);
            }
        }
        let share = rand::random_range(0.5..=1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(share)) => {}
            // Another link of this gateway has found the store again: no worker stays behind.
            () = line.context.reconnected() => {}
        }
    }
}

/// Connects, and lets nobody wait for a server that cannot answer in time.
async fn connect(
    line: &ConnectionState,
) -> Result<(RedisNode, MultiplexedConnection), ExchangeError> {
    let server = line.target.resolve().await?;
    let (address, scripts) = (&line.context.address, &line.scripts);
    let dialling = async {
        match line.target {
            Target::Member(..) => dial::connect_member(&server, address, scripts).await,
            Target::Master(_) => dial::connect_master(&server, address, scripts).await,
            Target::Server(_) => dial::connect_with_scripts(&server, address, scripts).await,
        }
    };
    let few_answers = (line.context.timeout * 4).max(MIN_CONNECT_TIMEOUT);
    let mut connection = dial::with_timeout(few_answers, dialling).await?;
    if !ping(&mut connection, line.context.timeout).await? {
        return Err(ExchangeError::too_slow());
    }
    Ok((server, connection))
}

/// Lets questions through. Returns when the connection is of no use any more.
async fn serve(line: &ConnectionState, connection: MultiplexedConnection) -> ExchangeError {
    loop {
        let connected = Connected {
            connection: connection.clone(),
            failed: Arc::default(),
            last_response_at: Arc::new(AtomicU64::new(line.elapsed())),
        };
        line.mark_up(connected.clone());
        let fault = watch(line, connected).await;
        if fault.error != StoreError::BreakerOpen {
            return fault;
        }
        line.handle_loss("nobody waits for the store", &fault);
        if let Err(fault) = probe_until_responsive(line, connection.clone()).await {
            return fault;
        }
    }
}

/// Returns when the connection is of no use any more, or too slow to wait for.
async fn watch(line: &ConnectionState, mut connected: Connected) -> ExchangeError {
    let Connected {
        connection,
        failed,
        last_response_at: answered,
    } = &mut connected;
    let quiet_for = || {
        let since = answered.load(Ordering::Relaxed);
        Duration::from_millis(line.elapsed().saturating_sub(since))
    };
    let mut replaced = std::pin::pin!(wait_for_new_master(line));
    loop {
        let suspected = tokio::select! {
            () = failed.notified() => return ExchangeError::unreachable("connection lost"),
            () = &mut replaced => return ExchangeError::unreachable("another master"),
            () = line.timeout_reported.notified() => true,
            () = tokio::time::sleep(CHECK_INTERVAL.saturating_sub(quiet_for())) => false,
        };
        if line.is_too_slow() {
            return ExchangeError::too_slow();
        }
        // Whoever answers others need not be asked.
        if !suspected && quiet_for() < CHECK_INTERVAL {
            continue;
        }
        match ping(connection, line.context.timeout).await {
            Ok(_) => answered.store(line.elapsed(), Ordering::Relaxed),
            Err(fault) => return fault,
        }
    }
}

/// Returns when the server refuses writes as a replica, and its address leads to a master by now.
async fn wait_for_new_master(line: &ConnectionState) {
    let Target::Server(server) = &line.target else {
        return std::future::pending().await;
    };
    line.demoted.notified().await;
    while !dial::leads_to_master(server, &line.context.address).await {
        tokio::time::sleep(MAX_BACKOFF).await;
    }
}

/// Tries a server that is too slow until it answers within the time of an operation.
async fn probe_until_responsive(
    line: &ConnectionState,
    mut connection: MultiplexedConnection,
) -> Result<(), ExchangeError> {
    loop {
        tokio::time::sleep(PROBE_INTERVAL.mul_f64(rand::random_range(0.5..=1.0))).await;
        if ping(&mut connection, line.context.timeout).await? {
            return Ok(());
        }
    }
}

/// Has the server say that it is there; tells whether it did so within the time of an operation.
async fn ping(
    connection: &mut MultiplexedConnection,
    patience: Duration,
) -> Result<bool, ExchangeError> {
    let ping = redis::cmd("PING");
    let mut asking = std::pin::pin!(ping.query_async::<Value>(connection));
    let in_time = patience.min(PING_TIMEOUT);
    if let Some(answer) = timeout_with_grace(in_time, REPLY_ROUNDS, &mut asking).await {
        return check_pong(answer).map(|()| true);
    }
    let late = PING_TIMEOUT - in_time;
    match timeout_with_grace(late, 0, asking).await {
        Some(answer) => check_pong(answer).map(|()| false),
        None => Err(ExchangeError::unreachable("no answer")),
    }
}

/// Whether the server is there. One that cannot save refuses even a `PING`, and serves reads.
fn check_pong(answer: Result<Value, RedisError>) -> Result<(), ExchangeError> {
    match answer.map_err(ExchangeError::from) {
        Err(fault) if fault.error != StoreError::ReadOnly => Err(fault),
        Ok(_) | Err(_) => Ok(()),
    }
}
