//! Supervisor task of one connection: connects, monitors and replaces it.
//!
//! A circuit breaker keeps requests from waiting for a server that does not respond in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::{RedisError, Value};
use tokio::sync::{Notify, watch};

use super::connection::Target;
use super::connection_context::ConnectionContext;
use super::dial;
use super::exchange_error::ExchangeError;
use super::pipelined_connection::PipelinedConnection;
use crate::settings::RedisNode;
use crate::store::StoreError;
use crate::store::deadline::{REPLY_ROUNDS, timeout_with_grace};
use crate::store::redis::codec::scripts::Scripts;

/// Interval at which an idle connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Timeout of a check. With [`CHECK_INTERVAL`], a loss is detected within half a second.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// Number of consecutive timeouts that opens the breaker.
const BREAKER_THRESHOLD: u32 = 5;
/// Interval of probes while the breaker is open.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Shortest timeout of the connection setup, which takes several round trips.
const MIN_CONNECT_TIMEOUT: Duration = Duration::from_millis(400);
pub(in crate::store::redis) const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Short enough to use a server that is back within half a second.
pub(in crate::store::redis) const MAX_BACKOFF: Duration = Duration::from_millis(400);

/// State shared by a connection and its supervisor.
pub(in crate::store::redis) struct ConnectionState {
    pub target: Target,
    pub context: Arc<ConnectionContext>,
    pub scripts: Arc<Scripts>,
    pub availability: ArcSwap<Availability>,
    pub timeout_reported: Notify,
    /// Notified when the server has refused a write because it is a replica.
    pub demoted: Notify,
    /// Timeouts since the last response.
    pub timeouts: AtomicU32,
    /// Time of the first of them, in milliseconds since the context was created.
    pub first_timeout_at: AtomicU64,
    pub breaker_open: AtomicBool,
    /// Whether the first attempt to connect is over.
    pub attempted: watch::Sender<bool>,
}

pub(in crate::store::redis) enum Availability {
    Up(Arc<Connected>),
    Down(StoreError),
}

pub(in crate::store::redis) struct Connected {
    pub connection: Arc<PipelinedConnection>,
    pub failed: Notify,
    /// Time of the last response, in milliseconds since the context was created.
    pub last_response_at: AtomicU64,
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        // The supervisor has ended as well, so the connection cannot come up again.
        self.mark_down(StoreError::Unreachable);
        self.context
            .connection_dropped(self.breaker_open.load(Ordering::SeqCst));
    }
}

impl ConnectionState {
    pub(in crate::store::redis) fn elapsed(&self) -> u64 {
        self.context.elapsed()
    }

    fn mark_up(&self, connected: Arc<Connected>) {
        // Counted first, so that a caller that sees the connection up also sees the reconnect.
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

    /// Whether the breaker has to open. A single batch of late replies is not enough.
    fn is_too_slow(&self) -> bool {
        let since = self.first_timeout_at.load(Ordering::Relaxed);
        let unresponsive_for = Duration::from_millis(self.elapsed().saturating_sub(since));
        let timeouts = self.timeouts.load(Ordering::Relaxed);
        timeouts >= BREAKER_THRESHOLD && unresponsive_for >= self.context.timeout * 2
    }

    fn mark_down(&self, error: StoreError) {
        let previous = self.availability.swap(Arc::new(Availability::Down(error)));
        if matches!(*previous, Availability::Up(_)) {
            self.context.up_count_changed(-1);
        }
        self.attempted.send_replace(true);
    }

    pub(in crate::store::redis) fn warn(&self, message: &str, error: &ExchangeError) {
        match &self.target {
            Target::Member(server, _) => self.context.warn(server, message, error),
            Target::Server(_) | Target::Master(_) => {
                self.context
                    .warn(&self.context.address.topology, message, error);
            }
        }
    }

    /// Opens the breaker, requests a new cluster map and logs the loss of the server.
    fn handle_loss(&self, message: &str, error: &ExchangeError) {
        self.open_breaker(error.error);
        if let Target::Member(_, map) = &self.target {
            map.request_refresh();
        }
        self.warn(message, error);
    }
}

/// Supervises the connection; runs forever.
pub(in crate::store::redis) async fn supervise(state: Arc<ConnectionState>) {
    let mut pause = MIN_BACKOFF;
    loop {
        match connect(&state).await {
            Ok((server, connection)) => {
                pause = MIN_BACKOFF;
                tracing::debug!(%server, "connected to the store");
                let error = tokio::select! {
                    error = serve(&state, connection) => error,
                    () = state.target.replaced(&server) => ExchangeError::unreachable("another master"),
                };
                state.handle_loss("lost the store", &error);
            }
            Err(error) => {
                state.handle_loss("cannot use the store", &error);
                pause = (pause * 2).min(MAX_BACKOFF);
            }
        }
        let share = rand::random_range(0.5..=1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(share)) => {}
            // Another connection of this gateway has reached the store again.
            () = state.context.reconnected() => {}
        }
    }
}

