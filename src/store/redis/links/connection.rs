//! Supervised connection to one server; while it is down, every request fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::cluster_map::ClusterMap;
use super::connection_context::ConnectionContext;
use super::exchange_error::{self, ExchangeError};
use super::sentinel::SentinelResolver;
use super::supervision::{Availability, Connected, ConnectionState, supervise};
use crate::settings::RedisNode;
use crate::store::StoreError;
use crate::store::redis::codec::scripts::Scripts;

/// A supervised connection; its supervisor ends with it.
pub(in crate::store::redis) struct StoreConnection {
    state: Arc<ConnectionState>,
    supervisor: AbortHandle,
}

/// Target of a connection.
#[derive(Clone)]
pub(in crate::store::redis) enum Target {
    Server(RedisNode),
    /// The current master, as the Sentinels report it.
    Master(Arc<SentinelResolver>),
    /// A server of a cluster.
    Member(RedisNode, Arc<ClusterMap>),
}

impl Target {
    /// The current server of the target.
    pub(in crate::store::redis) async fn resolve(&self) -> Result<RedisNode, ExchangeError> {
        match self {
            Target::Server(server) | Target::Member(server, _) => Ok(server.clone()),
            Target::Master(resolver) => resolver.resolve_master().await,
        }
    }

    /// Returns when another server has replaced this one.
    pub(in crate::store::redis) async fn replaced(&self, server: &RedisNode) {
        match self {
            Target::Server(_) | Target::Member(..) => std::future::pending().await,
            Target::Master(resolver) => resolver.replaced(server).await,
        }
    }
}

impl StoreConnection {
    /// Spawns the supervisor, which connects, on the current Tokio runtime.
    pub(in crate::store::redis) fn spawn(
        target: Target,
        context: Arc<ConnectionContext>,
        scripts: Arc<Scripts>,
    ) -> StoreConnection {
        context.connection_created();
        if let Target::Master(resolver) = &target {
            resolver.start_watching();
        }
        let state = Arc::new(ConnectionState {
            target,
            context,
            scripts,
            availability: ArcSwap::from_pointee(Availability::Down(StoreError::Unreachable)),
            timeout_reported: Notify::new(),
            demoted: Notify::new(),
            timeouts: AtomicU32::new(0),
            first_timeout_at: AtomicU64::new(0),
            breaker_open: AtomicBool::new(false),
            attempted: watch::Sender::new(false),
        });
        let supervisor = tokio::spawn(supervise(Arc::clone(&state))).abort_handle();
        StoreConnection { state, supervisor }
    }

    pub(in crate::store::redis) fn is_up(&self) -> bool {
        matches!(**self.state.availability.load(), Availability::Up(_))
    }

    /// Waits until the first attempt to connect is over.
    pub(in crate::store::redis) async fn wait_for_first_attempt(&self) {
        // The sender lives as long as `self`.
        let _ = self
            .state
            .attempted
            .subscribe()
            .wait_for(|attempted| *attempted)
            .await;
    }

    /// Records that an operation has timed out, and has the supervisor check the connection.
    pub(in crate::store::redis) fn report_timeout(&self) {
        if self.state.timeouts.fetch_add(1, Ordering::Relaxed) == 0 {
            let now = self.state.elapsed();
            self.state.first_timeout_at.store(now, Ordering::Relaxed);
        }
        self.state.timeout_reported.notify_one();
    }

    /// Executes a command; sends the script's text if the server does not have it.
    pub(in crate::store::redis) async fn execute(
        &self,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        match self.execute_once(command).await {
            Err(error) if error.no_script => {
                let with_text = self.state.scripts.with_script_text(command);
                Box::pin(self.execute_once(&with_text)).await
            }
            outcome => outcome,
        }
    }

