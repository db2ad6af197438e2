//! One connection, kept by a task of its own. While it is down every question fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::cluster_map::ClusterMap;
use super::connection_context::ConnectionContext;
use super::exchange_error::{self, ExchangeError};
use super::sentinel::SentinelResolver;
use super::supervision::{Availability, ConnectionState, supervise};
use crate::settings::RedisNode;
use crate::store::StoreError;
use crate::store::redis::codec::scripts::Scripts;

/// A supervised connection; its task ends with it.
pub(in crate::store::redis) struct StoreConnection {
    state: Arc<ConnectionState>,
    supervisor: AbortHandle,
}

/// Where a link goes.
#[derive(Clone)]
pub(in crate::store::redis) enum Target {
    Server(RedisNode),
    /// The master of the moment.
    Master(Arc<SentinelResolver>),
    /// A server of a cluster.
    Member(RedisNode, Arc<ClusterMap>),
}

impl Target {
    /// Which server that is now.
    pub(in crate::store::redis) async fn resolve(&self) -> Result<RedisNode, ExchangeError> {
        match self {
            Target::Server(server) | Target::Member(server, _) => Ok(server.clone()),
            Target::Master(resolver) => resolver.resolve_master().await,
        }
    }

    /// Returns when it is known that another server is in this one's place.
    pub(in crate::store::redis) async fn replaced(&self, server: &RedisNode) {
        match self {
            Target::Server(_) | Target::Member(..) => std::future::pending().await,
            Target::Master(resolver) => resolver.replaced(server).await,
        }
    }
}

impl StoreConnection {
    /// Starts the task that connects, on the current tokio runtime.
    pub(in crate::store::redis) fn spawn(
        target: Target,
        links: Arc<ConnectionContext>,
        scripts: Arc<Scripts>,
    ) -> StoreConnection {
        links.connection_created();
        if let Target::Master(resolver) = &target {
            resolver.start_watching();
        }
        let state = Arc::new(ConnectionState {
            target,
            context: links,
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

    /// Waits until the first attempt to connect is over, if it is not.
    pub(in crate::store::redis) async fn wait_for_first_attempt(&self) {
        // The sender lives as long as this.
        let _ = self
            .state
            .attempted
            .subscribe()
            .wait_for(|tried| *tried)
            .await;
    }

    /// An operation got no answer in time.
    pub(in crate::store::redis) fn report_timeout(&self) {
        if self.state.timeouts.fetch_add(1, Ordering::Relaxed) == 0 {
            let now = self.state.elapsed();
            self.state.first_timeout_at.store(now, Ordering::Relaxed);
        }
        self.state.timeout_reported.notify_one();
    }

    /// Sends the script along if the server has forgotten it.
    pub(in crate::store::redis) async fn execute(
        &self,
        command: &Cmd,
    ) -> Result<Value, ExchangeError> {
        match self.execute_once(command).await {
            Err(fault) if fault.no_script => {
                let in_full = self.state.scripts.with_script_text(command);
                Box::pin(self.execute_once(&in_full)).await
            }
            outcome => outcome,
        }
    }

    /// Asks many things at once, and those again whose script the server had forgotten. Answers
    /// that are errors are among those returned.
    pub(in crate::store::redis) async fn execute_all(
        &self,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, ExchangeError> {
        let mut replies = self.execute_all_once(commands).await?;
        let forgotten = self.retry_pipeline(commands, &replies);
        if forgotten.is_empty() {
            return Ok(replies);
        }
        let mut repeated = self.execute_all_once(&forgotten).await?.into_iter();
        for reply in replies
            .iter_mut()
            .filter(|reply| exchange_error::is_no_script(reply))
        {
            *reply = repeated
                .next()
                .ok_or_else(|| ExchangeError::unreachable("too few answers"))?;
        }
        Ok(replies)
    }

    /// Those whose script the server had forgotten, with their scripts.
    fn retry_pipeline(&self, commands: &Pipeline, replies: &[Value]) -> Pipeline {
        let mut again = redis::pipe();
        for (command, reply) in commands.cmd_iter().zip(replies) {
            if exchange_error::is_no_script(reply) {
                again.add_command(self.state.scripts.with_script_text(command));
            }
        }
        again
    }

    /// Asks many things and another one after them on the same connection; all of it again, with the
    /// scripts, if the server had forgotten one.
    pub(in crate::store::redis) async fn execute_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Value), ExchangeError> {
        let mut together = commands.clone();
        together.add_command(last.clone());
        let mut replies = self.execute_all_once(&together).await?;
        if replies.iter().any(exchange_error::is_no_script) {
            let mut in_full = redis::pipe();
            for command in together.cmd_iter() {
                in_full.add_command(self.state.scripts.with_script_text(command));
            }
            replies = self.execute_all_once(&in_full).await?;
        }
        let last = replies.pop();
        Ok((
            replies,
            last.ok_or_else(|| ExchangeError::unreachable("too few answers"))?,
        ))
    }

    async fn execute_once(&self, command: &Cmd) -> Result<Value, ExchangeError> {
        let (mut connection, failed, answered) = self.current_connection()?;
        let outcome = command.query_async(&mut connection).await;
        self.record_outcome(outcome, &failed, &answered)
    }

    async fn execute_all_once(&self, commands: &Pipeline) -> Result<Vec<Value>, ExchangeError> {
        let (mut connection, failed, answered) = self.current_connection()?;
        let count = commands.len();
        let outcome = connection.send_packed_commands(commands, 0, count).await;
        let replies = self.record_outcome(outcome, &failed, &answered)?;
        if replies.len() != count {
            // Which request a reply belongs to is unknown from here on.
            failed.notify_one();
            return Err(ExchangeError::unreachable("too few replies"));
        }
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                self.handle_error(
                    &ExchangeError::from(redis::RedisError::from(error.clone())),
                    &failed,
                );
            }
        }
        Ok(replies)
    }

    fn current_connection(
        &self,
    ) -> Result<(MultiplexedConnection, Arc<Notify>, Arc<AtomicU64>), ExchangeError> {
        match &**self.state.availability.load() {
            Availability::Up(up) => Ok((
                up.connection.clone(),
                Arc::clone(&up.failed),
                Arc::clone(&up.last_response_at),
            )),
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
        failed: &Notify,
        answered: &AtomicU64,
    ) -> Result<T, ExchangeError> {
        let fault = match outcome {
            Ok(answer) => {
                answered.store(self.state.elapsed(), Ordering::Relaxed);
                if self.state.timeouts.load(Ordering::Relaxed) > 0 {
                    self.state.timeouts.store(0, Ordering::Relaxed);
                }
                return Ok(answer);
            }
            Err(error) => ExchangeError::from(error),
        };
        self.handle_error(&fault, failed);
        Err(fault)
    }

    fn handle_error(&self, fault: &ExchangeError, failed: &Notify) {
        let is_replica = fault.code == exchange_error::READ_ONLY;
        if is_replica && matches!(self.state.target, Target::Server(_)) {
            // It goes on to serve reads until the address leads to a master.
            self.state.demoted.notify_one();
        } else if fault.fatal {
            failed.notify_one();
        }
        let redirected = matches!(self.state.target, Target::Member(..))
            && matches!(fault.code.as_str(), "MOVED" | "ASK" | "TRYAGAIN");
        let refused = matches!(fault.error, StoreError::Refused | StoreError::ReadOnly);
        if refused && !fault.no_script && !redirected {
            self.state.warn("the store refuses an operation", fault);
        }
    }
}

impl Drop for StoreConnection {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}