/// Connects, and checks that the server responds in time.
async fn connect(
    state: &ConnectionState,
) -> Result<(RedisNode, PipelinedConnection), ExchangeError> {
    let server = state.target.resolve().await?;
    let (address, scripts) = (&state.context.address, &state.scripts);
    let dialing = async {
        match state.target {
            Target::Member(..) => dial::connect_member(&server, address, scripts).await,
            Target::Master(_) => dial::connect_master(&server, address, scripts).await,
            Target::Server(_) => dial::connect_with_scripts(&server, address, scripts).await,
        }
    };
    let timeout = (state.context.timeout * 4).max(MIN_CONNECT_TIMEOUT);
    let connection = dial::with_timeout(timeout, dialing).await?;
    if !ping(&connection, state.context.timeout).await? {
        return Err(ExchangeError::too_slow());
    }
    Ok((server, connection))
}

/// Serves requests until the connection fails.
async fn serve(state: &ConnectionState, connection: PipelinedConnection) -> ExchangeError {
    let connection = Arc::new(connection);
    loop {
        let connected = Arc::new(Connected {
            connection: Arc::clone(&connection),
            failed: Notify::new(),
            last_response_at: AtomicU64::new(state.elapsed()),
        });
        state.mark_up(Arc::clone(&connected));
        let error = watch(state, &connected).await;
        if error.error != StoreError::BreakerOpen {
            return error;
        }
        state.handle_loss("the store does not respond in time", &error);
        if let Err(error) = probe_until_responsive(state, &connection).await {
            return error;
        }
    }
}

/// Monitors the connection until it fails or the server is too slow.
async fn watch(state: &ConnectionState, connected: &Connected) -> ExchangeError {
    let Connected {
        connection,
        failed,
        last_response_at,
    } = connected;
    let idle_for = || {
        let since = last_response_at.load(Ordering::Relaxed);
        Duration::from_millis(state.elapsed().saturating_sub(since))
    };
    let mut replaced = std::pin::pin!(wait_for_new_master(state));
    loop {
        let is_suspect = tokio::select! {
            () = failed.notified() => return ExchangeError::unreachable("connection lost"),
            () = &mut replaced => return ExchangeError::unreachable("another master"),
            () = state.timeout_reported.notified() => true,
            () = tokio::time::sleep(CHECK_INTERVAL.saturating_sub(idle_for())) => false,
        };
        if state.is_too_slow() {
            return ExchangeError::too_slow();
        }
        // Responses to requests make a check unnecessary.
        if !is_suspect && idle_for() < CHECK_INTERVAL {
            continue;
        }
        match ping(connection, state.context.timeout).await {
            Ok(_) => last_response_at.store(state.elapsed(), Ordering::Relaxed),
            Err(error) => return error,
        }
    }
}

/// Returns when the server has refused a write as a replica and its address leads to a new master.
async fn wait_for_new_master(state: &ConnectionState) {
    let Target::Server(server) = &state.target else {
        return std::future::pending().await;
    };
    state.demoted.notified().await;
    while !dial::leads_to_master(server, &state.context.address).await {
        tokio::time::sleep(MAX_BACKOFF).await;
    }
}

/// Probes a server that is too slow until it responds within the timeout of an operation.
async fn probe_until_responsive(
    state: &ConnectionState,
    connection: &PipelinedConnection,
) -> Result<(), ExchangeError> {
    loop {
        tokio::time::sleep(PROBE_INTERVAL.mul_f64(rand::random_range(0.5..=1.0))).await;
        if ping(connection, state.context.timeout).await? {
            return Ok(());
        }
    }
}

/// Sends a `PING`; returns whether the server responds within the timeout of an operation.
async fn ping(connection: &PipelinedConnection, timeout: Duration) -> Result<bool, ExchangeError> {
    let ping = redis::cmd("PING");
    let mut pong = std::pin::pin!(connection.send(&ping));
    let timeout = timeout.min(PING_TIMEOUT);
    if let Some(reply) = timeout_with_grace(timeout, REPLY_ROUNDS, &mut pong).await {
        return check_pong(reply).map(|()| true);
    }
    match timeout_with_grace(PING_TIMEOUT - timeout, 0, pong).await {
        Some(reply) => check_pong(reply).map(|()| false),
        None => Err(ExchangeError::unreachable("no response")),
    }
}

/// Checks the reply to a `PING`. A server that cannot persist refuses even that, but serves reads.
fn check_pong(reply: Result<Value, RedisError>) -> Result<(), ExchangeError> {
    match reply.map_err(ExchangeError::from) {
        Err(error) if error.error != StoreError::ReadOnly => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