    /// Executes several commands, and repeats those whose script the server did not have.
    ///
    /// Server errors are among the replies.
    pub(in crate::store::redis) async fn execute_all(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, ExchangeError> {
        let mut replies = self.execute_all_once(commands).await?;
        let retries = self.retry_pipeline(commands, &replies);
        if retries.is_empty() {
            return Ok(replies);
        }
        let mut repeated = self.execute_all_once(&retries).await?.into_iter();
        for reply in replies
            .iter_mut()
            .filter(|reply| exchange_error::is_no_script(reply))
        {
            *reply = repeated
                .next()
                .ok_or_else(|| ExchangeError::unreachable("too few replies"))?;
        }
        Ok(replies)
    }

    /// The commands whose script the server did not have, with the scripts' texts.
    fn retry_pipeline(&self, commands: &Pipeline, replies: &[Value]) -> Pipeline {
        let mut retries = redis::pipe();
        for (command, reply) in commands.cmd_iter().zip(replies) {
            if exchange_error::is_no_script(reply) {
                retries.add_command(self.state.scripts.with_script_text(command));
            }
        }
        retries
    }

    /// Executes several commands and then `last` on the same connection.
    ///
    /// If the server did not have a script, all of them are repeated with the scripts' texts.
    pub(in crate::store::redis) async fn execute_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Value), ExchangeError> {
        let mut all = commands.clone();
        all.add_command(last.clone());
        let mut replies = self.execute_all_once(&all).await?;
        if replies.iter().any(exchange_error::is_no_script) {
            let mut with_text = redis::pipe();
            for command in all.cmd_iter() {
                with_text.add_command(self.state.scripts.with_script_text(command));
            }
            replies = self.execute_all_once(&with_text).await?;
        }
        let last = replies.pop();
        Ok((
            replies,
            last.ok_or_else(|| ExchangeError::unreachable("too few replies"))?,
        ))
    }

    async fn execute_once(&self, command: &Cmd) -> Result<Value, ExchangeError> {
        let connected = self.current_connection()?;
        let outcome = connected.connection.send(command).await;
        self.record_outcome(outcome, &connected)
    }

    async fn execute_all_once(&self, commands: &Pipeline) -> Result<Vec<Value>, ExchangeError> {
        let connected = self.current_connection()?;
        let outcome = connected.connection.send_all(commands).await;
        let replies = self.record_outcome(outcome, &connected)?;
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                let error = ExchangeError::from(redis::RedisError::from(error.clone()));
                self.handle_error(&error, &connected);
            }
        }
        Ok(replies)
    }

    fn current_connection(&self) -> Result<Arc<Connected>, ExchangeError> {
        match &**self.state.availability.load() {
            Availability::Up(connected) => Ok(Arc::clone(connected)),
            Availability::Down(error) => Err(ExchangeError {
                error: *error,
                fatal: false,
                ..ExchangeError::unreachable("")
            }),
        }
    }

    fn record_outcome<T>(
        &self,
        outcome: Result<T, redis::RedisError>,
        connected: &Connected,
    ) -> Result<T, ExchangeError> {
        let error = match outcome {
            Ok(reply) => {
                let now = self.state.elapsed();
                connected.last_response_at.store(now, Ordering::Relaxed);
                if self.state.timeouts.load(Ordering::Relaxed) > 0 {
                    self.state.timeouts.store(0, Ordering::Relaxed);
                }
                return Ok(reply);
            }
            Err(error) => ExchangeError::from(error),
        };
        self.handle_error(&error, connected);
        Err(error)
    }

    fn handle_error(&self, error: &ExchangeError, connected: &Connected) {
        let is_replica = error.code == exchange_error::READ_ONLY;
        if is_replica && matches!(self.state.target, Target::Server(_)) {
            // The connection serves reads until the address leads to a master.
            self.state.demoted.notify_one();
        } else if error.fatal {
            connected.failed.notify_one();
        }
        let is_redirect = matches!(self.state.target, Target::Member(..))
            && matches!(error.code.as_str(), "MOVED" | "ASK" | "TRYAGAIN");
        let is_refusal = matches!(error.error, StoreError::Refused | StoreError::ReadOnly);
        if is_refusal && !error.no_script && !is_redirect {
            self.state.warn("the store refuses an operation", error);
        }
    }
}

impl Drop for StoreConnection {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}
